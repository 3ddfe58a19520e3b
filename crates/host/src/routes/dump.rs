//! The kernel's routing tables, read by rtnetlink(7).
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the kernel's vocabulary, of which a few words matter here"
)]

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::OwnedFd,
};

use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{
    AddressFamily as Family, RouteNetlinkMessage,
    route::{RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteType},
};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use waylay_core::Prefix;

use super::survey::{Kind, TableRoute};

/// More than a datagram of a dump has.
const BUFFER_BYTES: usize = 64 * 1024;

/// Every route of every table, of both families.
pub(super) fn dump() -> io::Result<Vec<TableRoute>> {
    let mut routes = Vec::new();
    for family in [Family::Inet, Family::Inet6] {
        routes.extend(dump_family(family)?.iter().filter_map(read_route));
    }
    Ok(routes)
}

fn dump_family(family: Family) -> io::Result<Vec<RouteMessage>> {
    let socket = rustix::net::socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        None, // NETLINK_ROUTE is 0, the default.
    )?;
    rustix::net::send(&socket, &request(family), SendFlags::empty())?;
    let mut routes = Vec::new();
    while read_answer(&socket, &mut routes)? {}
    Ok(routes)
}

fn request(family: Family) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let mut route = RouteMessage::default();
    route.header.address_family = family;
    let mut message = NetlinkMessage::new(header, RouteNetlinkMessage::GetRoute(route).into());
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

fn read_answer(socket: &OwnedFd, routes: &mut Vec<RouteMessage>) -> io::Result<bool> {
    let mut buffer = vec![0; BUFFER_BYTES];
    let (length, _) =
        rustix::io::retry_on_intr(|| rustix::net::recv(socket, &mut buffer[..], RecvFlags::empty()))?;
    read_messages(&buffer[..length], routes)
}

/// One datagram of messages; false after the last.
pub(super) fn read_messages(mut rest: &[u8], routes: &mut Vec<RouteMessage>) -> io::Result<bool> {
    while !rest.is_empty() {
        let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest).map_err(io::Error::other)?;
        rest = &rest[aligned(message.header.length).clamp(1, rest.len())..];
        match message.payload {
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewRoute(route)) => routes.push(route),
            NetlinkPayload::Done(_) => return Ok(false),
            NetlinkPayload::Error(error) => return Err(error.to_io()),
            _ => {}
        }
    }
    Ok(true)
}

/// Messages start at multiples of four (`NLMSG_ALIGN`).
fn aligned(length: u32) -> usize {
    (length as usize).next_multiple_of(4)
}

/// Without those that match by more than the destination, or are copies the
/// kernel keeps for itself.
pub(super) fn read_route(message: &RouteMessage) -> Option<TableRoute> {
    let header = &message.header;
    if header.flags.contains(RouteFlags::Cloned) || header.source_prefix_length > 0 {
        return None;
    }
    let default: IpAddr = match header.address_family {
        Family::Inet => Ipv4Addr::UNSPECIFIED.into(),
        Family::Inet6 => Ipv6Addr::UNSPECIFIED.into(),
        _ => return None,
    };
    let mut destination = default;
    let mut table = u32::from(header.table);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(address)) => destination = (*address).into(),
            RouteAttribute::Destination(RouteAddress::Inet6(address)) => destination = (*address).into(),
            RouteAttribute::Table(number) => table = *number,
            _ => {}
        }
    }
    let prefix = Prefix::new(destination, header.destination_prefix_length).ok()?;
    Some(TableRoute { prefix, table, kind: kind(header.kind, header.flags) })
}

fn kind(kind: RouteType, flags: RouteFlags) -> Kind {
    match kind {
        RouteType::Broadcast | RouteType::Multicast => Kind::Group,
        RouteType::Unreachable | RouteType::Prohibit | RouteType::BlackHole | RouteType::Throw => {
            Kind::Refusing
        }
        _ if flags.contains(RouteFlags::Dead) => Kind::Refusing,
        _ => Kind::Leading,
    }
}
