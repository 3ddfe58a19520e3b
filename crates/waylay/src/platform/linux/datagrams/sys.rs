//! The calls for many datagrams at once, and the messages that come beside them (recvmmsg(2), sendmmsg(2), cmsg(3)).
#![expect(unsafe_code, reason = "messages of the kernel's, made of pointers")]

use std::{
    io,
    mem::zeroed,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    ops::Range,
    os::fd::{AsRawFd, BorrowedFd, OwnedFd},
    ptr, slice,
};

use socket2::SockAddr;
use tokio::io::{Interest, unix::AsyncFd};

use super::{super::options::read_sockaddr, header, source};
use crate::datagrams::{Header, Outgoing, Unreachable};

/// Messages of one call.
pub(crate) const MOST_IN_A_BATCH: usize = 32;

/// Room for what comes beside a message, aligned as its headers are; four messages fit.
type Control = [u64; 16];
/// Room for a socket address of IPv4 or IPv6, aligned as both are.
type Name = [u32; 7];

/// One message that came.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrived {
    /// The slot whose first `length` bytes it has.
    pub(crate) slot: usize,
    pub(crate) length: usize,
    pub(crate) peer: SocketAddr,
    /// The address it was sent to, if the socket tells.
    pub(crate) to: Option<IpAddr>,
    /// What its header said, as far as the socket tells.
    pub(crate) header: Header,
    /// Bytes of each datagram, if it is several that came as one; the last may be shorter.
    pub(crate) segment: Option<usize>,
    /// Whether there was more than the slot holds.
    pub(crate) truncated: bool,
}

/// Receives what has arrived, each message into a slot of `buffer`.
pub(crate) fn receive(
    fd: BorrowedFd<'_>,
    buffer: &mut [u8],
    slot: usize,
    mut arrived: impl FnMut(Arrived),
) -> io::Result<usize> {
    let mut names: [Name; MOST_IN_A_BATCH] = [[0; 7]; MOST_IN_A_BATCH];
    let mut controls: [Control; MOST_IN_A_BATCH] = [[0; 16]; MOST_IN_A_BATCH];
    let empty = libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 };
    let mut slices = [empty; MOST_IN_A_BATCH];
    // SAFETY: a message without pointers is all zero.
    let mut messages: [libc::mmsghdr; MOST_IN_A_BATCH] = unsafe { zeroed() };
    let mut count = 0;
    for (index, bytes) in buffer.chunks_exact_mut(slot).take(MOST_IN_A_BATCH).enumerate() {
        slices[index] = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
        let header = &mut messages[index].msg_hdr;
        header.msg_name = names[index].as_mut_ptr().cast();
        header.msg_namelen = size_of::<Name>() as libc::socklen_t;
        header.msg_iov = &raw mut slices[index];
        header.msg_iovlen = 1;
        header.msg_control = controls[index].as_mut_ptr().cast();
        header.msg_controllen = size_of::<Control>();
        count += 1;
    }
    // SAFETY: each message leads to a slot, a name and a control buffer of its own, which outlive the call.
    let received = unsafe {
        libc::recvmmsg(fd.as_raw_fd(), messages.as_mut_ptr(), count, libc::MSG_DONTWAIT, ptr::null_mut())
    };
    let received = usize::try_from(received).map_err(|_negative| io::Error::last_os_error())?;
    for (index, message) in messages[..received].iter().enumerate() {
        let Some(peer) = name(&names[index]) else { continue };
        let beside = beside(&message.msg_hdr);
        let truncated = message.msg_hdr.msg_flags & libc::MSG_TRUNC != 0;
        let length = message.msg_len as usize;
        let Beside { to, header, segment, .. } = beside;
        arrived(Arrived { slot: index, length: length.min(slot), peer, to, header, segment, truncated });
    }
    Ok(received)
}

