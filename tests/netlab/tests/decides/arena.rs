//! One engine that every case is put to, with the parties, the services' listeners and servers around it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use proptest::test_runner::TestCaseError;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno as Fault,
};
use socket2::SockRef;
use waylay::RedirectRecords;
use waylay_core::{
    Availability, Cgroups, Chain, Change, Confinement, Event, FileId, FilterId, ForeignNamespace,
    HostPattern, Leg, ListenerOwner, Namespace as Net, Policy, Prefix, Protocol, Reach, Records, Refusal,
    Route, Routes, ServiceId, Slots, Tables, TraceStep, Unredirectable, Verdict, World, decide,
};
use waylay_engine::{Endpoint, Installation, Liveness};
use waylay_engine_ebpf::netns_cookie;
use waylay_netlab::{Namespace, patiently};

use crate::{
    callers::{Answer, Dialler, Programs},
    case::{
        self, CarryOn, Case, Declared, DeclaredFilter, Family, Host, Names, Party, Place, Program, Realm,
        Source, Step, To,
    },
    doors::{
        Door, Seen, canonical, doors, is_deserted, is_ip4, resolved, see_at_destination, see_at_service,
    },
    ground::{Ground, Subject},
    hearsay::{Hearsay, RESOLVER},
};

/// Only a connection that nobody gets takes as long.
const PATIENCE: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };
const AT_ONCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

pub(crate) struct Arena {
    diallers: BTreeMap<Party, Dialler>,
    hearsay: Hearsay,
    doors: Vec<(Door, TcpListener)>,
    ground: Ground,
    programs: Programs,
    scene: Scene,
    /// The slots that services get if they are free.
    wishes: [u8; 4],
    /// Where services are that the engine knows: those installed, and those removed whose slots are not free yet.
    known: BTreeMap<ServiceId, Endpoint>,
    flows: Vec<Flow>,
    pub(crate) tally: Tally,
    _namespaces: [Namespace; 2],
    /// By which filters know that namespace.
    visited: Net,
}

/// What is in force.
#[derive(Default)]
struct Scene {
    policy: Policy,
    tables: Tables,
    endpoints: Vec<Endpoint>,
    alive: BTreeSet<ServiceId>,
    routes: Routes,
}

/// A connection that a service has received.
struct Flow {
    service: u32,
    chain: Chain,
    destination: SocketAddr,
    records: RedirectRecords,
    _accepted: TcpStream,
}

/// How often what was compared.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) direct: u64,
    pub(crate) redirected: u64,
    pub(crate) refused: BTreeMap<&'static str, u64>,
    pub(crate) carried: u64,
    pub(crate) forgotten: u64,
    /// Legs that a service was wanted for, and that stayed in their sandbox.
    pub(crate) sandboxed: u64,
    /// Questions to the resolver that were answered.
    pub(crate) answered: u64,
    /// Those of which it decided that the resolver's address was published as that of many hosts.
    pub(crate) broadcast: u64,
    /// Legs of which the names decided.
    pub(crate) named: u64,
    /// Legs of which the bound source decided.
    pub(crate) bound: u64,
    /// Legs from the other network namespace that were judged by a filter.
    pub(crate) visited: u64,
    /// Changes of filters after which the whole was not written anew.
    pub(crate) amended: u64,
}

impl Arena {
    pub(crate) fn new(subject: Subject) -> Self {
        let (namespace, visitors) = (Namespace::new(), Namespace::new());
        for (namespace, address) in [&namespace, &visitors]
            .into_iter()
            .flat_map(|one| ["fd00:1::1/128", "fd00:1:8000::5/128"].map(|ip| (one, ip)))
        {
            namespace.ip(&["addr", "add", address, "dev", "lo", "nodad"]);
        }
        let visited = thread::scope(|scope| {
            let inside = scope.spawn(|| {
                visitors.enter();
                netns_cookie().unwrap()
            });
            Net::Foreign(inside.join().unwrap())
        });
        namespace.enter();
        let ground = Ground::new(subject, [&namespace, &visitors]);
        let (programs, hearsay) = (Programs::new(), Hearsay::start());
        let doors = doors(&ground, &visitors);
        let dialler = |party| (party, Dialler::start(party, &ground, &programs, &visitors));
        let diallers = Party::ALL.map(dialler).into_iter().collect();
        Self {
            diallers,
            hearsay,
            doors,
            ground,
            programs,
            scene: Scene::default(),
            wishes: [0, 1, 2, 3],
            known: BTreeMap::new(),
            flows: Vec::new(),
            tally: Tally::default(),
            _namespaces: [namespace, visitors],
            visited,
        }
    }

