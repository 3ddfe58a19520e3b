//! Questions and answers, as bytes (linux/inet_diag.h, linux/netlink.h).

use std::{
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr},
};

use crate::Socket;

/// `SOCK_DIAG_BY_FAMILY` and `SOCK_DESTROY` (linux/sock_diag.h), and the kinds of messages that end an answer.
const BY_FAMILY: u16 = 20;
const DESTROY: u16 = 21;
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// `NLM_F_REQUEST`, and with that `NLM_F_DUMP` and `NLM_F_ACK`.
const REQUEST: u16 = 1;
const DUMP: u16 = 0x301;
const ACKNOWLEDGED: u16 = 0x5;
const HEADER_BYTES: usize = 16;
/// Of `struct inet_diag_req_v2`, which ends with a `struct inet_diag_sockid`; and of the attribute behind it.
const REQUEST_BYTES: usize = 56;
const PROTOCOL_BYTES: usize = 8;
const QUESTION_BYTES: usize = HEADER_BYTES + REQUEST_BYTES + PROTOCOL_BYTES;
/// `INET_DIAG_REQ_PROTOCOL`: of multipath TCP the number is more than a byte.
const PROTOCOL: u16 = 3;
/// Of `struct inet_diag_msg`, behind which attributes follow; where that has its `struct inet_diag_sockid` and the rest.
const SOCKET_BYTES: usize = 72;
const STATE_IN_SOCKET: usize = 1;
const KEY_IN_SOCKET: usize = 4;
const WAITING_IN_SOCKET: usize = 56;
const INODE_IN_SOCKET: usize = 68;
/// `INET_DIAG_SKV6ONLY` and `INET_DIAG_CGROUP_ID`.
const ONLY_V6: u16 = 11;
const CGROUP: u16 = 21;
/// Of `struct inet_diag_sockid`.
pub(crate) const KEY_BYTES: usize = 48;

/// What is wanted.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Dump,
    One,
    Destroy,
}

/// A question about sockets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Question {
    pub(crate) kind: Kind,
    pub(crate) family: i32,
    pub(crate) protocol: i32,
    pub(crate) states: u32,
    pub(crate) key: [u8; KEY_BYTES],
}

impl Question {
    pub(crate) fn bytes(&self) -> [u8; QUESTION_BYTES] {
        let (kind, flags) = match self.kind {
            Kind::Dump => (BY_FAMILY, DUMP),
            Kind::One => (BY_FAMILY, REQUEST),
            Kind::Destroy => (DESTROY, ACKNOWLEDGED),
        };
        let mut bytes = [0; QUESTION_BYTES];
        let mut at = 0;
        let mut put = |part: &[u8]| {
            bytes[at..][..part.len()].copy_from_slice(part);
            at += part.len();
        };
        put(&(QUESTION_BYTES as u32).to_ne_bytes());
        put(&kind.to_ne_bytes());
        put(&flags.to_ne_bytes());
        // The kernel answers whoever asks, and the questions need no numbers.
        put(&[0; 8]);
        put(&[self.family as u8, self.protocol as u8, 0, 0]);
        put(&self.states.to_ne_bytes());
        put(&self.key);
        put(&(PROTOCOL_BYTES as u16).to_ne_bytes());
        put(&PROTOCOL.to_ne_bytes());
        put(&self.protocol.to_ne_bytes());
        bytes
    }
}

/// `struct inet_diag_sockid`.
pub(crate) mod key {
    use super::*;

    /// The loopback's index in every network namespace: by it those are found too that are bound to the device.
    const LOOPBACK: u32 = 1;
    const IPS: [usize; 2] = [4, 20];
    const DEVICE: usize = 36;
    const COOKIE: usize = 40;