/// Sends each run of datagrams as a message; how many messages were sent. Fails if the first was not.
pub(crate) fn send_runs(
    fd: BorrowedFd<'_>,
    datagrams: &[Outgoing<'_>],
    runs: &[Range<usize>],
    usual: Header,
) -> io::Result<usize> {
    let start = runs[0].start;
    let end = runs[runs.len() - 1].end;
    let mut slices: Vec<libc::iovec> = datagrams[start..end]
        .iter()
        .map(|datagram| libc::iovec {
            iov_base: datagram.bytes.as_ptr().cast_mut().cast(),
            iov_len: datagram.bytes.len(),
        })
        .collect();
    let mut controls: [Control; MOST_IN_A_BATCH] = [[0; 16]; MOST_IN_A_BATCH];
    let names: Vec<Option<SockAddr>> =
        runs.iter().map(|run| datagrams[run.start].to.map(SockAddr::from)).collect();
    // SAFETY: a message without pointers is all zero.
    let mut messages: [libc::mmsghdr; MOST_IN_A_BATCH] = unsafe { zeroed() };
    for (index, run) in runs.iter().enumerate() {
        let message = &mut messages[index].msg_hdr;
        if let Some(name) = &names[index] {
            message.msg_name = name.as_ptr().cast_mut().cast();
            message.msg_namelen = name.len();
        }
        message.msg_iov = &raw mut slices[run.start - start];
        message.msg_iovlen = run.len();
        let first = &datagrams[run.start];
        let segment = (run.len() > 1).then_some(first.bytes.len() as u16);
        let control = &mut controls[index];
        put_beside(message, control, source(first.from), segment, header::messages(fd, first, usual));
    }
    let (count, flags) = (runs.len() as u32, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL);
    // SAFETY: each message leads to bytes, a name and a control buffer that outlive the call, and are only read.
    let sent = unsafe { libc::sendmmsg(fd.as_raw_fd(), messages.as_mut_ptr(), count, flags) };
    usize::try_from(sent).map_err(|_negative| io::Error::last_os_error())
}

/// The oldest error in the socket's queue (ip(7), `IP_RECVERR`).
pub(crate) fn take_error(fd: BorrowedFd<'_>) -> io::Result<Unreachable> {
    let mut to: Name = [0; 7];
    let mut control: [u64; 64] = [0; 64];
    let mut slice = libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 };
    // SAFETY: a message without pointers is all zero.
    let mut header: libc::msghdr = unsafe { zeroed() };
    header.msg_name = to.as_mut_ptr().cast();
    header.msg_namelen = size_of::<Name>() as libc::socklen_t;
    header.msg_iov = &raw mut slice;
    header.msg_iovlen = 1;
    header.msg_control = control.as_mut_ptr().cast();
    header.msg_controllen = size_of_val(&control);
    let flags = libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT;
    // SAFETY: the message leads to a name and a control buffer, which outlive the call, and to no bytes.
    if unsafe { libc::recvmsg(fd.as_raw_fd(), &raw mut header, flags) } < 0 {
        return Err(io::Error::last_os_error());
    }
    let (errno, info) = beside(&header).error.unwrap_or((libc::EHOSTUNREACH, 0));
    Ok(Unreachable { destination: name(&to), error: io::Error::from_raw_os_error(errno), info })
}

fn name(name: &Name) -> Option<SocketAddr> {
    let mut bytes = [0; size_of::<Name>()];
    for (part, word) in bytes.chunks_exact_mut(size_of::<u32>()).zip(name) {
        part.copy_from_slice(&word.to_ne_bytes());
    }
    read_sockaddr(&bytes)
}

#[derive(Default)]
struct Beside {
    to: Option<IpAddr>,
    header: Header,
    segment: Option<usize>,
    error: Option<(i32, u32)>,
}

