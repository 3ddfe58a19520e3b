use std::{
    fmt,
    net::{IpAddr, Ipv6Addr, SocketAddr},
};

use waylay_abi as abi;
use waylay_core::{FilterId, Hop, ServiceId};

/// The process at the head of the chain: who called `connect` first.
///
/// # Example
/// ```
/// let application = waylay::Application {
///     path: "/usr/bin/curl".into(),
///     command: "curl".into(),
///     pid: 4711,
///     start_time_ns: 81_000_000_000,
///     uid: 1000,
///     cgroup: 42,
/// };
/// assert_eq!(application.to_string(), "/usr/bin/curl[4711]");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Application {
    /// Its executable, as its own mount namespace names it. Empty if the path
    /// is deeper or longer than the kernel side can follow.
    pub path: String,
    /// Its command name, which any process may choose freely.
    pub command: String,
    /// Its process id in the initial pid namespace.
    pub pid: u32,
    /// Its start, in nanoseconds since boot; names it for good together with `pid`.
    pub start_time_ns: u64,
    /// Its effective user id.
    pub uid: u32,
    /// The id of its cgroup.
    pub cgroup: u64,
}

impl fmt::Display for Application {
    /// `path[pid]`, or the command name where the path is not known.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = if self.path.is_empty() { &self.command } else { &self.path };
        write!(f, "{}[{}]", name.escape_debug(), self.pid)
    }
}

/// A file by device and inode, whatever its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct FileId {
    device: u64,
    inode: u64,
}

/// What an application gave its socket; zero where it gave nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Wishes {
    source: Ipv6Addr,
    mark: u32,
    bound_device: u32,
    type_of_service: u8,
    traffic_class: u8,
}

impl From<abi::SocketWishes> for Wishes {
    fn from(wishes: abi::SocketWishes) -> Self {
        Self {
            source: wishes.source.into(),
            mark: wishes.mark,
            bound_device: wishes.bound_device,
            type_of_service: wishes.tos,
            traffic_class: wishes.tclass,
        }
    }
}

/// What is known about a redirected connection.
///
/// # Example
/// ```
/// /// A service that lets nobody but root use the plain protocol.
/// fn may_pass(context: &waylay::RedirectContext) -> bool {
///     context.original_destination().port() != 80 || context.application().uid == 0
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedirectContext {
    application: Application,
    executable: FileId,
    original_destination: SocketAddr,
    wishes: Wishes,
    flow: u64,
    service_id: u32,
    filter_id: u32,
}

impl RedirectContext {
    /// The application at the head of the chain.
    #[must_use]
    pub fn application(&self) -> &Application {
        &self.application
    }

    /// Where this leg was going when it was redirected.
    #[must_use]
    pub fn original_destination(&self) -> SocketAddr {
        self.original_destination
    }

    /// The source address the application bound its socket to, if it did.
    #[must_use]
    pub fn source(&self) -> Option<IpAddr> {
        let source = self.wishes.source;
        (!source.is_unspecified()).then(|| source.to_canonical())
    }

    /// The flow's number, unique within a run.
    #[must_use]
    pub fn flow(&self) -> u64 {
        self.flow
    }

    /// The id of the service the leg was redirected to: this one.
    #[must_use]
    pub fn service_id(&self) -> u32 {
        self.service_id
    }

    /// The id of the filter that redirected it.
    #[must_use]
    pub fn filter_id(&self) -> u32 {
        self.filter_id
    }

    pub(crate) fn executable(&self) -> FileId {
        self.executable
    }

    pub(crate) fn wishes(&self) -> Wishes {
        self.wishes
    }

    pub(crate) fn type_of_service(&self) -> u8 {
        self.wishes.type_of_service
    }

    pub(crate) fn traffic_class(&self) -> u8 {
        self.wishes.traffic_class
    }
}

impl From<abi::Context> for RedirectContext {
    fn from(context: abi::Context) -> Self {
        let process = context.application;
        Self {
            application: Application {
                path: abi::path_to_string(&context.exe_path),
                command: abi::comm_to_string(&process.comm),
                pid: process.pid,
                start_time_ns: process.start_time_ns,
                uid: process.uid,
                cgroup: process.cgroup,
            },
            executable: FileId { device: process.exe_device, inode: process.exe_inode },
            original_destination: context.destination.into(),
            wishes: context.wishes.into(),
            flow: context.flow,
            service_id: context.service,
            filter_id: context.filter,
        }
    }
}

/// One hop of the chain behind a connection.
///
/// # Example
/// ```
/// /// Whether the virus scanner has had the connection already.
/// fn was_scanned(chain: &[waylay::ChainHop]) -> bool {
///     chain.iter().any(|hop| hop.service == "scan")
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainHop {
    /// The service's id.
    pub service_id: u32,
    /// The id of the filter that redirected to it.
    pub filter_id: u32,
    /// The service's name; empty if it has left the policy since.
    pub service: String,
}

impl ChainHop {
    pub(crate) fn id(&self) -> Hop {
        Hop { service: ServiceId(self.service_id), filter: FilterId(self.filter_id) }
    }
}

impl From<&abi::NamedHop> for ChainHop {
    fn from(hop: &abi::NamedHop) -> Self {
        Self { service_id: hop.hop.service, filter_id: hop.hop.filter, service: hop.service_name() }
    }
}
