//! What no safe library offers: socket options of a level of our own, and
//! taking over descriptors that were passed by exec.
//!
//! Every socket option call here passes a pointer and the length of the same live
//! buffer to the kernel, which writes or reads at most that many bytes.
#![expect(unsafe_code, reason = "socket options at a level no library knows, and passed descriptors")]

use std::{
    io,
    net::TcpListener,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, RawFd},
};

/// `getsockopt(2)` into `answer`; the number of bytes written.
pub(crate) fn get_option(fd: BorrowedFd<'_>, level: i32, name: i32, answer: &mut [u8]) -> io::Result<usize> {
    let mut len = libc::socklen_t::try_from(answer.len()).unwrap_or(libc::socklen_t::MAX);
    // SAFETY: `answer` is writable for `len` bytes and outlives the call.
    let result =
        unsafe { libc::getsockopt(fd.as_raw_fd(), level, name, answer.as_mut_ptr().cast(), &raw mut len) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(len as usize)
}

/// `setsockopt(2)` from `value`.
pub(crate) fn set_option(fd: BorrowedFd<'_>, level: i32, name: i32, value: &[u8]) -> io::Result<()> {
    let len = libc::socklen_t::try_from(value.len()).unwrap_or(libc::socklen_t::MAX);
    // SAFETY: `value` is readable for `len` bytes and outlives the call.
    let result = unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, value.as_ptr().cast(), len) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Lets `bind` fix the source address only, so that the port is chosen with
/// the destination known (`IP_BIND_ADDRESS_NO_PORT`, ip(7)).
pub(crate) fn choose_port_at_connect(fd: BorrowedFd<'_>) -> io::Result<()> {
    set_option(fd, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, &1i32.to_ne_bytes())?;
    Ok(())
}

/// Keeps a descriptor from the programs this process will start; fails if it is not open.
pub(crate) fn close_on_exec(fd: RawFd) -> io::Result<()> {
    // SAFETY: this takes no pointer, and to set the flag is no harm to whoever owns the descriptor.
    if unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// The listener behind a descriptor passed by `LISTEN_FDS`.
pub(crate) fn adopt_listener(fd: RawFd) -> TcpListener {
    // SAFETY: by that protocol the descriptor is this process's; it is open, and taken once.
    unsafe { TcpListener::from_raw_fd(fd) }
}
