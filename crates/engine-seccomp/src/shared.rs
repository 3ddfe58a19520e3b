//! What the supervisor's threads share.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    path::PathBuf,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use std::os::fd::AsFd;

use waylay_abi::SocketWishes;
use waylay_core::{Leg, Namespace, Obstacle, Process, Route, ServiceId, Verdict};
use waylay_engine::{
    Endpoint, LocalName, MemoryEngine,
    memory::{FlowId, Outcome, RecordsHandle, SocketId},
};

use crate::{
    caller::{CgroupLines, home_of},
    flows::{Flows, Path},
    handles::Handles,
    interrupted,
    pool::Turn,
    probe,
    scout::Scout,
    sys,
    threads::Threads,
    udp::DatagramFlows,
};

/// Between two looks at whether a flow's source is known.
const A_MOMENT: Duration = Duration::from_millis(2);

/// Behind one lock, held for no system call that waits.
pub(crate) struct Shared {
    state: Mutex<State>,
    /// Sockets that a thread is about to connect.
    claimed: Mutex<Claimed>,
    freed: Condvar,
    /// Somebody knows of a flow where it comes from.
    settled: Condvar,
    pub(crate) handles: Handles,
    pub(crate) threads: Threads,
    pub(crate) scout: Scout,
    /// The network namespace that services listen in.
    pub(crate) namespace: u64,
}

/// What is in force and what is redirected.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) engine: MemoryEngine,
    pub(crate) flows: Flows,
    pub(crate) datagrams: DatagramFlows,
    pub(crate) endpoints: Vec<Endpoint>,
    pub(crate) names: BTreeMap<ServiceId, String>,
    /// Of services that are to be told by their sockets where connections were going.
    pub(crate) local_names: BTreeMap<ServiceId, LocalName>,
    pub(crate) lines: CgroupLines,
    /// Sockets that were being connected when whoever had asked for it had to handle a signal, and was not told: that call is made again, and
    /// finds the connection that the first has made.
    pub(crate) unanswered: BTreeSet<u64>,
    pub(crate) turns: usize,
    /// Threads that wait to know where a flow comes from.
    awaiting_sources: usize,
    /// How often what is in force has changed, or whether a service lives.
    pub(crate) changes: u64,
}

/// What was to become of a leg.
pub(crate) struct Judged {
    pub(crate) verdict: Verdict,
    /// By what was in force after so many changes.
    as_of: u64,
}

/// What is seen around a leg.
#[derive(Clone, Copy)]
pub(crate) struct Surroundings {
    pub(crate) namespace: Namespace,
    pub(crate) route: Route,
    pub(crate) obstacle: Option<Obstacle>,
}

impl Shared {
    pub(crate) fn new(cgroups: PathBuf) -> io::Result<Self> {
        let own = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        Ok(Self {
            state: Mutex::new(State { lines: CgroupLines::below(cgroups), ..State::default() }),
            claimed: Mutex::default(),
            freed: Condvar::new(),
            settled: Condvar::new(),
            handles: Handles::new()?,
            threads: Threads::by(probe::means()),
            scout: Scout::default(),
            namespace: sys::namespace_of(own.as_fd())?,
        })
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        // Every change is whole before anything can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The source of a flow, which was chosen while it was dialled.
    pub(crate) fn settle(&self, flow: u64, from: SocketAddr) {
        let mut state = self.lock();
        if let Some(replaced) = state.flows.settle(flow, from) {
            state.engine.close(SocketId(replaced));
        }
        if state.awaiting_sources > 0 {
            self.settled.notify_all();
        }
    }

    /// Once it is known of an accepted socket whether a flow has led there: a service may ask before the dialler's connect() has returned.
    pub(crate) fn lock_once_settled(&self, socket: u64, path: Option<Path>) -> MutexGuard<'_, State> {
        let state = self.lock();
        match path {
            Some(path) if !state.flows.knows(socket) => self.once_settled_at(state, path.to),
            Some(_) | None => state,
        }
    }

