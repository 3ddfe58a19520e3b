//! Descriptors by their numbers, and the allocator, which no safe library offers.
#![expect(
    unsafe_code,
    reason = "dup2 onto a fixed number, close_range, seccomp, descriptors this process was started with, malloc_trim"
)]

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
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

/// Whether descriptor `fd` stays open across exec and is a socket that can
/// leave this host: one of any family but `AF_UNIX` and `AF_NETLINK`.
pub(crate) fn passes_network_socket_on(fd: i32) -> bool {
    // SAFETY: only a flag is read; a number that is no descriptor is an error.
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFD) };
    let mut family: libc::c_int = 0;
    let mut len = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes to `family`, which outlives the call.
    let result = unsafe {
        libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_DOMAIN, (&raw mut family).cast(), &raw mut len)
    };
    let inherited = flags >= 0 && flags & libc::FD_CLOEXEC == 0;
    inherited && result == 0 && ![libc::AF_UNIX, libc::AF_NETLINK].contains(&family)
}

/// Gives the system back what the allocator keeps of memory that is free, between pieces that are not too. Reading and compiling many
/// filters takes several times what they come to, and glibc keeps most of it.
pub fn give_back_free_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it only gives back what nobody has (malloc_trim(3)), and may be called at any time by any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Puts a seccomp filter on this process (seccomp(2), `SECCOMP_SET_MODE_FILTER`).
pub(crate) fn filter_system_calls(program: &[libc::sock_filter]) -> io::Result<()> {
    let Ok(len) = libc::c_ushort::try_from(program.len()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let program = libc::sock_fprog { len, filter: program.as_ptr().cast_mut() };
    // SAFETY: the kernel reads `len` instructions from `filter`, which outlives the call, and writes nothing.
    let result =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) };
    if result != 0 {
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

/// A descriptor that this process was started with, and that it is to close.
pub(crate) fn inherited(number: i32) -> io::Result<OwnedFd> {
    // SAFETY: only a flag is set; a number that is no descriptor is an error.
    if unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is open, and whoever passed its number has passed it for this.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}
