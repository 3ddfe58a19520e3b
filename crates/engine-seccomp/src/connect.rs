//! connect(2): decided by the policy, and carried out on a copy of the caller's descriptor. Nothing that the caller does to its memory or
//! descriptors meanwhile changes more than which of its sockets is redirected.

use std::{
    cell::Cell,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
};

use rustix::net::sockopt;
use socket2::SockRef;
use waylay_abi as abi;
use waylay_core::{Errno, Leg, Namespace, Obstacle, Process, Protocol, Route, ServiceId, Verdict};
use waylay_engine::memory::{FlowId, Outcome, SocketId};

use crate::{
    birthmark::Birthmark,
    call::{Call, Named, RawAddress, errno, parse_address, write_address},
    caller::{Caller, Seen, home_of},
    flows::{Flow, Path},
    interrupted, making,
    pool::Turn,
    probe,
    scout::{Scout, is_all_of_a_network},
    shared::{Claim, Judged, Shared, Surroundings},
    supervisor::{Answer, Dialler},
    sys,
    threads::Thread,
    udp,
};

/// `TCP_CLOSE` (net/tcp_states.h).
const CLOSED: u8 = 7;

/// Bytes that one call sends with a connection; the rest is its caller's to send, as after any short write.
const MOST_AT_FIRST: usize = 64 * 1024;

/// What the connection is to be made with, once it is decided on.
pub(crate) struct Plan<'s> {
    _claim: Claim<'s>,
    socket: OwnedFd,
    cookie: u64,
    address: RawAddress,
    flow: Option<u64>,
    /// Whether it is known of the flow where it comes from.
    is_settled: Cell<bool>,
}

/// What comes of a call before anything is dialled.
pub(crate) enum Decided<'s> {
    /// This, at once.
    Answered(Answer),
    /// A connection is to be made, which may take long.
    Dial(Plan<'s>),
}

/// Whether a call is one that sends the first bytes of a connection. What is no stream takes no notice of the flag.
pub(crate) fn begins(shared: &Shared, call: &Call) -> bool {
    let is_asked_for = call.number_at(3) & libc::MSG_FASTOPEN != 0;
    let is_datagram = || udp::family_of(&call.descriptor(&shared.threads)?).map(|udp| udp.is_some());
    is_asked_for && !is_datagram().unwrap_or(false)
}

/// `address` and its length are the arguments with these indices.
pub(crate) fn decide<'s>(
    shared: &'s Shared,
    dialler: Dialler,
    call: &Call,
    address: (usize, usize),
    turn: &Turn<'_>,
) -> Decided<'s> {
    prepare(shared, dialler, call, address, turn)
        .unwrap_or_else(|error| Decided::Answered(Answer::from(error)))
}

fn prepare<'s>(
    shared: &'s Shared,
    dialler: Dialler,
    call: &Call,
    address: (usize, usize),
    turn: &Turn<'_>,
) -> io::Result<Decided<'s>> {
    let mark = shared.threads.mark_of(call.tid);
    let (bytes, has_mark) =
        call.read_address(address, mark).map_err(|error| match call.descriptor(&shared.threads) {
            // The kernel looks at the descriptor first.
            Err(closed) if closed.raw_os_error() == Some(libc::EBADF) => closed,
            Err(_) | Ok(_) => error,
        })?;
    let mark = mark.filter(|_| has_mark);
    let Some((thread, socket)) = making::to_connect(shared, call, &bytes, turn)? else {
        return Ok(Decided::Answered(Answer::Continue));
    };
    require_waited_for(turn)?;
    let Some((kind, local)) = Kind::of(&socket)? else { return Ok(Decided::Answered(Answer::Continue)) };
    let cookie = sockopt::socket_cookie(&socket)?;
    let claim = shared.claim(cookie, call.tid, turn)?;
    let plain = |_claim, socket, address| {
        let is_settled = Cell::new(true);
        Ok(Decided::Dial(Plan { _claim, socket, cookie, address, flow: None, is_settled }))
    };
    match (kind, parse_address(&bytes)) {
        (Kind::Stream { v6 }, Named::Ip(destination)) if destination.is_ipv6() == v6 => {
            let wanted =
                Wanted { turn, claim, dialler, thread, mark, socket, local, cookie, destination, v6 };
            wanted.decide(shared)
        }
        (Kind::Stream { .. }, Named::Nothing) => {
            // One that is disconnected is at its beginning.
            shared.lock().end_flow_of(cookie);
            plain(claim, socket, bytes)
        }
        (Kind::Datagram { v6 }, _) => {
            let party = udp::Party { call, dialler, socket, cookie, v6 };
            udp::connect(shared, &party, &bytes).map(Decided::Answered)
        }
        (Kind::Stream { .. } | Kind::Other, Named::Ip(_) | Named::Nothing | Named::Other) => {
            plain(claim, socket, bytes)
        }
    }
}