    /// What comes from here on is the engine's own thread's.
    pub(crate) fn begin(&mut self) {
        self.ground.begin(self.diallers.values_mut().map(Dialler::supervision));
    }

    pub(crate) fn try_case(&mut self, case: &Case) -> Result<(), TestCaseError> {
        self.clear(case);
        for step in &case.steps {
            match step {
                Step::Install(declared) => self.install(declared),
                Step::Amend { going, coming, renew } => self.amend(going, coming, *renew),
                Step::Mark { service, alive } => self.mark(ServiceId(*service), *alive),
                // Where the kernel's own count there is no need of others.
                Step::Routes(_) if !self.subject().is_ebpf() => {}
                Step::Routes(reaches) => {
                    self.publish(reaches.iter().map(|(net, reach)| (net.prefix(), *reach)));
                }
                Step::Ask { by, host } => self.ask(*by, *host)?,
                Step::Dial { by, from, to } => {
                    let to = self.address(*to);
                    self.compare(*by, None, *from, to)?;
                }
                Step::CarryOn(carry_on) => self.carry_on(carry_on)?,
            }
        }
        Ok(())
    }

    /// Nothing is left of the case before, and every service has the slot it is said to have.
    fn clear(&mut self, case: &Case) {
        self.hearsay.begin();
        self.flows.clear();
        self.diallers.values_mut().for_each(Dialler::close_all);
        while self.accept(&AT_ONCE).is_some() {}
        self.ground.settle();
        self.install(&Declared {
            services: Vec::new(),
            filters: Vec::new(),
            sublayers: [0; 3],
            overrides_sandboxes: false,
            foreign: ForeignNamespace::Permit,
            unredirectable: Unredirectable::Permit,
        });
        let engine = self.ground.engine();
        patiently("the slots are free", || engine.taken().iter().next().is_none().then_some(()));
        self.known.clear();
        self.wishes = case.slots;
        if !self.scene.routes.is_empty() {
            self.publish([]);
        }
        self.reported();
    }

    fn taken(&mut self) -> Slots {
        let taken = self.ground.engine().taken();
        self.known.retain(|&service, _| taken.of(service).is_some());
        taken
    }

    /// The slots that are taken, and for services of the policy without one those that they wish for.
    fn slots(&mut self, policy: &Policy) -> Slots {
        let taken = self.taken();
        let mut slots: BTreeMap<ServiceId, u8> = taken.iter().collect();
        for service in policy.services() {
            let wish = self.wishes[service.id.0 as usize - 1];
            if !slots.values().any(|&slot| slot == wish) {
                slots.entry(service.id).or_insert(wish);
            }
        }
        Slots::restore(slots).unwrap()
    }

    fn install(&mut self, declared: &Declared) {
        let policy = declared.policy(self);
        let slots = self.slots(&policy);
        let tables = Tables::compile_keeping(&policy, slots).unwrap();
        let endpoints = declared.services.iter().map(|service| {
            let all = self.ground.endpoint(service.id, &self.doors);
            let tcp4 = if service.listens4 { all.tcp4 } else { Vec::new() };
            let tcp6 = if service.listens6 { all.tcp6 } else { Vec::new() };
            Endpoint { tcp4, tcp6, ..all }
        });
        let endpoints: Vec<Endpoint> = endpoints.collect();
        self.hearsay.compiled(&policy);
        let installation = Installation { tables: tables.clone(), endpoints: endpoints.clone() };
        self.ground.engine().put_in_force(&installation);
        for endpoint in &endpoints {
            if self.known.insert(endpoint.service, endpoint.clone()).is_none() {
                self.ground.serve(endpoint.service);
            }
        }
        // One that goes is absent when it comes back, until it is said to be alive.
        self.scene.alive.retain(|&service| policy.service(service).is_some());
        (self.scene.policy, self.scene.tables, self.scene.endpoints) = (policy, tables, endpoints);
        for service in declared.services.iter().filter(|service| service.alive) {
            self.mark(ServiceId(service.id), true);
        }
    }

