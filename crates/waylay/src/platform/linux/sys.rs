//! What no safe library offers: socket options of a level of our own, and
//! taking over descriptors that were passed by exec.
//!
//! The kernel checks every pointer it is given: one that leads nowhere is
//! `EFAULT` and not a fault of this process.
#![expect(unsafe_code, reason = "socket options at a level no library knows, and passed descriptors")]

use std::{
    io,
    net::TcpListener,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, RawFd},
    ptr,
};

use waylay_abi as abi;

use super::{control::Query, options::explain};
use crate::error::{QueryError, SetError};

/// No answer and no records are longer: what is beyond is of no use to the kernel.
const MOST_BYTES: usize = 4096;

/// Asks a socket, and leaves the answer in `len` bytes at `answer`; how many it has.
///
/// The pointer may lead nowhere: that is an error, as is a buffer that is too
/// short, an empty one included. [`QueryError::ShortBuffer`] tells the size. Of
/// a longer one no more is used than the answer takes.
///
/// # Errors
/// See [`QueryError`].
///
/// # Safety
/// If the `len` bytes at `answer` are memory of this process at all, nothing
/// else uses them during the call.
pub unsafe fn query(
    socket: BorrowedFd<'_>,
    query: Query,
    answer: *mut u8,
    len: usize,
) -> Result<usize, QueryError> {
    if answer.is_null() && len > 0 {
        return Err(QueryError::Fault);
    }
    let (level, option, len) = (abi::SOL_WAYLAY, query.option(), len.min(query.size()));
    let answered = if len == 0 {
        option_size(socket, level, option).and_then(|_size| Err(io::Error::from_raw_os_error(libc::ENOBUFS)))
    } else {
        // SAFETY: what is asked of the caller; the kernel sees to it that this process may write there.
        unsafe { get_option_at(socket, level, option, answer, len) }
    };
    query.checked(answered.map_err(|error| explain(socket, option, error)))
}

/// Sets the `len` bytes at `records` on a socket that will connect on. The
/// pointer may lead nowhere: that is an error.
///
/// # Errors
/// See [`SetError`].
///
/// # Safety
/// If the `len` bytes at `records` are memory of this process at all, nothing
/// changes them during the call.
pub unsafe fn set_records(socket: BorrowedFd<'_>, records: *const u8, len: usize) -> Result<(), SetError> {
    // One byte too many is as wrong as many are, and less is read of what may not be there.
    let len = len.min(size_of::<abi::Handle>() + 1);
    // SAFETY: what is asked of the caller; the kernel sees to it that this process may read there.
    unsafe { set_option_at(socket, abi::SOL_WAYLAY, abi::SET_RECORDS, records, len) }?;
    Ok(())
}

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

unsafe fn get_option_at(
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

unsafe fn set_option_at(
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
