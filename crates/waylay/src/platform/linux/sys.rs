//! What no safe library offers: socket options of a level of our own, and
//! taking over descriptors that were passed by exec.
//!
//! The kernel checks every pointer it is given: one that leads nowhere is
//! `EFAULT` and not a fault of this process.
#![expect(unsafe_code, reason = "socket options at a level no library knows, and passed descriptors")]

use std::{
    io,
    net::{TcpListener, UdpSocket},
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, RawFd},
    ptr,
};

/// No answer and no records are longer: what is beyond is of no use to the kernel.
const MOST_BYTES: usize = 4096;

/// `getsockopt(2)` into `answer`; the number of bytes written.
pub(crate) fn get_option(fd: BorrowedFd<'_>, level: i32, name: i32, answer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: `answer` is ours alone, writable for its length, and outlives the call.
    unsafe { get_option_at(fd, level, name, answer.as_mut_ptr(), answer.len()) }
}

/// `setsockopt(2)` from `value`.
pub(crate) fn set_option(fd: BorrowedFd<'_>, level: i32, name: i32, value: &[u8]) -> io::Result<()> {
    // SAFETY: `value` is readable for its length and outlives the call.
    unsafe { set_option_at(fd, level, name, value.as_ptr(), value.len()) }
}

/// Asks how long the answer would be.
pub(crate) fn option_size(fd: BorrowedFd<'_>, level: i32, name: i32) -> io::Result<usize> {
    // SAFETY: the kernel is given no memory to write to.
    unsafe { get_option_at(fd, level, name, ptr::null_mut(), 0) }
}

/// # Safety
/// If the `len` bytes at `answer` are memory of this process at all, nothing else uses them during the call.
pub(crate) unsafe fn get_option_at(
    fd: BorrowedFd<'_>,
    level: i32,
    name: i32,
    answer: *mut u8,
    len: usize,
) -> io::Result<usize> {
    let mut len = len.min(MOST_BYTES) as libc::socklen_t;
    // SAFETY: the kernel writes nowhere but to the `len` bytes that the caller gives it.
    if unsafe { libc::getsockopt(fd.as_raw_fd(), level, name, answer.cast(), &raw mut len) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(len as usize)
}

/// # Safety
/// If the `len` bytes at `value` are memory of this process at all, nothing changes them during the call.
pub(crate) unsafe fn set_option_at(
    fd: BorrowedFd<'_>,
    level: i32,
    name: i32,
    value: *const u8,
    len: usize,
) -> io::Result<()> {
    let len = len.min(MOST_BYTES) as libc::socklen_t;
    // SAFETY: the kernel reads nothing but the `len` bytes that the caller gives it.
    if unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, value.cast(), len) } != 0 {
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

/// The socket behind a descriptor passed by `LISTEN_FDS`.
pub(crate) fn adopt_datagram_socket(fd: RawFd) -> UdpSocket {
    // SAFETY: by that protocol the descriptor is this process's; it is open, and taken once.
    unsafe { UdpSocket::from_raw_fd(fd) }
}
