//! seccomp(2)'s notifications, other processes' memory and descriptors, and sockets by raw addresses.
#![expect(
    unsafe_code,
    reason = "no safe library has seccomp's notifications, or reads another process's memory"
)]

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
};

use libc::{c_int, c_void, seccomp_notif, seccomp_notif_resp, sock_filter, socklen_t};

/// Indices of devices (`LOOPBACK_IFINDEX`, include/net/flow.h).
const NO_DEVICE: c_int = 0;
const LOOPBACK: c_int = 1;

/// `PIDFD_THREAD` (linux/pidfd.h, Linux 6.9): any thread, and its own descriptors.
const OF_THREAD: c_int = libc::O_EXCL;

fn check(result: i64) -> io::Result<i64> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// # Safety
/// `fd` is a descriptor that nobody owns yet.
unsafe fn own(fd: i64) -> io::Result<OwnedFd> {
    let fd = RawFd::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the caller's word.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Puts a filter on this thread and all that it starts, and gives the descriptor that its notifications come by.
/// It takes `no_new_privs` or `CAP_SYS_ADMIN`.
pub(crate) fn install(program: &[sock_filter]) -> io::Result<OwnedFd> {
    let len = u16::try_from(program.len()).map_err(io::Error::other)?;
    let program = libc::sock_fprog { len, filter: program.as_ptr().cast_mut() };
    // SAFETY: the kernel reads `len` instructions, which outlive the call, and writes nothing.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            // A signal that comes while the answer is on its way would lose it.
            libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV,
            &raw const program,
        )
    };
    // SAFETY: what the call has made.
    unsafe { own(check(fd)?) }
}

/// Has whoever waits for an answer go on where the supervisor was (`SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP`), which saves waking another processor.
/// It makes it faster, and is missing before Linux 6.6.
pub(crate) fn answer_in_turn(listener: BorrowedFd<'_>) -> io::Result<()> {
    const SET_FLAGS: libc::Ioctl = 0x4008_2104;
    const SYNC_WAKE_UP: u64 = 1;
    // SAFETY: a number only.
    let result = unsafe { libc::ioctl(listener.as_raw_fd(), SET_FLAGS, SYNC_WAKE_UP) };
    check(result.into()).map(drop)
}

/// The next notification; waits for one. `ENOENT` if its caller has gone already.
pub(crate) fn receive(listener: BorrowedFd<'_>) -> io::Result<seccomp_notif> {
    // SAFETY: plain data, of which every byte may be zero, as the kernel wants it to be.
    let mut notice: seccomp_notif = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes one `seccomp_notif`, whose size it knows by the request's number.
    let result =
        unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut notice) };
    check(result.into())?;
    Ok(notice)
}

/// Whether [`receive`] ends where nobody is left who could make a call: since Linux 6.11.
pub(crate) fn receiving_ends() -> bool {
    let system = rustix::system::uname();
    let release = system.release().to_string_lossy();
    let mut numbers = release.split(|digit: char| !digit.is_ascii_digit()).map(str::parse::<u32>);
    let (major, minor) = (numbers.next(), numbers.next());
    (major.and_then(Result::ok), minor.and_then(Result::ok)) >= (Some(6), Some(11))
}

/// Answers a notification. `ENOENT` if its caller no longer waits.
pub(crate) fn answer(listener: BorrowedFd<'_>, mut answer: seccomp_notif_resp) -> io::Result<()> {
    // SAFETY: the kernel reads one `seccomp_notif_resp`.
    let result =
        unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &raw mut answer) };
    check(result.into()).map(drop)
}