    fn amend(&mut self, going: &[usize], coming: &[DeclaredFilter], renew: bool) {
        let change = self.change(going, coming);
        self.scene.policy.change(&change).unwrap();
        let amended = self.scene.tables.change(&change).unwrap();
        if amended.share_whole_with(&self.scene.tables) {
            self.tally.amended += 1;
        } else {
            self.hearsay.compiled(&self.scene.policy);
        }
        self.replace_tables(amended);
        if renew {
            self.hearsay.compiled(&self.scene.policy);
            self.replace_tables(self.scene.tables.renewed().unwrap());
        }
    }

    /// New filters have ids that are free.
    fn change(&self, going: &[usize], coming: &[DeclaredFilter]) -> Change {
        let policy = &self.scene.policy;
        let there: Vec<FilterId> = policy.filters().iter().map(|filter| filter.id).collect();
        let removed: BTreeSet<FilterId> =
            going.iter().filter(|_| !there.is_empty()).map(|at| there[at % there.len()]).collect();
        let free = (1..).filter(|id| !there.contains(&FilterId(*id)) || removed.contains(&FilterId(*id)));
        let coming = coming.iter().filter(|filter| filter.stands(|id| policy.service(id).is_some()));
        let added = free.zip(coming).map(|(id, filter)| filter.filter(id, self)).collect();
        Change { removed: removed.into_iter().collect(), added }
    }

    fn replace_tables(&mut self, tables: Tables) {
        self.taken();
        let installation = Installation { tables, endpoints: self.scene.endpoints.clone() };
        self.ground.engine().put_in_force(&installation);
        self.scene.tables = installation.tables;
    }

    fn mark(&mut self, service: ServiceId, alive: bool) {
        let liveness = if alive { Liveness::Alive } else { Liveness::Dead };
        self.ground.engine().mark(service, liveness);
        if alive && self.scene.policy.service(service).is_some() {
            self.scene.alive.insert(service);
        } else {
            self.scene.alive.remove(&service);
        }
    }

    fn publish(&mut self, reaches: impl IntoIterator<Item = (Prefix, Reach)>) {
        self.scene.routes = Routes::default();
        for (prefix, reach) in reaches {
            self.scene.routes.set(prefix, reach);
        }
        self.ground.engine().publish(&self.scene.routes);
    }

    fn address(&self, to: To) -> SocketAddr {
        match to {
            To::Address(ip, port) => (ip, port).into(),
            To::Listener { service, family } => {
                let endpoint = self.ground.endpoint(service, &self.doors);
                match family {
                    Family::V4 => endpoint.tcp4[0].into(),
                    Family::Mapped => {
                        (endpoint.tcp4[0].ip().to_ipv6_mapped(), endpoint.tcp4[0].port()).into()
                    }
                    Family::V6 => endpoint.tcp6[0].into(),
                }
            }
        }
    }

    fn carry_on(&mut self, carry_on: &CarryOn) -> Result<(), TestCaseError> {
        if self.flows.is_empty() {
            return Ok(());
        }
        let at = carry_on.flow % self.flows.len();
        let to = carry_on.elsewhere.map(|to| self.address(to));
        let by = Party::Service(self.flows[at].service);
        let to = to.unwrap_or(self.flows[at].destination);
        self.compare(by, carry_on.with_records.then_some(at), Source::Nothing, to)
    }

