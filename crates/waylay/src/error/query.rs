use std::io;

use thiserror::Error;

use crate::winsock;

/// Why a query about an accepted socket has no answer: a variant for each cause
/// that the documentation of the control codes knows, and for those that only
/// Linux has.
///
/// # Example
/// ```
/// use waylay::{QueryError, winsock};
///
/// let socket = std::net::TcpListener::bind("127.0.0.1:0")?;
/// let error = waylay::query_redirect_records(&socket).unwrap_err();
/// // This example is no redirect service:
/// assert!(matches!(error, QueryError::NotRegistered));
/// assert_eq!(error.winsock_code(), winsock::WSAENOPROTOOPT);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug, Error)]
pub enum QueryError {
    /// `ENOENT` on a connected socket: somebody connected straight to the
    /// listener. Drop such a connection.
    #[error("the connection was not redirected to this service")]
    NotRedirected,
    /// `ESTALE`: the application has gone, or both directions are closed.
    #[error("the redirected connection has ended")]
    FlowEnded,
    /// `ENOENT` on a socket that has no connection.
    #[error("the socket is not connected")]
    NotConnected,
    /// The socket's connection is still being established: ask again when it is.
    #[error("the socket's connection is still being established")]
    Connecting,
    /// `ENOENT` on a listening socket: ask those it accepts.
    #[cfg_attr(not(windows), error("the socket listens; only the sockets it accepts can be asked"))]
    #[cfg_attr(windows, error("the socket listens, or is of a kind that cannot be asked"))]
    Listening,
    /// `ENOPROTOOPT` or `EOPNOTSUPP` on a socket of TCP: it was created outside
    /// every registered service, where the option does not exist. On Windows:
    /// the protocol or the system has no such option.
    #[cfg_attr(not(windows), error("the socket does not belong to a registered redirect service"))]
    #[cfg_attr(windows, error("the socket's protocol, or this version of Windows, does not have the option"))]
    NotRegistered,
    /// Not a socket of TCP over IPv4 or IPv6. On Windows: the provider does not
    /// know the control code, or user mode is not told.
    #[cfg_attr(not(windows), error("this kind of socket is never redirected"))]
    #[cfg_attr(windows, error("this system does not answer that about the socket"))]
    NotSupported,
    /// `ENOTSOCK` or `EBADF`.
    #[error("the descriptor is not an open socket")]
    NotASocket,
    /// The answer is longer than the buffer.
    #[error("the answer needs a buffer of {needed} bytes")]
    ShortBuffer {
        /// Bytes of the answer.
        needed: usize,
    },
    /// `EFAULT`: the buffer is not memory of this process that can be written.
    #[error("the buffer is not in this process's memory")]
    Fault,
    /// `EINTR`: a signal came first.
    #[error("interrupted by a signal")]
    Interrupted,
    /// `EACCES` or `EPERM`.
    #[error("this process may not ask")]
    AccessDenied,
    /// `ENETDOWN`, or `ENETUNREACH` of the connection that was being established.
    #[error("the network is down")]
    NetworkDown,
    /// The answer has another shape than this version of the library knows.
    #[error("the kernel side speaks another version: expected {expected} bytes, got {got}")]
    OtherVersion {
        /// Bytes this version knows.
        expected: usize,
        /// Bytes that came.
        got: usize,
    },
    /// Anything else the system said.
    #[error("the query failed")]
    Os(#[source] io::Error),
}

impl QueryError {
    /// What `WSAGetLastError` says of it: one of [`winsock`]'s codes.
    #[must_use]
    pub fn winsock_code(&self) -> i32 {
        match self {
            Self::NotRedirected => winsock::FWP_E_NOT_FOUND,
            Self::FlowEnded | Self::NotConnected => winsock::WSAENOTCONN,
            Self::Connecting => winsock::WSAEWOULDBLOCK,
            Self::Listening => winsock::WSAEINVAL,
            Self::NotRegistered => winsock::WSAENOPROTOOPT,
            Self::NotSupported => winsock::WSAEOPNOTSUPP,
            Self::NotASocket => winsock::WSAENOTSOCK,
            Self::ShortBuffer { .. } => winsock::ERROR_INSUFFICIENT_BUFFER,
            Self::Fault => winsock::WSAEFAULT,
            Self::Interrupted => winsock::WSAEINTR,
            Self::AccessDenied => winsock::WSAEACCES,
            Self::NetworkDown | Self::OtherVersion { .. } => winsock::WSAENETDOWN,
            Self::Os(error) => winsock::code_of(error),
        }
    }
}