    /// The same of whatever a service may have accepted.
    pub(crate) fn lock_once_all_settled(&self, service: ServiceId) -> MutexGuard<'_, State> {
        let state = self.lock();
        let listeners = state.listeners_of(service);
        listeners.into_iter().fold(state, |state, listener| self.once_settled_at(state, listener))
    }

    fn once_settled_at<'s>(
        &'s self,
        mut state: MutexGuard<'s, State>,
        listener: SocketAddr,
    ) -> MutexGuard<'s, State> {
        let Some(dialled) = state.flows.dialled_to(listener) else { return state };
        while !state.flows.are_settled(dialled) {
            state.awaiting_sources += 1;
            // One that fails tells nobody.
            let waited = self.settled.wait_timeout(state, A_MOMENT);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            state.awaiting_sources -= 1;
        }
        state
    }

    /// Waits until no other thread connects this socket, and lets none until the claim is dropped. A thread that has to handle a signal, or is gone, waits no longer.
    pub(crate) fn claim(&self, socket: u64, tid: u32, turn: &Turn<'_>) -> io::Result<Claim<'_>> {
        let mut looks = 0;
        loop {
            let mut claimed = self.claimed.lock().unwrap_or_else(PoisonError::into_inner);
            if !claimed.sockets.contains(&socket) {
                claimed.sockets.push(socket);
                return Ok(Claim { shared: self, socket });
            }
            turn.give_up()?;
            claimed.waiting += 1;
            let waited = self.freed.wait_timeout(claimed, interrupted::SLICE);
            waited.unwrap_or_else(PoisonError::into_inner).0.waiting -= 1;
            looks += 1;
            interrupted::look(turn, tid, looks, false)?;
        }
    }
}

/// Sockets that are being connected, of which there are few, and threads that wait for one of them.
#[derive(Default)]
struct Claimed {
    sockets: Vec<u64>,
    waiting: usize,
}

/// The right to connect a socket.
pub(crate) struct Claim<'s> {
    shared: &'s Shared,
    socket: u64,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let mut claimed = self.shared.claimed.lock().unwrap_or_else(PoisonError::into_inner);
        claimed.sockets.retain(|&socket| socket != self.socket);
        if claimed.waiting > 0 {
            self.shared.freed.notify_all();
        }
    }
}

impl State {
    /// What is to become of a leg.
    pub(crate) fn judge(&mut self, leg: &Leg, records_on: SocketId, around: Surroundings) -> Verdict {
        self.look_around(around);
        if let Some(cgroups) = self.lines.news() {
            self.engine.world.cgroups = cgroups;
        }
        self.engine.judge(leg, records_on)
    }

    /// The same, for [`conclude`](Self::conclude).
    pub(crate) fn judge_as_of_now(
        &mut self,
        leg: &Leg,
        records_on: SocketId,
        around: Surroundings,
    ) -> Judged {
        Judged { verdict: self.judge(leg, records_on, around), as_of: self.changes }
    }

    /// Does what was said of a leg if there is a way for it, unless there is none or that has changed.
    pub(crate) fn conclude(
        &mut self,
        leg: &Leg,
        socket: SocketId,
        around: Surroundings,
        judged: Judged,
    ) -> Outcome {
        let verdict = match judged.as_of == self.changes && around.route == Route::Exists {
            true => judged.verdict,
            false => self.judge(leg, socket, around),
        };
        self.look_around(around);
        self.engine.conclude(leg, socket, socket, verdict)
    }

    fn look_around(&mut self, Surroundings { namespace, route, obstacle }: Surroundings) {
        let world = &mut self.engine.world;
        (world.namespace, world.route, world.obstacle) = (namespace, route, obstacle);
    }

    /// Where a socket was to be connected that is connected to a service.
    pub(crate) fn destination_of(&self, socket: u64) -> Option<SocketAddr> {
        let connection = self.flows.of_outgoing(socket).map(|flow| flow.destination);
        connection.or_else(|| Some(self.datagrams.of_connected(socket)?.flow.destination))
    }

    /// That a socket, which is not connected, has the records of a flow; gives what that one's application asked of its socket.
    pub(crate) fn carry(&mut self, socket: u64, flow: u64, is_udp: bool) -> Option<SocketWishes> {
        let of_datagrams = self.datagrams.get(flow).map(|datagrams| &datagrams.flow);
        let known = self.flows.get(flow).or(of_datagrams)?;
        let wishes = known.wishes;
        if is_udp {
            self.datagrams.carry(socket, &known.clone());
        } else {
            self.flows.carry(socket, flow);
        }
        Some(wishes)
    }

