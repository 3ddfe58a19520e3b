//! Flows of datagrams: what goes from one socket to one destination, and the token that it is led to its service by.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    time::{Duration, Instant},
};

use waylay_abi as abi;
use waylay_core::ServiceId;
use waylay_engine::{Endpoint, memory::SocketId};

use crate::{
    flows::{Flow, LOOKS_FOR_ONE_UNSEEN},
    program::ExePath,
};

/// The first of the addresses that stand for destinations, 127.128.0.1, and how many there are.
const FIRST_TOKEN: u32 = 0x7f80_0001;
const TOKENS: u32 = 0x7f_fffe;
/// Flows at one time.
const MOST_FLOWS: usize = 64 * 1024;
/// How long a flow may be idle.
pub(super) const IDLE: Duration = Duration::from_secs(60);
/// Names of sockets, of which each flow has one to itself in the engine in memory, begin here; no cookie is as high.
const FIRST_NAME: u64 = 1 << 63;
/// What is remembered at most of those who have called servers, and of destinations that nothing is to be done for.
const MOST_REMEMBERED: usize = 64 * 1024;
/// For how long what has been decided on a destination holds that nothing is to be done for.
const HOLDS: Duration = Duration::from_secs(1);

/// A flow of datagrams.
#[derive(Clone, Debug)]
pub(crate) struct Datagrams {
    /// What it has in common with a connection; its path leads from the application to the token.
    pub(crate) flow: Flow,
    /// The application's socket, by its cookie.
    pub(super) socket: u64,
    pub(super) is_connected: bool,
    /// The socket is gone, or goes elsewhere by now.
    pub(super) is_closed: bool,
    /// Datagrams have come from where its path begins.
    pub(super) is_peer_seen: bool,
    /// The process, and its descriptor, that the socket was connected by.
    pub(super) holder: (u32, i32),
    last: Instant,
    is_missed: bool,
}

/// Who carries a flow on, by what was set on a socket: a copy, which outlives the flow.
#[derive(Clone, Debug)]
pub(super) struct Carried {
    pub(super) service: ServiceId,
    pub(super) application: abi::Process,
    pub(super) exe_path: ExePath,
    pub(super) wishes: abi::SocketWishes,
    is_seen: bool,
    /// Looks in a row that have not found the socket.
    misses: u32,
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct DatagramFlows {
    by_number: BTreeMap<u64, Datagrams>,
    /// By token and, where the token is a port, by whom datagrams come from.
    by_path: BTreeMap<(SocketAddr, Option<SocketAddr>), u64>,
    by_destination: BTreeMap<(u64, SocketAddr), u64>,
    by_token: BTreeMap<(u64, SocketAddr), u64>,
    of_connected: BTreeMap<u64, u64>,
    carried: BTreeMap<u64, Box<Carried>>,
    /// By thread: which flow it has asked to look at.
    selected: BTreeMap<u32, u64>,
    /// Who has sent to a port of a server in the run.
    callers: BTreeMap<(u16, SocketAddr), Instant>,
    direct: BTreeMap<(u64, SocketAddr, u32), Instant>,
    last_token: u32,
    last_name: u64,
    dropped: u64,
}

/// As flows are looked up by their destinations.
pub(super) fn plain(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V6(v6) if v6.ip().to_ipv4_mapped().is_none() => {
            std::net::SocketAddrV6::new(*v6.ip(), v6.port(), 0, v6.scope_id()).into()
        }
        SocketAddr::V4(_) | SocketAddr::V6(_) => SocketAddr::new(address.ip().to_canonical(), address.port()),
    }
}

fn key_of(path: crate::flows::Path) -> (SocketAddr, Option<SocketAddr>) {
    (path.to, path.to.is_ipv6().then_some(path.from))
}

impl Datagrams {
    pub(super) fn new(flow: Flow, socket: u64, is_connected: bool, holder: (u32, i32)) -> Self {
        let last = Instant::now();
        let (is_closed, is_peer_seen, is_missed) = (false, false, false);
        Self { flow, socket, is_connected, is_closed, is_peer_seen, holder, last, is_missed }
    }

    fn is_open(&self) -> bool {
        self.is_connected && !self.is_closed
    }

    pub(super) fn touch(&mut self) {
        self.last = Instant::now();
    }
}

impl DatagramFlows {
    /// A name for a flow's end in the engine in memory.
    pub(super) fn name(&mut self) -> SocketId {
        self.last_name += 1;
        SocketId(FIRST_NAME | self.last_name)
    }

