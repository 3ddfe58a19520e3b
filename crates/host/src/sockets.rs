//! Which sockets of this host are open where, and in which cgroup each was made: sock_diag(7).
//!
//! Only the network namespace of the calling thread is looked at.

use std::{
    collections::BTreeSet,
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::OwnedFd,
    path::PathBuf,
};

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType,
    netlink::{self, SocketAddrNetlink},
};
use waylay_core::Protocol;

/// More than a datagram of a dump has.
const BUFFER_BYTES: usize = 64 * 1024;
/// `SOCK_DIAG_BY_FAMILY`, and the kinds of messages that end a dump (linux/netlink.h).
const BY_FAMILY: u16 = 20;
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// `NLM_F_REQUEST | NLM_F_DUMP`.
const DUMP: u16 = 0x301;
/// `SOCK_DESTROY`, and `NLM_F_REQUEST | NLM_F_ACK`.
const DESTROY: u16 = 21;
const ACKNOWLEDGED: u16 = 0x5;
const HEADER_BYTES: usize = 16;
/// Of `struct inet_diag_req_v2`, which ends with a `struct inet_diag_sockid`; of `struct inet_diag_msg`, behind which attributes
/// follow; where that has its `struct inet_diag_sockid` (linux/inet_diag.h).
const REQUEST_BYTES: usize = 56;
const SOCKET_BYTES: usize = 72;
const KEY_IN_SOCKET: usize = 4;
const KEY_BYTES: usize = 48;
const COOKIE_IN_KEY: usize = 40;
const ONLY_V6: u16 = 11;
const CGROUP: u16 = 21;
const INET: u8 = 2;
const INET6: u8 = 10;
/// Numbers of states (net/tcp_states.h). A UDP socket without a peer is closed, in these words.
const ESTABLISHED: u8 = 1;
const TIME_WAIT: u8 = 6;
const CLOSE: u8 = 7;
const LISTEN: u8 = 10;

/// A socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Socket {
    /// Where it is.
    pub(crate) local: SocketAddr,
    /// Where it is connected to.
    pub(crate) remote: SocketAddr,
    /// Whether IPv4 cannot get to it, although it is bound to `::`.
    only_v6: bool,
    /// In which it was made; 0 on a kernel that does not say.
    pub(crate) cgroup: u64,
    /// By which a process's descriptors name it; 0 if no process has it.
    pub(crate) inode: u32,
    /// Of a listener: connections that nobody has accepted.
    pub(crate) waiting: u32,
    family: u8,
    /// What tells it from every other socket, also from a later one of the same addresses.
    key: [u8; KEY_BYTES],
}

impl Socket {
    /// What `SO_COOKIE` says of it.
    pub(crate) fn cookie(&self) -> u64 {
        let half = |at: usize| self.key[at..].first_chunk().map_or(0, |half| u32::from_ne_bytes(*half));
        u64::from(half(COOKIE_IN_KEY + 4)) << 32 | u64::from(half(COOKIE_IN_KEY))
    }

    /// Whether what is sent to an address arrives here.
    pub(crate) fn takes(&self, address: SocketAddr) -> bool {
        let (own, other) = (self.local.ip().to_canonical(), address.ip().to_canonical());
        let takes = match (own, other) {
            (IpAddr::V4(own), IpAddr::V4(other)) => own.is_unspecified() || own == other,
            (IpAddr::V6(own), IpAddr::V6(other)) => own.is_unspecified() || own == other,
            (IpAddr::V6(own), IpAddr::V4(_)) => own.is_unspecified() && !self.only_v6,
            (IpAddr::V4(_), IpAddr::V6(_)) => false,
        };
        takes && self.local.port() == address.port()
    }

