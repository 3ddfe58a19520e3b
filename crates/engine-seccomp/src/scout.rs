//! What is out there before anything is dialled: a route, and, at the loopback, somebody who listens. Then connect() is refused as the kernel would
//! have, instead of leading to a service that finds out too late. Nothing is sent. The sockets that are asked by are kept: to make one takes
//! longer than to ask.
//!
//! The sockets that listen are looked up by sock_diag(7), which takes no privilege. Rules that translate addresses cannot be looked at without, so
//! that where nobody listens it is tried: a connection that is refused has no other effect.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::{AsFd, OwnedFd},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType,
    netlink::{self, SocketAddrNetlink},
};
use socket2::{Domain, Socket, Type};

use crate::{sys, ways::Ways};

/// How long a refusal may take that comes from this host.
const PATIENCE: Duration = Duration::from_millis(200);
/// `SOCK_DIAG_BY_FAMILY` (linux/sock_diag.h), `NLMSG_ERROR` and `NLM_F_REQUEST` (linux/netlink.h).
const BY_FAMILY: u16 = 20;
const ERROR: u16 = 2;
const REQUEST: u16 = 1;
const HEADER_BYTES: usize = 16;
/// With a `struct inet_diag_req_v2` behind the header.
const QUESTION_BYTES: usize = 72;
/// What is looked at of an answer: its header and an error.
const ANSWER_BYTES: usize = 32;
/// The loopback's index in every network namespace: by it those are found too that are bound to the device.
const LOOPBACK: u32 = 1;
const TCP: u8 = 6;

/// A socket, for as long as it is good for another question.
type Kept<T> = Mutex<Option<T>>;

/// Asks the kernel.
#[derive(Debug, Default)]
pub(crate) struct Scout {
    probe4: Kept<Socket>,
    probe6: Kept<Socket>,
    listeners: Kept<OwnedFd>,
    ways: Ways,
}

/// Asks by a socket that is kept, or a new one; one that does not answer is not used again.
fn ask_by<T, A>(
    kept: &Kept<T>,
    make: impl FnOnce() -> io::Result<T>,
    ask: impl FnOnce(&T) -> Result<A, (io::Error, Use)>,
) -> io::Result<A> {
    let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
    let socket = match kept.take() {
        Some(socket) => socket,
        None => make()?,
    };
    match ask(&socket) {
        Ok(answer) => {
            *kept = Some(socket);
            Ok(answer)
        }
        Err((error, Use::Again)) => {
            *kept = Some(socket);
            Err(error)
        }
        Err((error, Use::Never)) => Err(error),
    }
}

/// Whether a socket that has not answered as hoped is good for more.
enum Use {
    Again,
    Never,
}

impl Scout {
    /// Where the host would dial a destination from, or why it cannot be dialled at all.
    pub(crate) fn source_towards(&self, destination: SocketAddr) -> io::Result<IpAddr> {
        let make = || Socket::new(Domain::for_address(destination), Type::DGRAM, None);
        match destination.ip() {
            IpAddr::V4(_) => ask_by(&self.probe4, make, |probe| source_by(probe, destination)),
            // A socket that has had an address of IPv4 is one of it for a while.
            IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some() => {
                source_by(&make()?, destination).map_err(|(error, _)| error)
            }
            IpAddr::V6(_) => ask_by(&self.probe6, make, |probe| source_by(probe, destination)),
        }
    }

    /// Why a destination cannot be dialled, if that is so.
    pub(crate) fn way_towards(&self, destination: SocketAddr) -> io::Result<()> {
        self.ways.look(destination, || self.look_for_a_way(destination))
    }

    fn look_for_a_way(&self, destination: SocketAddr) -> io::Result<()> {
        let make = || Socket::new(Domain::for_address(destination), Type::DGRAM, None);
        match destination.ip() {
            IpAddr::V4(_) => ask_by(&self.probe4, make, |probe| reach_by(probe, destination)),
            IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some() => {
                reach_by(&make()?, destination).map_err(|(error, _)| error)
            }
            IpAddr::V6(_) => ask_by(&self.probe6, make, |probe| reach_by(probe, destination)),
        }
    }

    /// Whether it is known of an address if somebody listens there: of 127.0.0.1 and ::1 alone, as by the engine on eBPF.
    pub(crate) fn knows_of(at: SocketAddr) -> bool {
        [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()].contains(&at.ip().to_canonical())
    }

    /// Of what cannot be told it is not said.
    pub(crate) fn nobody_listens(&self, at: SocketAddr) -> bool {
        let canonical = SocketAddr::new(at.ip().to_canonical(), at.port());
        Self::knows_of(at) && self.has_listener(canonical).is_ok_and(|found| !found) && is_refused(canonical)
    }

    fn has_listener(&self, at: SocketAddr) -> io::Result<bool> {
        let make = || {
            let (domain, kind) = (AddressFamily::NETLINK, SocketType::DGRAM);
            Ok(rustix::net::socket_with(domain, kind, SocketFlags::CLOEXEC, Some(netlink::SOCK_DIAG))?)
        };
        ask_by(&self.listeners, make, |kernel| listener_by(kernel, at).map_err(|error| (error, Use::Never)))
    }
}

