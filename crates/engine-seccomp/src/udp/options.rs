//! What services ask and say about flows of datagrams, which share a socket: each thread selects the one it means.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    os::fd::{AsFd, OwnedFd},
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::sockopt,
};
use waylay_abi as abi;
use waylay_core::ServiceId;
use waylay_engine::memory::{FlowId, SocketId};
use zerocopy::{FromBytes, IntoBytes};

use super::{Datagrams, flows::plain, sys, take_token};
use crate::{
    call::{Call, errno, write_address},
    flows::{Flow, Path},
    options::{about, give},
    shared::{Shared, State},
    supervisor::Answer,
    sys as calls,
};

/// How long an error may be under way over the loopback.
const PATIENCE: Duration = Duration::from_millis(10);

/// getsockopt(2) of a UDP socket of a service.
pub(crate) fn ask(shared: &Shared, call: &Call) -> io::Result<Answer> {
    let (level, name) = (call.number_at(1), call.number_at(2));
    let is_ours = level == abi::SOL_WAYLAY;
    let state = shared.lock();
    let selected = state.datagrams.selected_by(call.tid);
    let datagrams = selected.and_then(|number| state.datagrams.get(number));
    let answer = match (selected, datagrams) {
        (None, _) | (_, None) if !is_ours => return Ok(Answer::Continue),
        (None, _) => return Err(errno(libc::ENOENT)),
        (Some(_), None) => return Err(errno(libc::ESTALE)),
        (Some(_), Some(datagrams)) if is_ours && name == abi::QUERY_DATAGRAM => {
            ends(datagrams).as_bytes().to_vec()
        }
        (Some(_), Some(datagrams)) => about(shared, &state, &datagrams.flow, (level, name))?,
    };
    drop(state);
    give(call, &answer)
}

fn ends(datagrams: &Datagrams) -> abi::Datagram {
    let flag = |is_set: bool, flag: abi::DatagramFlag| if is_set { flag as u32 } else { 0 };
    abi::Datagram {
        local: datagrams.flow.path.to.into(),
        peer: datagrams.flow.path.from.into(),
        flags: flag(datagrams.is_connected, abi::DatagramFlag::Connected)
            | flag(datagrams.is_closed, abi::DatagramFlag::Closed)
            | flag(datagrams.is_peer_seen, abi::DatagramFlag::PeerSeen),
        reserved: 0,
    }
}

/// setsockopt(2) of a UDP socket of a service, of what is not about records.
pub(crate) fn tell(shared: &Shared, service: ServiceId, call: &Call) -> io::Result<Answer> {
    match call.number_at(2) {
        abi::SELECT_FLOW => {
            let path = read::<abi::DatagramPath>(call)?;
            select(&mut shared.lock(), service, call.tid, &path)?;
        }
        abi::OPEN_REPLY => {
            let reply = read::<abi::Reply>(call)?;
            let mut state = shared.lock();
            let number = select(&mut state, service, call.tid, &reply.path)?;
            let number = open_reply(&mut state, number, reply.from.into())?;
            state.datagrams.select(call.tid, number);
        }
        abi::REPORT_ERROR => {
            let said = read::<abi::UnreachableReport>(call)?;
            let mut state = shared.lock();
            let number = select(&mut state, service, call.tid, &said.path)?;
            let told = state.datagrams.get(number).cloned();
            drop(state);
            if let Some(datagrams) = told.filter(|_| said.error == libc::ECONNREFUSED.cast_unsigned()) {
                // As lost as such a message may be.
                let _lost = refuse(shared, &datagrams);
            }
        }
        _ => return Err(errno(libc::ENOPROTOOPT)),
    }
    Ok(Answer::Value(0))
}

fn read<T: FromBytes>(call: &Call) -> io::Result<T> {
    if usize::try_from(call.number_at(4)) != Ok(size_of::<T>()) {
        return Err(errno(libc::EINVAL));
    }
    let bytes = call.read(call.arguments[3], size_of::<T>())?;
    T::read_from_bytes(&bytes).map_err(|_size| errno(libc::EINVAL))
}

