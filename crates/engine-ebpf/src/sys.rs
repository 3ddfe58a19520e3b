//! Questions to the kernel that no safe library asks.
#![expect(unsafe_code, reason = "getsockopt(SO_NETNS_COOKIE), bpf(BPF_PROG_QUERY)")]

use std::{
    io,
    net::UdpSocket,
    os::fd::{AsRawFd, BorrowedFd},
};

use libbpf_rs::libbpf_sys;

/// Programs that the kernel lets anybody attach to one cgroup at one hook: `BPF_CGROUP_MAX_PROGS`.
const MOST_PROGRAMS: u32 = 64;

/// What is attached to a cgroup itself at one hook.
pub(crate) struct Attached {
    pub(crate) ids: Vec<u32>,
    pub(crate) flags: u32,
}

/// The programs attached to a cgroup (bpf(2), `BPF_PROG_QUERY`).
pub(crate) fn attached_programs(cgroup: BorrowedFd<'_>, attach_type: u32) -> io::Result<Attached> {
    let mut ids = vec![0_u32; MOST_PROGRAMS as usize];
    let mut query = libbpf_sys::bpf_prog_query_opts {
        sz: size_of::<libbpf_sys::bpf_prog_query_opts>() as _,
        prog_ids: ids.as_mut_ptr(),
        ..Default::default()
    };
    query.__bindgen_anon_1.prog_cnt = MOST_PROGRAMS;
    // SAFETY: the kernel writes at most `prog_cnt` numbers to `prog_ids`, which has room for them, and the
    // fields of `query`; both outlive the call.
    let result = unsafe { libbpf_sys::bpf_prog_query_opts(cgroup.as_raw_fd(), attach_type, &raw mut query) };
    if result != 0 {
        return Err(io::Error::from_raw_os_error(-result));
    }
    // SAFETY: both variants of the union are the same number, which the kernel has written.
    let count = unsafe { query.__bindgen_anon_1.prog_cnt };
    ids.truncate(count as usize);
    Ok(Attached { ids, flags: query.attach_flags })
}

/// The cookie of the network namespace of this thread (socket(7)).
pub(crate) fn netns_cookie() -> io::Result<u64> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    let mut cookie = 0_u64;
    let mut len = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes to `cookie`, which outlives the call.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut len,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(cookie)
}
