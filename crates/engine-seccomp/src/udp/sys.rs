//! Messages with everything beside them (sendmsg(2), recvmsg(2)), and what a socket says of itself.
#![expect(unsafe_code, reason = "messages of the kernel's, made of pointers")]

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

use libc::{c_int, socklen_t};

use super::LONGEST_NAME;

/// What was received.
#[derive(Debug, Default)]
pub(super) struct Received {
    /// As recvmsg(2) returns it; with `MSG_TRUNC` it may be more than there was room for.
    pub(super) length: usize,
    pub(super) name: Vec<u8>,
    pub(super) control: Vec<u8>,
    pub(super) flags: c_int,
}

/// Receives what is there, and waits for nothing.
pub(super) fn receive(
    socket: BorrowedFd<'_>,
    bytes: &mut [u8],
    control_room: usize,
    flags: c_int,
) -> io::Result<Received> {
    let mut name = vec![0_u8; LONGEST_NAME];
    let mut control = vec![0_u64; control_room.div_ceil(size_of::<u64>())];
    let mut slice = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    // SAFETY: a message without pointers is all zero.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_name = name.as_mut_ptr().cast();
    message.msg_namelen = LONGEST_NAME as socklen_t;
    message.msg_iov = &raw mut slice;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = control_room;
    // SAFETY: the message leads to bytes, a name and a control buffer, which outlive the call.
    let length = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, flags | libc::MSG_DONTWAIT) };
    let length = usize::try_from(length).map_err(|_negative| io::Error::last_os_error())?;
    name.truncate(message.msg_namelen as usize);
    let beside = control.iter().flat_map(|word| word.to_ne_bytes()).take(message.msg_controllen);
    Ok(Received { length, name, control: beside.collect(), flags: message.msg_flags })
}

/// Sends one message.
pub(super) fn send(
    socket: BorrowedFd<'_>,
    name: &[u8],
    bytes: &[u8],
    control: &[u8],
    flags: c_int,
) -> io::Result<i64> {
    let mut slice = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    // SAFETY: a message without pointers is all zero.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    if !name.is_empty() {
        message.msg_name = name.as_ptr().cast_mut().cast();
        message.msg_namelen = name.len() as socklen_t;
    }
    message.msg_iov = &raw mut slice;
    message.msg_iovlen = 1;
    if !control.is_empty() {
        message.msg_control = control.as_ptr().cast_mut().cast();
        message.msg_controllen = control.len();
    }
    // SAFETY: the message leads to bytes, a name and a control buffer, which outlive the call and are only read.
    let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, flags | libc::MSG_NOSIGNAL) };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(sent as i64) }
}
