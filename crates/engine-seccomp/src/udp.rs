//! UDP: what goes from a socket to a destination is a flow, which a token leads to its service, as with the engine on eBPF. A token is an address of
//! the loopback, or, over IPv6, a port of the service's there: to send there takes no privilege.
//!
//! Sockets that are connected cost nothing more once they are. Of the others each call that names somebody is answered here: that of a
//! datagram that is redirected is made in its caller's place, by a copy of its descriptor, and so is that by which one is received, for what
//! comes from a token is to be shown as coming from whom it stands for. Everything else the kernel carries out itself.

mod flows;
mod message;
mod options;
mod receive;
mod send;
mod sys;
mod wait;

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
};

use rustix::net::sockopt;
use socket2::SockRef;
use waylay_abi::SocketWishes;
use waylay_core::{Leg, Namespace, Obstacle, Protocol, Route, ServiceId};
use waylay_engine::memory::{FlowId, Outcome, SocketId};

pub(crate) use flows::DatagramFlows;
pub(crate) use options::{ask, tell};
pub(crate) use receive::receive;
pub(crate) use send::send;

use crate::{
    call::{Call, errno, write_address},
    caller::{Caller, Seen},
    connect::{missing, reachable, wishes_of},
    flows::{Flow, Path},
    scout::is_all_of_a_network,
    shared::{Shared, State, Surroundings},
    supervisor::{Answer, Dialler},
    sys as calls,
};
use flows::Datagrams;

/// Bytes of the longest socket address (`struct sockaddr_storage`).
const LONGEST_NAME: usize = crate::call::LONGEST_ADDRESS;
/// Bytes of a datagram; more than can be sent.
const MOST_BYTES: usize = 64 * 1024;

/// Whether a socket is one of UDP, and of IPv6.
pub(crate) fn family_of(socket: &OwnedFd) -> io::Result<Option<bool>> {
    let v6 = match i32::from(sockopt::socket_domain(socket)?.as_raw()) {
        libc::AF_INET => false,
        libc::AF_INET6 => true,
        _ => return Ok(None),
    };
    let is_udp = SockRef::from(socket).protocol()? == Some(socket2::Protocol::UDP);
    Ok(is_udp.then_some(v6))
}

/// A UDP socket, and whoever makes a call with it.
pub(crate) struct Party<'c> {
    pub(crate) call: &'c Call,
    pub(crate) dialler: Dialler,
    pub(crate) socket: OwnedFd,
    pub(crate) cookie: u64,
    pub(crate) v6: bool,
}

impl<'c> Party<'c> {
    /// `None` where the kernel knows what to do: with other sockets, and with those that a service is reached by.
    fn of(shared: &Shared, dialler: Dialler, call: &'c Call) -> io::Result<Option<Self>> {
        let socket = call.descriptor(&shared.threads)?;
        // Of what is no socket the kernel says so.
        let Some(v6) = family_of(&socket).unwrap_or(None) else { return Ok(None) };
        let cookie = sockopt::socket_cookie(&socket)?;
        let party = Self { call, dialler, socket, cookie, v6 };
        let is_inbound = dialler.service().is_some_and(|service| {
            let port = party.local().map_or(0, |local| local.port());
            shared.lock().takes_datagrams(service, v6, port)
        });
        Ok((!is_inbound).then_some(party))
    }

    fn local(&self) -> io::Result<SocketAddr> {
        SockRef::from(&self.socket).local_addr()?.as_socket().ok_or_else(|| errno(libc::EINVAL))
    }

    /// What its owner has bound it to, as far as that can be told: a socket keeps the loopback's address that a connection to a token has
    /// given it.
    fn bound(&self) -> Option<SocketAddr> {
        let kept_to = |local: &SocketAddr| local.ip().to_canonical().is_loopback() && self.is_connected();
        self.local().ok().filter(|local| !kept_to(local))
    }