fn require_waited_for(turn: &Turn<'_>) -> io::Result<()> {
    if turn.is_waited_for() { Ok(()) } else { Err(errno(libc::EINTR)) }
}

/// A socket's kind, as far as it matters. `None`: one that stays on this host.
#[derive(Clone, Copy)]
enum Kind {
    Stream { v6: bool },
    Datagram { v6: bool },
    Other,
}

impl Kind {
    /// With the address that the socket has.
    fn of(socket: &OwnedFd) -> io::Result<Option<(Self, Option<SocketAddr>)>> {
        let socket = SockRef::from(socket);
        let local = socket.local_addr()?;
        let v6 = match i32::from(local.family()) {
            libc::AF_INET => false,
            libc::AF_INET6 => true,
            _ => return Ok(None),
        };
        let kind = match socket.protocol()? {
            Some(socket2::Protocol::TCP | socket2::Protocol::MPTCP) => Self::Stream { v6 },
            Some(socket2::Protocol::UDP) => Self::Datagram { v6 },
            Some(_) | None if socket.r#type()? == socket2::Type::STREAM => Self::Stream { v6 },
            Some(_) | None => Self::Other,
        };
        Ok(Some((kind, local.as_socket())))
    }
}

/// A connection over TCP that is asked for.
struct Wanted<'c, 's> {
    turn: &'c Turn<'c>,
    claim: Claim<'s>,
    dialler: Dialler,
    thread: Arc<Thread>,
    mark: Option<Birthmark>,
    socket: OwnedFd,
    local: Option<SocketAddr>,
    cookie: u64,
    destination: SocketAddr,
    v6: bool,
}

