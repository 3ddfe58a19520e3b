//! What the kernel says of a destination: what connect() would do, from a socket that sends nothing for it.
//!
//! Raw sockets are asked, which the engine's programs are asked about when they are made and never again: this process may
//! be in their scope, and what they answer is what they have been told. A raw socket's connect() is that of UDP.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

const ANY_PORT: u16 = 9;
/// `IPPROTO_RAW`: nothing is ever received.
const SENDING_ONLY: i32 = 255;

/// Made before the programs are attached.
pub(super) struct Asker {
    v4: Option<Socket>,
    v6: Option<Socket>,
}

impl Asker {
    pub(super) fn new() -> Self {
        // Without CAP_NET_RAW, or where somebody else's programs refuse them, UDP is asked.
        let raw = |domain| Socket::new(domain, Type::RAW, Some(Protocol::from(SENDING_ONLY))).ok();
        Self { v4: raw(Domain::IPV4), v6: raw(Domain::IPV6) }
    }

    /// The address from which a connection would start, or its error.
    pub(super) fn ask(&self, destination: IpAddr) -> io::Result<IpAddr> {
        let socket = match destination {
            IpAddr::V4(_) => &self.v4,
            IpAddr::V6(_) => &self.v6,
        };
        match socket {
            Some(socket) => ask_raw(socket, destination),
            None => ask_udp(destination),
        }
    }
}

fn ask_raw(socket: &Socket, destination: IpAddr) -> io::Result<IpAddr> {
    // What it was asked before must not say where it starts from.
    rustix::net::connect_unspec(socket)?;
    socket.connect(&SockAddr::from(SocketAddr::new(destination, 0)))?;
    let local = socket.local_addr()?.as_socket();
    local.map(|local| local.ip()).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn ask_udp(destination: IpAddr) -> io::Result<IpAddr> {
    let any: IpAddr = match destination {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(SocketAddr::new(destination, ANY_PORT))?;
    Ok(socket.local_addr()?.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In whichever order, and whatever came before.
    #[test]
    fn raw_sockets_are_told_what_udp_is_told() {
        let asker = Asker::new();
        let destinations: [IpAddr; 10] = [
            "127.0.0.1",
            "192.0.2.1",
            "127.0.0.2",
            "255.255.255.255",
            "224.0.0.1",
            "0.0.0.1",
            "::1",
            "2001:db8::1",
            "fe80::1",
            "ff02::1",
        ]
        .map(|address| address.parse().unwrap());
        let said = |answer: io::Result<IpAddr>| answer.map_err(|error| error.raw_os_error());
        for first in destinations {
            for destination in [first].into_iter().chain(destinations) {
                let (raw, udp) = (asker.ask(destination), ask_udp(destination));
                assert_eq!(said(raw), said(udp), "{destination} after {first}");
            }
        }
    }
}
