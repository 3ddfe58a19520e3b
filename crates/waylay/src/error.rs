//! Why something did not work, as vocabulary.

mod query;
mod set;

use std::{io, net::SocketAddr, path::PathBuf};

use thiserror::Error;

use crate::socket::RawSocket;

pub use query::QueryError;
pub use set::SetError;

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
    /// or none of them is named `tcp4` or `tcp6`. On Windows, where none can be
    /// handed over, `WAYLAY_LISTEN` is missing or empty.
    #[cfg_attr(
        not(windows),
        error("no listening sockets were passed; start this program by `waylay run --through …`")
    )]
    #[cfg_attr(
        windows,
        error(
            "WAYLAY_LISTEN names no address; set it to those that connections are redirected to, such as 127.0.0.1:8080"
        )
    )]
    NoListeners,
    /// Windows: a part of `WAYLAY_LISTEN` is no address with a port.
    #[error("WAYLAY_LISTEN: {text:?} is not an address with a port")]
    NotAnAddress {
        /// The part.
        text: String,
    },
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
        fd: RawSocket,
        /// What the kernel said.
        source: io::Error,
    },
    /// Nobody handed sockets for datagrams over: none is named `udp4` or `udp6`. Windows never does.
    #[cfg_attr(
        not(windows),
        error(
            "no sockets for datagrams were passed; start this program by `waylay run --through exec/udp:…`"
        )
    )]
    #[cfg_attr(windows, error("datagrams are not redirected on this system"))]
    NoDatagrams,
    /// A passed descriptor is not a socket of UDP, or cannot be told to say where datagrams were going.
    #[error("descriptor {fd} is not a UDP socket")]
    NotADatagramSocket {
        /// The descriptor.
        fd: RawSocket,
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
    /// Windows: its provider of sockets does not know the control codes, so
    /// that no connection will ever be redirected. Those before Windows 8 do
    /// not, and Wine's does not.
    #[error("this system does not know the control codes of connection redirection")]
    NotSupported,
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
