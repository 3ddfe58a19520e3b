//! The program that is asked about sockets of every family, where the kernel has its hook. What the others need
//! does not depend on it: `cgroup/sock_create` sees IPv4 and IPv6 on every kernel.

use std::sync::OnceLock;

use crate::sys;

pub(crate) const PROGRAM: &str = "wl_socket_create";

/// Whether this kernel asks programs of a cgroup about sockets of every family.
///
/// That takes the right to load such programs, `CONFIG_BPF_LSM=y`, and `bpf` among the security modules that are in force (`lsm=` on the kernel's command
/// line). Attaching succeeds without the latter, and nothing is asked then.
#[must_use]
pub fn asks_about_every_family() -> bool {
    has_the_hook() && is_in_force()
}

/// Whether the program would load.
pub(crate) fn has_the_hook() -> bool {
    static TAKEN: OnceLock<bool> = OnceLock::new();
    *TAKEN.get_or_init(|| sys::takes_programs_for(c"socket_create"))
}

fn is_in_force() -> bool {
    sys::bpf_is_a_security_module().unwrap_or_else(|| {
        let modules = std::fs::read_to_string("/sys/kernel/security/lsm").unwrap_or_default();
        modules.trim().split(',').any(|module| module == "bpf")
    })
}
