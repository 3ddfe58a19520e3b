//! Sockets by what sock_diag(7) tells of them, for those of which there is no copy: it takes no privilege.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Mutex, PoisonError},
};

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType,
    netlink::{self, SocketAddrNetlink},
};

/// `SOCK_DIAG_BY_FAMILY` (linux/sock_diag.h); `NLMSG_ERROR`, `NLMSG_DONE`, `NLM_F_REQUEST | NLM_F_DUMP` (linux/netlink.h).
const BY_FAMILY: u16 = 20;
const ERROR: u16 = 2;
const DONE: u16 = 3;
const DUMP: u16 = 0x301;
const HEADER_BYTES: usize = 16;
/// With a `struct inet_diag_req_v2` behind the header.
const QUESTION_BYTES: usize = 72;
/// `INET_DIAG_REQ_PROTOCOL` (linux/inet_diag.h), an attribute: of multipath TCP the number is more than a byte.
const PROTOCOL: u16 = 3;
const PROTOCOL_BYTES: usize = 8;
const BUFFER_BYTES: usize = 32 * 1024;
/// Where things are in `struct inet_diag_msg` (linux/inet_diag.h).
const STATE: usize = 1;
const LOCAL_PORT: usize = 4;
const PEER_PORT: usize = 6;
const LOCAL: usize = 8;
const PEER: usize = 24;
const COOKIE: usize = 44;
const INODE: usize = 68;
/// States of those that have no peer: `TCP_SYN_SENT`, `TCP_CLOSE`, `TCP_LISTEN`.
const LONELY: [u8; 3] = [2, 7, LISTEN];
const LISTEN: u8 = 10;

/// A socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) cookie: u64,
    pub(crate) is_v6: bool,
    pub(crate) is_udp: bool,
    pub(crate) local: SocketAddr,
    /// Whom it is connected to.
    pub(crate) peer: Option<SocketAddr>,
    /// Of what has a peer, listens or is not connected at all nothing changes.
    is_settled: bool,
}

/// What was told last.
#[derive(Debug, Default)]
pub(crate) struct Hearsay {
    by_inode: Mutex<BTreeMap<u64, Told>>,
}

impl Hearsay {
    /// The socket with this inode, among those of this network namespace that have a port.
    pub(crate) fn of(&self, inode: u64) -> io::Result<Option<Told>> {
        let mut known = self.by_inode.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(told) = known.get(&inode).filter(|told| told.is_settled) {
            return Ok(Some(told.clone()));
        }
        // All of them at once, as many may be asked about at one time.
        *known = everything()?;
        Ok(known.get(&inode).cloned())
    }

    /// As it is at this moment, for one that may be connected to nobody by now.
    pub(crate) fn anew(&self, inode: u64) -> io::Result<Option<Told>> {
        self.by_inode.lock().unwrap_or_else(PoisonError::into_inner).remove(&inode);
        self.of(inode)
    }
}

fn everything() -> io::Result<BTreeMap<u64, Told>> {
    let mut all = BTreeMap::new();
    for protocol in [libc::IPPROTO_TCP, libc::IPPROTO_MPTCP, libc::IPPROTO_UDP] {
        for family in [libc::AF_INET, libc::AF_INET6] {
            look_among(family, protocol, &mut all)?;
        }
    }
    Ok(all)
}

fn look_among(family: i32, protocol: i32, all: &mut BTreeMap<u64, Told>) -> io::Result<()> {
    let (domain, kind) = (AddressFamily::NETLINK, SocketType::RAW);
    let kernel = rustix::net::socket_with(domain, kind, SocketFlags::CLOEXEC, Some(netlink::SOCK_DIAG))?;
    let question = question(family as u8, protocol);
    rustix::net::sendto(&kernel, &question, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let (length, _) = rustix::net::recv(&kernel, &mut buffer[..], RecvFlags::empty())?;
        if !read(&buffer[..length], protocol == libc::IPPROTO_UDP, all)? {
            return Ok(());
        }
    }
}

/// False after the last.
fn read(mut rest: &[u8], is_udp: bool, all: &mut BTreeMap<u64, Told>) -> io::Result<bool> {
    while !rest.is_empty() {
        let broken = || io::Error::from(io::ErrorKind::InvalidData);
        let length = number32(rest, 0).ok_or_else(broken)? as usize;
        let message = rest.get(HEADER_BYTES..length).ok_or_else(broken)?;
        match rest.get(4..6).and_then(|kind| kind.first_chunk()).map(|kind| u16::from_ne_bytes(*kind)) {
            Some(BY_FAMILY) => {
                all.extend(number32(message, INODE).map(u64::from).zip(parse(message, is_udp)))
            }
            Some(DONE | ERROR) => return Ok(false),
            Some(_) | None => {}
        }
        rest = &rest[length.next_multiple_of(4).min(rest.len())..];
    }
    Ok(true)
}

fn parse(message: &[u8], is_udp: bool) -> Option<Told> {
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
    let peer = address(PEER, PEER_PORT).filter(|_| !LONELY.contains(&message[STATE]));
    let is_settled = is_udp || peer.is_some() || message[STATE] == LISTEN;
    Some(Told { cookie, is_v6, is_udp, local: address(LOCAL, LOCAL_PORT)?, peer, is_settled })
}

fn number32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn question(family: u8, protocol: i32) -> Vec<u8> {
    let mut message = Vec::with_capacity(QUESTION_BYTES + PROTOCOL_BYTES);
    message.extend(((QUESTION_BYTES + PROTOCOL_BYTES) as u32).to_ne_bytes());
    message.extend(BY_FAMILY.to_ne_bytes());
    message.extend(DUMP.to_ne_bytes());
    message.extend([0; 8]);
    message.extend([family, protocol as u8, 0, 0]);
    message.extend(u32::MAX.to_ne_bytes());
    message.resize(QUESTION_BYTES, 0);
    message.extend((PROTOCOL_BYTES as u16).to_ne_bytes());
    message.extend(PROTOCOL.to_ne_bytes());
    message.extend(protocol.to_ne_bytes());
    message
}

#[cfg(test)]
mod tests {
    use std::{
        net::{TcpListener, TcpStream, UdpSocket},
        os::fd::AsFd,
    };

    use rustix::net::sockopt;

    use super::*;

    fn told(socket: impl AsFd) -> Told {
        let inode = rustix::fs::fstat(socket.as_fd()).unwrap().st_ino;
        let told = Hearsay::default().of(inode).unwrap().unwrap();
        assert_eq!(told.cookie, sockopt::socket_cookie(socket).unwrap());
        told
    }

    #[test]
    fn what_is_told_is_what_the_socket_says_itself() {
        for ip in ["127.0.0.1", "::1"] {
            let listener = TcpListener::bind((ip, 0)).unwrap();
            let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let datagrams = UdpSocket::bind((ip, 0)).unwrap();
            let is_v6 = ip == "::1";
            let (of_listener, of_stream, of_datagrams) = (told(&listener), told(&stream), told(&datagrams));
            assert_eq!((of_listener.is_v6, of_listener.is_udp, of_listener.peer), (is_v6, false, None));
            assert_eq!(of_stream.local, stream.local_addr().unwrap());
            assert_eq!(of_stream.peer, Some(listener.local_addr().unwrap()));
            assert_eq!((of_datagrams.is_udp, of_datagrams.peer), (true, None));
            assert_eq!(of_datagrams.local, datagrams.local_addr().unwrap());
        }
    }

    #[test]
    fn what_is_not_there_is_not_found() {
        assert_eq!(Hearsay::default().of(u64::MAX).unwrap(), None);
    }
}