    /// A connect() of UDP, of which the services here take none; and if it goes there an answer.
    fn ask(&mut self, by: Party, host: Host) -> Result<(), TestCaseError> {
        let leg = Leg {
            protocol: Protocol::Udp,
            local: None,
            remote: RESOLVER,
            caller: self.diallers[&by].identity(),
        };
        let world = World {
            availability: BTreeMap::new(),
            obstacle: self.scene.routes.to(RESOLVER.ip()).obstacle(Protocol::Udp),
            ..self.world(by, by, RESOLVER)
        };
        let decision = decide(&self.scene.policy, &leg, &Records::None, &world);
        let unhindered =
            decide(&self.scene.policy, &leg, &Records::None, &World { obstacle: None, ..world.clone() });
        self.tally.broadcast += u64::from(unhindered.verdict != decision.verdict);
        let expected = match &decision.verdict {
            Verdict::Direct => (None, Vec::new()),
            Verdict::Refuse(refusal) => (Some(refusal.errno().number().into()), vec![*refusal]),
            Verdict::Redirect { .. } => unreachable!("no service is there"),
        };
        let name = self.hearsay.name(host);
        let answer = self.diallers.get_mut(&by).unwrap().ask(RESOLVER, &name);
        let seen = (answer, self.reported());
        if seen != expected {
            let what = format!(
                "{by:?} asks for {name}; {}\nexpected: {expected:?}\n    seen: {seen:?}",
                decision.trace
            );
            return Err(TestCaseError::fail(what));
        }
        if seen.0.is_none() {
            self.tally.answered += 1;
            self.hearsay.learn(by, host, &self.scene.policy);
        }
        Ok(())
    }

    /// Somebody dials, with the records of that flow: what is seen is what the meaning says.
    fn compare(
        &mut self,
        by: Party,
        records: Option<usize>,
        from: Source,
        to: SocketAddr,
    ) -> Result<(), TestCaseError> {
        let local = from.towards(to);
        let remote = resolved(local, to);
        let carried = records.map(|at| &self.flows[at]);
        let leg = Leg { protocol: Protocol::Tcp, local, remote, caller: self.diallers[&by].identity() };
        let brought = carried.map_or(Records::None, |flow| Records::Carried(flow.chain.clone()));
        let application = carried.and_then(|flow| self.party(flow.chain.origin()?.pid)).unwrap_or(by);
        let world = self.world(by, application, remote);
        let decision = decide(&self.scene.policy, &leg, &brought, &world);
        let by_tables = self.scene.tables.decide(&leg, &brought, &world);
        let handle = carried.map(|flow| flow.records.clone());
        let expected = self.expect(by, &decision.verdict, remote);
        let unbound = Leg { local: None, ..leg };
        let is_bound = decide(&self.scene.policy, &unbound, &brought, &world).verdict != decision.verdict;
        let unnamed = World { hosts: Vec::new(), ..world.clone() };
        let is_named = decide(&self.scene.policy, &leg, &brought, &unnamed).verdict != decision.verdict;
        let (seen, received) = self.dial(by, handle.as_ref(), local, to);
        let what = format!("{by:?} dials {to} from {local:?} with {brought:?}; {}", decision.trace);
        if seen != expected || by_tables != decision.verdict {
            let tables = (by_tables != decision.verdict).then_some(by_tables);
            return Err(TestCaseError::fail(format!(
                "{what}\nexpected: {expected:?}\n    seen: {seen:?}\n  tables: {tables:?}"
            )));
        }
        self.count(&decision.verdict, by, records.is_some());
        let stays =
            decision.verdict == Verdict::Direct && decision.trace.steps().contains(&TraceStep::SandboxStays);
        self.tally.sandboxed += u64::from(stays);
        self.tally.named += u64::from(is_named);
        self.tally.bound += u64::from(is_bound);
        if let (Verdict::Redirect { service, chain, .. }, Some((accepted, records))) =
            (decision.verdict, received)
        {
            let service = service.0;
            self.flows.push(Flow { service, chain, destination: remote, records, _accepted: accepted });
        }
        Ok(())
    }

    fn party(&self, pid: u32) -> Option<Party> {
        self.diallers.values().find(|dialler| dialler.identity().pid == pid).map(Dialler::party)
    }

