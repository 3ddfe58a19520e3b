//! recvmsg(2) and sendmsg(2) on the caller's buffers, which the kernel checks, and on names and control data of our
//! own, which are copied.
#![expect(unsafe_code, reason = "messages of the kernel's, made of pointers")]

use std::{
    io,
    mem::zeroed,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6},
    os::fd::{AsRawFd, BorrowedFd},
    ptr,
};

use crate::{abi::Buffer, code::Code, control_data::MOST_BYTES};

/// Bytes of an address at most.
pub(crate) const LONGEST_NAME: usize = 128;

/// `MSG_…`, as Linux has them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flags(pub(crate) u32);

impl Flags {
    pub(crate) fn is_peek(self) -> bool {
        self.0 & libc::MSG_PEEK.cast_unsigned() != 0
    }

    pub(crate) fn is_truncated(self) -> bool {
        self.0 & libc::MSG_TRUNC.cast_unsigned() != 0
    }

    pub(crate) fn with_cut_control(self, cut: bool) -> Self {
        let flag = libc::MSG_CTRUNC.cast_unsigned();
        Self(if cut { self.0 | flag } else { self.0 & !flag })
    }
}

/// A datagram that came.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) length: usize,
    pub(crate) name: Vec<u8>,
    pub(crate) control: Vec<u8>,
    pub(crate) flags: Flags,
}

/// Has the socket say where each datagram was going.
pub(crate) fn tell_destinations(socket: BorrowedFd<'_>) -> io::Result<()> {
    let on = 1_i32;
    let (level, name, len) = (libc::IPPROTO_IP, libc::IP_PKTINFO, size_of::<i32>() as libc::socklen_t);
    // SAFETY: the kernel reads the number alone.
    let set = unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const on).cast(), len) };
    if set != 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Receives a datagram into buffers that the caller vouches for.
pub(crate) fn receive(socket: BorrowedFd<'_>, buffers: &[Buffer], flags: Flags) -> Result<Received, Code> {
    let (mut name, mut control) = ([0_u64; LONGEST_NAME / 8], vec![0_u64; MOST_BYTES / 8]);
    let mut vectors = vectors(buffers);
    // SAFETY: a message without pointers is all zero.
    let mut header: libc::msghdr = unsafe { zeroed() };
    header.msg_name = name.as_mut_ptr().cast();
    header.msg_namelen = LONGEST_NAME as libc::socklen_t;
    header.msg_iov = vectors.as_mut_ptr();
    header.msg_iovlen = vectors.len();
    header.msg_control = control.as_mut_ptr().cast();
    header.msg_controllen = MOST_BYTES;
    // SAFETY: name and control data are ours; the buffers are as the caller vouches, and checked by the kernel.
    let length = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, flags.0.cast_signed()) };
    let length = usize::try_from(length).map_err(|_negative| Code::from(io::Error::last_os_error()))?;
    Ok(Received {
        length,
        name: bytes(&name, header.msg_namelen as usize),
        control: bytes(&control, header.msg_controllen),
        flags: Flags(header.msg_flags.cast_unsigned()),
    })
}

/// Sends a datagram from buffers that the caller vouches for; how many bytes it has.
pub(crate) fn send(
    socket: BorrowedFd<'_>,
    name: &[u8],
    buffers: &[Buffer],
    control: &[u8],
    flags: Flags,
) -> Result<usize, Code> {
    let mut vectors = vectors(buffers);
    // SAFETY: a message without pointers is all zero.
    let mut header: libc::msghdr = unsafe { zeroed() };
    if !name.is_empty() {
        header.msg_name = name.as_ptr().cast_mut().cast();
        header.msg_namelen = name.len() as libc::socklen_t;
    }
    header.msg_iov = vectors.as_mut_ptr();
    header.msg_iovlen = vectors.len();
    if !control.is_empty() {
        header.msg_control = control.as_ptr().cast_mut().cast();
        header.msg_controllen = control.len();
    }
    let flags = flags.0.cast_signed() | libc::MSG_NOSIGNAL;
    // SAFETY: the kernel only reads, of ours what there is, and the rest as the caller vouches.
    let length = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const header, flags) };
    usize::try_from(length).map_err(|_negative| Code::from(io::Error::last_os_error()))
}

fn vectors(buffers: &[Buffer]) -> Vec<libc::iovec> {
    let vector = |buffer: &Buffer| libc::iovec {
        iov_base: ptr::with_exposed_provenance_mut(buffer.buf),
        iov_len: buffer.len as usize,
    };
    buffers.iter().map(vector).collect()
}

fn bytes(words: &[u64], length: usize) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).take(length).collect()
}

/// The address in a `sockaddr_in` or `sockaddr_in6`.
pub(crate) fn address(name: &[u8]) -> Option<SocketAddr> {
    let family = u16::from_ne_bytes(*name.first_chunk()?);
    let port = u16::from_be_bytes(*name.get(2..)?.first_chunk()?);
    match i32::from(family) {
        libc::AF_INET => {
            let ip = Ipv4Addr::from(*name.get(4..)?.first_chunk::<4>()?);
            Some((ip, port).into())
        }
        libc::AF_INET6 => {
            let ip = Ipv6Addr::from(*name.get(8..)?.first_chunk::<16>()?);
            let scope = u32::from_ne_bytes(*name.get(24..)?.first_chunk()?);
            Some(SocketAddrV6::new(ip, port, 0, scope).into())
        }
        _ => None,
    }
}