impl<'s> Wanted<'_, 's> {
    fn decide(self, shared: &'s Shared) -> io::Result<Decided<'s>> {
        if !self.is_at_its_beginning() {
            // The kernel says how it gets on.
            let begun = shared.lock().flows.of_outgoing(self.cookie).map(|flow| (flow.number, flow.path.to));
            let (flow, to) =
                begun.map_or((None, self.destination), |(flow, listener)| (Some(flow), listener));
            let address = write_address(to, self.v6);
            return Ok(self.dial(address, flow));
        }
        let remote = reachable(self.destination, self.local);
        let namespace = match sys::namespace_of(self.socket.as_fd())? {
            own if own == shared.namespace => Namespace::Own,
            other => Namespace::Foreign(other),
        };
        let leg =
            Leg { protocol: Protocol::Tcp, local: self.local_address(), remote, caller: self.unknown() };
        let around = Surroundings { namespace, route: Route::Exists, obstacle: None };
        let foreseen = self.foresee(shared, &leg, around);
        if foreseen.as_ref().is_some_and(|judged| judged.verdict == Verdict::Direct) {
            return Ok(self.dial_directly());
        }
        let around = Surroundings { obstacle: self.obstacle(remote), ..around };
        let foreseen = foreseen.filter(|_| around.obstacle.is_none());
        self.follow(shared, leg, around, foreseen)
    }

    /// Does what becomes of a leg, now that it matters who dials and what way there is.
    fn follow(
        self,
        shared: &'s Shared,
        leg: Leg,
        around: Surroundings,
        foreseen: Option<Judged>,
    ) -> io::Result<Decided<'s>> {
        let seen = Seen::of(Arc::clone(&self.thread), self.mark, self.dialler.service())?;
        if !self.thread.is_by_itself() {
            // So that what was seen is not another's, who has the number by now.
            require_waited_for(self.turn)?;
        }
        if self.mark.is_none() {
            self.thread.note_mark(|| self.turn.is_waited_for());
        }
        let socket = SocketId(self.cookie);
        let mut state = shared.lock();
        let caller = seen.placed(&mut state.lines);
        let leg = Leg { caller: caller.process, ..leg };
        let judged = foreseen.unwrap_or_else(|| state.judge_as_of_now(&leg, socket, around));
        drop(state);
        let wishes = wishes_of(&self.socket, self.local, self.v6);
        let route = match judged.verdict {
            // Whether there is a way the kernel tells by itself.
            Verdict::Direct => Route::Exists,
            Verdict::Redirect { .. } | Verdict::Refuse(_) => {
                route_towards(shared, leg.remote, around.namespace, &wishes)
            }
        };
        let mut state = shared.lock();
        match state.conclude(&leg, socket, Surroundings { route, ..around }, judged) {
            Outcome::Refused(refusal) => Err(errno(refusal.errno().number().into())),
            Outcome::Direct => {
                state.end_flow_of(self.cookie);
                drop(state);
                Ok(self.dial_directly())
            }
            Outcome::Redirected { service, flow } => {
                let listener = state.listener_of(service, leg.remote.ip());
                drop(state);
                self.redirect(shared, (&caller, wishes), (service, flow), listener)
            }
        }
    }

    /// What becomes of a leg that there is a way for, whoever dials; `None` where that depends on who does. Where it goes its own way, nobody looks.
    fn foresee(&self, shared: &Shared, leg: &Leg, around: Surroundings) -> Option<Judged> {
        let mut state = shared.lock();
        state.end_flow_of(self.cookie);
        let depends = state.engine.tables().ask_of_processes() || around.namespace != Namespace::Own;
        (!depends).then(|| state.judge_as_of_now(leg, SocketId(self.cookie), around))
    }

    /// Of a service it is known which one it is.
    fn unknown(&self) -> Process {
        Process { cgroup: self.dialler.service().map_or(0, home_of), ..Process::default() }
    }

    /// A socket that is kept to a device reaches the loopback no better than a service.
    fn obstacle(&self, remote: SocketAddr) -> Option<Obstacle> {
        let is_at_hand = remote.ip().to_canonical().is_loopback();
        (!is_at_hand && sys::is_kept_to_device(self.socket.as_fd())).then_some(Obstacle::Device)
    }

    fn local_address(&self) -> Option<SocketAddr> {
        self.local.filter(|local| !local.ip().is_unspecified())
    }

    fn redirect(
        self,
        shared: &'s Shared,
        (caller, wishes): (&Caller, abi::SocketWishes),
        (service, flow): (ServiceId, FlowId),
        listener: Option<SocketAddr>,
    ) -> io::Result<Decided<'s>> {
        let abandon = |error| {
            shared.lock().end_flow_of(self.cookie);
            error
        };
        let listener = listener.ok_or_else(|| abandon(errno(libc::ECONNREFUSED)))?;
        let mut state = shared.lock();
        let filter = state.engine.chain(flow).and_then(|chain| chain.hops().last().map(|hop| hop.filter));
        let Some(filter) = filter else { return Err(errno(libc::ENOBUFS)) };
        let first = state
            .flows
            .carried_by(self.cookie)
            .filter(|carried| Some(carried.service) == self.dialler.service());
        let (application, exe_path, wishes) = match first {
            Some(carried) => (carried.application, Arc::clone(&carried.exe_path), carried.wishes),
            None => (caller.on_the_wire(), caller.exe_path(), wishes),
        };
        let replaced = state.flows.begin(Flow {
            number: flow.0,
            service,
            filter,
            destination: reachable(self.destination, self.local),
            application,
            exe_path,
            wishes,
            path: Path::from_anywhere(listener),
            socket: self.cookie,
        });
        if let Some(socket) = replaced {
            state.engine.close(SocketId(socket));
        }
        drop(state);
        let address = write_address(listener, self.v6);
        Ok(Decided::Dial(Plan { is_settled: Cell::new(false), ..self.plan(address, Some(flow.0)) }))
    }

    /// Whether nothing has been dialled with it, or that has failed.
    fn is_at_its_beginning(&self) -> bool {
        // What has been dialled with has a port.
        self.local.is_some_and(|local| local.port() == 0)
            || sys::tcp_state(self.socket.as_fd()).is_ok_and(|state| state == CLOSED)
    }

    fn dial_directly(self) -> Decided<'s> {
        let address = write_address(self.destination, self.v6);
        self.dial(address, None)
    }

    fn dial(self, address: RawAddress, flow: Option<u64>) -> Decided<'s> {
        Decided::Dial(self.plan(address, flow))
    }

    fn plan(self, address: RawAddress, flow: Option<u64>) -> Plan<'s> {
        let Self { claim, socket, cookie, .. } = self;
        Plan { _claim: claim, socket, cookie, address, flow, is_settled: Cell::new(true) }
    }
}

