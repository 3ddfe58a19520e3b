//! Each thread's last error: that of the last call here that failed, or of the
//! last one of the C library (`connect`, `recv`…), whichever came later.

use std::cell::Cell;

use waylay::winsock;

use crate::{code::Code, sys::errno};

thread_local! {
    /// The code, and the errno that it was left with.
    static LAST: Cell<(i32, i32)> = const { Cell::new((0, 0)) };
}

/// Errnos that sockets do not give, for codes that no errno stands for.
const MARKS: [(i32, i32); 8] = [
    (winsock::ERROR_INSUFFICIENT_BUFFER, libc::ERANGE),
    (winsock::WSA_INVALID_HANDLE, libc::EBADFD),
    (winsock::WSA_INVALID_PARAMETER, libc::EDOM),
    (winsock::WSA_OPERATION_ABORTED, libc::ECANCELED),
    (winsock::WSA_IO_INCOMPLETE, libc::EBUSY),
    (winsock::WSA_IO_PENDING, libc::EBUSY),
    (winsock::WSAEINPROGRESS, libc::EDEADLK),
    (winsock::FWP_E_NOT_FOUND, libc::ENOENT),
];

pub(crate) fn set(code: Code) {
    let marked = MARKS.iter().find(|(marked, _)| *marked == code.0).map(|(_, errno)| *errno);
    let errno = marked.or_else(|| winsock::errno_of_code(code.0)).unwrap_or(if code.0 == 0 {
        0
    } else {
        libc::EPROTO
    });
    LAST.set((code.0, errno));
    errno::set(errno);
}

/// The code that says why the last call failed.
///
/// A failed call of the C library has changed `errno` since. What is not an
/// errno of sockets is none of their business, such as what printf(3) leaves
/// behind.
pub(crate) fn get() -> i32 {
    let (code, left) = LAST.get();
    let errno = errno::get();
    if errno == left {
        return code;
    }
    match winsock::code_of_errno(errno) {
        winsock::WSASYSCALLFAILURE => code,
        newer => newer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_that_of_the_last_call_that_failed_here_or_in_the_c_library() {
        set(Code(winsock::WSA_IO_PENDING));
        assert_eq!(get(), winsock::WSA_IO_PENDING);
        errno::set(libc::ECONNREFUSED);
        assert_eq!(get(), 10_061);
        set(Code(winsock::FWP_E_NOT_FOUND));
        assert_eq!(get(), winsock::FWP_E_NOT_FOUND);
    }

    #[test]
    fn survives_what_printing_leaves_in_errno() {
        set(Code(winsock::WSAEFAULT));
        errno::set(libc::ENOTTY);
        assert_eq!(get(), winsock::WSAEFAULT);
    }

    #[test]
    fn every_thread_has_its_own() {
        set(Code(winsock::WSAEFAULT));
        std::thread::spawn(|| assert_eq!(get(), 0)).join().unwrap();
        assert_eq!(get(), winsock::WSAEFAULT);
    }

    #[test]
    fn a_mark_is_no_errno_of_sockets() {
        for (code, errno) in MARKS {
            assert_eq!(winsock::code_of_errno(errno), winsock::WSASYSCALLFAILURE, "{code}");
        }
    }
}
