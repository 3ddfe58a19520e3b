//! What is out there before anything is dialled: a route, and, at the loopback, somebody who listens. Then connect() is refused as the kernel would
//! have, instead of leading to a service that finds out too late. Nothing is sent. The sockets that are asked by are kept: to make one takes
//! longer than to ask.
//!
//! The sockets that listen are looked up by sock_diag(7), which takes no privilege. Rules that translate addresses cannot be looked at without, so
//! that where nobody listens it is tried: a connection that is refused has no other effect.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::AsFd,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use socket2::{Domain, Socket, Type};
use waylay_abi::SocketWishes;

use waylay_diag::Kernel;

use crate::{sys, ways::Ways};

/// How long a refusal may take that comes from this host.
const PATIENCE: Duration = Duration::from_millis(200);
/// A socket, for as long as it is good for another question.
type Kept<T> = Mutex<Option<T>>;

/// Asks the kernel.
#[derive(Debug, Default)]
pub(crate) struct Scout {
    probe4: Kept<Socket>,
    probe6: Kept<Socket>,
    listeners: Kept<Kernel>,
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

    /// Why a destination cannot be dialled, if that is so, by a socket with such a mark and source.
    pub(crate) fn way_towards(&self, destination: SocketAddr, wishes: &SocketWishes) -> io::Result<()> {
        if wishes.mark != 0 || wishes.source != [0; 16] {
            return look_with(wishes, destination);
        }
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
        let anybody = SocketAddr::new(unspecified(at.ip()), 0);
        ask_by(&self.listeners, Kernel::open, |kernel| {
            let found = kernel.find(libc::IPPROTO_TCP, (at, anybody));
            found.map(|found| found.is_some()).map_err(|error| (error, Use::Never))
        })
    }
}

fn unspecified(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
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

/// Whether the destination is all hosts of a network, by what was found of the way there: sockets may send to those that have asked for
/// broadcasts, as the ones have not by which is looked.
pub(crate) fn is_all_of_a_network(
    way: &io::Result<()>,
    destination: SocketAddr,
    wishes: &SocketWishes,
) -> bool {
    let may_broadcast = || {
        let probe = probe_with(wishes, destination)?;
        probe.set_broadcast(true)?;
        probe.connect(&destination.into())
    };
    way.as_ref().is_err_and(|error| error.raw_os_error() == Some(libc::EACCES)) && may_broadcast().is_ok()
}

fn look_with(wishes: &SocketWishes, destination: SocketAddr) -> io::Result<()> {
    probe_with(wishes, destination)?.connect(&destination.into())
}

/// Rules of routing may ask for either (ip-rule(8)).
fn probe_with(wishes: &SocketWishes, destination: SocketAddr) -> io::Result<Socket> {
    let probe = Socket::new(Domain::for_address(destination), Type::DGRAM, None)?;
    if wishes.mark != 0 {
        sys::set_mark(probe.as_fd(), wishes.mark)?;
    }
    let source = Ipv6Addr::from(wishes.source);
    let source = if destination.is_ipv4() { source.to_canonical() } else { source.into() };
    if !source.is_unspecified() && source.is_ipv4() == destination.is_ipv4() {
        probe.bind(&SocketAddr::new(source, 0).into())?;
    }
    Ok(probe)
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