/// Answers a notification with a descriptor that its caller has from then on, and gives its number there.
pub(crate) fn give(
    listener: BorrowedFd<'_>,
    id: u64,
    given: BorrowedFd<'_>,
    is_closed_at_exec: bool,
) -> io::Result<i64> {
    let newfd_flags = if is_closed_at_exec { libc::O_CLOEXEC.cast_unsigned() } else { 0 };
    let (flags, srcfd) = (libc::SECCOMP_ADDFD_FLAG_SEND as u32, given.as_raw_fd().cast_unsigned());
    let given = libc::seccomp_notif_addfd { id, flags, srcfd, newfd: 0, newfd_flags };
    // SAFETY: the kernel reads one `seccomp_notif_addfd`, whose size it knows by the request's number.
    let result =
        unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_ADDFD, &raw const given) };
    check(result.into())
}

/// Puts a descriptor in the place of the one with this number, before the call is answered.
pub(crate) fn replace(
    listener: BorrowedFd<'_>,
    id: u64,
    given: BorrowedFd<'_>,
    number: c_int,
    is_closed_at_exec: bool,
) -> io::Result<()> {
    let newfd_flags = if is_closed_at_exec { libc::O_CLOEXEC.cast_unsigned() } else { 0 };
    let (flags, srcfd) = (libc::SECCOMP_ADDFD_FLAG_SETFD as u32, given.as_raw_fd().cast_unsigned());
    let given = libc::seccomp_notif_addfd { id, flags, srcfd, newfd: number.cast_unsigned(), newfd_flags };
    // SAFETY: the kernel reads one `seccomp_notif_addfd`, whose size it knows by the request's number.
    let result =
        unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_ADDFD, &raw const given) };
    check(result.into()).map(drop)
}

/// socket(2), with whatever it is asked for.
pub(crate) fn socket(domain: c_int, kind: c_int, protocol: c_int) -> io::Result<OwnedFd> {
    // SAFETY: numbers only.
    let fd = unsafe { libc::socket(domain, kind | libc::SOCK_CLOEXEC, protocol) };
    // SAFETY: what the call has made.
    unsafe { own(check(fd.into())?) }
}

/// Whether whoever made the call still waits for its answer: then its process id is still its own.
pub(crate) fn is_waiting(listener: BorrowedFd<'_>, id: u64) -> bool {
    // SAFETY: the kernel reads one number.
    let result =
        unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_ID_VALID, &raw const id) };
    result == 0
}

/// A handle on a thread, or, before Linux 6.9, on a process by its first thread.
pub(crate) fn open_thread(tid: u32) -> io::Result<OwnedFd> {
    // SAFETY: numbers only.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, tid, OF_THREAD) };
    // SAFETY: what the call has made.
    unsafe { own(check(fd)?) }
}

/// A handle on a process.
pub(crate) fn open_process(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: numbers only.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    // SAFETY: what the call has made.
    unsafe { own(check(fd)?) }
}

/// Whom a thread acts for, and in which process and cgroup.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Identity {
    pub(crate) pid: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) cgroup: Option<u64>,
}

/// Asks a thread's handle for it. Missing before Linux 6.13; `ESRCH` if the thread is gone.
pub(crate) fn identity_of(thread: BorrowedFd<'_>) -> io::Result<Identity> {
    // SAFETY: plain data, of which every byte may be zero.
    let mut told: libc::pidfd_info = unsafe { std::mem::zeroed() };
    told.mask = u64::from(libc::PIDFD_INFO_PID | libc::PIDFD_INFO_CREDS | libc::PIDFD_INFO_CGROUPID);
    // SAFETY: the kernel writes one `pidfd_info`, whose size it knows by the request's number.
    let result = unsafe { libc::ioctl(thread.as_raw_fd(), libc::PIDFD_GET_INFO, &raw mut told) };
    check(result.into())?;
    let has = |what: u32| told.mask & u64::from(what) != 0;
    if !has(libc::PIDFD_INFO_CREDS) {
        return Err(io::Error::from_raw_os_error(libc::ESRCH));
    }
    let cgroup = has(libc::PIDFD_INFO_CGROUPID).then_some(told.cgroupid);
    Ok(Identity { pid: told.tgid, uid: told.ruid, gid: told.rgid, cgroup })
}