    /// What the meaning needs to know of the world, for an application for whom somebody dials.
    fn world(&self, by: Party, application: Party, remote: SocketAddr) -> World {
        let ip4 = is_ip4(remote);
        let listens = |endpoint: &Endpoint| match ip4 {
            true => !endpoint.tcp4.is_empty(),
            false => !endpoint.tcp6.is_empty(),
        };
        let there = self.scene.endpoints.iter().filter(|endpoint| listens(endpoint));
        let there = there.map(|endpoint| endpoint.service).filter(|id| self.scene.alive.contains(id));
        let listeners = |endpoint: &Endpoint| {
            let tcp4 = endpoint.tcp4.iter().copied().map(SocketAddr::V4);
            tcp4.chain(endpoint.tcp6.iter().copied().map(SocketAddr::V6)).collect::<Vec<_>>()
        };
        let at = |endpoint: &&Endpoint| listeners(endpoint).contains(&canonical(remote));
        let (is_visitor, own) = (by == Party::VISITOR, Net::Own);
        // Nobody is registered in the other namespace.
        let listener = self.known.values().find(at).filter(|_| !is_visitor);
        let listener = listener.map(|endpoint| ListenerOwner::OwnInstance(endpoint.service));
        let confinement =
            if self.ground.is_sandboxed(by) { Confinement::Sandboxed } else { Confinement::Free };
        let is_placed = |party: &Party| self.subject().is_ebpf() || matches!(party, Party::Application(_));
        let parties = Party::ALL.into_iter().filter(is_placed);
        World {
            listener,
            confinement,
            namespace: if is_visitor { self.visited } else { own },
            hosts: self.hearsay.of(application, remote.ip().to_canonical()),
            route: self.ground.route(&self.scene.routes, by, remote),
            availability: there.map(|id| (id, Availability::Available)).collect(),
            cgroups: Cgroups::new(
                parties.map(|party| (self.cgroup_id(Place::Of(party)), self.cgroup_id(Place::Scope))),
            ),
            ..World::default()
        }
    }

    fn subject(&self) -> Subject {
        self.ground.subject()
    }

    /// What the kernel itself says of a destination, where routes are its own.
    fn unreachable(&self, by: Party, remote: SocketAddr) -> Option<i32> {
        match self.ground.route(&Routes::default(), by, remote) {
            Route::Missing(errno) => Some(errno.number().into()),
            Route::Exists => None,
        }
    }

    fn expect(&self, by: Party, verdict: &Verdict, remote: SocketAddr) -> Seen {
        match verdict {
            Verdict::Direct if self.unreachable(by, remote).is_some() => {
                Seen::Refused { errno: self.unreachable(by, remote).unwrap(), reported: Vec::new() }
            }
            Verdict::Direct if is_deserted(remote.port(), by == Party::VISITOR) => {
                Seen::Refused { errno: Fault::CONNREFUSED.raw_os_error(), reported: Vec::new() }
            }
            Verdict::Direct => Seen::AtDestination(canonical(remote)),
            Verdict::Refuse(refusal) => {
                Seen::Refused { errno: refusal.errno().number().into(), reported: vec![*refusal] }
            }
            Verdict::Redirect { service, chain, .. } => {
                let origin = chain.origin().unwrap();
                let dialler = self.diallers.values().find(|one| one.identity().pid == origin.pid).unwrap();
                let path = dialler.program().display().to_string();
                Seen::AtService {
                    service: service.0,
                    ip4: is_ip4(remote),
                    peer: canonical(remote),
                    hops: chain.hops().iter().map(|hop| (hop.service.0, hop.filter.0)).collect(),
                    destination: canonical(remote),
                    application: (origin.pid, origin.uid, origin.cgroup, path),
                }
            }
        }
    }

