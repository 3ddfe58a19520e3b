use std::io;

use thiserror::Error;

use crate::winsock;

/// Why records could not be set on an outbound socket.
///
/// # Example
/// ```
/// use waylay::{RedirectRecords, SetError, winsock};
///
/// let socket = std::net::TcpListener::bind("127.0.0.1:0")?;
/// let records = RedirectRecords::from_bytes(&[0; 48]);
/// let error = waylay::set_redirect_records(&socket, &records).unwrap_err();
/// // This example is no redirect service:
/// assert!(matches!(error, SetError::NotRegistered));
/// assert_eq!(error.winsock_code(), winsock::WSAEACCES);
/// # Ok::<(), std::io::Error>(())
/// ```
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
    /// `EACCES`: they were given to another service. On Windows: the process is
    /// not that of an elevated administrator.
    #[cfg_attr(not(windows), error("this process is not the service the redirect records were given to"))]
    #[cfg_attr(windows, error("only an elevated administrator may set redirect records"))]
    NotEntitled,
    /// `EISCONN`: records are set before the socket connects.
    #[error("the socket is connected or connecting already")]
    Connected,
    /// `ENOPROTOOPT`: the socket was created outside every registered service.
    #[error("the socket does not belong to a registered redirect service")]
    NotRegistered,
    /// `EOPNOTSUPP`: not a socket of IPv4 or IPv6. On Windows: the provider does
    /// not know the control code.
    #[cfg_attr(not(windows), error("this kind of socket carries no redirect records"))]
    #[cfg_attr(windows, error("this system puts no redirect records on the socket"))]
    NotSupported,
    /// `ENOTSOCK` or `EBADF`.
    #[error("the descriptor is not an open socket")]
    NotASocket,
    /// `EFAULT`: the records are not in memory of this process that can be read.
    #[error("the redirect records are not in this process's memory")]
    Fault,
    /// `EINTR`: a signal came first.
    #[error("interrupted by a signal")]
    Interrupted,
    /// `ENETDOWN`.
    #[error("the network is down")]
    NetworkDown,
    /// `ENOBUFS` or `ENOMEM`: the kernel gave the socket no storage.
    #[error("the kernel has no room for the records")]
    NoRoom,
    /// Anything else the system said.
    #[error("the records could not be set")]
    Os(#[source] io::Error),
}

impl SetError {
    /// What `WSAGetLastError` says of it: one of [`winsock`]'s codes.
    #[must_use]
    pub fn winsock_code(&self) -> i32 {
        match self {
            Self::Malformed | Self::Tampered | Self::Expired | Self::FlowEnded | Self::Connected => {
                winsock::WSAEINVAL
            }
            Self::NotEntitled | Self::NotRegistered => winsock::WSAEACCES,
            Self::NotSupported => winsock::WSAEOPNOTSUPP,
            Self::NotASocket => winsock::WSAENOTSOCK,
            Self::Fault => winsock::WSAEFAULT,
            Self::Interrupted => winsock::WSAEINTR,
            Self::NetworkDown => winsock::WSAENETDOWN,
            Self::NoRoom => winsock::WSAENOBUFS,
            Self::Os(error) => winsock::code_of(error),
        }
    }
}