/// `ESRCH` if a thread is gone.
pub(crate) fn require_alive(thread: BorrowedFd<'_>) -> io::Result<()> {
    let nothing: *const libc::siginfo_t = std::ptr::null();
    // SAFETY: no signal is sent, and nothing is read.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, thread.as_raw_fd(), 0, nothing, 0) };
    match check(result) {
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Err(error),
        // What may not be sent a signal is there.
        Err(_) | Ok(_) => Ok(()),
    }
}

/// A copy of another process's descriptor.
pub(crate) fn copy_descriptor(of: BorrowedFd<'_>, number: c_int) -> io::Result<OwnedFd> {
    // SAFETY: numbers only.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_getfd, of.as_raw_fd(), number, 0) };
    // SAFETY: what the call has made.
    unsafe { own(check(fd)?) }
}

fn remote(address: u64, len: usize) -> libc::iovec {
    libc::iovec { iov_base: std::ptr::without_provenance_mut::<c_void>(address as usize), iov_len: len }
}

/// Reads another process's memory, all of it or `EFAULT`.
pub(crate) fn read_memory(tid: u32, address: u64, into: &mut [u8]) -> io::Result<()> {
    let local = libc::iovec { iov_base: into.as_mut_ptr().cast(), iov_len: into.len() };
    let remote = remote(address, into.len());
    // SAFETY: the kernel writes at most `into.len()` bytes to `into`; addresses of the other process are checked by it.
    let read =
        unsafe { libc::process_vm_readv(tid.cast_signed(), &raw const local, 1, &raw const remote, 1, 0) };
    whole(read, into.len())
}

/// The same, and whether memory at another place, which is read as well, is there.
pub(crate) fn read_memory_and(
    tid: u32,
    (address, into): (u64, &mut [u8]),
    (beside, found): (u64, &mut [u8]),
) -> io::Result<bool> {
    let (wanted, more) = (into.len(), found.len());
    let local = [into, found].map(|to| libc::iovec { iov_base: to.as_mut_ptr().cast(), iov_len: to.len() });
    let remote = [remote(address, wanted), remote(beside, more)];
    // SAFETY: the kernel writes at most as many bytes to `into` and `found` as they have; addresses of the other process are checked by it.
    let read = unsafe { libc::process_vm_readv(tid.cast_signed(), local.as_ptr(), 2, remote.as_ptr(), 2, 0) };
    match usize::try_from(check(read as i64)?) {
        Ok(count) if count >= wanted => Ok(count == wanted + more),
        Ok(_) | Err(_) => Err(io::Error::from_raw_os_error(libc::EFAULT)),
    }
}

/// Writes another process's memory, all of it or `EFAULT`.
pub(crate) fn write_memory(tid: u32, address: u64, from: &[u8]) -> io::Result<()> {
    let local = libc::iovec { iov_base: from.as_ptr().cast_mut().cast(), iov_len: from.len() };
    let remote = remote(address, from.len());
    // SAFETY: the kernel reads `from` and writes to the other process, whose addresses it checks.
    let written =
        unsafe { libc::process_vm_writev(tid.cast_signed(), &raw const local, 1, &raw const remote, 1, 0) };
    whole(written, from.len())
}

fn whole(count: isize, wanted: usize) -> io::Result<()> {
    if check(count as i64)? as usize == wanted {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(libc::EFAULT))
    }
}

/// connect(2) with the bytes of an address, whatever they are.
pub(crate) fn connect(socket: BorrowedFd<'_>, address: &[u8]) -> io::Result<()> {
    let len = address.len() as socklen_t;
    // SAFETY: the kernel reads `len` bytes, which outlive the call.
    let result = unsafe { libc::connect(socket.as_raw_fd(), address.as_ptr().cast(), len) };
    check(result.into()).map(drop)
}

