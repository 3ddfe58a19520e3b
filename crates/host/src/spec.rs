//! What a run is to do, and who is told how it goes.

use std::{
    ffi::OsString, net::SocketAddr, os::unix::process::ExitStatusExt, process::ExitStatus, time::Duration,
};

use waylay_core::{
    Conditions, Event, FailurePolicy, Filter, FilterId, Layer, Policy, PolicyError, Protocol, Service,
    ServiceId,
};
use waylay_engine::LocalName;
use waylay_engine_ebpf::PastFlow;

use crate::{
    existing::Swept,
    resident::{KnownBy, ResidentError},
    user::Identity,
};

/// What to run and through what.
#[derive(Clone, Debug)]
pub struct RunSpec {
    /// The program to watch, and its arguments.
    pub command: Vec<OsString>,
    /// Whom it runs as; `None` keeps the caller's credentials.
    pub identity: Option<Identity>,
    /// The chain, in order; the first is service 1 of the policy.
    pub services: Vec<ServiceSpec>,
    /// What is redirected to them, and what is refused.
    pub policy: Policy,
    /// Whether the command may inherit network sockets, which are not inspected.
    pub keep_sockets: bool,
    /// How long a service may leave connections waiting before it is ended as hung.
    pub patience: Duration,
    /// How long an adopted service may take until it listens.
    pub start_patience: Duration,
}

/// The policy that leads everything the services take through all of them, in this order.
///
/// # Errors
/// If there are too many, or two of one name.
pub fn chain_policy(services: &[ServiceSpec], on_failure: FailurePolicy) -> Result<Policy, PolicyError> {
    let ids = (1..).zip(services);
    let takes = |transports: Transports| Conditions {
        protocol: transports.condition().map(Into::into),
        ..Conditions::default()
    };
    let declared = ids.clone().map(|(id, service)| Service {
        id: ServiceId(id),
        name: service.name.clone(),
        before: Vec::new(),
        after: Vec::new(),
        on_failure,
    });
    let filters = ids.map(|(id, service)| Filter {
        id: FilterId(id),
        weight: 0,
        conditions: takes(service.transports),
        layer: Layer::Redirect { service: ServiceId(id) },
    });
    Policy::new(declared.collect(), Vec::new(), filters.collect())
}

/// One service of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceSpec {
    /// Its name, unique in the run.
    pub name: String,
    /// What it takes of the command's traffic.
    pub transports: Transports,
    /// Whether it comes with waylay; `command` then is this binary's arguments.
    pub builtin: bool,
    /// The program that serves, and its arguments; nothing for one that runs already.
    pub command: Vec<OsString>,
    /// What it finds on its standard input, to the end. Arguments and environment are not for that: both
    /// show in ps(1), and are short.
    pub input: Vec<u8>,
    /// Whom it runs as; `None` for a user of its own. One that runs already is left as it is.
    pub identity: Option<Identity>,
    /// How long it may take to finish what it has accepted when the policy has it no more; `None`: as long as that takes.
    pub leave_within: Option<Duration>,
    /// Of a program that knows nothing of waylay; `None` for one that takes its listeners from waylay and carries records on.
    pub adoption: Option<Adoption>,
}

/// How a program that knows nothing of waylay takes connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Adoption {
    /// By what it is known if it runs already; `None` for one that [`ServiceSpec::command`] starts.
    pub known_by: Option<KnownBy>,
    /// Where it listens by itself: an address, or one of each family.
    pub listens: Vec<SocketAddr>,
    /// How it learns where a connection was going, besides by `SO_ORIGINAL_DST`.
    pub local_name: LocalName,
}

/// The transports of which a service takes the command's traffic; what it does not take goes past it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transports {
    /// TCP connections.
    Tcp,
    /// UDP datagrams.
    Udp,
    /// Both.
    TcpAndUdp,
}

impl Transports {
    /// Whether TCP connections are among them.
    #[must_use]
    pub const fn include_tcp(self) -> bool {
        match self {
            Self::Tcp | Self::TcpAndUdp => true,
            Self::Udp => false,
        }
    }

    /// Whether UDP datagrams are.
    #[must_use]
    pub const fn include_udp(self) -> bool {
        match self {
            Self::Udp | Self::TcpAndUdp => true,
            Self::Tcp => false,
        }
    }

    /// What a filter asks of a leg that is to go to the service.
    pub(crate) const fn condition(self) -> Option<Protocol> {
        match self {
            Self::Tcp => Some(Protocol::Tcp),
            Self::Udp => Some(Protocol::Udp),
            Self::TcpAndUdp => None,
        }
    }
}

/// Who is told what happens during a run. Called from several threads.
pub trait Observer: Send + Sync {
    /// A service wrote a line on its standard output.
    fn report(&self, service: &str, line: &str);
    /// The kernel refused a connection or a socket, or left a connection alone; `service` is the one concerned.
    fn refused(&self, event: &Event, service: Option<&str>);
    /// A service has taken no connection for so long, although some waited, and is ended.
    fn service_hung(&self, service: &str, waited: Duration);
    /// A service ended before it was told to.
    fn service_died(&self, service: &str, status: ExitStatus, on_failure: FailurePolicy);
    /// All processes of an adopted service have ended before they were told to; the one that was started is no longer among
    /// the last.
    fn adopted_ended(&self, service: &str, on_failure: FailurePolicy);
    /// A service that runs already listens no longer, or does so again.
    fn resident_listens(&self, service: &str, listens: bool, on_failure: FailurePolicy);
    /// A service that is to run by itself does not yet, as `why` says; it is taken in when it does.
    fn resident_awaited(&self, service: &str, why: &ResidentError, on_failure: FailurePolicy);
    /// An adopted service listens, and what goes over this family (`IPv4`, `IPv6`, `UDP over
    /// IPv6`) does not get to it: to that it is gone.
    fn family_missing(&self, service: &str, family: &str, on_failure: FailurePolicy);
    /// Connections that are older than the policy were ended, or could not be, as it says.
    fn existing_ended(&self, swept: &Swept);
    /// A leg has ended that was redirected, to this service at last. The same may be told twice.
    fn leg_ended(&self, past: &PastFlow, service: Option<&str>) {
        let (_, _) = (past, service);
    }
    /// The command has ended, but processes it started go on.
    fn waiting_for_background(&self);
    /// What the run does now and until the next step.
    fn step(&self, step: Step<'_>);
    /// Runs that were killed had left things behind, which are removed now.
    fn cleaned_up(&self, runs: usize);
}

/// The parts of a run that may take long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// The kernel checks the programs.
    LoadingPrograms,
    /// A service's process starts.
    StartingService {
        /// Its name.
        name: &'a str,
    },
    /// An adopted service's process has started and does not listen yet.
    WaitingForListener {
        /// Its name.
        name: &'a str,
        /// Where it is to listen.
        address: SocketAddr,
    },
    /// The command runs, and has the terminal.
    Command,
    /// Processes that the command started go on after it.
    Background {
        /// How many.
        processes: usize,
    },
    /// The services finish what they have.
    StoppingServices,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// How the command ended.
    pub status: ExitStatus,
}

impl Ended {
    /// The exit status a shell would show: 128 and the number of a deadly signal.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        let code = self.status.code().or_else(|| self.status.signal().map(|signal| 128 + signal));
        code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
    }
}