    pub(crate) fn get(&self, number: u64) -> Option<&Datagrams> {
        self.by_number.get(&number)
    }

    pub(super) fn get_mut(&mut self, number: u64) -> Option<&mut Datagrams> {
        self.by_number.get_mut(&number)
    }

    /// The flow that a socket has to a destination.
    pub(super) fn to(&mut self, socket: u64, destination: SocketAddr) -> Option<&mut Datagrams> {
        let number = *self.by_destination.get(&(socket, plain(destination)))?;
        self.by_number.get_mut(&number)
    }

    /// The flow of a socket that a token stands for.
    pub(super) fn of_token(&mut self, socket: u64, token: SocketAddr) -> Option<&mut Datagrams> {
        let number = *self.by_token.get(&(socket, plain(token)))?;
        self.by_number.get_mut(&number)
    }

    /// The flow that a socket is connected by.
    pub(crate) fn of_connected(&self, socket: u64) -> Option<&Datagrams> {
        self.get(*self.of_connected.get(&socket)?)
    }

    pub(super) fn at(&self, path: crate::flows::Path) -> Option<u64> {
        self.by_path.get(&key_of(path)).copied()
    }

    /// Makes room for one more: gives the name of the flow that has been idle for longest and is dropped.
    pub(super) fn make_room(&mut self) -> Option<SocketId> {
        if self.by_number.len() < MOST_FLOWS {
            return None;
        }
        self.drop_idlest(|_| true)
    }

    pub(super) fn is_full(&self) -> bool {
        self.by_number.len() >= MOST_FLOWS
    }

    fn drop_idlest(&mut self, may_go: impl Fn(&Datagrams) -> bool) -> Option<SocketId> {
        let idle = self.by_number.values().filter(|flow| !flow.is_open() && may_go(flow));
        let number = idle.min_by_key(|flow| flow.last)?.flow.number;
        self.dropped += 1;
        self.end(number)
    }

    /// A token for a flow from `peer`: an address, or a port of the service's. Gives the name of a flow that had to make room.
    pub(super) fn take_token(
        &mut self,
        endpoint: &Endpoint,
        ipv4: bool,
        peer: SocketAddr,
    ) -> (Option<SocketAddr>, Option<SocketId>) {
        if ipv4 {
            return (endpoint.udp4.and_then(|port| self.take_address(port)), None);
        }
        let token = |port: u16| SocketAddr::from((Ipv6Addr::LOCALHOST, port));
        let is_free = |flows: &Self, port: u16| !flows.by_path.contains_key(&(token(port), Some(peer)));
        let start = self.last_name as usize;
        let ports = &endpoint.udp6;
        let mut turns = (0..ports.len()).map(|turn| ports[(start + turn) % ports.len()]);
        if let Some(port) = turns.find(|&port| is_free(self, port)) {
            return (Some(token(port)), None);
        }
        let service = endpoint.service;
        let dropped = self.drop_idlest(|flow| flow.flow.path.from == peer && flow.flow.service == service);
        let port = ports.iter().copied().find(|&port| is_free(self, port));
        (port.map(token), dropped)
    }

    fn take_address(&mut self, port: u16) -> Option<SocketAddr> {
        // There are a hundred times as many as flows.
        for _ in 0..MOST_FLOWS + 1 {
            let token = Ipv4Addr::from(FIRST_TOKEN + self.last_token % TOKENS);
            self.last_token = self.last_token.wrapping_add(1);
            let token = SocketAddr::from((token, port));
            if !self.by_path.contains_key(&(token, None)) {
                return Some(token);
            }
        }
        None
    }

    pub(super) fn begin(&mut self, new: Datagrams) {
        let (number, path, destination) = (new.flow.number, new.flow.path, plain(new.flow.destination));
        self.by_path.insert(key_of(path), number);
        self.by_destination.insert((new.socket, destination), number);
        self.by_token.insert((new.socket, path.to), number);
        self.by_number.insert(number, new);
    }

    /// Ends it; gives its name.
    pub(super) fn end(&mut self, number: u64) -> Option<SocketId> {
        let ended = self.by_number.remove(&number)?;
        let path = ended.flow.path;
        self.by_path.remove(&key_of(path));
        self.by_token.remove(&(ended.socket, path.to));
        let destination = (ended.socket, plain(ended.flow.destination));
        if self.by_destination.get(&destination) == Some(&number) {
            self.by_destination.remove(&destination);
        }
        if self.of_connected.get(&ended.socket) == Some(&number) {
            self.of_connected.remove(&ended.socket);
        }
        Some(SocketId(ended.flow.socket))
    }