/// The first bytes of what getsockopt(2) has to say.
fn option<const LEN: usize>(socket: BorrowedFd<'_>, level: c_int, name: c_int) -> io::Result<[u8; LEN]> {
    let mut value = [0; LEN];
    let mut len = LEN as socklen_t;
    let at = value.as_mut_ptr().cast::<c_void>();
    // SAFETY: the kernel writes at most `len` bytes to `value`, which outlives the call.
    let result = unsafe { libc::getsockopt(socket.as_raw_fd(), level, name, at, &raw mut len) };
    check(result.into()).map(|_| value)
}

/// An option that is a number.
pub(crate) fn number(socket: BorrowedFd<'_>, level: c_int, name: c_int) -> io::Result<c_int> {
    option(socket, level, name).map(c_int::from_ne_bytes)
}

/// Sets one.
pub(crate) fn set_number(socket: BorrowedFd<'_>, level: c_int, name: c_int, value: c_int) -> io::Result<()> {
    let (fd, at, len) = (socket.as_raw_fd(), (&raw const value).cast(), size_of::<c_int>() as socklen_t);
    // SAFETY: the kernel reads `len` bytes of `value`.
    let result = unsafe { libc::setsockopt(fd, level, name, at, len) };
    check(result.into()).map(drop)
}

/// `SO_NETNS_COOKIE`: the network namespace that a socket is in.
pub(crate) fn namespace_of(socket: BorrowedFd<'_>) -> io::Result<u64> {
    option(socket, libc::SOL_SOCKET, libc::SO_NETNS_COOKIE).map(u64::from_ne_bytes)
}

/// The state of a TCP socket (net/tcp_states.h), the first byte of `TCP_INFO`.
pub(crate) fn tcp_state(socket: BorrowedFd<'_>) -> io::Result<u8> {
    option(socket, libc::IPPROTO_TCP, libc::TCP_INFO).map(u8::from_ne_bytes)
}

/// Whether a socket is kept to a device other than the loopback's (`SO_BINDTODEVICE`), off which only privileges take it.
pub(crate) fn is_kept_to_device(socket: BorrowedFd<'_>) -> bool {
    let device = number(socket, libc::SOL_SOCKET, libc::SO_BINDTOIFINDEX);
    device.is_ok_and(|device| ![NO_DEVICE, LOOPBACK].contains(&device))
}

/// `SO_MARK`, by which rules of routing know a socket.
pub(crate) fn mark_of(socket: BorrowedFd<'_>) -> io::Result<u32> {
    number(socket, libc::SOL_SOCKET, libc::SO_MARK).map(c_int::cast_unsigned)
}

/// Gives it one, for which it takes `CAP_NET_ADMIN`.
pub(crate) fn set_mark(socket: BorrowedFd<'_>, mark: u32) -> io::Result<()> {
    set_number(socket, libc::SOL_SOCKET, libc::SO_MARK, mark.cast_signed())
}

/// Takes `IP_BIND_ADDRESS_NO_PORT` off, so that bind() fixes the port at once; gives whether it was on.
pub(crate) fn choose_port_at_bind(socket: BorrowedFd<'_>) -> io::Result<bool> {
    let was_on = number(socket, libc::SOL_IP, libc::IP_BIND_ADDRESS_NO_PORT)? != 0;
    if was_on {
        set_number(socket, libc::SOL_IP, libc::IP_BIND_ADDRESS_NO_PORT, 0)?;
    }
    Ok(was_on)
}

/// The generation of a file, where its file system has one (`FS_IOC_GETVERSION`, linux/fs.h).
pub(crate) fn generation(file: BorrowedFd<'_>) -> io::Result<u32> {
    const GET_VERSION: libc::Ioctl = 0x8008_7601;
    let mut number: c_int = 0;
    // SAFETY: whatever the request's number says, file systems write an `int`.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), GET_VERSION, &raw mut number) };
    check(result.into()).map(|_| number.cast_unsigned())
}

/// send(2).
pub(crate) fn send(socket: BorrowedFd<'_>, bytes: &[u8], flags: c_int) -> io::Result<i64> {
    // SAFETY: the kernel reads `bytes`, which outlive the call.
    let sent = unsafe { libc::send(socket.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), flags) };
    check(sent as i64)
}