/// The flow at this path, if it is the service's to ask about.
fn select(state: &mut State, service: ServiceId, thread: u32, path: &abi::DatagramPath) -> io::Result<u64> {
    let path = Path::new(path.peer.into(), path.local.into());
    let number = state.datagrams.at(path).ok_or_else(|| errno(libc::ENOENT))?;
    let datagrams = state.datagrams.get_mut(number).ok_or_else(|| errno(libc::ENOENT))?;
    if datagrams.flow.service != service {
        return Err(errno(libc::EACCES));
    }
    let known = datagrams.flow.path.from;
    if known.port() != 0 && known.port() != path.from.port() {
        return Err(errno(libc::ENOENT));
    }
    if !datagrams.is_peer_seen {
        datagrams.is_peer_seen = true;
        datagrams.flow.path.from = path.from;
    }
    datagrams.touch();
    state.datagrams.select(thread, number);
    Ok(number)
}

/// The flow of the same socket with somebody who answers in its destination's stead.
fn open_reply(state: &mut State, number: u64, from: SocketAddr) -> io::Result<u64> {
    let full = || errno(libc::ENOBUFS);
    let answered = state.datagrams.get(number).cloned().ok_or_else(full)?;
    let ipv4 = from.ip().to_canonical().is_ipv4();
    if ipv4 != answered.flow.destination.ip().to_canonical().is_ipv4() {
        return Err(errno(libc::EINVAL));
    }
    if let Some(known) = state.datagrams.to(answered.socket, from) {
        return Ok(known.flow.number);
    }
    let peer = answered.flow.path.from;
    let token = take_token(state, answered.flow.service, ipv4, peer)?;
    let name: SocketId = state.datagrams.name();
    let number = state.engine.branch(FlowId(number), from, name).ok_or_else(full)?.0;
    let Flow { service, filter, application, exe_path, wishes, .. } = answered.flow.clone();
    let flow = Flow {
        number,
        service,
        filter,
        destination: plain(from),
        application,
        exe_path,
        wishes,
        path: Path::new(peer, token),
        socket: name.0,
    };
    let mut reply = Datagrams::new(flow, answered.socket, false, answered.holder);
    reply.is_peer_seen = answered.is_peer_seen;
    state.datagrams.begin(reply);
    Ok(number)
}

/// Lets a connected socket hear that its datagrams are refused. Nothing but an ICMP message does that, and to send one takes a privilege; so the
/// socket is connected for a moment to where the kernel sends one itself, by a copy of the descriptor that it was connected by.
fn refuse(shared: &Shared, datagrams: &Datagrams) -> io::Result<()> {
    if !datagrams.is_connected || datagrams.is_closed {
        return Ok(());
    }
    let (holder, number) = datagrams.holder;
    let socket = shared.threads.copy_descriptor(holder, number)?;
    let token = datagrams.flow.path.to;
    if sockopt::socket_cookie(&socket)? != datagrams.socket {
        return Ok(());
    }
    let is_v6 = sockopt::socket_domain(&socket)? == rustix::net::AddressFamily::INET6;
    let door = closed_door(token)?;
    let told = knock(&socket, &write_address(door.local_addr()?, is_v6));
    calls::connect(socket.as_fd(), &write_address(token, is_v6))?;
    told
}

/// A socket that takes nothing from anybody else.
fn closed_door(token: SocketAddr) -> io::Result<UdpSocket> {
    let door = match token {
        SocketAddr::V4(_) => UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?,
        SocketAddr::V6(_) => UdpSocket::bind((Ipv6Addr::LOCALHOST, 0))?,
    };
    door.connect(door.local_addr()?)?;
    Ok(door)
}

fn knock(socket: &OwnedFd, door: &[u8]) -> io::Result<()> {
    calls::connect(socket.as_fd(), door)?;
    sys::send(socket.as_fd(), &[], &[], &[], libc::MSG_DONTWAIT)?;
    let mut sockets = [PollFd::new(socket, PollFlags::empty())];
    let patience = Timespec { tv_sec: 0, tv_nsec: i64::from(PATIENCE.subsec_nanos()) };
    // Its owner may have heard it already.
    let _heard = poll(&mut sockets, Some(&patience));
    Ok(())
}
