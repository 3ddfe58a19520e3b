//! Socket options, as a program in C asks for them.
#![expect(unsafe_code, reason = "getsockopt(2) and setsockopt(2) with any level and option")]

use std::{
    ffi::c_int,
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

/// getsockopt(2): the bytes of the answer.
///
/// # Errors
/// The kernel's.
pub fn get_option(socket: BorrowedFd<'_>, level: c_int, name: c_int, answer: &mut [u8]) -> io::Result<u32> {
    let mut len = answer.len() as libc::socklen_t;
    let to = answer.as_mut_ptr().cast();
    // SAFETY: `answer` is writable for `len` bytes.
    match unsafe { libc::getsockopt(socket.as_raw_fd(), level, name, to, &raw mut len) } {
        0 => Ok(len),
        _ => Err(io::Error::last_os_error()),
    }
}

/// setsockopt(2).
///
/// # Errors
/// The kernel's.
pub fn set_option(socket: BorrowedFd<'_>, level: c_int, name: c_int, value: &[u8]) -> io::Result<()> {
    let len = value.len() as libc::socklen_t;
    // SAFETY: `value` is readable for `len` bytes.
    match unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, value.as_ptr().cast(), len) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
