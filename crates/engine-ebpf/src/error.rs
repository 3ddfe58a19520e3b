use std::{io, path::PathBuf};

use rustix::thread::CapabilitySet;
use thiserror::Error;
use waylay_core::{LimitError, SlotInUse};

use crate::{holder::Holder, load::PACKET_PROGRAM};

/// Why the engine cannot do what it was told.
#[derive(Debug, Error)]
pub enum EbpfError {
    /// The kernel was built without type information.
    #[error("the kernel has no BTF (/sys/kernel/btf/vmlinux): it needs CONFIG_DEBUG_INFO_BTF=y")]
    NoBtf,
    /// Not allowed to load programs.
    #[error(
        "not permitted to load eBPF programs: CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON are needed, in the initial user namespace (a container lacks them unless it is privileged)"
    )]
    NotPermitted,
    /// The kernel refused the programs, or lacks something they use.
    #[error(
        "the kernel refused the eBPF programs (Linux 6.1 or later is needed; WAYLAY_LIBBPF_LOG=1 shows why)"
    )]
    Load(#[source] libbpf_rs::Error),
    /// A program could not be attached to a cgroup.
    #[error("cannot attach {program} to the cgroup {cgroup}")]
    Attach {
        /// Which program.
        program: &'static str,
        /// Where.
        cgroup: PathBuf,
        /// What the kernel said.
        source: libbpf_rs::Error,
    },
    /// Another engine is in the way: each would have services in the other's scope.
    #[error(
        "{} {holder}: two engines of which each has services in the other's scope would pass connections to and fro for ever",
        cgroup.display()
    )]
    Overlap {
        /// Where.
        cgroup: PathBuf,
        /// Who has it.
        holder: Holder,
    },
    /// A service's cgroup must be in the scope.
    #[error("the cgroup {} of a service is not in the scope {}", cgroup.display(), scope.display())]
    ServiceOutside {
        /// The service's.
        cgroup: PathBuf,
        /// The engine's.
        scope: PathBuf,
    },
    /// A service that runs already, around the scope.
    #[error("the scope {} is in the cgroup {}, so that a service there could not be told from those who are watched", scope.display(), cgroup.display())]
    ResidentAround {
        /// The service's.
        cgroup: PathBuf,
        /// The engine's.
        scope: PathBuf,
    },
    /// The engine was told that there would be no such services.
    #[error("the engine was loaded without the programs for services that run already")]
    NoResidents,
    /// A service cannot be shown the destination in datagrams themselves.
    #[error(
        "cannot attach {PACKET_PROGRAM} to the loopback, by which a service is shown the destination of datagrams (Linux 6.6 or later is needed)"
    )]
    Packets(#[source] io::Error),
    /// A map could not be read or written.
    #[error("cannot access the map {map}")]
    Map {
        /// Which map.
        map: &'static str,
        /// What the kernel said.
        source: libbpf_rs::Error,
    },
    /// The BPF file system is missing and cannot be mounted.
    #[error("no BPF file system at {path}, and it cannot be mounted")]
    FileSystem {
        /// Where it should be.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A pin could not be made or removed.
    #[error("cannot pin at {path}")]
    Pin {
        /// Where.
        path: PathBuf,
        /// What went wrong.
        source: libbpf_rs::Error,
    },
    /// A file of the running system could not be read.
    #[error("cannot read {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel does not say what a program costs.
    #[error("cannot find out what {program} costs")]
    Cost {
        /// Which program.
        program: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The policy has more than the programs hold.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// The policy was not compiled keeping the slots that are taken.
    #[error(transparent)]
    Slot(#[from] SlotInUse),
    /// The listeners of a service in one family have several addresses.
    #[error("the listeners of {service} have several addresses in one family; the programs hold one")]
    ListenersApart {
        /// The service.
        service: waylay_core::ServiceId,
    },
    /// The network namespace has no cookie (Linux 5.14 or later has them).
    #[error("cannot identify this network namespace")]
    Namespace(#[source] io::Error),
    /// The kernel has no randomness to give.
    #[error("no random bytes for the key")]
    Random(#[source] io::Error),
}

impl EbpfError {
    /// An error of loading, told apart by what the user can do about it.
    pub(crate) fn of_load(source: libbpf_rs::Error) -> Self {
        if !std::path::Path::new("/sys/kernel/btf/vmlinux").exists() {
            return Self::NoBtf;
        }
        // The verifier's refusal is EACCES too; and a helper function that takes CAP_PERFMON does not exist (EINVAL) to a
        // process without it.
        let may_be_for_want_of_privilege = matches!(
            source.kind(),
            libbpf_rs::ErrorKind::PermissionDenied | libbpf_rs::ErrorKind::InvalidInput
        );
        if may_be_for_want_of_privilege && !may_load() {
            return Self::NotPermitted;
        }
        Self::Load(source)
    }
}

/// Whether this process has the privileges, in the namespace where they count.
fn may_load() -> bool {
    let needed = CapabilitySet::BPF | CapabilitySet::NET_ADMIN | CapabilitySet::PERFMON;
    let effective = rustix::thread::capabilities(None).map(|sets| sets.effective);
    let has_them = effective.is_ok_and(|has| has.contains(needed) || has.contains(CapabilitySet::SYS_ADMIN));
    has_them && in_initial_user_namespace()
}

/// Whether this process is in the user namespace where privileges over programs count: the initial one maps
/// every id to itself (user_namespaces(7)).
#[must_use]
pub fn in_initial_user_namespace() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.split_whitespace().eq(["0", "0", "4294967295"])
}