    fn dial(
        &mut self,
        by: Party,
        records: Option<&RedirectRecords>,
        from: Option<SocketAddr>,
        to: SocketAddr,
    ) -> (Seen, Option<(TcpStream, RedirectRecords)>) {
        let dialler = self.diallers.get_mut(&by).unwrap();
        assert_eq!(dialler.party(), by);
        match dialler.dial(from, to, records) {
            Answer::Connected { peer } => match self.accept(&PATIENCE) {
                Some((Door::Server, accepted)) => see_at_destination(&accepted, peer),
                Some((Door::Service(service), accepted)) => {
                    self.ground.ask_as(service, || see_at_service(service, accepted, peer))
                }
                None => (Seen::Lost("nobody has the connection".into()), None),
            },
            Answer::Errno(errno) => {
                let seen = match self.accept(&AT_ONCE) {
                    None => Seen::Refused { errno, reported: self.reported() },
                    Some((door, _)) => Seen::Lost(format!("errno {errno}, and {door:?} has a connection")),
                };
                (seen, None)
            }
            Answer::Unset(answer) => (Seen::Lost(answer), None),
        }
    }

    /// The next connection that anybody gets.
    fn accept(&self, patience: &Timespec) -> Option<(Door, TcpStream)> {
        let mut waiting: Vec<_> =
            self.doors.iter().map(|(_, listener)| PollFd::new(listener, PollFlags::IN)).collect();
        poll(&mut waiting, Some(patience)).unwrap();
        let at = waiting.iter().position(|door| door.revents().contains(PollFlags::IN))?;
        let (door, listener) = &self.doors[at];
        let (accepted, _) = listener.accept().unwrap();
        SockRef::from(&accepted).set_linger(Some(Duration::ZERO)).unwrap();
        Some((*door, accepted))
    }

    /// The refusals that the programs have reported.
    fn reported(&mut self) -> Vec<Refusal> {
        let events = self.ground.engine().news();
        let refusal = |event| match event {
            Event::Refused { refusal, .. } => Some(refusal),
            Event::SocketRefused { .. }
            | Event::LeftAlone { .. }
            | Event::Redirected { .. }
            | Event::Ended { .. }
            | Event::Dropped { .. }
            | Event::Lost { .. } => None,
        };
        events.into_iter().filter_map(refusal).collect()
    }

    fn count(&mut self, verdict: &Verdict, by: Party, with_records: bool) {
        match verdict {
            Verdict::Direct => self.tally.direct += 1,
            Verdict::Redirect { .. } => self.tally.redirected += 1,
            Verdict::Refuse(refusal) => *self.tally.refused.entry(kind(*refusal)).or_default() += 1,
        }
        match (by, with_records) {
            (Party::VISITOR, _) => self.tally.visited += 1,
            (Party::Application(_), _) => {}
            (Party::Service(_), true) => self.tally.carried += 1,
            (Party::Service(_), false) => self.tally.forgotten += 1,
        }
    }
}

/// The kinds of refusals that the cases come to.
pub(crate) const KINDS: [&str; 5] =
    ["blocked", "absent", "listener dialled", "no route", "foreign namespace"];

fn kind(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::Blocked { .. } => KINDS[0],
        Refusal::ServiceAbsent { .. } => KINDS[1],
        Refusal::ListenerDialled { .. } => KINDS[2],
        Refusal::NoRoute { .. } => KINDS[3],
        Refusal::ForeignNamespace => KINDS[4],
        Refusal::BacklogFull { .. }
        | Refusal::HopLimit { .. }
        | Refusal::Unredirectable
        | Refusal::Shortage(_) => "another",
    }
}

impl Names for Arena {
    fn file(&self, program: Program) -> FileId {
        self.programs.file(program)
    }

    fn cgroup_id(&self, place: Place) -> u64 {
        self.ground.cgroup_id(place)
    }

    fn are_there_hosts(&self) -> bool {
        self.subject().is_ebpf()
    }

    fn pattern(&self, host: Host, reach: case::Reach) -> HostPattern {
        self.hearsay.pattern(host, reach)
    }

    fn namespace(&self, realm: Realm) -> Net {
        match realm {
            Realm::Own => Net::Own,
            Realm::OfTheVisitor => self.visited,
            Realm::OfNobody => Net::Foreign(u64::MAX),
        }
    }
}
