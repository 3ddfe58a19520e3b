//! The contract in memory, for tests and simulations: no sockets, only names for them.
//!
//! Who a caller is, is found out here as in every engine: by its cgroup, never by what the leg says.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv6Addr, SocketAddr};
use std::time::Duration;

use waylay_core::{
    Availability, Chain, Confinement, Event, Hop, Leg, LegSummary, ListenerOwner, Namespace, NewSocket,
    Process, Protocol, Reach, Reason, Records, Refusal, Route, Routes, ServiceId, ServiceSet, SlotInUse,
    Slots, SocketKind, SocketSummary, SocketVerdict, Tables, Verdict, World, normal_form,
};

use crate::{Capabilities, Capability, CapabilityState, Endpoint, Engine, Feature, Installation, Liveness};

/// Names a socket, as a cookie does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SocketId(pub u64);

/// Names a flow: a redirected leg, from its connect() to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowId(pub u64);

/// What a service queries from its inbound leg and sets on its outbound socket. Only an engine makes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordsHandle {
    flow: FlowId,
}

impl RecordsHandle {
    /// The handle of a flow, for an engine that gives handles of its own to services and has checked one.
    #[must_use]
    pub fn of(flow: FlowId) -> Self {
        Self { flow }
    }
}

/// Where a connect() went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// To the destination that was asked for.
    Direct,
    /// To a service, as this flow.
    Redirected {
        /// The service.
        service: ServiceId,
        /// The flow.
        flow: FlowId,
    },
    /// Nowhere.
    Refused(Refusal),
}

/// Why records could not be queried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueryRecordsError {
    /// The flow has ended.
    #[error("the flow has ended")]
    FlowEnded,
    /// Another service received the flow, or none asks.
    #[error("the flow was redirected to another service")]
    NotItsService,
}

/// Why records could not be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SetRecordsError {
    /// The flow that the records are of has ended.
    #[error("the flow has ended")]
    FlowEnded,
    /// The process is not of the service that received the flow.
    #[error("the flow was redirected to another service")]
    NotItsService,
    /// The socket is connected already.
    #[error("the socket is connected")]
    Connected,
}

/// The engine in memory.
#[derive(Clone, Debug, Default)]
pub struct MemoryEngine {
    /// What the engine cannot find out by itself in memory. Listeners and the availability of services are filled in by the
    /// engine; what is said here of a service that lives (a full backlog) is kept.
    pub world: World,
    installation: Installation,
    slots: Slots,
    /// Of services that were removed and whose slots are not free yet.
    leaving: Vec<Endpoint>,
    liveness: BTreeMap<ServiceId, Liveness>,
    routes: Routes,
    flows: BTreeMap<FlowId, Flow>,
    records: BTreeMap<SocketId, Carried>,
    connected: BTreeMap<SocketId, Option<FlowId>>,
    last_flow: u64,
    /// Processes whose legs of another namespace have been told.
    visitors: BTreeSet<(u32, u64)>,
    /// Cgroups of which it has been told that they are in sandboxes.
    sandboxes: BTreeSet<u64>,
    events: Vec<Event>,
}

#[derive(Clone, Debug)]
struct Flow {
    service: ServiceId,
    original_destination: SocketAddr,
    chain: Chain,
}

/// The records on a socket.
#[derive(Clone, Debug)]
struct Carried {
    set_by: ServiceId,
    chain: Chain,
}

impl MemoryEngine {
    /// An engine with nothing installed: every connection is direct.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A process dials on a socket.
    pub fn connect(&mut self, leg: &Leg, socket: SocketId) -> Outcome {
        self.connect_as(leg, socket, socket)
    }

    /// A process dials on a socket that may have several flows at a time, as one of UDP has: the flow is known by a name of its
    /// own, by which it is closed, and has the records that are on the socket.
    pub fn connect_as(&mut self, leg: &Leg, records_on: SocketId, socket: SocketId) -> Outcome {
        let verdict = self.judge(leg, records_on);
        self.conclude(leg, records_on, socket, verdict)
    }

    /// What is to become of a leg as things stand. Nothing begins by it.
    #[must_use]
    pub fn judge(&self, leg: &Leg, records_on: SocketId) -> Verdict {
        let leg = Leg { caller: self.identify(leg.caller), ..*leg };
        let records = self.records_on(records_on, leg.caller);
        self.installation.tables.decide(&leg, &records, &self.world_for(&leg))
    }

