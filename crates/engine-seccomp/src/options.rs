//! What services ask and say by socket options: the same options, answers and errors as the kernel programs of `waylay-engine-ebpf` have.

use std::{
    io,
    net::SocketAddr,
    os::fd::{AsFd, OwnedFd},
};

use rustix::net::sockopt;
use socket2::SockRef;
use waylay_abi as abi;
use waylay_core::{Process, ServiceId};
use waylay_engine::{
    LocalName,
    memory::{FlowId, RecordsHandle, SetRecordsError, SocketId},
};
use zerocopy::{FromZeros, IntoBytes};

use crate::{
    call::{Call, errno, write_address},
    caller::home_of,
    filter::TRANSPARENT,
    flows::{Flow, Inbound},
    shared::{Shared, State},
    sight::Sight,
    supervisor::{Answer, Dialler},
    sys, udp,
};

/// `SO_ORIGINAL_DST` and `IP6T_SO_ORIGINAL_DST` (linux/netfilter_ipv4.h).
const ORIGINAL_DESTINATION: i32 = 80;

/// getsockopt(2) of a service.
pub(crate) fn ask(shared: &Shared, dialler: Dialler, call: &Call) -> io::Result<Answer> {
    let (level, name) = (call.number_at(1), call.number_at(2));
    let is_ours = level == abi::SOL_WAYLAY;
    if !is_ours && name != ORIGINAL_DESTINATION {
        return Ok(Answer::Continue);
    }
    let socket = call.sight(shared, dialler)?;
    if socket.is_udp()? {
        return udp::ask(shared, call);
    }
    let (cookie, path) = (socket.cookie()?, socket.path());
    let mut state = shared.lock_once_settled(cookie, path);
    let names_flow_to_come = is_ours && name == abi::QUERY_CHAIN;
    if let Some(carried) = state.flows.carried_by(cookie).filter(|_| names_flow_to_come) {
        let answer = chain(&state, carried);
        drop(state);
        return give(call, &answer);
    }
    let answer = match state.flows.of_inbound(cookie, path) {
        Inbound::NotRedirected | Inbound::Ended if !is_ours => return Ok(Answer::Continue),
        Inbound::NotRedirected => return Err(errno(libc::ENOENT)),
        Inbound::Ended => return Err(errno(libc::ESTALE)),
        Inbound::Of(flow) => {
            let flow = flow.clone();
            about(shared, &state, &flow, (level, name))?
        }
    };
    drop(state);
    give(call, &answer)
}

pub(crate) fn about(
    shared: &Shared,
    state: &State,
    flow: &Flow,
    (level, name): (i32, i32),
) -> io::Result<Vec<u8>> {
    match (level, name) {
        (abi::SOL_WAYLAY, abi::QUERY_RECORDS) => Ok(shared.handles.make(flow.number).as_bytes().to_vec()),
        (abi::SOL_WAYLAY, abi::QUERY_CONTEXT) => Ok(context(flow).as_bytes().to_vec()),
        (abi::SOL_WAYLAY, abi::QUERY_CHAIN) => Ok(chain(state, flow)),
        (abi::SOL_WAYLAY, abi::QUERY_ORIGINAL_DST) => Ok(address(flow.destination)),
        (libc::SOL_IP, _) if flow.destination.ip().to_canonical().is_ipv4() => Ok(address(flow.destination)),
        (libc::SOL_IP, _) => Err(errno(libc::ENOENT)),
        (libc::SOL_IPV6, _) => Ok(write_address(flow.destination, true).to_vec()),
        (_, _) => Err(errno(libc::ENOPROTOOPT)),
    }
}

/// A mapped one as IPv4.
fn address(destination: SocketAddr) -> Vec<u8> {
    let mut shown = destination;
    if destination.ip().to_canonical().is_ipv4() {
        shown = SocketAddr::new(destination.ip().to_canonical(), destination.port());
    }
    write_address(shown, false).to_vec()
}

fn context(flow: &Flow) -> abi::Context {
    abi::Context {
        version: abi::ABI_VERSION,
        size: size_of::<abi::Context>() as u32,
        flow: flow.number,
        service: flow.service.0,
        filter: flow.filter.0,
        destination: flow.destination.into(),
        application: flow.application,
        wishes: flow.wishes,
        exe_path: *flow.exe_path,
    }
}