    /// Whom the kernel takes bytes of an address for; `None` if it has an error for them.
    fn named(&self, name: &[u8]) -> Option<SocketAddr> {
        let mut bytes = name.to_vec();
        // Without a family it is IPv4, to a socket of that (`udp_sendmsg()`).
        if !self.v6 && bytes.first_chunk() == Some(&(libc::AF_UNSPEC as u16).to_ne_bytes()) {
            bytes[..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
        }
        match crate::call::parse_address(&bytes) {
            crate::call::Named::Ip(to) if to.port() != 0 && (self.v6 || to.is_ipv4()) => Some(to),
            crate::call::Named::Ip(_) | crate::call::Named::Nothing | crate::call::Named::Other => None,
        }
    }

    /// The token by which a datagram, or all that will be sent, is to be led; `None` if it is to go where it was going.
    fn lead(
        &self,
        shared: &Shared,
        destination: SocketAddr,
        connects: bool,
    ) -> io::Result<Option<SocketAddr>> {
        let local = self.local()?;
        let remote = reachable(destination, Some(local));
        if let Some(known) = self.look_up(&mut shared.lock(), remote, local, connects) {
            return Ok(known);
        }
        shared.threads.given().into_iter().for_each(|given| given.free(remote.port()));
        let namespace = match calls::namespace_of(self.socket.as_fd())? {
            own if own == shared.namespace => Namespace::Own,
            other => Namespace::Foreign(other),
        };
        let seen = Seen::look(&shared.threads, self.call.tid, self.dialler.service())?;
        let wishes = wishes_of(&self.socket, self.bound(), self.v6);
        let found = shared.scout.way_towards(remote, &wishes);
        let is_to_all = is_all_of_a_network(&found, remote, &wishes);
        let around = Surroundings {
            namespace,
            route: found.map_or_else(missing, |()| Route::Exists),
            obstacle: if is_to_all { Some(Obstacle::Broadcast) } else { self.obstacle() },
        };
        let mut state = shared.lock();
        let caller = seen.placed(&mut state.lines);
        let bound = Some(local).filter(|local| !local.ip().is_unspecified());
        let leg = Leg { protocol: Protocol::Udp, local: bound, remote, caller: caller.process };
        let (records_on, name) = (SocketId(self.cookie), state.datagrams.name());
        let verdict = state.judge(&leg, records_on, around);
        match state.engine.conclude(&leg, records_on, name, verdict) {
            Outcome::Refused(refusal) => Err(errno(refusal.errno().number().into())),
            Outcome::Direct => {
                state.engine.close(name);
                state.datagrams.note_direct(self.cookie, remote, self.call.tid);
                Ok(None)
            }
            Outcome::Redirected { service, flow } => {
                let begun =
                    self.begin(&mut state, (&caller, wishes), (service, flow, name), remote, connects);
                if begun.is_err() {
                    state.engine.close(name);
                }
                begun.map(Some)
            }
        }
    }

    /// What needs no decision: where there is a flow, where there was none to be made, and an answer to somebody who has called.
    fn look_up(
        &self,
        state: &mut State,
        remote: SocketAddr,
        local: SocketAddr,
        connects: bool,
    ) -> Option<Option<SocketAddr>> {
        let is_command = self.dialler == Dialler::Command;
        if is_command && state.datagrams.has_called(local.port(), remote) {
            return Some(None);
        }
        if connects {
            return None;
        }
        if let Some(known) = state.datagrams.to(self.cookie, remote)
            && state.engine.is_alive(known.flow.service)
        {
            known.touch();
            return Some(Some(known.flow.path.to));
        }
        state.datagrams.is_direct(self.cookie, remote, self.call.tid).then_some(None)
    }

    fn begin(
        &self,
        state: &mut State,
        (caller, wishes): (&Caller, SocketWishes),
        (service, flow, name): (ServiceId, FlowId, SocketId),
        destination: SocketAddr,
        connects: bool,
    ) -> io::Result<SocketAddr> {
        let ipv4 = destination.ip().to_canonical().is_ipv4();
        let peer = self.fix_source(ipv4)?;
        let token = take_token(state, service, ipv4, peer)?;
        let filter = state.engine.chain(flow).and_then(|chain| chain.hops().last().map(|hop| hop.filter));
        let filter = filter.ok_or_else(|| errno(libc::ENOBUFS))?;
        let first = state.datagrams.carried_by(self.cookie);
        let first = first.filter(|carried| Some(carried.service) == self.dialler.service());
        let (application, exe_path, wishes) = match first {
            Some(carried) => (carried.application, Arc::clone(&carried.exe_path), carried.wishes),
            None => (caller.on_the_wire(), caller.exe_path(), wishes),
        };
        let flow = Flow {
            number: flow.0,
            service,
            filter,
            destination,
            application,
            exe_path,
            wishes,
            path: Path::new(peer, token),
            socket: name.0,
        };
        let holder = (self.call.tid, self.call.number_at(0));
        state.datagrams.begin(Datagrams::new(flow, self.cookie, connects, holder));
        Ok(token)
    }

    /// A socket that is kept to a device other than the loopback's would send to a token by that.
    fn obstacle(&self) -> Option<Obstacle> {
        let socket = self.socket.as_fd();
        let is_kept = [(libc::SOL_IP, libc::IP_UNICAST_IF), (libc::SOL_IPV6, libc::IPV6_UNICAST_IF)]
            .into_iter()
            .any(|(level, name)| calls::number(socket, level, name).is_ok_and(|device| device != 0));
        (is_kept || calls::is_kept_to_device(socket)).then_some(Obstacle::Device)
    }

    /// Where the service will see datagrams come from. Over IPv6 the flow is known by it, port and all.
    fn fix_source(&self, ipv4: bool) -> io::Result<SocketAddr> {
        let mut local = self.local()?;
        if !ipv4 && local.port() == 0 {
            calls::choose_port_at_bind(self.socket.as_fd())?;
            SockRef::from(&self.socket).bind(&SocketAddr::new(local.ip(), 0).into())?;
            local = self.local()?;
        }
        let loopback: IpAddr = if ipv4 { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
        let is_any = local.ip().to_canonical().is_unspecified() || local.ip().is_unspecified();
        Ok(SocketAddr::new(if is_any { loopback } else { local.ip() }, local.port()))
    }

    fn is_connected(&self) -> bool {
        SockRef::from(&self.socket).peer_addr().is_ok()
    }
}

fn take_token(state: &mut State, service: ServiceId, ipv4: bool, peer: SocketAddr) -> io::Result<SocketAddr> {
    if let Some(dropped) = state.datagrams.make_room() {
        state.engine.close(dropped);
    }
    let endpoint = state.endpoints.iter().find(|endpoint| endpoint.service == service);
    let endpoint = endpoint.filter(|_| !state.datagrams.is_full()).ok_or_else(|| errno(libc::ENOBUFS))?;
    let (token, dropped) = state.datagrams.take_token(endpoint, ipv4, peer);
    if let Some(dropped) = dropped {
        state.engine.close(dropped);
    }
    token.ok_or_else(|| errno(libc::ENOBUFS))
}

/// connect(2) of a UDP socket, which waits for nothing. One that fails leaves the socket connected as it was.
pub(crate) fn connect(shared: &Shared, party: &Party<'_>, name: &[u8]) -> io::Result<Answer> {
    let destination = party.named(name).filter(|_| name.first_chunk() != Some(&[0; 2]));
    let token = match destination {
        Some(destination) => party.lead(shared, destination, true)?,
        None => None,
    };
    let led = token.map(|token| write_address(token, party.v6));
    let connected = calls::connect(party.socket.as_fd(), led.as_deref().unwrap_or(name));
    let mut state = shared.lock();
    let flow = token.and_then(|token| state.datagrams.of_token(party.cookie, token));
    let number = flow.map(|flow| flow.flow.number);
    match &connected {
        Ok(()) => state.datagrams.connect(party.cookie, number),
        Err(_) => {
            if let Some(name) = number.and_then(|number| state.datagrams.end(number)) {
                state.engine.close(name);
            }
        }
    }
    connected.map(|()| Answer::Value(0))
}
