use std::{
    fmt,
    net::{IpAddr, Ipv6Addr, SocketAddr},
};

/// The process at the head of the chain: who called `connect` first.
///
/// Windows does not tell a service which one that is. It is
/// [`UNKNOWN`](Self::UNKNOWN) there, unless the callout has
/// [attached](RedirectContext::attached) what it knows.
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

impl Application {
    /// One that the system says nothing about. Its user id is nobody's.
    pub const UNKNOWN: Self = Self {
        path: String::new(),
        command: String::new(),
        pid: 0,
        start_time_ns: 0,
        uid: u32::MAX,
        cgroup: 0,
    };

    /// Whether the system said which process it is: no process has the id 0.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.pid != 0
    }
}

impl fmt::Display for Application {
    /// `path[pid]`, or the command name where the path is not known.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.is_known() {
            return f.write_str("(unknown application)");
        }
        let name = if self.path.is_empty() { &self.command } else { &self.path };
        write!(f, "{}[{}]", name.escape_debug(), self.pid)
    }
}

/// A file by device and inode, whatever its name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct FileId {
    pub(crate) device: u64,
    pub(crate) inode: u64,
}

/// What an application gave its socket; zero where it gave nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Wishes {
    pub(crate) source: Ipv6Addr,
    pub(crate) mark: u32,
    pub(crate) bound_device: u32,
    pub(crate) type_of_service: u8,
    pub(crate) traffic_class: u8,
}

impl Default for Wishes {
    fn default() -> Self {
        Self { source: Ipv6Addr::UNSPECIFIED, mark: 0, bound_device: 0, type_of_service: 0, traffic_class: 0 }
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
    pub(crate) application: Application,
    pub(crate) executable: FileId,
    pub(crate) original_destination: SocketAddr,
    pub(crate) wishes: Wishes,
    pub(crate) flow: u64,
    pub(crate) service_id: u32,
    pub(crate) filter_id: u32,
    pub(crate) attached: Vec<u8>,
}

impl RedirectContext {
    /// The application at the head of the chain; on Windows [`Application::UNKNOWN`].
    #[must_use]
    pub fn application(&self) -> &Application {
        &self.application
    }

    /// Where this leg was going when it was redirected.
    #[must_use]
    pub fn original_destination(&self) -> SocketAddr {
        self.original_destination
    }

    /// The source address the application bound its socket to, if it did and
    /// the system tells: Windows does not.
    #[must_use]
    pub fn source(&self) -> Option<IpAddr> {
        let source = self.wishes.source;
        (!source.is_unspecified()).then(|| source.to_canonical())
    }

    /// The flow's number, unique within a run. On Windows, where flows have
    /// none, the library gives a new one with each context it is asked for,
    /// unique within the process.
    #[must_use]
    pub fn flow(&self) -> u64 {
        self.flow
    }

    /// The id of the service the leg was redirected to: this one. On Windows
    /// it is not known, and 0.
    #[must_use]
    pub fn service_id(&self) -> u32 {
        self.service_id
    }

    /// The id of the filter that redirected it. On Windows it is not known, and 0.
    #[must_use]
    pub fn filter_id(&self) -> u32 {
        self.filter_id
    }

    /// The bytes that whoever redirected the leg attached to it, in a shape
    /// that those two agree on. They may be none. On Linux they always are:
    /// nothing attaches any yet. On Windows this is the redirect context of
    /// the callout driver (`localRedirectContext` of `FWPS_CONNECT_REQUEST0`).
    #[must_use]
    pub fn attached(&self) -> &[u8] {
        &self.attached
    }

    pub(crate) fn executable(&self) -> FileId {
        self.executable
    }

    pub(crate) fn wishes(&self) -> Wishes {
        self.wishes
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_application_says_so_and_is_nobody_in_particular() {
        let unknown = Application::UNKNOWN;
        assert!(!unknown.is_known());
        assert_eq!(unknown.to_string(), "(unknown application)");
        assert_ne!(unknown.uid, 0, "root's");
    }
}