fn chain(state: &State, flow: &Flow) -> Vec<u8> {
    let mut answer = abi::NamedChain::new_zeroed();
    answer.version = abi::ABI_VERSION;
    let hops = state.engine.chain(FlowId(flow.number)).map(|chain| chain.hops()).unwrap_or_default();
    answer.hop_count = hops.len() as u32;
    for (hop, named) in hops.iter().zip(&mut answer.hops) {
        named.hop = abi::Hop { service: hop.service.0, filter: hop.filter.0 };
        let name = state.names.get(&hop.service).map(String::as_bytes).unwrap_or_default();
        let len = name.len().min(abi::NAME_LEN - 1);
        named.name[..len].copy_from_slice(&name[..len]);
    }
    answer.as_bytes().to_vec()
}

/// A length of 0 asks for the size; a buffer that is too short is an error, which netfilter calls another.
pub(crate) fn give(call: &Call, answer: &[u8]) -> io::Result<Answer> {
    let (at, length_at) = (call.arguments[3], call.arguments[4]);
    let room = call.read_length(length_at)?;
    let is_ours = call.number_at(1) == abi::SOL_WAYLAY;
    match usize::try_from(room) {
        Ok(0) if is_ours => {}
        Ok(room) if room >= answer.len() => call.write(at, answer)?,
        Ok(_) if is_ours => return Err(errno(libc::ENOBUFS)),
        Ok(_) | Err(_) => return Err(errno(libc::EINVAL)),
    }
    call.write(length_at, &(answer.len() as i32).to_ne_bytes())?;
    Ok(Answer::Value(0))
}

/// setsockopt(2) of a service.
pub(crate) fn tell(shared: &Shared, service: ServiceId, call: &Call) -> io::Result<Answer> {
    if TRANSPARENT.contains(&(call.number_at(1), call.number_at(2))) {
        // It is shown destinations, and would be told that it may not be.
        let is_shown = shared.lock().local_name_of(service) == LocalName::Destination;
        return Ok(if is_shown { Answer::Value(0) } else { Answer::Continue });
    }
    if call.number_at(1) != abi::SOL_WAYLAY {
        return Ok(Answer::Continue);
    }
    if call.number_at(2) != abi::SET_RECORDS {
        return match call.sight(shared, Dialler::Service(service))?.is_udp()? {
            true => udp::tell(shared, service, call),
            false => Err(errno(libc::ENOPROTOOPT)),
        };
    }
    let size = size_of::<abi::Handle>();
    if usize::try_from(call.number_at(4)) != Ok(size) {
        return Err(errno(libc::EINVAL));
    }
    let bytes = call.read(call.arguments[3], size)?;
    let number = shared.handles.check(&bytes).map_err(errno)?;
    let socket = match call.sight(shared, Dialler::Service(service))? {
        Sight::Copy(socket) => socket,
        Sight::Told(told) if told.peer.is_some() => return Err(errno(libc::EISCONN)),
        Sight::Told(_) => return Err(errno(libc::EACCES)),
    };
    require_redirectable(&socket)?;
    let is_udp = udp::family_of(&socket)?.is_some();
    let cookie = sockopt::socket_cookie(&socket)?;
    if SockRef::from(&socket).peer_addr().is_ok() {
        return Err(errno(libc::EISCONN));
    }
    let mut state = shared.lock();
    let handle = RecordsHandle::of(FlowId(number));
    let caller = Process { cgroup: home_of(service), ..Process::default() };
    match state.engine.set_records(SocketId(cookie), handle, &caller) {
        Ok(()) => {
            let wishes = state.carry(cookie, number, is_udp);
            drop(state);
            if let Some(mark) = wishes.map(|wishes| wishes.mark).filter(|mark| *mark != 0) {
                sys::set_mark(socket.as_fd(), mark)?;
            }
            Ok(Answer::Value(0))
        }
        Err(SetRecordsError::FlowEnded) => Err(errno(libc::ESTALE)),
        Err(SetRecordsError::NotItsService) => Err(errno(libc::EACCES)),
        Err(SetRecordsError::Connected) => Err(errno(libc::EISCONN)),
    }
}

/// Records on any other socket would be lost.
fn require_redirectable(socket: &OwnedFd) -> io::Result<()> {
    let is_ip = [rustix::net::AddressFamily::INET, rustix::net::AddressFamily::INET6]
        .contains(&sockopt::socket_domain(socket)?);
    let is_stream = sockopt::socket_type(socket.as_fd())? == rustix::net::SocketType::STREAM;
    if is_ip && (is_stream || udp::family_of(socket)?.is_some()) {
        Ok(())
    } else {
        Err(errno(libc::EOPNOTSUPP))
    }
}
