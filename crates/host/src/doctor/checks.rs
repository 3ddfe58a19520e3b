//! What `waylay run` needs.

use std::{fs, path::Path};

use rustix::{fs::Access, io::Errno, thread::CapabilitySet};
use waylay_engine_ebpf::{
    Below, EbpfError, Hook, bpf_file_system_is_mounted, hooked, in_initial_user_namespace, probe_programs,
};

use crate::cgroup::{Cgroup, CgroupError, Line};

/// The oldest kernel whose features all programs use.
const OLDEST: (u32, u32) = (6, 1);
/// Its type information.
const BTF: &str = "/sys/kernel/btf/vmlinux";

/// Something `waylay run` needs, by the one engine or the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Need {
    /// Linux 6.1 or later.
    Kernel,
    /// The kernel's type information.
    Btf,
    /// The unified hierarchy of cgroups.
    Cgroup2,
    /// The BPF file system, or the privilege to mount it.
    BpfFileSystem,
    /// Root, to give each process a user of its own.
    Root,
    /// The user namespace in which privileges over programs count.
    InitialUserNamespace,
    /// To load programs.
    CapBpf,
    /// To attach them to sockets.
    CapNetAdmin,
    /// To let them read the kernel's memory.
    CapPerfmon,
    /// That the kernel takes the programs.
    Programs,
    /// That nobody above has reserved the hooks.
    Hooks,
    /// Filters of system calls that ask a supervisor, for runs without root.
    Notifications,
    /// That no filter that this process is under has a supervisor already.
    SoleSupervisor,
    /// Copies of other processes' descriptors.
    Descriptors,
    /// Other processes' memory.
    Memory,
    /// That a process may look at those it has started.
    Tracing,
}

/// One need, looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What is needed.
    pub need: Need,
    /// Whether it is there.
    pub state: State,
    /// What there is: a version, a path, the kernel's words.
    pub found: Option<String>,
}

/// Whether something is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It is.
    Fine,
    /// It is not.
    Missing,
    /// This process cannot tell.
    Unknown,
}

impl Need {
    /// What it is called, for good.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Btf => "btf",
            Self::Cgroup2 => "cgroup2",
            Self::BpfFileSystem => "bpf-file-system",
            Self::Root => "root",
            Self::InitialUserNamespace => "initial-user-namespace",
            Self::CapBpf => "cap-bpf",
            Self::CapNetAdmin => "cap-net-admin",
            Self::CapPerfmon => "cap-perfmon",
            Self::Programs => "programs",
            Self::Hooks => "hooks",
            Self::Notifications => "seccomp-notifications",
            Self::SoleSupervisor => "sole-supervisor",
            Self::Descriptors => "pidfd-getfd",
            Self::Memory => "process-vm-readv",
            Self::Tracing => "ptrace-scope",
        }
    }

    fn is(self, fine: bool, found: Option<String>) -> Check {
        Check { need: self, state: if fine { State::Fine } else { State::Missing }, found }
    }
}

pub(super) fn checks(kernel: &str, line: &Result<Line, CgroupError>) -> Vec<Check> {
    let privileges = privileges();
    let may_load = privileges.iter().all(|check| check.state == State::Fine);
    let mut checks = vec![
        linux(kernel),
        btf(),
        cgroup2(line),
        bpf_file_system(),
        Need::Root.is(rustix::process::geteuid().is_root(), None),
    ];
    checks.extend(privileges);
    checks.push(programs(may_load));
    checks.push(hooks(line));
    checks
}

/// What the engine on eBPF lacks, as far as that can be told at once: what keeps it from being chosen.
pub(super) fn lacking() -> Option<Need> {
    let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
    let is_missing = |check: Check| (check.state == State::Missing).then_some(check.need);
    let of_the_caller = || {
        let root = Need::Root.is(rustix::process::geteuid().is_root(), None);
        std::iter::once(root).chain(privileges()).find_map(is_missing)
    };
    let of_the_machine = || {
        let line = Cgroup::line_of_the_caller();
        [linux(&kernel), btf(), cgroup2(&line), bpf_file_system()].into_iter().find_map(is_missing)
    };
    of_the_caller().or_else(of_the_machine)
}

fn linux(kernel: &str) -> Check {
    Need::Kernel.is(version(kernel).is_some_and(|version| version >= OLDEST), Some(kernel.to_owned()))
}

fn btf() -> Check {
    Need::Btf.is(Path::new(BTF).exists(), Some(BTF.to_owned()))
}

