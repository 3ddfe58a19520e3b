//! Socket options that no safe library offers.
#![expect(unsafe_code, reason = "setsockopt(2) with TCP_WINDOW_CLAMP and SO_BUF_LOCK")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Bounds how many bytes the peer may send that nobody has read yet (`TCP_WINDOW_CLAMP`, tcp(7)). What has been allowed before
/// stays allowed, and the kernel forgets the bound when it enlarges the receive buffer.
pub(crate) fn clamp_window(socket: BorrowedFd<'_>, bytes: u32) -> io::Result<()> {
    let value = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
    set(socket, libc::IPPROTO_TCP, libc::TCP_WINDOW_CLAMP, value)
}

/// Lets the kernel enlarge the buffers again, after somebody has said how large they are to be (`SO_BUF_LOCK`, Linux 5.14).
pub(crate) fn unlock_buffers(socket: BorrowedFd<'_>) -> io::Result<()> {
    const SO_BUF_LOCK: libc::c_int = 72;
    set(socket, libc::SOL_SOCKET, SO_BUF_LOCK, 0)
}

fn set(socket: BorrowedFd<'_>, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let len = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the kernel reads `len` bytes from `value`, which outlives the call.
    let result = unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast(), len) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
