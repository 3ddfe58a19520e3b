//! Which code an errno is.

use super::*;

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

/// The errno for a code, if one stands for it: the way back from [`code_of_errno`].
///
/// # Example
/// ```
/// use waylay::winsock;
///
/// assert_eq!(winsock::errno_of_code(winsock::WSAEINVAL), Some(22));
/// assert_eq!(winsock::errno_of_code(winsock::WSA_IO_PENDING), None);
/// ```
#[must_use]
pub fn errno_of_code(code: i32) -> Option<i32> {
    SAME.iter().find(|(_, same)| *same == code).map(|(errno, _)| *errno)
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
    }
}