/// The first two numbers of a release such as `6.1.0-13-amd64`.
pub(super) fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|character: char| !character.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn cgroup2(line: &Result<Line, CgroupError>) -> Check {
    match line {
        Ok(line) => {
            let path = line.place().path();
            let read_only = rustix::fs::access(path, Access::WRITE_OK) == Err(Errno::ROFS);
            let note = if read_only { " (mounted read-only)" } else { "" };
            Need::Cgroup2.is(!read_only, Some(format!("{}{note}", path.display())))
        }
        Err(CgroupError::NotMounted) => Need::Cgroup2.is(false, None),
        Err(error @ (CgroupError::Read { .. } | CgroupError::Create { .. })) => {
            Check { need: Need::Cgroup2, state: State::Unknown, found: Some(error.to_string()) }
        }
    }
}

fn bpf_file_system() -> Check {
    let mounted = bpf_file_system_is_mounted();
    let mountable = Path::new("/sys/fs/bpf").is_dir() && effective().contains(CapabilitySet::SYS_ADMIN);
    let found = match (mounted, mountable) {
        (true, _) => Some("/sys/fs/bpf"),
        (false, true) => Some("not mounted; waylay run mounts it"),
        (false, false) => None,
    };
    Need::BpfFileSystem.is(mounted || mountable, found.map(str::to_owned))
}

pub(super) fn effective() -> CapabilitySet {
    rustix::thread::capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective)
}

/// `CAP_SYS_ADMIN` has been all of this before there were names for its parts, and still is some.
fn privileges() -> [Check; 4] {
    let has = |wanted| effective().contains(wanted);
    let by_name = |wanted| has(wanted) || has(CapabilitySet::SYS_ADMIN);
    [
        Need::InitialUserNamespace.is(in_initial_user_namespace(), None),
        Need::CapBpf.is(by_name(CapabilitySet::BPF), None),
        Need::CapNetAdmin.is(has(CapabilitySet::NET_ADMIN), None),
        Need::CapPerfmon.is(by_name(CapabilitySet::PERFMON), None),
    ]
}

fn programs(may_load: bool) -> Check {
    if !may_load {
        return Check { need: Need::Programs, state: State::Unknown, found: None };
    }
    let refused: Vec<String> = match probe_programs() {
        Ok(probed) => probed
            .into_iter()
            .filter_map(|probed| Some(format!("{}: {}", probed.program, with_cause(&probed.refusal?))))
            .collect(),
        Err(error) => vec![with_cause(&error)],
    };
    Need::Programs.is(refused.is_empty(), (!refused.is_empty()).then(|| refused.join("; ")))
}

fn with_cause(error: &EbpfError) -> String {
    let cause = std::error::Error::source(error).map_or_else(String::new, |cause| format!(": {cause}"));
    format!("{error}{cause}")
}

/// The nearest cgroup above that has somebody's program at a hook decides who may attach below it.
fn hooks(line: &Result<Line, CgroupError>) -> Check {
    let unknown = Check { need: Need::Hooks, state: State::Unknown, found: None };
    let Ok(line) = line else { return unknown };
    let mut reserved = Vec::new();
    let mut open = Hook::OURS.to_vec();
    for cgroup in line.to_place().iter().rev() {
        let Ok(attached) = hooked(cgroup.path()) else { return unknown };
        for hooked in attached.iter().filter(|hooked| open.contains(&hooked.hook)) {
            if hooked.below == Below::Refused {
                reserved.push(format!("{} at {}", hooked.hook, cgroup.path().display()));
            }
        }
        open.retain(|hook| !attached.iter().any(|hooked| hooked.hook == *hook));
    }
    Need::Hooks.is(reserved.is_empty(), (!reserved.is_empty()).then(|| reserved.join(", ")))
}

/// Whether the file says so.
pub(super) fn says(path: &str, value: &str) -> Option<bool> {
    fs::read_to_string(path).ok().map(|text| text.trim() == value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_compared_by_their_first_two_numbers() {
        assert_eq!(version("6.1.0-13-amd64"), Some((6, 1)));
        assert_eq!(version("6.18.44-fc-v595"), Some((6, 18)));
        assert_eq!(version("10.0"), Some((10, 0)));
        assert!(version("5.15.0-91-generic") < Some(OLDEST));
        assert_eq!(version("next"), None);
    }

    #[test]
    fn every_need_has_a_name_of_its_own() {
        let line = Err(CgroupError::NotMounted);
        let checks = checks("5.4.0", &line);
        let names: std::collections::BTreeSet<&str> = checks.iter().map(|check| check.need.name()).collect();
        assert_eq!(names.len(), checks.len());
        let state = |need| checks.iter().find(|check| check.need == need).map(|check| check.state);
        assert_eq!(state(Need::Kernel), Some(State::Missing));
        assert_eq!(state(Need::Cgroup2), Some(State::Missing));
        assert_eq!(state(Need::Hooks), Some(State::Unknown));
    }
}
