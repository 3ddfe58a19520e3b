//! What the kernel tells of sockets, by sock_diag(7): where each of a network namespace is, whom it is connected to, who has made it.
//!
//! It takes no privilege to ask; only to [end](Kernel::destroy) a connection does. Whose sockets these are, and what that means, is for those who
//! ask: `waylay-host`, which finds services and the connections of others by it, and `waylay-engine-seccomp`, where sockets cannot be copied.

mod message;

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::fd::OwnedFd,
};

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType,
    netlink::{self, SocketAddrNetlink},
};

pub use message::read;
use message::{KEY_BYTES, Kind, Question, key};

/// States of sockets, as numbers of net/tcp_states.h.
pub mod state {
    /// Of TCP a connection; of UDP a socket that is connected to somebody.
    pub const ESTABLISHED: u8 = 1;
    /// A connection that is dialled.
    pub const SYN_SENT: u8 = 2;
    /// A connection that is over, of which no process has a socket.
    pub const TIME_WAIT: u8 = 6;
    /// Neither one nor the other; of UDP a socket that is connected to nobody.
    pub const CLOSE: u8 = 7;
    /// A listener.
    pub const LISTEN: u8 = 10;
}

/// More than a datagram of a dump has.
const BUFFER_BYTES: usize = 64 * 1024;

/// A socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Socket {
    /// Where it is.
    pub local: SocketAddr,
    /// Where it is connected to; the unspecified address and port 0 if it is not.
    pub remote: SocketAddr,
    /// One of [`state`].
    pub state: u8,
    /// In which cgroup it was made; 0 on a kernel that does not say.
    pub cgroup: u64,
    /// By which a process's descriptors name it; 0 if no process has it.
    pub inode: u32,
    /// Of a listener: connections that nobody has accepted.
    pub waiting: u32,
    /// Whether IPv4 cannot get to it, although it is bound to `::`.
    only_v6: bool,
    family: u8,
    /// What tells it from every other socket, also from a later one of the same addresses.
    key: [u8; KEY_BYTES],
}

impl Socket {
    /// Whether it is one of IPv6, whatever its addresses are.
    #[must_use]
    pub fn is_v6(&self) -> bool {
        i32::from(self.family) == libc::AF_INET6
    }

    /// What `SO_COOKIE` says of it.
    #[must_use]
    pub fn cookie(&self) -> u64 {
        key::cookie(&self.key)
    }

    /// Whether what is sent to an address arrives here.
    #[must_use]
    pub fn takes(&self, address: SocketAddr) -> bool {
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
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let port = self.local.port();
        let all_v4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
        match self.local.ip().to_canonical() {
            IpAddr::V6(ip) if ip.is_unspecified() && !self.only_v6 => vec![self.local, all_v4],
            ip @ (IpAddr::V4(_) | IpAddr::V6(_)) => vec![SocketAddr::new(ip, port)],
        }
    }
}

/// Whom to ask: of the network namespace that the thread was in which has opened it.
///
/// ```
/// use std::net::TcpListener;
/// use waylay_diag::{Kernel, state};
///
/// let listener = TcpListener::bind("127.0.0.1:0")?;
/// let listening = Kernel::open()?.dump(libc::IPPROTO_TCP, 1 << state::LISTEN)?;
/// assert!(listening.iter().any(|socket| Ok(socket.local) == listener.local_addr().map_err(|_| ())));
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct Kernel(OwnedFd);

impl Kernel {
    /// # Errors
    /// Those of socket(2).
    pub fn open() -> io::Result<Self> {
        let (domain, kind) = (AddressFamily::NETLINK, SocketType::RAW);
        let socket = rustix::net::socket_with(domain, kind, SocketFlags::CLOEXEC, Some(netlink::SOCK_DIAG))?;
        Ok(Self(socket))
    }

    /// All sockets of a protocol (`IPPROTO_TCP`, `IPPROTO_MPTCP`, `IPPROTO_UDP`) that have a port, of both families, in any of these states: a
    /// bit for each. Of a protocol that the kernel does not have there are none.
    ///
    /// # Errors
    /// Those of the kernel, and those of sockets. What is left of an answer is in the way of the next.
    pub fn dump(&self, protocol: i32, states: u32) -> io::Result<Vec<Socket>> {
        let mut sockets = Vec::new();
        let mut buffer = vec![0; BUFFER_BYTES];
        for family in [libc::AF_INET, libc::AF_INET6] {
            self.ask(&Question { kind: Kind::Dump, family, protocol, states, key: [0; KEY_BYTES] })?;
            loop {
                match self.hear(&mut buffer, &mut sockets) {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(error) if error.raw_os_error() == Some(libc::ENOENT) => break,
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(sockets)
    }

    /// Who takes what comes over the loopback from `peer` to `local`: that connection, or a listener.
    ///
    /// # Errors
    /// As of [`dump`](Self::dump).
    pub fn find(&self, protocol: i32, (local, peer): (SocketAddr, SocketAddr)) -> io::Result<Option<Socket>> {
        let family = if local.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
        let key = key::of_loopback(local, peer);
        self.ask(&Question { kind: Kind::One, family, protocol, states: u32::MAX, key })?;
        let mut found = Vec::new();
        match self.hear(&mut [0; 1024], &mut found) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(error),
            Ok(_) => found.pop().map(Some).ok_or_else(|| io::ErrorKind::InvalidData.into()),
        }
    }

    /// Ends a connection: its process has ECONNABORTED from it, and the peer of a TCP connection a reset.
    ///
    /// # Errors
    /// `EPERM` without `CAP_NET_ADMIN`, `EOPNOTSUPP` on a kernel without `CONFIG_INET_DIAG_DESTROY`, `ENOENT` of one that is gone.
    pub fn destroy(&self, protocol: i32, socket: &Socket) -> io::Result<()> {
        let Socket { family, key, .. } = *socket;
        let family = family.into();
        self.ask(&Question { kind: Kind::Destroy, family, protocol, states: u32::MAX, key })?;
        match self.hear(&mut [0; 1024], &mut Vec::new()) {
            // An acknowledgement is an error that is none.
            Err(error) if error.raw_os_error() == Some(0) => Ok(()),
            Err(error) => Err(error),
            Ok(_) => Ok(()),
        }
    }

    fn ask(&self, question: &Question) -> io::Result<()> {
        let kernel = SocketAddrNetlink::new(0, 0);
        rustix::net::sendto(&self.0, &question.bytes(), SendFlags::empty(), &kernel)?;
        Ok(())
    }

    /// False after the last.
    fn hear(&self, buffer: &mut [u8], sockets: &mut Vec<Socket>) -> io::Result<bool> {
        let (length, _) =
            rustix::io::retry_on_intr(|| rustix::net::recv(&self.0, &mut *buffer, RecvFlags::empty()))?;
        read(&buffer[..length], sockets)
    }
}

#[cfg(test)]
mod tests;