fn source_by(probe: &Socket, destination: SocketAddr) -> Result<IpAddr, (io::Error, Use)> {
    probe.connect(&destination.into()).map_err(|error| (error, Use::Again))?;
    let source = probe.local_addr().map_err(|error| (error, Use::Never))?;
    sys::connect(probe.as_fd(), &(libc::AF_UNSPEC as u64).to_ne_bytes())
        .map_err(|error| (error, Use::Never))?;
    let source = source.as_socket().map(|source| source.ip());
    source.ok_or_else(|| (io::ErrorKind::InvalidData.into(), Use::Never))
}

fn reach_by(probe: &Socket, destination: SocketAddr) -> Result<(), (io::Error, Use)> {
    probe.connect(&destination.into()).map_err(|error| (error, Use::Again))?;
    sys::connect(probe.as_fd(), &(libc::AF_UNSPEC as u64).to_ne_bytes()).map_err(|error| (error, Use::Never))
}

fn listener_by(kernel: &OwnedFd, at: SocketAddr) -> io::Result<bool> {
    rustix::net::sendto(kernel, &question(at), SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
    // The rest of it is left out.
    let mut answer = [0_u8; ANSWER_BYTES];
    let (length, _) = rustix::net::recv(kernel, &mut answer[..], RecvFlags::empty())?;
    let kind =
        answer[..length].get(4..6).and_then(|kind| kind.first_chunk()).map(|kind| u16::from_ne_bytes(*kind));
    let code = answer[..length].get(HEADER_BYTES..).and_then(|rest| rest.first_chunk());
    match (kind, code.map(|code| i32::from_ne_bytes(*code))) {
        (Some(BY_FAMILY), _) => Ok(true),
        (Some(ERROR), Some(code)) if code == -libc::ENOENT => Ok(false),
        (Some(_) | None, _) => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// Who would take a connection to there from anywhere.
fn question(at: SocketAddr) -> [u8; QUESTION_BYTES] {
    let mut message = [0; QUESTION_BYTES];
    let mut put = |at: usize, bytes: &[u8]| message[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &(QUESTION_BYTES as u32).to_ne_bytes());
    put(4, &BY_FAMILY.to_ne_bytes());
    put(6, &REQUEST.to_ne_bytes());
    put(20, &u32::MAX.to_ne_bytes());
    put(24, &at.port().to_be_bytes());
    match at.ip() {
        IpAddr::V4(ip) => {
            put(16, &[libc::AF_INET as u8, TCP]);
            put(28, &ip.octets());
        }
        IpAddr::V6(ip) => {
            put(16, &[libc::AF_INET6 as u8, TCP]);
            put(28, &ip.octets());
        }
    }
    put(60, &LOOPBACK.to_ne_bytes());
    // INET_DIAG_NOCOOKIE: whichever it is.
    put(64, &[0xff; 8]);
    message
}

fn is_refused(at: SocketAddr) -> bool {
    let tried = Socket::new(Domain::for_address(at), Type::STREAM, None)
        .and_then(|probe| probe.connect_timeout(&at.into(), PATIENCE));
    tried.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn listeners_are_found_however_they_are_bound() {
        let bound: [(IpAddr, &[&str]); 4] = [
            (Ipv4Addr::LOCALHOST.into(), &["127.0.0.1", "::ffff:127.0.0.1"]),
            (Ipv4Addr::UNSPECIFIED.into(), &["127.0.0.1"]),
            (Ipv6Addr::LOCALHOST.into(), &["::1"]),
            (Ipv6Addr::UNSPECIFIED.into(), &["::1", "127.0.0.1", "::ffff:127.0.0.1"]),
        ];
        let scout = Scout::default();
        for (ip, reached) in bound {
            let listener = TcpListener::bind((ip, 0)).unwrap();
            let port = listener.local_addr().unwrap().port();
            let addresses: Vec<SocketAddr> =
                reached.iter().map(|ip| SocketAddr::new(ip.parse().unwrap(), port)).collect();
            for &address in &addresses {
                assert!(!scout.nobody_listens(address), "{ip}: {address}");
                let canonical = SocketAddr::new(address.ip().to_canonical(), port);
                assert!(scout.has_listener(canonical).unwrap(), "{ip}: {address}");
            }
            drop(listener);
            for address in addresses {
                assert!(scout.nobody_listens(address), "{ip}: {address}");
            }
        }
    }

    #[test]
    fn other_addresses_are_not_looked_at() {
        for other in ["192.0.2.1:9", "127.0.0.2:9"] {
            assert!(!Scout::default().nobody_listens(other.parse().unwrap()), "{other}");
        }
    }

    #[test]
    fn a_probe_is_used_again_whatever_it_has_been_used_for() {
        let scout = Scout::default();
        for _ in 0..2 {
            for (to, from) in [
                ("127.0.0.1:80", "127.0.0.1"),
                ("127.7.7.7:80", "127.0.0.1"),
                ("[::1]:80", "::1"),
                ("[::ffff:127.0.0.1]:80", "::ffff:127.0.0.1"),
            ] {
                assert_eq!(
                    scout.source_towards(to.parse().unwrap()).unwrap(),
                    from.parse::<IpAddr>().unwrap()
                );
            }
            let to_all = scout.source_towards("255.255.255.255:80".parse().unwrap()).unwrap_err();
            assert!(matches!(to_all.raw_os_error(), Some(libc::EACCES | libc::ENETUNREACH)), "{to_all}");
        }
    }
}