    /// Does what [`judge`](Self::judge) has said of a leg, if nothing has changed since. Of whoever dials no more than the cgroup need have been
    /// known then, where no filter asks for more.
    pub fn conclude(
        &mut self,
        leg: &Leg,
        records_on: SocketId,
        socket: SocketId,
        verdict: Verdict,
    ) -> Outcome {
        let leg = Leg { caller: self.identify(leg.caller), ..*leg };
        let outcome = match verdict {
            Verdict::Direct => {
                self.tell_of_what_is_left_alone(&leg, records_on);
                Outcome::Direct
            }
            Verdict::Redirect { service, filter, chain } => {
                self.begin_flow(&leg, Hop { service, filter }, chain.dialled_by(leg.caller))
            }
            Verdict::Refuse(refusal) => self.refuse(&leg, refusal),
        };
        match outcome {
            Outcome::Direct => self.connected.insert(socket, None),
            Outcome::Redirected { flow, .. } => self.connected.insert(socket, Some(flow)),
            // As with a real socket, one that failed to connect may try again with the same records.
            Outcome::Refused(_) => None,
        };
        outcome
    }

    /// A process makes a socket, of a kind that can be redirected or not.
    pub fn make_socket(&mut self, kind: SocketKind, maker: &Process) -> SocketVerdict {
        let maker = self.identify(*maker);
        let World { socket_owner: owner, namespace, confinement, .. } = self.world;
        let socket = NewSocket { kind, maker, owner, namespace, confinement };
        let verdict = self.installation.tables.decide_socket(&socket, &self.world.cgroups);
        if let SocketVerdict::Refuse(refusal) = verdict {
            let socket = SocketSummary { kind, pid: maker.pid, uid: maker.uid, comm: String::new() };
            self.events.push(Event::SocketRefused { refusal, socket });
        }
        verdict
    }

    /// A service asks for the records of a flow it received.
    pub fn query_records(&self, flow: FlowId, caller: &Process) -> Result<RecordsHandle, QueryRecordsError> {
        let received = self.flows.get(&flow).ok_or(QueryRecordsError::FlowEnded)?;
        if self.identify(*caller).service != Some(received.service) {
            return Err(QueryRecordsError::NotItsService);
        }
        Ok(RecordsHandle { flow })
    }

    /// A service sets records on a socket that it is going to dial with.
    pub fn set_records(
        &mut self,
        socket: SocketId,
        handle: RecordsHandle,
        caller: &Process,
    ) -> Result<(), SetRecordsError> {
        let flow = self.flows.get(&handle.flow).ok_or(SetRecordsError::FlowEnded)?;
        if self.identify(*caller).service != Some(flow.service) {
            return Err(SetRecordsError::NotItsService);
        }
        if self.connected.contains_key(&socket) {
            return Err(SetRecordsError::Connected);
        }
        let carried = Carried { set_by: flow.service, chain: flow.chain.clone() };
        self.records.insert(socket, carried);
        Ok(())
    }

    /// A flow of the same chain with somebody else, who answers in the destination's stead. `None` if that flow has ended.
    pub fn branch(&mut self, flow: FlowId, destination: SocketAddr, socket: SocketId) -> Option<FlowId> {
        let branch = Flow { original_destination: destination, ..self.flows.get(&flow)?.clone() };
        self.last_flow += 1;
        let number = FlowId(self.last_flow);
        self.flows.insert(number, branch);
        self.connected.insert(socket, Some(number));
        Some(number)
    }

    /// Whether a service's process lives, as far as that has been said.
    #[must_use]
    pub fn is_alive(&self, service: ServiceId) -> bool {
        self.liveness.get(&service) == Some(&Liveness::Alive)
    }

    /// The destination that the application asked for.
    #[must_use]
    pub fn original_destination(&self, flow: FlowId) -> Option<SocketAddr> {
        self.flows.get(&flow).map(|flow| flow.original_destination)
    }

    /// The chain of a flow, for diagnosis.
    #[must_use]
    pub fn chain(&self, flow: FlowId) -> Option<&Chain> {
        self.flows.get(&flow).map(|flow| &flow.chain)
    }

    /// A socket is closed, and with it the flow that began on it.
    pub fn close(&mut self, socket: SocketId) {
        self.records.remove(&socket);
        let Some(flow) = self.connected.remove(&socket).flatten() else { return };
        if self.flows.remove(&flow).is_some() {
            self.events.push(Event::Ended { flow: flow.0 });
        }
    }