    /// The socket is connected by this flow from here on, or by none; what is under way still finds the one that it was connected by before.
    pub(super) fn connect(&mut self, socket: u64, flow: Option<u64>) {
        let before = match flow {
            Some(number) => self.of_connected.insert(socket, number),
            None => self.of_connected.remove(&socket),
        };
        if let Some(left) = before.and_then(|number| self.by_number.get_mut(&number)) {
            left.is_closed = true;
            left.touch();
        }
    }

    pub(crate) fn carry(&mut self, socket: u64, flow: &Flow) {
        let Flow { service, application, exe_path, wishes, .. } = flow.clone();
        let carried = Carried { service, application, exe_path, wishes, is_seen: false, misses: 0 };
        self.carried.insert(socket, Box::new(carried));
    }

    pub(super) fn carried_by(&self, socket: u64) -> Option<&Carried> {
        self.carried.get(&socket).map(|carried| &**carried)
    }

    pub(super) fn select(&mut self, thread: u32, flow: u64) {
        self.selected.insert(thread, flow);
    }

    pub(super) fn selected_by(&self, thread: u32) -> Option<u64> {
        self.selected.get(&thread).copied()
    }

    /// Somebody has sent to a server's port; what it sends there is an answer and no flow.
    pub(super) fn hear(&mut self, port: u16, caller: SocketAddr) {
        let now = Instant::now();
        if self.callers.len() >= MOST_REMEMBERED {
            self.callers.retain(|_, heard| now.duration_since(*heard) < IDLE / 2);
        }
        self.callers.insert((port, plain(caller)), now);
    }

    pub(super) fn has_called(&self, port: u16, caller: SocketAddr) -> bool {
        self.callers.contains_key(&(port, plain(caller)))
    }

    /// That nothing is to be done for what a thread sends there by a socket.
    pub(super) fn note_direct(&mut self, socket: u64, destination: SocketAddr, thread: u32) {
        if self.direct.len() >= MOST_REMEMBERED {
            self.direct.clear();
        }
        self.direct.insert((socket, plain(destination), thread), Instant::now());
    }

    pub(super) fn is_direct(&self, socket: u64, destination: SocketAddr, thread: u32) -> bool {
        let noted = self.direct.get(&(socket, plain(destination), thread));
        noted.is_some_and(|noted| noted.elapsed() < HOLDS)
    }

    /// What was decided on by another policy, or while other services lived, does not hold.
    pub(crate) fn forget_decisions(&mut self) {
        self.direct.clear();
    }

    /// Ends what has been idle for too long; a connected socket's flow not before the socket, which `open` has, by its cookie, for as long as
    /// it has a port. Gives the names of those that have ended, and the sockets that are gone.
    pub(crate) fn sweep(&mut self, open: &BTreeSet<u64>, now: Instant) -> Vec<SocketId> {
        let mut over = Vec::new();
        for flow in self.by_number.values_mut() {
            let is_missed = flow.is_open() && !open.contains(&flow.socket);
            if is_missed && flow.is_missed {
                (flow.is_closed, flow.last) = (true, now);
            }
            flow.is_missed = is_missed;
            if !flow.is_open() && now.saturating_duration_since(flow.last) >= IDLE {
                over.push(flow.flow.number);
            }
        }
        let mut ended: Vec<SocketId> = over.into_iter().filter_map(|number| self.end(number)).collect();
        self.carried.retain(|socket, carried| {
            let is_open = open.contains(socket);
            carried.is_seen |= is_open;
            carried.misses = if is_open { 0 } else { carried.misses + 1 };
            // One that has never been may have yet to be sent by, or has been gone before anybody looked.
            let is_gone = carried.is_seen && !is_open || carried.misses >= LOOKS_FOR_ONE_UNSEEN;
            if is_gone {
                ended.push(SocketId(*socket));
            }
            !is_gone
        });
        let alive = &self.by_number;
        self.selected.retain(|_, number| alive.contains_key(number));
        self.callers.retain(|_, heard| now.saturating_duration_since(*heard) < 10 * IDLE);
        self.direct.retain(|_, noted| now.saturating_duration_since(*noted) < HOLDS);
        ended
    }

    /// How many have been dropped to make room since this was asked last.
    pub(crate) fn newly_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.dropped)
    }
}

#[cfg(test)]
mod tests;