fn beside(header: &libc::msghdr) -> Beside {
    let mut beside = Beside::default();
    // SAFETY: the kernel has filled in the control buffer that the header leads to, and its length.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(header) };
    while !next.is_null() {
        // SAFETY: CMSG_FIRSTHDR and CMSG_NXTHDR lead into the buffer, which is aligned for headers.
        let (kind, data, length) = unsafe {
            let length = (*next).cmsg_len.saturating_sub(libc::CMSG_LEN(0) as usize);
            (((*next).cmsg_level, (*next).cmsg_type), libc::CMSG_DATA(next), length)
        };
        // SAFETY: the message is in the buffer with all of its length.
        let data = unsafe { slice::from_raw_parts(data, length) };
        beside.note(kind, data);
        // SAFETY: `next` is a header in the buffer.
        next = unsafe { libc::CMSG_NXTHDR(header, next) };
    }
    beside
}

impl Beside {
    fn note(&mut self, kind: (i32, i32), data: &[u8]) {
        let word = |at: usize| data.get(at..)?.first_chunk::<4>().copied();
        match kind {
            // struct in_pktinfo: interface, local address, and the header's, which is where it was sent to.
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => self.to = word(8).map(|ip| Ipv4Addr::from(ip).into()),
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                self.to = data.first_chunk::<16>().map(|ip| Ipv6Addr::from(*ip).into());
            }
            (libc::SOL_UDP, libc::UDP_GRO) => {
                let size = word(0).map(i32::from_ne_bytes).and_then(|size| usize::try_from(size).ok());
                self.segment = size.filter(|size| *size > 0);
            }
            // struct sock_extended_err: errno, origin, type, code, padding, info.
            (libc::IPPROTO_IP, libc::IP_RECVERR) | (libc::IPPROTO_IPV6, libc::IPV6_RECVERR) => {
                self.error = word(0).map(i32::from_ne_bytes).zip(word(8).map(u32::from_ne_bytes));
            }
            kind => header::note(&mut self.header, kind, data),
        }
    }
}

/// Puts messages into the control buffer: the address to send from, the size of the datagrams, and what their headers
/// are to say.
fn put_beside(
    header: &mut libc::msghdr,
    control: &mut Control,
    from: Option<[u8; 4]>,
    segment: Option<u16>,
    said: impl Iterator<Item = (header::Kind, i32)>,
) {
    let mut length = 0;
    if let Some(ip) = from {
        let mut info = [0; 12];
        info[4..8].copy_from_slice(&ip);
        length += put(&mut control[length..], (libc::IPPROTO_IP, libc::IP_PKTINFO), &info);
    }
    if let Some(size) = segment {
        length += put(&mut control[length..], (libc::SOL_UDP, libc::UDP_SEGMENT), &size.to_ne_bytes());
    }
    for (kind, value) in said {
        length += put(&mut control[length..], kind, &value.to_ne_bytes());
    }
    if length > 0 {
        header.msg_control = control.as_mut_ptr().cast();
        header.msg_controllen = length * size_of::<u64>();
    }
}

/// Writes a control message: its length, level and type, and the data. The number of words it takes.
fn put(control: &mut [u64], kind: (i32, i32), data: &[u8]) -> usize {
    const HEADER: usize = size_of::<libc::cmsghdr>();
    let mut bytes = [0; 40];
    bytes[..8].copy_from_slice(&(HEADER + data.len()).to_ne_bytes());
    bytes[8..12].copy_from_slice(&kind.0.to_ne_bytes());
    bytes[12..16].copy_from_slice(&kind.1.to_ne_bytes());
    bytes[HEADER..HEADER + data.len()].copy_from_slice(data);
    let words = (HEADER + data.len()).div_ceil(8);
    for (word, part) in control.iter_mut().zip(bytes.chunks_exact(8)).take(words) {
        *word = u64::from_ne_bytes([part[0], part[1], part[2], part[3], part[4], part[5], part[6], part[7]]);
    }
    words
}

/// Has the runtime watch an epoll for something to be ready.
pub(super) fn watch(epoll: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` has the same descriptor for as long as it lives, and `AsyncFd` owns it.
    let watched = unsafe { AsyncFd::register_with_interest(epoll, Interest::READABLE) }?;
    Ok(watched)
}
