//! What the codes of Winsock mean, after the tables of the control codes:
//! <https://learn.microsoft.com/windows/win32/winsock/sio-query-wfp-connection-redirect-records>
//! and its neighbours.

use std::io;

use windows_sys::Win32::Foundation::ERROR_NOT_FOUND;

use crate::{
    error::{QueryError, SetError},
    winsock,
};

/// `STATUS_NOT_FOUND` of the kernel's interface, where it is not translated to that of the filtering platform.
const NOT_FOUND: i32 = ERROR_NOT_FOUND.cast_signed();
const WSAEISCONN: i32 = 10_056;

impl From<io::Error> for QueryError {
    fn from(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(winsock::FWP_E_NOT_FOUND | NOT_FOUND) => Self::NotRedirected,
            Some(winsock::WSAENOTCONN) => Self::NotConnected,
            Some(winsock::WSAEWOULDBLOCK) => Self::Connecting,
            // "The socket is of a kind that cannot be asked": our arguments are as they have to be.
            Some(winsock::WSAEINVAL) => Self::Listening,
            Some(winsock::WSAENOPROTOOPT) => Self::NotRegistered,
            Some(winsock::WSAEOPNOTSUPP) => Self::NotSupported,
            Some(winsock::WSAENOTSOCK) => Self::NotASocket,
            Some(winsock::WSAEFAULT) => Self::Fault,
            Some(winsock::WSAEINTR) => Self::Interrupted,
            Some(winsock::WSAEACCES) => Self::AccessDenied,
            Some(winsock::WSAENETDOWN) => Self::NetworkDown,
            Some(_) | None => Self::Os(error),
        }
    }
}

impl From<io::Error> for SetError {
    fn from(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(winsock::WSAEINVAL) => Self::Malformed,
            Some(winsock::WSAEACCES) => Self::NotEntitled,
            Some(WSAEISCONN) => Self::Connected,
            Some(winsock::WSAEOPNOTSUPP) => Self::NotSupported,
            Some(winsock::WSAENOTSOCK) => Self::NotASocket,
            Some(winsock::WSAEFAULT) => Self::Fault,
            Some(winsock::WSAEINTR) => Self::Interrupted,
            Some(winsock::WSAENETDOWN) => Self::NetworkDown,
            Some(winsock::WSAENOBUFS) => Self::NoRoom,
            Some(_) | None => Self::Os(error),
        }
    }
}
