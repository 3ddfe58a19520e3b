//! The error codes of Windows Sockets, by Microsoft's names and numbers, as far
//! as the control codes give them, and what they are for an errno.
//!
//! Source: *Windows Sockets Error Codes*,
//! <https://learn.microsoft.com/windows/win32/winsock/windows-sockets-error-codes-2>.

use std::io;

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

/// Errno and code of the same meaning. A socket that was closed is none to
/// Windows, and a connection that takes time is one that would block.
const SAME: [(i32, i32); 42] = [
    (libc::EINTR, WSAEINTR),
    (libc::EBADF, WSAENOTSOCK),
    (libc::ENOMEM, WSAENOBUFS),
    (libc::EACCES, WSAEACCES),
    (libc::EPERM, WSAEACCES),
    (libc::EFAULT, WSAEFAULT),
    (libc::EINVAL, WSAEINVAL),
    (libc::ENFILE, WSAEMFILE),
    (libc::EMFILE, WSAEMFILE),
    (libc::EAGAIN, WSAEWOULDBLOCK),
    (libc::EINPROGRESS, WSAEWOULDBLOCK),
    (libc::EPIPE, 10_058),
    (libc::ELOOP, 10_062),
    (libc::ENAMETOOLONG, 10_063),
    (libc::ENOTEMPTY, 10_066),
    (libc::EALREADY, 10_037),
    (libc::ENOTSOCK, WSAENOTSOCK),
    (libc::EDESTADDRREQ, 10_039),
    (libc::EMSGSIZE, WSAEMSGSIZE),
    (libc::EPROTOTYPE, 10_041),
    (libc::ENOPROTOOPT, WSAENOPROTOOPT),
    (libc::EPROTONOSUPPORT, 10_043),
    (libc::ESOCKTNOSUPPORT, 10_044),
    (libc::EOPNOTSUPP, WSAEOPNOTSUPP),
    (libc::EPFNOSUPPORT, 10_046),
    (libc::EAFNOSUPPORT, 10_047),
    (libc::EADDRINUSE, 10_048),
    (libc::EADDRNOTAVAIL, 10_049),
    (libc::ENETDOWN, WSAENETDOWN),
    (libc::ENETUNREACH, 10_051),
    (libc::ENETRESET, 10_052),
    (libc::ECONNABORTED, 10_053),
    (libc::ECONNRESET, 10_054),
    (libc::ENOBUFS, WSAENOBUFS),
    (libc::EISCONN, 10_056),
    (libc::ENOTCONN, WSAENOTCONN),
    (libc::ESHUTDOWN, 10_058),
    (libc::ETOOMANYREFS, 10_059),
    (libc::ETIMEDOUT, 10_060),
    (libc::ECONNREFUSED, 10_061),
    (libc::EHOSTDOWN, 10_064),
    (libc::EHOSTUNREACH, 10_065),
];

/// The code for an errno; [`WSASYSCALLFAILURE`] for one that sockets do not give.
///
/// # Example
/// ```
/// use waylay::winsock;
///
/// assert_eq!(winsock::code_of_errno(22), winsock::WSAEINVAL);
/// ```
#[must_use]
pub fn code_of_errno(errno: i32) -> i32 {
    SAME.iter().find(|(same, _)| *same == errno).map_or(WSASYSCALLFAILURE, |(_, code)| *code)
}

pub(crate) fn code_of(error: &io::Error) -> i32 {
    error.raw_os_error().map_or(WSASYSCALLFAILURE, code_of_errno)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_errno_has_two_codes() {
        for (index, (errno, _)) in SAME.iter().enumerate() {
            assert!(SAME[..index].iter().all(|(other, _)| other != errno), "{errno}");
        }
    }

    #[test]
    fn what_sockets_do_not_give_is_a_failure_of_the_system() {
        assert_eq!(code_of_errno(libc::ENOTTY), WSASYSCALLFAILURE);
        assert_eq!(code_of(&io::ErrorKind::InvalidInput.into()), WSASYSCALLFAILURE);
    }
}