    /// Ends the flow that began on a socket, which keeps the records it had: it may be connected anew.
    pub(crate) fn end_flow_of(&mut self, socket: u64) {
        let carried = self.flows.carried_by(socket).map(|flow| (flow.number, flow.service));
        if let Some(number) = self.flows.of_outgoing(socket).map(|flow| flow.number) {
            self.flows.end(number);
        }
        self.engine.close(SocketId(socket));
        if let Some((number, service)) = carried {
            let caller = Process { cgroup: home_of(service), ..Process::default() };
            // Of a flow that is there, by its own service, on a socket that is connected to nobody.
            let _set_as_before =
                self.engine.set_records(SocketId(socket), RecordsHandle::of(FlowId(number)), &caller);
        }
    }

    /// One of a service's listeners that takes what goes to such a destination; each has its turn.
    pub(crate) fn listener_of(&mut self, service: ServiceId, destination: IpAddr) -> Option<SocketAddr> {
        self.turns = self.turns.wrapping_add(1);
        let turn = self.turns;
        let endpoint = self.endpoints.iter().find(|endpoint| endpoint.service == service)?;
        let chosen: SocketAddr = match destination.to_canonical() {
            IpAddr::V4(_) => (*endpoint.tcp4.get(turn.checked_rem(endpoint.tcp4.len())?)?).into(),
            IpAddr::V6(_) => (*endpoint.tcp6.get(turn.checked_rem(endpoint.tcp6.len())?)?).into(),
        };
        Some(SocketAddr::new(loopback_for(chosen.ip()), chosen.port()))
    }
}

impl State {
    /// What getsockname(2) says of a service's accepted sockets.
    pub(crate) fn local_name_of(&self, service: ServiceId) -> LocalName {
        self.local_names.get(&service).copied().unwrap_or_default()
    }

    /// Where connections are led to that a service is to have.
    pub(crate) fn listeners_of(&self, service: ServiceId) -> Vec<SocketAddr> {
        let endpoints = self.endpoints.iter().filter(|endpoint| endpoint.service == service);
        let listeners = endpoints.flat_map(|endpoint| {
            let v4 = endpoint.tcp4.iter().copied().map(SocketAddr::from);
            v4.chain(endpoint.tcp6.iter().copied().map(SocketAddr::from))
        });
        listeners.map(|listener| SocketAddr::new(loopback_for(listener.ip()), listener.port())).collect()
    }
}

/// A listener on every address is led to by the loopback's.
fn loopback_for(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        IpAddr::V4(_) | IpAddr::V6(_) => ip,
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, thread};

    use waylay_core::FilterId;

    use super::*;
    use crate::flows::{Flow, Inbound};

    fn flow(number: u64, path: Path) -> Flow {
        Flow {
            number,
            service: ServiceId(1),
            filter: FilterId(1),
            destination: "192.0.2.1:80".parse().unwrap(),
            application: waylay_abi::Process::default(),
            exe_path: Arc::new([0; waylay_abi::EXE_LEN]),
            wishes: SocketWishes::default(),
            path,
            socket: number,
        }
    }

    #[test]
    fn a_service_that_asks_early_is_not_told_of_the_flow_that_had_the_same_port_before() {
        let shared = Shared::new(PathBuf::from("/sys/fs/cgroup")).unwrap();
        let path = Path::new("127.0.0.1:40000".parse().unwrap(), "127.0.0.1:5000".parse().unwrap());
        shared.lock().flows.begin(flow(1, path));
        shared.lock().flows.begin(flow(2, Path::from_anywhere(path.to)));
        thread::scope(|scope| {
            let asking = scope.spawn(|| {
                let mut state = shared.lock_once_settled(100, Some(path));
                let Inbound::Of(flow) = state.flows.of_inbound(100, Some(path)) else { panic!("of none") };
                flow.number
            });
            while shared.lock().awaiting_sources == 0 && !asking.is_finished() {
                thread::yield_now();
            }
            shared.settle(2, path.from);
            assert_eq!(asking.join().unwrap(), 2);
        });
    }
}