    /// The addresses by which it is reached over each family.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        let port = self.local.port();
        let all_v4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
        match self.local.ip().to_canonical() {
            IpAddr::V6(ip) if ip.is_unspecified() && !self.only_v6 => vec![self.local, all_v4],
            ip @ (IpAddr::V4(_) | IpAddr::V6(_)) => vec![SocketAddr::new(ip, port)],
        }
    }

    /// The process that has it, in words; `None` if it has none, or one that cannot be looked at.
    pub(crate) fn holder(&self) -> Option<String> {
        let link = format!("socket:[{}]", self.inode);
        let processes = fs::read_dir("/proc").ok()?.flatten();
        // Not `self` and the like, which are processes too.
        let numbered =
            |entry: &fs::DirEntry| entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit);
        let holds = |process: &fs::DirEntry| {
            let descriptors = fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten();
            descriptors
                .filter_map(|descriptor| fs::read_link(descriptor.path()).ok())
                .any(|target| target.as_os_str() == link.as_str())
        };
        let process = processes.into_iter().filter(numbered).find(holds)?;
        let name = fs::read_to_string(process.path().join("comm")).ok()?;
        Some(format!("{}[{}]", name.trim().escape_debug(), process.file_name().display()))
    }
}

/// The processes of a session, by their folders in /proc.
fn members_of(leader: u32) -> impl Iterator<Item = PathBuf> {
    let leader = leader.to_string();
    let is_member = move |process: &PathBuf| {
        let stat = fs::read_to_string(process.join("stat")).unwrap_or_default();
        // Field 6 of proc_pid_stat(5), which the name comes before.
        stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(3)) == Some(&*leader)
    };
    fs::read_dir("/proc").into_iter().flatten().flatten().map(|entry| entry.path()).filter(is_member)
}

/// The processes of a session.
pub(crate) fn processes_of_session(leader: u32) -> Vec<u32> {
    members_of(leader).filter_map(|process| process.file_name()?.to_str()?.parse().ok()).collect()
}

/// Sockets that processes of a session have, by their inodes: as far as these may be looked at.
pub(crate) fn of_session(leader: u32) -> BTreeSet<u32> {
    let descriptors = members_of(leader).flat_map(|process| {
        fs::read_dir(process.join("fd")).into_iter().flatten().flatten().map(|entry| entry.path())
    });
    let links = descriptors.filter_map(|descriptor| fs::read_link(descriptor).ok());
    links
        .filter_map(|link| link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok())
        .collect()
}

/// What is open to connections or datagrams of anybody.
pub(crate) fn listeners(protocol: Protocol) -> io::Result<Vec<Socket>> {
    dump(
        protocol,
        match protocol {
            Protocol::Tcp => 1 << LISTEN,
            Protocol::Udp => 1 << CLOSE,
        },
    )
}

/// TCP connections that processes have.
pub(crate) fn connections() -> io::Result<Vec<Socket>> {
    let mut sockets = every(Protocol::Tcp)?;
    sockets.retain(|socket| socket.inode != 0);
    Ok(sockets)
}

/// All that is connected to somebody or about to be, whoever has it.
pub(crate) fn every(protocol: Protocol) -> io::Result<Vec<Socket>> {
    const ALL: u32 = 0xfff;
    dump(protocol, ALL & !(1 << LISTEN | 1 << CLOSE | 1 << TIME_WAIT))
}

/// UDP sockets that have a port.
pub(crate) fn of_datagrams() -> io::Result<Vec<Socket>> {
    dump(Protocol::Udp, 1 << ESTABLISHED | 1 << CLOSE)
}

/// UDP sockets that are connected to somebody.
pub(crate) fn associations() -> io::Result<Vec<Socket>> {
    dump(Protocol::Udp, 1 << ESTABLISHED)
}

/// Ends a connection: its process has ECONNABORTED from it, and the peer of a TCP connection a reset.
///
/// # Errors
/// `EOPNOTSUPP` on a kernel without `CONFIG_INET_DIAG_DESTROY`, `ENOENT` of one that is gone.
pub(crate) fn destroy(protocol: Protocol, socket: &Socket) -> io::Result<()> {
    let kernel = send(&request((DESTROY, ACKNOWLEDGED), (socket.family, protocol), u32::MAX, &socket.key))?;
    match read_answer(&kernel, &mut Vec::new()) {
        // An acknowledgement is an error that is none.
        Err(error) if error.raw_os_error() == Some(0) => Ok(()),
        Err(error) => Err(error),
        Ok(_) => Ok(()),
    }
}

fn dump(protocol: Protocol, states: u32) -> io::Result<Vec<Socket>> {
    let mut sockets = Vec::new();
    for family in [INET, INET6] {
        let kernel = send(&request((BY_FAMILY, DUMP), (family, protocol), states, &[0; KEY_BYTES]))?;
        while read_answer(&kernel, &mut sockets)? {}
    }
    Ok(sockets)
}