/// What the application gave its socket.
pub(crate) fn wishes_of(socket: &OwnedFd, local: Option<SocketAddr>, v6: bool) -> abi::SocketWishes {
    let mark = if probe::may_mark() { sys::mark_of(socket.as_fd()).unwrap_or(0) } else { 0 };
    let socket = SockRef::from(socket);
    let class = |class: io::Result<u32>| class.ok().and_then(|class| u8::try_from(class).ok()).unwrap_or(0);
    let source = local.map(|source| source.ip()).filter(|ip| !ip.to_canonical().is_unspecified());
    abi::SocketWishes {
        source: source.map_or([0; 16], |ip| match mapped(ip) {
            IpAddr::V6(ip) => ip.octets(),
            IpAddr::V4(_) => [0; 16],
        }),
        mark,
        tos: if v6 { 0 } else { class(socket.tos_v4()) },
        tclass: if v6 { class(socket.tclass_v6()) } else { 0 },
        ..abi::SocketWishes::default()
    }
}

/// What waits there without waylay, as far as that can be told beforehand.
fn route_towards(
    shared: &Shared,
    remote: SocketAddr,
    namespace: Namespace,
    wishes: &abi::SocketWishes,
) -> Route {
    if namespace == Namespace::Own && Scout::knows_of(remote) {
        // The way there is the way to the services.
        let is_refused = shared.scout.nobody_listens(remote);
        return if is_refused { Route::Missing(Errno::ECONNREFUSED) } else { Route::Exists };
    }
    let way = shared.scout.way_towards(remote, wishes);
    // By a socket of UDP, which may get where nobody connects to.
    if remote.ip().to_canonical().is_multicast() || is_all_of_a_network(&way, remote, wishes) {
        return Route::Missing(Errno::ENETUNREACH);
    }
    way.map_or_else(missing, |()| Route::Exists)
}

