use std::io;

use thiserror::Error;
use waylay_core::{LimitError, PolicyError};
use waylay_engine_ebpf::EbpfError;

use crate::{cgroup::CgroupError, instance::InstanceError};

/// Why a run could not start.
#[derive(Debug, Error)]
pub enum RunError {
    /// Not root.
    #[error(
        "waylay run needs root to load eBPF programs and to give each service a user of its own; try: sudo waylay run …"
    )]
    NotRoot,
    /// The command would inherit network sockets, whose connections nobody could inspect: the kernel's programs follow the
    /// cgroup in which a socket was made.
    #[error(
        "descriptor {} is a network socket made outside this run, so that what the command does with it could not be inspected; close it, as in `{}>&-`, or pass it in knowingly with --keep-sockets",
        descriptors.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
        descriptors.first().copied().unwrap_or_default()
    )]
    InheritedSockets {
        /// Their numbers.
        descriptors: Vec<i32>,
    },
    /// The hierarchy of cgroups.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// The engine.
    #[error(transparent)]
    Engine(#[from] EbpfError),
    /// The record on the host.
    #[error(transparent)]
    Instance(#[from] InstanceError),
    /// The policy that follows from the services asked for.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// More than the engine holds.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// The host's routes cannot be watched.
    #[error("cannot watch the host's routes")]
    Routes(#[source] io::Error),
    /// A service did not come up.
    #[error("the service {service:?} did not start")]
    ServiceStart {
        /// Its name.
        service: String,
        /// What went wrong.
        source: io::Error,
    },
    /// A signal asked for the end before the command had started.
    #[error("interrupted by signal {signal} before the command started")]
    Interrupted {
        /// The signal's number.
        signal: i32,
    },
    /// The command's process could not be made.
    #[error("cannot start the command")]
    CommandStart(#[source] io::Error),
}