fn send(message: &[u8]) -> io::Result<OwnedFd> {
    let (domain, kind) = (AddressFamily::NETLINK, SocketType::RAW);
    let kernel = rustix::net::socket_with(domain, kind, SocketFlags::CLOEXEC, Some(netlink::SOCK_DIAG))?;
    rustix::net::sendto(&kernel, message, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
    Ok(kernel)
}

fn request(
    (kind, flags): (u16, u16),
    (family, protocol): (u8, Protocol),
    states: u32,
    key: &[u8; KEY_BYTES],
) -> Vec<u8> {
    let number: u8 = match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
    };
    let length = HEADER_BYTES + REQUEST_BYTES;
    let mut bytes = Vec::with_capacity(length);
    bytes.extend(u32::try_from(length).unwrap_or(0).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.resize(HEADER_BYTES, 0);
    bytes.extend([family, number, 0, 0]);
    bytes.extend(states.to_ne_bytes());
    bytes.extend(key);
    bytes
}

fn read_answer(kernel: &OwnedFd, sockets: &mut Vec<Socket>) -> io::Result<bool> {
    let mut buffer = vec![0; BUFFER_BYTES];
    let (length, _) =
        rustix::io::retry_on_intr(|| rustix::net::recv(kernel, &mut buffer[..], RecvFlags::empty()))?;
    read_messages(&buffer[..length], sockets)
}

/// One datagram of messages; false after the last.
pub(crate) fn read_messages(mut rest: &[u8], sockets: &mut Vec<Socket>) -> io::Result<bool> {
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
    let key: [u8; KEY_BYTES] = message.get(KEY_IN_SOCKET..KEY_IN_SOCKET + KEY_BYTES)?.try_into().ok()?;
    let mut socket = Socket {
        local: read_address(family, &key[0..2], &key[4..20])?,
        remote: read_address(family, &key[2..4], &key[20..36])?,
        family,
        key,
        only_v6: false,
        cgroup: 0,
        inode: number32(message, 68)?,
        waiting: number32(message, 56)?,
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

fn read_address(family: u8, port: &[u8], ip: &[u8]) -> Option<SocketAddr> {
    let port = u16::from_be_bytes(port.try_into().ok()?);
    let ip: [u8; 16] = ip.try_into().ok()?;
    let ip = match family {
        INET => IpAddr::from([ip[0], ip[1], ip[2], ip[3]]),
        INET6 => Ipv6Addr::from(ip).into(),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

fn number16(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes)
}

fn number32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use std::{
        io::Read,
        net::{TcpListener, TcpStream, UdpSocket},
        os::fd::OwnedFd,
        process::Command,
        thread,
        time::{Duration, Instant},
    };

    use rustix::io::Errno;

    use super::*;

    fn find(sockets: Vec<Socket>, address: SocketAddr) -> Option<Socket> {
        sockets.into_iter().find(|socket| socket.local == address)
    }

    #[test]
    fn a_listener_is_found_with_its_holder_and_what_waits_for_it() {
        for any in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(any).unwrap();
            let address = listener.local_addr().unwrap();
            let _waits = TcpStream::connect(address).unwrap();
            let found = find(listeners(Protocol::Tcp).unwrap(), address).unwrap();
            assert_eq!(found.waiting, 1);
            assert_ne!(found.cgroup, 0);
            let holder = found.holder().unwrap();
            assert!(holder.ends_with(&format!("[{}]", std::process::id())), "{holder}");
            drop(listener);
            assert_eq!(find(listeners(Protocol::Tcp).unwrap(), address), None);
        }
    }

    #[test]
    fn the_sockets_of_a_session_are_those_of_its_processes() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let inode = find(listeners(Protocol::Tcp).unwrap(), listener.local_addr().unwrap()).unwrap().inode;
        // Its own session may be one of outside of the PID namespace, which has no number here.
        let mut member = Command::new("setsid");
        let mut member = member.args(["sleep", "60"]).stdin(OwnedFd::from(listener)).spawn().unwrap();
        let session = member.id();
        let deadline = Instant::now() + Duration::from_secs(10);
        while processes_of_session(session) != [session] {
            assert!(Instant::now() < deadline, "no session {session}");
            thread::sleep(Duration::from_millis(5));
        }
        assert!(of_session(session).contains(&inode));
        assert!(of_session(u32::MAX).is_empty());
        member.kill().unwrap();
        member.wait().unwrap();
        assert!(!of_session(session).contains(&inode));
    }

    #[test]
    fn a_udp_socket_without_a_peer_is_found() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        assert!(find(listeners(Protocol::Udp).unwrap(), address).is_some());
        socket.connect("127.0.0.1:9").unwrap();
        assert_eq!(find(listeners(Protocol::Udp).unwrap(), address), None);
    }

    #[test]
    fn connections_are_those_that_a_process_has() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let _client = TcpStream::connect(address).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        assert!(find(connections().unwrap(), address).is_some());
        drop(accepted);
        assert_eq!(find(connections().unwrap(), address), None);
    }

    #[test]
    fn a_connection_is_ended_for_both_its_sides() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        let own = find(connections().unwrap(), client.local_addr().unwrap()).unwrap();
        assert_eq!(own.remote, listener.local_addr().unwrap());
        destroy(Protocol::Tcp, &own).unwrap();
        let errno = |error: io::Error| error.raw_os_error();
        assert_eq!(errno(client.read(&mut [0]).unwrap_err()), Some(Errno::CONNABORTED.raw_os_error()));
        assert_eq!(errno(server.read(&mut [0]).unwrap_err()), Some(Errno::CONNRESET.raw_os_error()));
        assert_eq!(errno(destroy(Protocol::Tcp, &own).unwrap_err()), Some(Errno::NOENT.raw_os_error()));
    }

    #[test]
    fn a_connected_udp_socket_is_ended_and_may_be_connected_anew() {
        let peer = UdpSocket::bind("[::1]:0").unwrap();
        let socket = UdpSocket::bind("[::1]:0").unwrap();
        socket.connect(peer.local_addr().unwrap()).unwrap();
        let own = find(associations().unwrap(), socket.local_addr().unwrap()).unwrap();
        destroy(Protocol::Udp, &own).unwrap();
        let error = socket.recv(&mut [0]).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(Errno::CONNABORTED.raw_os_error()));
        assert!(socket.connect(peer.local_addr().unwrap()).is_ok());
    }

    #[test]
    fn what_is_bound_to_every_address_takes_those_of_both_families_if_it_may() {
        let socket = |local: &str, only_v6| Socket {
            local: local.parse().unwrap(),
            remote: "[::]:0".parse().unwrap(),
            only_v6,
            cgroup: 0,
            inode: 1,
            waiting: 0,
            family: INET6,
            key: [0; KEY_BYTES],
        };
        let takes = |socket: &Socket, address: &str| socket.takes(address.parse().unwrap());
        let dual = socket("[::]:5000", false);
        assert!(takes(&dual, "127.0.0.1:5000") && takes(&dual, "[::1]:5000") && !takes(&dual, "[::1]:5001"));
        assert_eq!(dual.addresses(), ["[::]:5000".parse().unwrap(), "0.0.0.0:5000".parse().unwrap()]);
        let six = socket("[::]:5000", true);
        assert!(!takes(&six, "127.0.0.1:5000") && takes(&six, "[2001:db8::1]:5000"));
        let four = socket("0.0.0.0:5000", false);
        assert!(takes(&four, "10.0.0.1:5000") && !takes(&four, "[::1]:5000"));
        let mapped = socket("[::ffff:127.0.0.1]:5000", false);
        assert!(takes(&mapped, "127.0.0.1:5000") && !takes(&mapped, "127.0.0.2:5000"));
    }

    #[test]
    fn messages_that_are_cut_short_are_an_error_or_nothing() {
        let listener = TcpListener::bind("[::1]:0").unwrap();
        let message = request((BY_FAMILY, DUMP), (INET6, Protocol::Tcp), 1 << LISTEN, &[0; KEY_BYTES]);
        let kernel = send(&message).unwrap();
        let mut buffer = vec![0; BUFFER_BYTES];
        let (length, _) = rustix::net::recv(&kernel, &mut buffer[..], RecvFlags::empty()).unwrap();
        drop(listener);
        for end in 0..length {
            // Neither panics; how much was understood does not matter.
            let _outcome = read_messages(&buffer[..end], &mut Vec::new());
        }
    }
}