/// As connect() takes the unspecified address: what the socket has itself comes before the loopback's, of IPv4 its own address, of IPv6 the
/// family of that.
pub(crate) fn reachable(destination: SocketAddr, local: Option<SocketAddr>) -> SocketAddr {
    let own = match local.map(|local| local.ip().to_canonical()) {
        Some(IpAddr::V4(own)) if !own.is_unspecified() => Some(own),
        Some(IpAddr::V4(_) | IpAddr::V6(_)) | None => None,
    };
    let this = own.unwrap_or(Ipv4Addr::LOCALHOST);
    let ip = match destination.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => this.into(),
        IpAddr::V6(ip) if ip.is_unspecified() && own.is_some() => Ipv4Addr::LOCALHOST.to_ipv6_mapped().into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some_and(|ip| ip.is_unspecified()) => {
            this.to_ipv6_mapped().into()
        }
        ip @ (IpAddr::V4(_) | IpAddr::V6(_)) => ip,
    };
    let mut reachable = destination;
    reachable.set_ip(ip);
    reachable
}

pub(crate) fn missing(error: io::Error) -> Route {
    match error.raw_os_error() {
        Some(number @ (libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EACCES | libc::EINVAL)) => {
            u16::try_from(number).ok().and_then(Errno::new).map_or(Route::Exists, Route::Missing)
        }
        // Of the probe, and not of the destination.
        Some(_) | None => Route::Exists,
    }
}

fn mapped(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().into(),
        IpAddr::V6(_) => ip,
    }
}

impl Plan<'_> {
    /// Makes the connection; waits for it if the socket's owner would. It goes on if the owner is interrupted meanwhile, as connect(2) has it.
    pub(crate) fn carry_out(&self, shared: &Shared, tid: u32, turn: &Turn<'_>) -> Answer {
        let is_asked_again = shared.lock().unanswered.remove(&self.cookie);
        let waits = || {
            self.settle(shared);
            turn.give_up()
        };
        let owner = interrupted::Owner { tid, waits: &waits, is_there: &|| turn.is_waited_for() };
        let dialled = interrupted::connect(self.socket.as_fd(), &self.address, &owner);
        self.settle(shared);
        let Err(error) = dialled else { return Answer::Value(0) };
        match error.raw_os_error() {
            Some(libc::EISCONN) if is_asked_again => return Answer::Value(0),
            Some(libc::EINPROGRESS | libc::EALREADY | libc::EINTR | libc::EISCONN | interrupted::RESTART) => {
            }
            Some(_) | None if self.flow.is_some() => shared.lock().end_flow_of(self.cookie),
            Some(_) | None => {}
        }
        Answer::from(error)
    }

    /// The port that was chosen, as soon as there is one.
    fn settle(&self, shared: &Shared) {
        let (false, Some(flow)) = (self.is_settled.get(), self.flow) else { return };
        let local = SockRef::from(&self.socket).local_addr().ok().and_then(|local| local.as_socket());
        let Some(local) = local.filter(|local| local.port() != 0) else { return };
        self.is_settled.set(true);
        shared.settle(flow, local);
    }

    /// Tells its caller what has become of it. The next call on the socket comes to know whether that was told.
    pub(crate) fn answer(self, shared: &Shared, is_begun: bool, tell: impl FnOnce() -> io::Result<()>) {
        // Whoever is told may go on before this returns; there is little left to be done by then.
        if let Some(given) = shared.threads.given().filter(|_| is_begun) {
            given.let_go_of_stream(&self.socket);
        }
        if is_begun {
            shared.lock().flows.note_dialled(self.cookie);
        }
        drop(self.socket);
        if tell().is_err() {
            // The claim is still there: no other call on the socket comes in between.
            shared.lock().unanswered.insert(self.cookie);
        }
    }

    /// Sends the first bytes of a connection that has just been made, as far as they have room.
    pub(crate) fn send(&self, call: &Call) -> io::Result<Answer> {
        let len = usize::try_from(call.arguments[2]).map_or(MOST_AT_FIRST, |len| len.min(MOST_AT_FIRST));
        let bytes = call.read(call.arguments[1], len)?;
        let flags = call.number_at(3) & !libc::MSG_FASTOPEN | libc::MSG_NOSIGNAL;
        sys::send(self.socket.as_fd(), &bytes, flags).map(Answer::Value)
    }
}
