//! `WSARecvMsg` and `WSASendMsg`, by which records travel with datagrams.
//!
//! The first datagram of a flow comes with the flow's records and context beside it, and so does the first after the
//! flow has been idle. What the kernel puts beside a datagram comes as well: with IPv4 that is `IP_PKTINFO`, whose
//! address stands for the flow. An answer is sent from there, whether the caller says so or not.

use std::{
    net::{IpAddr, SocketAddr},
    os::fd::{BorrowedFd, RawFd},
    time::Instant,
};

use socket2::{Protocol, SockRef};
use waylay::{
    RedirectRecords,
    control::{self, Query},
    datagrams::FlowPath,
    set_redirect_records, winsock,
};

use crate::{
    abi::{Buffer, Message, Overlapped},
    announced::{self, MOST_FLOWS},
    code::{Code, FAULT, INVALID, NOT_A_SOCKET, NOT_SUPPORTED},
    control_data::{self, ControlData},
    socket, startup,
    sys::{
        caller::Place,
        datagram::{self, Flags, Received},
        descriptor,
    },
};

/// Buffers of a message at most (`UIO_MAXIOV`).
const MOST_BUFFERS: u32 = 1024;
pub(crate) fn receive(
    number: RawFd,
    message: Place<Message>,
    received: Place<u32>,
    overlapped: Place<Overlapped>,
) -> Result<(), Code> {
    let (socket, mut parts) = looked_at(number, message, overlapped)?;
    let own = SockRef::from(&socket).local_addr().ok().and_then(|address| address.as_socket());
    if own.is_some_and(|own| own.is_ipv4()) {
        // Not all sockets have it; then nothing stands for a flow.
        let _without = datagram::tell_destinations(socket);
    }
    let came = datagram::receive(socket, &buffers(&parts)?, Flags(parts.flags))?;
    let mut beside = ControlData::received(&came.control);
    if let Some(own) = own {
        announce(socket, own, &came, Flags(parts.flags), &mut beside);
    }
    let room = parts.control.len as usize;
    let (control, cut) = beside.fitting(room);
    let name = &came.name[..came.name.len().min(usize::try_from(parts.name_len).unwrap_or(0))];
    if parts.name != 0 {
        Place::<u8>::followed(parts.name).write_bytes(name).map_err(|_fault| FAULT)?;
    }
    Place::<u8>::followed(parts.control.buf).write_bytes(control).map_err(|_fault| FAULT)?;
    parts.name_len = came.name.len() as i32;
    parts.control.len = control.len() as u32;
    parts.flags = came.flags.with_cut_control(cut).0;
    message.write(&parts).map_err(|_fault| FAULT)?;
    tell(received, came.length)?;
    if came.flags.is_truncated() { Err(Code(winsock::WSAEMSGSIZE)) } else { Ok(()) }
}

pub(crate) fn send(
    number: RawFd,
    message: Place<Message>,
    flags: u32,
    sent: Place<u32>,
    overlapped: Place<Overlapped>,
) -> Result<(), Code> {
    let (socket, parts) = looked_at(number, message, overlapped)?;
    let buffers = buffers(&parts)?;
    let mut name = vec![0; usize::try_from(parts.name_len).unwrap_or(0).min(datagram::LONGEST_NAME)];
    let name_at = Place::<u8>::followed(parts.name);
    if name_at.is_null() {
        name.clear();
    }
    name_at.read_bytes(&mut name).map_err(|_fault| FAULT)?;
    let mut control = vec![0; (parts.control.len as usize).min(control_data::MOST_BYTES)];
    Place::<u8>::followed(parts.control.buf).read_bytes(&mut control).map_err(|_fault| FAULT)?;
    let (mut control, records) = ControlData::to_be_sent(&control).ok_or(INVALID)?;
    if let Some(records) = records {
        set_redirect_records(&socket, &RedirectRecords::from_bytes(&records))?;
    }
    if let Some(token) = token_towards(socket, &name) {
        control.come_from(token);
    }
    let length = datagram::send(socket, &name, &buffers, control.bytes(), Flags(flags))?;
    tell(sent, length)
}

/// The socket, and the message as it was given.
fn looked_at(
    number: RawFd,
    message: Place<Message>,
    overlapped: Place<Overlapped>,
) -> Result<(BorrowedFd<'static>, Message), Code> {
    startup::check()?;
    let socket = descriptor::named(number).ok_or(NOT_A_SOCKET)?;
    socket::check(socket)?;
    let parts = message.read().map_err(|_fault| FAULT)?;
    // Nothing of it outlasts the call; and nothing but datagrams comes in messages.
    let is_of_datagrams = matches!(SockRef::from(&socket).protocol(), Ok(Some(Protocol::UDP)));
    if !overlapped.is_null() || !is_of_datagrams {
        return Err(NOT_SUPPORTED);
    }
    if parts.buffer_count > MOST_BUFFERS {
        return Err(INVALID);
    }
    Ok((socket, parts))
}

fn buffers(parts: &Message) -> Result<Vec<Buffer>, Code> {
    let first = Place::<Buffer>::followed(parts.buffers);
    let all = (0..parts.buffer_count as usize)
        .map(|index| first.part::<Buffer>(index * size_of::<Buffer>()).read());
    all.collect::<Result<_, _>>().map_err(|_fault| FAULT)
}

fn tell(place: Place<u32>, length: usize) -> Result<(), Code> {
    if place.is_null() {
        return Ok(());
    }
    place.write(&(length as u32)).map_err(|_fault| FAULT)
}

/// Puts records and context beside the first datagram of a flow.
fn announce(
    socket: BorrowedFd<'_>,
    own: SocketAddr,
    came: &Received,
    flags: Flags,
    beside: &mut ControlData,
) {
    let Some(peer) = datagram::address(&came.name) else { return };
    let Ok(cookie) = SockRef::from(&socket).cookie() else { return };
    let token = beside.destination().unwrap_or(own.ip());
    let (path, now) = (FlowPath::new(SocketAddr::new(token, own.port()), peer), Instant::now());
    let mut all = announced::all();
    let announced = all.entry(cookie).or_default();
    while announced.flows.expire(now).is_some() {}
    if let Some(place) = announced.flows.find(&path) {
        announced.flows.touch(place, now);
        announced.tokens.insert(peer, token);
        return;
    }
    let answers = [Query::Records, Query::Context].map(|query| control::query_datagram(socket, path, query));
    let [Ok(records), Ok(context)] = answers else { return };
    beside.add_records(own.is_ipv4(), &records);
    beside.add_context(own.is_ipv4(), &context);
    if flags.is_peek() {
        return;
    }
    if announced.tokens.len() >= MOST_FLOWS {
        announced.tokens.clear();
    }
    announced.tokens.insert(peer, token);
    announced.flows.insert(path, (), now);
}

/// The address that stands for the flow which the addressee was last heard on.
fn token_towards(socket: BorrowedFd<'_>, name: &[u8]) -> Option<IpAddr> {
    let cookie = SockRef::from(&socket).cookie().ok()?;
    let peer = datagram::address(name)?;
    announced::all().get(&cookie)?.tokens.get(&peer).copied()
}