    fn identify(&self, caller: Process) -> Process {
        let endpoint = self.endpoints().find(|endpoint| endpoint.cgroup == caller.cgroup);
        Process { service: endpoint.map(|endpoint| endpoint.service), ..caller }
    }

    /// Nobody but the service that set them can make use of records.
    fn records_on(&self, socket: SocketId, caller: Process) -> Records {
        let carried = self.records.get(&socket).filter(|carried| caller.service == Some(carried.set_by));
        carried.map_or(Records::None, |carried| Records::Carried(carried.chain.clone()))
    }

    /// Where services are, those included that carry on what they have received.
    fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        self.installation.endpoints.iter().chain(&self.leaving)
    }

    fn free_slots(&mut self) {
        let carried = self.services_in_use();
        let is_taken =
            |service| self.installation.tables.service(service).is_some() || carried.contains(service);
        let free: Vec<ServiceId> =
            self.slots.iter().map(|(service, _)| service).filter(|&service| !is_taken(service)).collect();
        for service in free {
            self.slots.release(service);
            self.leaving.retain(|endpoint| endpoint.service != service);
        }
    }

    fn world_for(&self, leg: &Leg) -> World {
        let mut availability = BTreeMap::new();
        for service in self.installation.tables.services() {
            availability.insert(service.id, self.availability(service.id, leg));
        }
        let listener = self.listener_at(leg.protocol, leg.remote).or(self.world.listener);
        let reach = self.routes.to(leg.remote.ip());
        let obstacle = self.world.obstacle.or(reach.obstacle(leg.protocol));
        let route = match reach.route() {
            Route::Exists => self.world.route,
            missing @ Route::Missing(_) => missing,
        };
        World { availability, listener, route, obstacle, ..self.world.clone() }
    }

    fn availability(&self, service: ServiceId, leg: &Leg) -> Availability {
        let listens = self.installation.endpoint(service).is_some_and(|endpoint| match leg.protocol {
            Protocol::Tcp if leg.remote.ip().to_canonical().is_ipv4() => !endpoint.tcp4.is_empty(),
            Protocol::Tcp => !endpoint.tcp6.is_empty(),
            Protocol::Udp if leg.remote.ip().to_canonical().is_ipv4() => endpoint.udp4.is_some(),
            Protocol::Udp => !endpoint.udp6.is_empty(),
        });
        match (self.liveness.get(&service), listens) {
            (Some(Liveness::Alive), true) => {
                self.world.availability.get(&service).copied().unwrap_or(Availability::Available)
            }
            (Some(Liveness::Alive), false) | (Some(Liveness::Dead) | None, _) => Availability::Absent,
        }
    }

    fn listener_at(&self, protocol: Protocol, address: SocketAddr) -> Option<ListenerOwner> {
        let at = |listener| same_place(listener, address) || self.is_one_of_all(listener, address);
        let endpoint = self.endpoints().find(|endpoint| match protocol {
            Protocol::Tcp => {
                endpoint.tcp4.iter().any(|&v4| at(v4.into())) || endpoint.tcp6.iter().any(|&v6| at(v6.into()))
            }
            Protocol::Udp => {
                let is_token = |port| address.ip().to_canonical().is_loopback() && address.port() == port;
                endpoint.udp4.filter(|_| address.ip().to_canonical().is_ipv4()).is_some_and(is_token)
                    || endpoint
                        .udp6
                        .iter()
                        .chain(&endpoint.behind6)
                        .any(|&port| at((Ipv6Addr::LOCALHOST, port).into()))
            }
        })?;
        Some(ListenerOwner::OwnInstance(endpoint.service))
    }

    /// Whether the listener takes what goes to any address of this host, and the address is one, or may be for all that is known.
    fn is_one_of_all(&self, listener: SocketAddr, address: SocketAddr) -> bool {
        let here = match self.routes.longest(address.ip()) {
            Some((_, Reach::Here(_))) | None => true,
            Some((_, Reach::From(_) | Reach::Group | Reach::Never(_))) => false,
        };
        let is_ipv4 = |address: SocketAddr| address.ip().to_canonical().is_ipv4();
        let listens = listener.ip().is_unspecified() && listener.port() == address.port();
        here && listens && is_ipv4(listener) == is_ipv4(address)
    }

    fn begin_flow(&mut self, leg: &Leg, hop: Hop, chain: Chain) -> Outcome {
        self.last_flow += 1;
        let flow = FlowId(self.last_flow);
        self.flows.insert(flow, Flow { service: hop.service, original_destination: leg.remote, chain });
        self.events.push(Event::Redirected { flow: flow.0, hop, leg: summarise(leg) });
        Outcome::Redirected { service: hop.service, flow }
    }

    fn tell_of_what_is_left_alone(&mut self, leg: &Leg, records_on: SocketId) {
        let reason = match (self.world.namespace, self.world.confinement) {
            (Namespace::Foreign(_), _) => Reason::ForeignNamespace,
            (Namespace::Own, Confinement::Free) => return,
            (Namespace::Own, Confinement::Sandboxed) => Reason::Sandbox,
        };
        let is_new = match reason {
            Reason::ForeignNamespace => self.visitors.insert((leg.caller.pid, leg.caller.start_time_ns)),
            Reason::Sandbox => {
                let outside = World { confinement: Confinement::Free, ..self.world_for(leg) };
                let records = self.records_on(records_on, leg.caller);
                let is_wanted = self.tables().decide(leg, &records, &outside) != Verdict::Direct;
                is_wanted && self.sandboxes.insert(leg.caller.cgroup)
            }
        };
        if is_new {
            self.events.push(Event::LeftAlone { reason, leg: summarise(leg) });
        }
    }

    fn refuse(&mut self, leg: &Leg, refusal: Refusal) -> Outcome {
        self.events.push(Event::Refused { refusal, leg: summarise(leg) });
        Outcome::Refused(refusal)
    }

    /// Services that a live flow or a socket still names, and whose slots must therefore stay.
    #[must_use]
    pub fn services_in_use(&self) -> ServiceSet {
        let of_flows = self.flows.values().map(|flow| &flow.chain);
        of_flows
            .chain(self.records.values().map(|carried| &carried.chain))
            .flat_map(|chain| chain.excluded().iter())
            .collect()
    }

    /// The tables in force.
    #[must_use]
    pub fn tables(&self) -> &Tables {
        &self.installation.tables
    }
}

