//! What the kernel tells of sockets, by sock_diag(7): it takes no privilege. Only of those of this network namespace.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::OwnedFd,
};

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType,
    netlink::{self, SocketAddrNetlink},
};

/// `SOCK_DIAG_BY_FAMILY` (linux/sock_diag.h).
const BY_FAMILY: u16 = 20;
/// `NLMSG_ERROR`, `NLMSG_DONE`, `NLM_F_REQUEST` and, with that, `NLM_F_DUMP` (linux/netlink.h).
const ERROR: u16 = 2;
const DONE: u16 = 3;
const REQUEST: u16 = 1;
const DUMP: u16 = 0x301;
const HEADER_BYTES: usize = 16;
/// With a `struct inet_diag_req_v2` behind the header.
const QUESTION_BYTES: usize = 72;
/// Where its `struct inet_diag_sockid` is.
const ID: usize = HEADER_BYTES + 8;
/// `INET_DIAG_REQ_PROTOCOL` (linux/inet_diag.h), an attribute: of multipath TCP the number is more than a byte.
const PROTOCOL: u16 = 3;
const PROTOCOL_BYTES: usize = 8;
const BUFFER_BYTES: usize = 32 * 1024;
/// All states but `TCP_TIME_WAIT` (net/tcp_states.h), of which no process has a socket.
const STATES: u32 = !(1 << 6);
/// The loopback's index in every network namespace: by it those are found too that are bound to the device.
const LOOPBACK: u32 = 1;
/// Where things are in `struct inet_diag_msg` (linux/inet_diag.h).
const STATE: usize = 1;
const LOCAL_PORT: usize = 4;
const PEER_PORT: usize = 6;
const LOCAL: usize = 8;
const PEER: usize = 24;
const COOKIE: usize = 44;
const INODE: usize = 68;

/// A socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) is_v6: bool,
    /// Its number in net/tcp_states.h.
    pub(crate) state: u8,
    pub(crate) local: SocketAddr,
    pub(crate) peer: SocketAddr,
    pub(crate) cookie: u64,
    /// 0 if no process has it.
    pub(crate) inode: u64,
}

/// A socket to ask by.
pub(crate) fn open() -> io::Result<OwnedFd> {
    let (domain, kind) = (AddressFamily::NETLINK, SocketType::RAW);
    Ok(rustix::net::socket_with(domain, kind, SocketFlags::CLOEXEC, Some(netlink::SOCK_DIAG))?)
}

/// Who takes what comes over the loopback from `peer` to `local`: that connection, or a listener.
pub(crate) fn find(
    kernel: &OwnedFd,
    protocol: i32,
    (local, peer): (SocketAddr, SocketAddr),
) -> io::Result<Option<Found>> {
    let family = if local.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    ask(kernel, &question(REQUEST, (family, protocol), Some((local, peer))))?;
    let mut found = Vec::new();
    let mut buffer = [0_u8; 1024];
    let (length, _) = rustix::net::recv(kernel, &mut buffer[..], RecvFlags::empty())?;
    match read(&buffer[..length], &mut found) {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
        Ok(_) => found.pop().map(Some).ok_or_else(|| io::ErrorKind::InvalidData.into()),
    }
}

/// All that have a port.
pub(crate) fn every(protocol: i32) -> io::Result<Vec<Found>> {
    let mut found = Vec::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    for family in [libc::AF_INET, libc::AF_INET6] {
        let kernel = open()?;
        ask(&kernel, &question(DUMP, (family, protocol), None))?;
        loop {
            let (length, _) = rustix::net::recv(&kernel, &mut buffer[..], RecvFlags::empty())?;
            match read(&buffer[..length], &mut found) {
                Ok(true) => {}
                // Of a protocol that the kernel does not have there are none.
                Ok(false) | Err(_) => break,
            }
        }
    }
    Ok(found)
}

fn ask(kernel: &OwnedFd, question: &[u8]) -> io::Result<()> {
    rustix::net::sendto(kernel, question, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
    Ok(())
}

fn question(
    flags: u16,
    (family, protocol): (i32, i32),
    ends: Option<(SocketAddr, SocketAddr)>,
) -> [u8; QUESTION_BYTES + PROTOCOL_BYTES] {
    let mut message = [0; QUESTION_BYTES + PROTOCOL_BYTES];
    let mut put = |at: usize, bytes: &[u8]| message[at..][..bytes.len()].copy_from_slice(bytes);
    put(0, &((QUESTION_BYTES + PROTOCOL_BYTES) as u32).to_ne_bytes());
    put(4, &BY_FAMILY.to_ne_bytes());
    put(6, &flags.to_ne_bytes());
    put(HEADER_BYTES, &[family as u8, protocol as u8]);
    put(HEADER_BYTES + 4, &STATES.to_ne_bytes());
    if let Some((local, peer)) = ends {
        put(ID, &local.port().to_be_bytes());
        put(ID + 2, &peer.port().to_be_bytes());
        put(ID + 4, &octets(local.ip()));
        put(ID + 20, &octets(peer.ip()));
        put(ID + 36, &LOOPBACK.to_ne_bytes());
        // INET_DIAG_NOCOOKIE: whichever it is.
        put(ID + 40, &[0xff; 8]);
    }
    put(QUESTION_BYTES, &(PROTOCOL_BYTES as u16).to_ne_bytes());
    put(QUESTION_BYTES + 2, &PROTOCOL.to_ne_bytes());
    put(QUESTION_BYTES + 4, &protocol.to_ne_bytes());
    message
}

fn octets(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => {
            let mut octets = [0; 16];
            octets[..4].copy_from_slice(&ip.octets());
            octets
        }
        IpAddr::V6(ip) => ip.octets(),
    }
}

/// False after the last.
fn read(mut rest: &[u8], found: &mut Vec<Found>) -> io::Result<bool> {
    while !rest.is_empty() {
        let broken = || io::Error::from(io::ErrorKind::InvalidData);
        let length = number32(rest, 0).ok_or_else(broken)? as usize;
        let message = rest.get(HEADER_BYTES..length).ok_or_else(broken)?;
        match rest.get(4..6).and_then(|kind| kind.first_chunk()).map(|kind| u16::from_ne_bytes(*kind)) {
            Some(BY_FAMILY) => found.extend(parse(message)),
            Some(DONE) => return Ok(false),
            Some(ERROR) => {
                let code = number32(message, 0).ok_or_else(broken)?.cast_signed();
                return Err(io::Error::from_raw_os_error(code.saturating_neg()));
            }
            Some(_) | None => {}
        }
        rest = &rest[length.next_multiple_of(4).min(rest.len())..];
    }
    Ok(true)
}

fn parse(message: &[u8]) -> Option<Found> {
    let is_v6 = i32::from(*message.first()?) == libc::AF_INET6;
    let address = |ip: usize, port: usize| {
        let port = u16::from_be_bytes(*message.get(port..)?.first_chunk()?);
        let ip: IpAddr = match is_v6 {
            true => Ipv6Addr::from(*message.get(ip..)?.first_chunk::<16>()?).into(),
            false => Ipv4Addr::from(*message.get(ip..)?.first_chunk::<4>()?).into(),
        };
        Some(SocketAddr::new(ip, port))
    };
    let cookie = u64::from(number32(message, COOKIE)?) | u64::from(number32(message, COOKIE + 4)?) << 32;
    Some(Found {
        is_v6,
        state: *message.get(STATE)?,
        local: address(LOCAL, LOCAL_PORT)?,
        peer: address(PEER, PEER_PORT)?,
        cookie,
        inode: number32(message, INODE)?.into(),
    })
}

fn number32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}