    /// Whichever socket there is.
    pub(crate) fn of_loopback(local: SocketAddr, peer: SocketAddr) -> [u8; KEY_BYTES] {
        let mut key = [0; KEY_BYTES];
        for (number, end) in [local, peer].into_iter().enumerate() {
            key[2 * number..][..2].copy_from_slice(&end.port().to_be_bytes());
            match end.ip() {
                IpAddr::V4(ip) => key[IPS[number]..][..4].copy_from_slice(&ip.octets()),
                IpAddr::V6(ip) => key[IPS[number]..][..16].copy_from_slice(&ip.octets()),
            }
        }
        key[DEVICE..COOKIE].copy_from_slice(&LOOPBACK.to_ne_bytes());
        // INET_DIAG_NOCOOKIE.
        key[COOKIE..].fill(0xff);
        key
    }

    /// The lower half comes first.
    pub(crate) fn cookie(key: &[u8; KEY_BYTES]) -> u64 {
        let half = |at: usize| number32(key, at).map_or(0, u64::from);
        half(COOKIE + 4) << 32 | half(COOKIE)
    }

    pub(super) fn addresses(family: u8, key: &[u8; KEY_BYTES]) -> Option<[SocketAddr; 2]> {
        let address = |number: usize| {
            let port = u16::from_be_bytes(*key[2 * number..].first_chunk()?);
            let ip: [u8; 16] = *key[IPS[number]..].first_chunk()?;
            let ip = match i32::from(family) {
                libc::AF_INET => IpAddr::from([ip[0], ip[1], ip[2], ip[3]]),
                libc::AF_INET6 => Ipv6Addr::from(ip).into(),
                _ => return None,
            };
            Some(SocketAddr::new(ip, port))
        };
        Some([address(0)?, address(1)?])
    }
}

/// Reads one datagram of messages, of any content; false after the last.
///
/// # Errors
/// What the kernel has said, 0 of what it has acknowledged; `InvalidData` of a message that is cut short.
pub fn read(mut rest: &[u8], sockets: &mut Vec<Socket>) -> io::Result<bool> {
    while !rest.is_empty() {
        let length = number32(rest, 0).map_or(0, |length| length as usize);
        let kind = number16(rest, 4);
        let message = rest.get(HEADER_BYTES..length).ok_or(io::ErrorKind::InvalidData)?;
        match kind {
            Some(BY_FAMILY) => sockets.extend(read_socket(message)),
            Some(DONE) => return Ok(false),
            Some(ERROR) => return Err(read_error(message)),
            Some(_) | None => {}
        }
        rest = &rest[length.next_multiple_of(4).min(rest.len())..];
    }
    Ok(true)
}

fn read_error(message: &[u8]) -> io::Error {
    let errno = number32(message, 0).unwrap_or(0).cast_signed().saturating_neg();
    io::Error::from_raw_os_error(errno)
}

fn read_socket(message: &[u8]) -> Option<Socket> {
    let family = *message.first()?;
    let key = *message.get(KEY_IN_SOCKET..)?.first_chunk()?;
    let [local, remote] = key::addresses(family, &key)?;
    let mut socket = Socket {
        local,
        remote,
        state: *message.get(STATE_IN_SOCKET)?,
        family,
        key,
        only_v6: false,
        cgroup: 0,
        inode: number32(message, INODE_IN_SOCKET)?,
        waiting: number32(message, WAITING_IN_SOCKET)?,
    };
    let mut rest = message.get(SOCKET_BYTES..)?;
    while let (Some(length), Some(kind)) = (number16(rest, 0), number16(rest, 2)) {
        let Some(value) = rest.get(4..usize::from(length)) else { break };
        match kind {
            ONLY_V6 => socket.only_v6 = value.first() == Some(&1),
            CGROUP => socket.cgroup = u64::from_ne_bytes(value.try_into().ok()?),
            _ => {}
        }
        rest = rest.get(usize::from(length).next_multiple_of(4)..).unwrap_or_default();
    }
    Some(socket)
}

fn number16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn number32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}
