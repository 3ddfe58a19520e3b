use std::{io, net::SocketAddr, path::PathBuf};

use thiserror::Error;

/// Why a query about an accepted socket has no answer.
#[derive(Debug, Error)]
pub enum QueryError {
    /// `ENOENT`: somebody connected straight to the listener, or this is not
    /// an accepted socket. Drop such a connection.
    #[error("the connection was not redirected to this service")]
    NotRedirected,
    /// `ESTALE`: the application has gone, or both directions are closed.
    #[error("the redirected connection has ended")]
    FlowEnded,
    /// `ENOPROTOOPT` or `EOPNOTSUPP`: the socket was created outside every
    /// registered service, where the option does not exist.
    #[error("the socket does not belong to a registered redirect service")]
    NotRegistered,
    /// The answer has another shape than this version of the library knows.
    #[error("the kernel side speaks another version: expected {expected} bytes, got {got}")]
    OtherVersion {
        /// Bytes this version knows.
        expected: usize,
        /// Bytes that came.
        got: usize,
    },
    /// Anything else the kernel said.
    #[error("getsockopt failed")]
    Os(#[source] io::Error),
}

impl From<io::Error> for QueryError {
    fn from(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::ENOENT) => Self::NotRedirected,
            Some(libc::ESTALE) => Self::FlowEnded,
            Some(libc::ENOPROTOOPT | libc::EOPNOTSUPP) => Self::NotRegistered,
            Some(_) | None => Self::Os(error),
        }
    }
}

/// Why records could not be set on an outbound socket.
#[derive(Debug, Error)]
pub enum SetError {
    /// `EINVAL`: not the size or shape of records.
    #[error("these bytes are not redirect records")]
    Malformed,
    /// `EKEYREJECTED`: the right shape, but not what the kernel gave out.
    #[error("the redirect records were altered")]
    Tampered,
    /// `EKEYEXPIRED`: from before a reboot, or from another instance.
    #[error("the redirect records belong to another boot or instance")]
    Expired,
    /// `ESTALE`: the inbound connection they came from has ended.
    #[error("the redirected connection has ended")]
    FlowEnded,
    /// `EACCES`: they were given to another service.
    #[error("this process is not the service the redirect records were given to")]
    NotEntitled,
    /// `EISCONN`: records are set before the socket connects.
    #[error("the socket is connected or connecting already")]
    Connected,
    /// `ENOPROTOOPT`: the socket was created outside every registered service.
    #[error("the socket does not belong to a registered redirect service")]
    NotRegistered,
    /// `ENOBUFS`: the kernel gave the socket no storage.
    #[error("the kernel has no room for the records")]
    NoRoom,
    /// Anything else the kernel said.
    #[error("setsockopt failed")]
    Os(#[source] io::Error),
}

impl From<io::Error> for SetError {
    fn from(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::EINVAL) => Self::Malformed,
            Some(libc::EKEYREJECTED) => Self::Tampered,
            Some(libc::EKEYEXPIRED) => Self::Expired,
            Some(libc::ESTALE) => Self::FlowEnded,
            Some(libc::EACCES) => Self::NotEntitled,
            Some(libc::EISCONN) => Self::Connected,
            Some(libc::ENOPROTOOPT) => Self::NotRegistered,
            Some(libc::ENOBUFS) => Self::NoRoom,
            Some(_) | None => Self::Os(error),
        }
    }
}

/// Why a connection could not be carried on.
///
/// # Example
/// ```
/// use std::io;
///
/// let error = waylay::ConnectError::Connect {
///     destination: "192.0.2.1:80".parse()?,
///     source: io::Error::from_raw_os_error(111),
/// };
/// assert_eq!(error.to_string(), "cannot connect to 192.0.2.1:80");
/// assert_eq!(error.io_error().map(io::Error::kind), Some(io::ErrorKind::ConnectionRefused));
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Debug, Error)]
pub enum ConnectError {
    /// No socket could be made for it.
    #[error("no socket for {destination}")]
    Socket {
        /// Where it was to go.
        destination: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// What the application asked of its socket could not be given to this one.
    #[error("the application's socket options could not be applied")]
    Wishes(#[source] io::Error),
    /// The records were refused, so nothing was dialled.
    #[error("the redirect records were refused")]
    Records(#[from] SetError),
    /// The destination, or a service on the way to it, refused or is unreachable.
    #[error("cannot connect to {destination}")]
    Connect {
        /// Where it was to go.
        destination: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
}

impl ConnectError {
    /// The errno behind it, for a log.
    #[must_use]
    pub fn io_error(&self) -> Option<&io::Error> {
        match self {
            Self::Socket { source, .. } | Self::Wishes(source) | Self::Connect { source, .. } => Some(source),
            Self::Records(SetError::Os(source)) => Some(source),
            Self::Records(_) => None,
        }
    }
}

/// Why a service cannot start.
#[derive(Debug, Error)]
pub enum StartError {
    /// Nobody handed listening sockets over: `LISTEN_FDS` is missing or zero,
    /// or none of them is named `tcp4` or `tcp6`.
    #[error("no listening sockets were passed; start this program by `waylay run --through …`")]
    NoListeners,
    /// `LISTEN_PID` names another process: the sockets are for one that did not
    /// remove the variable before it started this one.
    #[error("the sockets were passed to process {meant}, and this is {pid}")]
    ForAnotherProcess {
        /// The variable's value.
        meant: String,
        /// This process.
        pid: u32,
    },
    /// `LISTEN_FDNAMES` does not name each socket.
    #[error("{sockets} sockets were passed with {names} names")]
    Names {
        /// `LISTEN_FDS`.
        sockets: usize,
        /// Names in `LISTEN_FDNAMES`.
        names: usize,
    },
    /// This process has taken its sockets before.
    #[error("the passed sockets have been taken already")]
    TakenAlready,
    /// A passed descriptor is not a listening TCP socket.
    #[error("descriptor {fd} is not a listening TCP socket")]
    NotAListener {
        /// The descriptor.
        fd: i32,
        /// What the kernel said.
        source: io::Error,
    },
    /// No listening socket on that address.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// This process is outside every registered service: the kernel would not
    /// tell it about a connection, nor let it carry one on.
    #[error("the cgroup {} belongs to no registered redirect service", cgroup.display())]
    NotRegistered {
        /// This process's cgroup, as `/proc/self/cgroup` has it.
        cgroup: PathBuf,
    },
    /// The kernel did not say whether this is a registered service.
    #[error("cannot find out whether this is a registered redirect service")]
    Registration(#[source] QueryError),
}

/// What ends [`serve`](crate::RedirectService::serve).
#[derive(Debug, Error)]
pub enum ServeError {
    /// A listening socket failed.
    #[error("a listening socket failed")]
    Listener(#[source] io::Error),
}
