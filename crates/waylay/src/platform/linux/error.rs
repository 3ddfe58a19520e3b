//! What an errno means.

use std::io;

use crate::error::{QueryError, SetError};

impl From<io::Error> for QueryError {
    fn from(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::ENOENT) => Self::NotRedirected,
            Some(libc::ESTALE) => Self::FlowEnded,
            Some(libc::ENOTCONN) => Self::NotConnected,
            Some(libc::ENOPROTOOPT) => Self::NotRegistered,
            Some(libc::EOPNOTSUPP) => Self::NotSupported,
            Some(libc::ENOTSOCK | libc::EBADF) => Self::NotASocket,
            Some(libc::EFAULT) => Self::Fault,
            Some(libc::EINTR) => Self::Interrupted,
            Some(libc::EACCES | libc::EPERM) => Self::AccessDenied,
            Some(libc::ENETDOWN) => Self::NetworkDown,
            Some(_) | None => Self::Os(error),
        }
    }
}

impl From<io::Error> for SetError {
    fn from(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::EINVAL) => Self::Malformed,
            Some(libc::EKEYREJECTED) => Self::Tampered,
            Some(libc::EKEYEXPIRED) => Self::Expired,
            Some(libc::ESTALE) => Self::FlowEnded,
            Some(libc::EACCES | libc::EPERM) => Self::NotEntitled,
            Some(libc::EISCONN) => Self::Connected,
            Some(libc::ENOPROTOOPT) => Self::NotRegistered,
            Some(libc::EOPNOTSUPP) => Self::NotSupported,
            Some(libc::ENOTSOCK | libc::EBADF) => Self::NotASocket,
            Some(libc::EFAULT) => Self::Fault,
            Some(libc::EINTR) => Self::Interrupted,
            Some(libc::ENETDOWN) => Self::NetworkDown,
            Some(libc::ENOBUFS | libc::ENOMEM) => Self::NoRoom,
            Some(_) | None => Self::Os(error),
        }
    }
}
