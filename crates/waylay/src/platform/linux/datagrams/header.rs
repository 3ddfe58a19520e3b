//! Hop limit and traffic class of single datagrams: ip(7), ipv6(7), RFC 3542.

use std::{
    fs,
    os::fd::{AsFd, BorrowedFd},
};

use socket2::{Domain, SockRef};

use super::{super::sys as options, Header, Outgoing};

/// Level and name of an option, or of a message.
pub(super) type Kind = (i32, i32);

const IPV4: [Kind; 2] = [(libc::IPPROTO_IP, libc::IP_TTL), (libc::IPPROTO_IP, libc::IP_TOS)];
const IPV6: [Kind; 2] = [(libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT), (libc::IPPROTO_IPV6, libc::IPV6_TCLASS)];

/// Has the socket say of each datagram what its header said. One that does not is a poorer one, and no failure.
pub(super) fn take(socket: BorrowedFd<'_>, is_ipv4: bool) {
    let wanted: [Kind; 2] = match is_ipv4 {
        true => [(libc::IPPROTO_IP, libc::IP_RECVTTL), (libc::IPPROTO_IP, libc::IP_RECVTOS)],
        false => [(libc::IPPROTO_IPV6, libc::IPV6_RECVHOPLIMIT), (libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS)],
    };
    for (level, name) in wanted {
        let _poorer = options::set_option(socket, level, name, &1i32.to_ne_bytes());
    }
}

/// What the socket puts into a header unless it is told otherwise.
pub(crate) fn traffic_class(socket: &impl AsFd) -> Option<u8> {
    let (level, name) = if is_ipv4(socket.as_fd()) { IPV4[1] } else { IPV6[1] };
    number(socket.as_fd(), level, name)
}

/// What datagrams of the loopback have whose sender has not chosen. A socket for IPv6 would say what holds for all
/// devices, and needs a peer to say it of one.
pub(crate) fn loopback_hop_limit(socket: &impl AsFd) -> Option<u8> {
    if is_ipv4(socket.as_fd()) {
        return number(socket.as_fd(), libc::IPPROTO_IP, libc::IP_TTL);
    }
    let said = fs::read_to_string("/proc/sys/net/ipv6/conf/lo/hop_limit").ok()?;
    said.trim().parse().ok()
}

fn number(socket: BorrowedFd<'_>, level: i32, name: i32) -> Option<u8> {
    let mut value = [0; size_of::<i32>()];
    options::get_option(socket, level, name, &mut value).ok()?;
    i32::from_ne_bytes(value).try_into().ok()
}

fn is_ipv4(socket: BorrowedFd<'_>) -> bool {
    SockRef::from(&socket).domain().is_ok_and(|domain| domain == Domain::IPV4)
}

/// The messages that say it, beside a datagram that goes that way.
pub(super) fn messages(
    socket: BorrowedFd<'_>,
    outgoing: &Outgoing<'_>,
    usual: Header,
) -> impl Iterator<Item = (Kind, i32)> + use<> {
    let Header { hop_limit, traffic_class } = outgoing.header.besides(usual);
    // Linux takes 0 from others and, over IPv4, lets nobody send it.
    let values = [hop_limit.filter(|limit| *limit > 0), traffic_class];
    let kinds = if values == [None; 2] {
        IPV4
    } else {
        let by_address = outgoing.to.map(|to| to.ip().to_canonical().is_ipv4());
        if by_address.unwrap_or_else(|| is_ipv4(socket)) { IPV4 } else { IPV6 }
    };
    kinds.into_iter().zip(values).filter_map(|(kind, value)| Some((kind, value?.into())))
}

/// Notes what a message says of the header of a datagram that has come.
pub(super) fn note(header: &mut Header, kind: Kind, data: &[u8]) {
    // An int; of the type of service only its first byte, on either kind of machine.
    let value = match data.first_chunk() {
        Some(int) => i32::from_ne_bytes(*int).try_into().ok(),
        None => data.first().copied(),
    };
    if kind == IPV4[0] || kind == IPV6[0] {
        header.hop_limit = value;
    } else if kind == IPV4[1] || kind == IPV6[1] {
        header.traffic_class = value;
    }
}
