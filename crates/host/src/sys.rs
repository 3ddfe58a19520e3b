//! Descriptors at numbers that a protocol prescribes, which no safe library offers.
#![expect(unsafe_code, reason = "dup2 onto a fixed number, close_range")]

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

/// Puts a copy of `fd` at exactly `target`, open across exec, replacing what is there.
pub(crate) fn place(fd: BorrowedFd<'_>, target: i32) -> io::Result<()> {
    // SAFETY: the process is about to become another program; whatever owned `target` is not used again.
    let result = unsafe { libc::dup2(fd.as_raw_fd(), target) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Marks every descriptor from `first` up to be closed by the next exec.
pub(crate) fn close_on_exec_from(first: i32) -> io::Result<()> {
    let first = libc::c_uint::try_from(first).unwrap_or(0);
    // SAFETY: only a flag of the descriptors changes; they stay open and owned as before.
    let result =
        unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
