//! What is worth knowing, and keeps nothing from running.

use std::{env, fs, path::Path};

use waylay_engine_ebpf::{asks_about_every_family, shown_in_packets_here};

use super::checks::{says, version};

/// What this machine is like.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Whether it has IPv6; without, services have no IPv6 listener.
    pub ipv6: bool,
    /// Whether the kernel shows programs on which link a link-local IPv6 address is meant to be; without,
    /// connections to such addresses fail.
    pub link_local: bool,
    /// Whether programs may speak multipath TCP.
    pub mptcp: bool,
    /// What keeps a command from sockets of families that cannot be redirected.
    pub families: Guard,
    /// Whether programs of the kernel are compiled.
    pub jit: Option<Jit>,
    /// What a command would run as: root, unless sudo tells on whose behalf or `--user` is given.
    pub command_runs_as_root: bool,
    /// What kind of container this process is in, by the marks containers leave.
    pub container: Option<String>,
    /// How `/proc` hides processes of others, by its mount option.
    pub hidepid: Option<String>,
    /// The kernel's lockdown mode, if any is in force.
    pub lockdown: Option<String>,
    /// Programs of waylay on the loopback of this network namespace, which show services in datagrams where these were going: one of
    /// each engine that has such services. 0 if this process may not ask.
    pub in_packets: usize,
}

/// What keeps a command from sockets of families that cannot be redirected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Guard {
    /// The engine's program, by the kernel's security hooks.
    Programs,
    /// A seccomp filter, which says nothing and takes `io_uring` away too.
    Filter,
    /// Nothing: the kernel has neither.
    #[default]
    None,
}

/// How programs of the kernel are carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Jit {
    /// Compiled.
    On,
    /// Interpreted, which is slower.
    Off,
}

/// The first kernel with `bpf_cast_to_kern_ctx()`, by which programs see it.
const SHOWS_LINKS: (u32, u32) = (6, 2);

pub(super) fn facts(kernel: &str) -> Facts {
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    Facts {
        ipv6: has_ipv6(),
        link_local: version(kernel).is_some_and(|version| version >= SHOWS_LINKS),
        mptcp: says("/proc/sys/net/mptcp/enabled", "1").unwrap_or(false),
        families: families(),
        jit: says("/proc/sys/net/core/bpf_jit_enable", "0").map(|off| if off { Jit::Off } else { Jit::On }),
        command_runs_as_root: rustix::process::geteuid().is_root()
            && env::var("SUDO_UID").map_or(true, |uid| uid == "0"),
        container: container(),
        hidepid: hidepid(&mountinfo),
        lockdown: fs::read_to_string("/sys/kernel/security/lockdown").ok().as_deref().and_then(lockdown),
        in_packets: shown_in_packets_here(),
    }
}

/// What a service's listener needs: the loopback's address.
fn has_ipv6() -> bool {
    fs::read_to_string("/proc/net/if_inet6")
        .is_ok_and(|table| table.lines().any(|line| line.starts_with("00000000000000000000000000000001 ")))
}

fn families() -> Guard {
    match (asks_about_every_family(), Path::new("/proc/sys/kernel/seccomp/actions_avail").exists()) {
        (true, _) => Guard::Programs,
        (false, true) => Guard::Filter,
        (false, false) => Guard::None,
    }
}

fn container() -> Option<String> {
    for (mark, name) in [("/.dockerenv", "docker"), ("/run/.containerenv", "podman")] {
        if Path::new(mark).exists() {
            return Some(name.to_owned());
        }
    }
    // systemd(1) and its like write it there for everybody to read.
    let name = fs::read_to_string("/run/systemd/container").ok()?;
    Some(name.trim().to_owned())
}

pub(crate) fn hidepid(mountinfo: &str) -> Option<String> {
    let proc = mountinfo.lines().rfind(|line| line.split(' ').nth(4) == Some("/proc"))?;
    let (_, options) = proc.split_once(" - ")?;
    let options = options.split(' ').nth(2)?;
    let value = options.split(',').find_map(|option| option.strip_prefix("hidepid="))?;
    (!["0", "off"].contains(&value)).then(|| value.to_owned())
}

/// The file lists all modes, with the one in force in brackets.
pub(crate) fn lockdown(text: &str) -> Option<String> {
    let (_, mode) = text.split_once('[')?;
    let (mode, _) = mode.split_once(']')?;
    (mode != "none").then(|| mode.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidepid_is_an_option_of_the_last_mount_on_proc() {
        let mount = |options| format!("22 27 0:21 / /proc rw,relatime - proc proc {options}\n");
        assert_eq!(hidepid(&mount("rw,gid=5,hidepid=invisible")), Some("invisible".to_owned()));
        assert_eq!(hidepid(&mount("rw,hidepid=2")), Some("2".to_owned()));
        assert_eq!(hidepid(&(mount("rw,hidepid=2") + &mount("rw"))), None);
        assert_eq!(hidepid(&mount("rw,hidepid=off")), None);
        assert_eq!(hidepid(""), None);
    }

    #[test]
    fn the_mode_of_lockdown_is_the_one_in_brackets() {
        assert_eq!(lockdown("none [integrity] confidentiality\n"), Some("integrity".to_owned()));
        assert_eq!(lockdown("[none] integrity confidentiality\n"), None);
    }
}