impl Engine for MemoryEngine {
    type Error = SlotInUse;

    fn install(&mut self, installation: &Installation) -> Result<(), Self::Error> {
        self.free_slots();
        self.slots.take_over(installation.tables.slots())?;
        let before = std::mem::replace(&mut self.installation, installation.clone());
        let is_in = |tables: &Tables, service| tables.service(service).is_some();
        self.liveness
            .retain(|&service, _| is_in(&before.tables, service) && is_in(&installation.tables, service));
        self.leaving.extend(before.endpoints);
        self.leaving.retain(|endpoint| !is_in(&installation.tables, endpoint.service));
        Ok(())
    }

    fn set_liveness(&mut self, service: ServiceId, liveness: Liveness) -> Result<(), Self::Error> {
        self.liveness.insert(service, liveness);
        Ok(())
    }

    fn set_routes(&mut self, routes: &Routes) -> Result<(), Self::Error> {
        self.routes = routes.clone();
        Ok(())
    }

    fn events(&mut self, _timeout: Duration) -> Result<Vec<Event>, Self::Error> {
        Ok(std::mem::take(&mut self.events))
    }

    fn slots(&mut self) -> Result<Slots, Self::Error> {
        self.free_slots();
        Ok(self.slots.clone())
    }

    fn capabilities(&self) -> Capabilities {
        let features = [
            Feature::RedirectTcp4,
            Feature::RedirectTcp6,
            Feature::Authorise,
            Feature::Records,
            Feature::RefuseSockets,
            Feature::RefuseFamilies,
        ];
        features
            .map(|feature| Capability { feature, state: CapabilityState::Available })
            .into_iter()
            .collect()
    }
}

fn same_place(listener: SocketAddr, address: SocketAddr) -> bool {
    normal_form(listener.ip()) == normal_form(address.ip()) && listener.port() == address.port()
}

fn summarise(leg: &Leg) -> LegSummary {
    LegSummary {
        protocol: leg.protocol,
        pid: leg.caller.pid,
        uid: leg.caller.uid,
        comm: leg.caller.command.to_string(),
        destination: leg.remote,
    }
}
