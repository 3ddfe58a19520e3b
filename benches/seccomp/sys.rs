//! As few system calls as a supervisor can make that connects for others.
#![expect(
    unsafe_code,
    reason = "no safe library has seccomp's notifications, or reads another process's memory"
)]

use std::{
    io,
    mem::{MaybeUninit, zeroed},
    os::fd::{AsFd, AsRawFd, BorrowedFd},
};

use libc::{c_ulong, c_void, seccomp_notif, seccomp_notif_resp};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

/// `SECCOMP_IOCTL_NOTIF_SET_FLAGS` with `SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP` (linux/seccomp.h).
const SET_FLAGS: libc::Ioctl = 0x4008_2104;
const SYNC_WAKE_UP: c_ulong = 1;

/// Connects the one process that calls by `listener` to this address, whatever it asks for, until it is gone.
pub(crate) fn connect_all(listener: BorrowedFd<'_>, to: &libc::sockaddr_in) {
    // SAFETY: a number only.
    unsafe { libc::ioctl(listener.as_raw_fd(), SET_FLAGS, SYNC_WAKE_UP) };
    let mut process = None;
    while let Ok(call) = receive(listener) {
        let pid = Pid::from_raw(call.pid.cast_signed());
        let process = process.get_or_insert_with(|| pidfd_open(pid.unwrap(), PidfdFlags::empty()).unwrap());
        let mut answer = seccomp_notif_resp { id: call.id, val: 0, error: 0, flags: 0 };
        if i64::from(call.data.nr) != libc::SYS_connect {
            answer.flags = libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32;
        } else if let Err(error) = connect_one(process.as_fd(), &call, to) {
            answer.error = -error.raw_os_error().unwrap_or(libc::EIO);
        }
        // SAFETY: the kernel reads one `seccomp_notif_resp`.
        unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &raw const answer) };
    }
}

fn receive(listener: BorrowedFd<'_>) -> io::Result<seccomp_notif> {
    // SAFETY: plain data, of which every byte may be zero, as the kernel wants it to be.
    let mut call: seccomp_notif = unsafe { zeroed() };
    // SAFETY: the kernel writes one `seccomp_notif`.
    let result = unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut call) };
    if result == 0 { Ok(call) } else { Err(io::Error::last_os_error()) }
}

/// The address is copied, as it says what is to be decided, and the descriptor, as the caller could exchange its own.
fn connect_one(process: BorrowedFd<'_>, call: &seccomp_notif, to: &libc::sockaddr_in) -> io::Result<()> {
    let mut asked = MaybeUninit::<libc::sockaddr_in>::uninit();
    let iov_len = size_of_val(to);
    let local = libc::iovec { iov_base: asked.as_mut_ptr().cast(), iov_len };
    let base = std::ptr::without_provenance_mut::<c_void>(call.data.args[1] as usize);
    let remote = libc::iovec { iov_base: base, iov_len };
    // SAFETY: the kernel writes at most `iov_len` bytes to `asked`; addresses of the other process are checked by it.
    unsafe { libc::process_vm_readv(call.pid.cast_signed(), &raw const local, 1, &raw const remote, 1, 0) };
    let socket = pidfd_getfd(process, call.data.args[0] as i32, PidfdGetfdFlags::empty())?;
    // SAFETY: the kernel reads one `sockaddr_in`.
    match unsafe { libc::connect(socket.as_raw_fd(), (&raw const *to).cast(), iov_len as libc::socklen_t) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
