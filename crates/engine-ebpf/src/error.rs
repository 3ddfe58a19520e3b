use std::{io, path::PathBuf};

use thiserror::Error;
use waylay_core::LimitError;

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
    #[error("the kernel refused the eBPF programs (Linux 6.1 or later is needed)")]
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
    /// The policy has more than the programs hold.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// A listener is registered by another instance.
    #[error("the listener {address} belongs to another instance")]
    ListenerTaken {
        /// The listener.
        address: std::net::SocketAddr,
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
        if source.kind() == libbpf_rs::ErrorKind::PermissionDenied {
            return Self::NotPermitted;
        }
        Self::Load(source)
    }
}
