//! The error codes of Windows Sockets, by Microsoft's names and numbers, as far
//! as the control codes give them, and what they are for an errno.
//!
//! Source: *Windows Sockets Error Codes*,
//! <https://learn.microsoft.com/windows/win32/winsock/windows-sockets-error-codes-2>.

#[cfg(target_os = "linux")]
mod errno;

use std::io;

#[cfg(target_os = "linux")]
pub use errno::{code_of_errno, errno_of_code};

/// The output buffer is shorter than the answer.
pub const ERROR_INSUFFICIENT_BUFFER: i32 = 122;
/// A handle is none of ours.
pub const WSA_INVALID_HANDLE: i32 = 6;
/// An argument contradicts another.
pub const WSA_INVALID_PARAMETER: i32 = 87;
/// An overlapped operation was ended before it was done.
pub const WSA_OPERATION_ABORTED: i32 = 995;
/// An overlapped operation is still under way.
pub const WSA_IO_INCOMPLETE: i32 = 996;
/// An overlapped operation has begun.
pub const WSA_IO_PENDING: i32 = 997;
/// A signal came first.
pub const WSAEINTR: i32 = 10_004;
/// Not entitled.
pub const WSAEACCES: i32 = 10_013;
/// A pointer leads nowhere.
pub const WSAEFAULT: i32 = 10_014;
/// An argument is not acceptable.
pub const WSAEINVAL: i32 = 10_022;
/// No descriptor is left.
pub const WSAEMFILE: i32 = 10_024;
/// It would take a wait, and the socket does not wait.
pub const WSAEWOULDBLOCK: i32 = 10_035;
/// It would take a wait, inside a completion routine.
pub const WSAEINPROGRESS: i32 = 10_036;
/// Not an open socket.
pub const WSAENOTSOCK: i32 = 10_038;
/// A message is longer than its buffer.
pub const WSAEMSGSIZE: i32 = 10_040;
/// The socket does not have the option.
pub const WSAENOPROTOOPT: i32 = 10_042;
/// Not for this kind of socket, or not implemented.
pub const WSAEOPNOTSUPP: i32 = 10_045;
/// The network, or what redirects in it, does not work.
pub const WSAENETDOWN: i32 = 10_050;
/// The kernel has no room.
pub const WSAENOBUFS: i32 = 10_055;
/// The socket is not connected.
pub const WSAENOTCONN: i32 = 10_057;
/// A version of Windows Sockets that is not offered.
pub const WSAVERNOTSUPPORTED: i32 = 10_092;
/// `WSAStartup` was not called.
pub const WSANOTINITIALISED: i32 = 10_093;
/// The connection has no record, or no context: the code of the filtering platform itself.
pub const FWP_E_NOT_FOUND: i32 = 0x8032_0008_u32.cast_signed();

/// Any other failure of the system.
pub const WSASYSCALLFAILURE: i32 = 10_107;

/// The code of the same meaning.
#[cfg(target_os = "linux")]
pub(crate) fn code_of(error: &io::Error) -> i32 {
    error.raw_os_error().map_or(WSASYSCALLFAILURE, code_of_errno)
}

/// The code of an error that came from Winsock: its own.
#[cfg(windows)]
pub(crate) fn code_of(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(WSASYSCALLFAILURE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_error_of_the_system_is_a_failure_of_it() {
        assert_eq!(code_of(&io::ErrorKind::InvalidInput.into()), WSASYSCALLFAILURE);
    }
}
