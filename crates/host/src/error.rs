use std::{io, net::SocketAddr, process::ExitStatus, time::Duration};

use thiserror::Error;
use waylay_core::{LimitError, PolicyError};
use waylay_engine_ebpf::EbpfError;
use waylay_engine_seccomp::SeccompError;

use crate::{cgroup::CgroupError, instance::InstanceError, resident::ResidentError, station::EnclosureError};

/// Why a run could not start.
#[derive(Debug, Error)]
pub enum RunError {
    /// Not root.
    #[error(
        "waylay run needs root to load eBPF programs and to give each service a user of its own; try: sudo waylay run …, or --engine seccomp"
    )]
    NotRoot,
    /// The engine without privileges cannot do what was asked.
    #[error("{what} needs root and the engine on eBPF; try: sudo waylay run …")]
    NeedsRoot {
        /// What was asked.
        what: String,
    },
    /// The engine without privileges.
    #[error(transparent)]
    Supervision(#[from] SeccompError),
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
    /// There is no place for the command of a client.
    #[error(transparent)]
    Enclosure(#[from] EnclosureError),
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
    /// The thread that compiles filters anew cannot be started.
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
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
    /// An adopted service is to listen on an address that is none of this host's.
    #[error("the service {service:?} cannot listen on {address}, which is not an address of this host")]
    AddressElsewhere {
        /// The service's name.
        service: String,
        /// The address.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// Somebody else is there already.
    #[error("the service {service:?} cannot listen on {address}, where {} listens already", holder.as_deref().unwrap_or("somebody else"))]
    AddressTaken {
        /// The service's name.
        service: String,
        /// The address.
        address: SocketAddr,
        /// The process that has it, as far as it can be told.
        holder: Option<String>,
    },
    /// An adopted service is gone before it has listened.
    #[error(
        "the service {service:?} ended with {status} before it listened on {address}; it runs without privileges, as the user with uid {uid}, who has to be able to read its program and its files"
    )]
    AdoptedEnded {
        /// The service's name.
        service: String,
        /// How the process that was started has ended.
        status: ExitStatus,
        /// Where it should have listened.
        address: SocketAddr,
        /// Its user.
        uid: u32,
    },
    /// An adopted service lives and does not listen where it should.
    #[error(
        "the service {service:?} does not listen on {address} after {} s{}; --start-patience gives it more time",
        waited.as_secs(),
        only_on(elsewhere)
    )]
    NotListening {
        /// The service's name.
        service: String,
        /// Where it should listen.
        address: SocketAddr,
        /// How long it was waited for.
        waited: Duration,
        /// Where it listens instead.
        elsewhere: Vec<SocketAddr>,
    },
    /// A service that runs already cannot be adopted.
    #[error("the service {service:?} cannot be adopted")]
    Resident {
        /// Its name.
        service: String,
        /// Why.
        source: ResidentError,
    },
    /// The sockets of this host cannot be listed, by which adopted services are found.
    #[error(
        "cannot look at this host's sockets, to see where an adopted service listens (sock_diag(7); CONFIG_INET_DIAG, CONFIG_INET_UDP_DIAG)"
    )]
    Sockets(#[source] io::Error),
    /// The policy has a service of which nothing is said how it is had.
    #[error("nothing is said of how the service {service:?} is had")]
    NotAssigned {
        /// Its name.
        service: String,
    },
    /// A signal asked for the end before all services were there, or the command had started.
    #[error("interrupted by signal {signal} while services were starting")]
    Interrupted {
        /// The signal's number.
        signal: i32,
    },
    /// The command's process could not be made.
    #[error("cannot start the command")]
    CommandStart(#[source] io::Error),
}

fn only_on(elsewhere: &[SocketAddr]) -> String {
    let addresses: Vec<String> = elsewhere.iter().map(ToString::to_string).collect();
    if addresses.is_empty() { String::new() } else { format!(", but on {}", addresses.join(", ")) }
}
