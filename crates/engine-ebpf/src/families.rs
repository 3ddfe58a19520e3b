//! The program that is asked about sockets of every family, where the kernel has its hook. What the others need
//! does not depend on it: `cgroup/sock_create` sees IPv4 and IPv6 on every kernel.

use std::{io, sync::OnceLock};

use waylay_engine::CapabilityState;

use crate::sys;

pub(crate) const PROGRAM: &str = "wl_socket_create";

/// Whether this kernel asks programs of a cgroup about sockets of every family.
///
/// That takes the right to load such programs, `CONFIG_BPF_LSM=y`, and `bpf` among the security modules that are in force (`lsm=` on the kernel's command
/// line). Attaching succeeds without the latter, and nothing is asked then.
#[must_use]
pub fn asks_about_every_family() -> bool {
    what_is_missing().is_none()
}

/// Whether the program would load.
pub(crate) fn has_the_hook() -> bool {
    hook().is_ok()
}

/// For a report.
pub(crate) fn capability() -> CapabilityState {
    let Some(missing) = what_is_missing() else { return CapabilityState::Available };
    let (needs, remedy) = missing.words();
    CapabilityState::Missing {
        needs: needs.into(),
        remedy: format!("{remedy}; until then waylay run has a seccomp filter"),
    }
}

/// Why nothing is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Missing {
    /// The kernel has no such programs.
    Hook,
    /// It has, and refuses them to us.
    Right,
    /// It takes them, and its security modules do not ask them.
    Module,
    /// It takes them, and does not say whether it asks them: Linux before 6.8 says so in securityfs only.
    Answer,
}

impl Missing {
    const fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Hook => ("CONFIG_BPF_LSM=y", "use a kernel that has it, as those of distributions do"),
            Self::Right => (
                "the right to load programs for the kernel's security hooks, which is refused here (EPERM)",
                "root has it, unless who runs this machine forbids it",
            ),
            Self::Module => (
                "bpf among the security modules in force (/sys/kernel/security/lsm)",
                "add bpf to lsm= on the kernel's command line",
            ),
            Self::Answer => (
                "to know whether bpf is among the security modules in force",
                "mount securityfs at /sys/kernel/security",
            ),
        }
    }
}

fn what_is_missing() -> Option<Missing> {
    judge(hook(), is_in_force())
}

fn judge(hook: Result<(), i32>, in_force: Option<bool>) -> Option<Missing> {
    match (hook, in_force) {
        (Err(libc::EPERM), _) => Some(Missing::Right),
        (Err(_), _) => Some(Missing::Hook),
        (Ok(()), Some(true)) => None,
        (Ok(()), Some(false)) => Some(Missing::Module),
        (Ok(()), None) => Some(Missing::Answer),
    }
}

/// The errno with which the kernel refuses such a program.
fn hook() -> Result<(), i32> {
    static TRIED: OnceLock<Result<(), i32>> = OnceLock::new();
    let refused = |error: io::Error| error.raw_os_error().unwrap_or_default();
    *TRIED.get_or_init(|| sys::try_program_for(c"socket_create").map_err(refused))
}

fn is_in_force() -> Option<bool> {
    sys::bpf_is_a_security_module().or_else(|| {
        let modules = std::fs::read_to_string("/sys/kernel/security/lsm").ok()?;
        Some(modules.trim().split(',').any(|module| module == "bpf"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_asked_where_they_load_and_their_module_is_in_force() {
        assert_eq!(judge(Ok(()), Some(true)), None);
        assert_eq!(judge(Ok(()), Some(false)), Some(Missing::Module));
        assert_eq!(judge(Ok(()), None), Some(Missing::Answer));
        assert_eq!(judge(Err(libc::EPERM), Some(true)), Some(Missing::Right));
        assert_eq!(judge(Err(libc::ESRCH), Some(true)), Some(Missing::Hook));
    }
}
