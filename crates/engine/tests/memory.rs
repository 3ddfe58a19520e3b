//! The contract, on the engine in memory.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use waylay_core::{
    Availability, Conditions, Confinement, Event, FailurePolicy, Filter, FilterId, Layer, Leg, Limit,
    LimitError, Namespace, Policy, Process, Protocol, Reason, Refusal, Resource, Room, Service, ServiceId,
    SlotInUse, Slots, SocketKind, SocketVerdict, Tables,
};
use waylay_engine::memory::{FlowId, Outcome, QueryRecordsError, SetRecordsError, SocketId};
use waylay_engine::{Endpoint, Engine, Feature, Installation, Liveness, LocalName, MemoryEngine};

const A: ServiceId = ServiceId(1);
const B: ServiceId = ServiceId(2);
const DESTINATION: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 443));

/// An engine and the next free socket.
struct Host {
    engine: MemoryEngine,
    sockets: u64,
}

impl Host {
    /// These services, alive, in this order, each for everything.
    fn with(services: &[ServiceId]) -> Self {
        let mut host = Self { engine: MemoryEngine::new(), sockets: 0 };
        host.install(services);
        for &service in services {
            host.set(service, Liveness::Alive);
        }
        host
    }

    fn install(&mut self, services: &[ServiceId]) {
        let slots = self.engine.slots().expect("it cannot fail");
        self.engine.install(&installation(services, slots)).expect("no slot is given away");
    }

    fn set(&mut self, service: ServiceId, liveness: Liveness) {
        self.engine.set_liveness(service, liveness).expect("it cannot fail");
    }

    fn socket(&mut self) -> SocketId {
        self.sockets += 1;
        SocketId(self.sockets)
    }

    fn dial(&mut self, caller: Process) -> Outcome {
        let socket = self.socket();
        self.engine.connect(&leg(caller), socket)
    }

    /// The service dials on, with the records of the flow it received.
    fn dial_with_records(&mut self, service: ServiceId, flow: FlowId) -> Outcome {
        let socket = self.socket();
        let records = self.engine.query_records(flow, &process_of(service)).expect("the flow lives");
        self.engine.set_records(socket, records, &process_of(service)).expect("the flow is its own");
        self.engine.connect(&leg(process_of(service)), socket)
    }

    fn events(&mut self) -> Vec<Event> {
        self.engine.events(Duration::ZERO).expect("it cannot fail")
    }
}

fn installation(services: &[ServiceId], slots: Slots) -> Installation {
    let tables = Tables::compile_keeping(&policy(services), slots).expect("few services");
    Installation { tables, endpoints: services.iter().map(|&service| endpoint(service)).collect() }
}

fn policy(services: &[ServiceId]) -> Policy {
    let declare = |&id: &ServiceId| Service {
        id,
        name: id.to_string(),
        before: vec![],
        after: vec![],
        on_failure: FailurePolicy::Closed,
    };
    let redirect = |&service: &ServiceId| Filter {
        id: FilterId(100 + service.0),
        weight: 0,
        conditions: Conditions::default(),
        layer: Layer::Redirect { service },
    };
    let filters = services.iter().map(redirect).collect();
    Policy::new(services.iter().map(declare).collect(), vec![], filters).expect("a policy")
}

fn endpoint(service: ServiceId) -> Endpoint {
    Endpoint {
        service,
        cgroup: cgroup_of(service),
        tcp4: vec![listener_of(service)],
        tcp6: Vec::new(),
        udp4: None,
        udp6: Vec::new(),
        behind6: None,
        local_name: LocalName::Listener,
    }
}

fn cgroup_of(service: ServiceId) -> u64 {
    1000 + u64::from(service.0)
}

fn listener_of(service: ServiceId) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::LOCALHOST, u16::try_from(9000 + service.0).expect("few services"))
}

fn app() -> Process {
    Process { pid: 10, start_time_ns: 5, uid: 1000, cgroup: 1, ..Process::default() }
}

/// It does not say of which service it is: that is for the engine to find out.
fn process_of(service: ServiceId) -> Process {
    Process { pid: 100 + service.0, cgroup: cgroup_of(service), ..app() }
}

fn leg(caller: Process) -> Leg {
    Leg { protocol: Protocol::Tcp, local: None, remote: DESTINATION, caller }
}

fn flow_to(outcome: Outcome, expected: ServiceId) -> FlowId {
    match outcome {
        Outcome::Redirected { service, flow } if service == expected => flow,
        Outcome::Redirected { .. } | Outcome::Direct | Outcome::Refused(_) => {
            panic!("{outcome:?}, not {expected}")
        }
    }
}

#[test]
fn an_engine_with_nothing_installed_leaves_everything_alone() {
    let mut host = Host { engine: MemoryEngine::new(), sockets: 0 };
    assert_eq!(host.dial(app()), Outcome::Direct);
    assert!(host.events().is_empty());
}

#[test]
fn a_chain_of_two_cooperating_services_reaches_the_destination() {
    let mut host = Host::with(&[A, B]);
    let first = flow_to(host.dial(app()), A);
    assert_eq!(host.engine.original_destination(first), Some(DESTINATION));
    let second = flow_to(host.dial_with_records(A, first), B);
    assert_eq!(host.engine.chain(second).unwrap().origin(), Some(&app()));
    assert_eq!(host.engine.chain(second).unwrap().hops().len(), 2);
    assert_eq!(host.dial_with_records(B, second), Outcome::Direct);
}

#[test]
fn forgetful_services_make_no_loop() {
    let mut host = Host::with(&[A, B]);
    flow_to(host.dial(app()), A);
    let second = flow_to(host.dial(process_of(A)), B);
    assert_eq!(host.engine.chain(second).unwrap().hops().len(), 1);
    assert_eq!(host.dial(process_of(B)), Outcome::Direct);
}

#[test]
fn a_process_is_known_by_its_cgroup_not_by_what_it_says() {
    let mut host = Host::with(&[A]);
    let pretender = Process { service: Some(A), ..app() };
    flow_to(host.dial(pretender), A);
}

#[test]
fn records_are_for_the_service_that_received_the_flow() {
    let mut host = Host::with(&[A, B]);
    let flow = flow_to(host.dial(app()), A);
    assert_eq!(host.engine.query_records(flow, &app()), Err(QueryRecordsError::NotItsService));
    assert_eq!(host.engine.query_records(flow, &process_of(B)), Err(QueryRecordsError::NotItsService));
    let records = host.engine.query_records(flow, &process_of(A)).unwrap();
    let socket = host.socket();
    assert_eq!(host.engine.set_records(socket, records, &app()), Err(SetRecordsError::NotItsService));
    assert_eq!(host.engine.set_records(socket, records, &process_of(B)), Err(SetRecordsError::NotItsService));
    assert_eq!(host.engine.set_records(socket, records, &process_of(A)), Ok(()));
}

#[test]
fn records_live_as_long_as_their_flow_and_are_set_before_the_dial() {
    let mut host = Host::with(&[A]);
    let inbound = host.socket();
    let flow = flow_to(host.engine.connect(&leg(app()), inbound), A);
    let records = host.engine.query_records(flow, &process_of(A)).unwrap();

    let outbound = host.socket();
    assert_eq!(host.engine.connect(&leg(process_of(A)), outbound), Outcome::Direct);
    assert_eq!(host.engine.set_records(outbound, records, &process_of(A)), Err(SetRecordsError::Connected));

    host.engine.close(inbound);
    let late = host.socket();
    assert_eq!(host.engine.set_records(late, records, &process_of(A)), Err(SetRecordsError::FlowEnded));
    assert_eq!(host.engine.query_records(flow, &process_of(A)), Err(QueryRecordsError::FlowEnded));
    assert!(host.events().contains(&Event::Ended { flow: flow.0 }));
}

#[test]
fn a_refused_socket_keeps_its_records_for_another_try() {
    let mut host = Host::with(&[A, B]);
    let first = flow_to(host.dial(app()), A);
    let socket = host.socket();
    let records = host.engine.query_records(first, &process_of(A)).unwrap();
    host.engine.set_records(socket, records, &process_of(A)).unwrap();
    host.set(B, Liveness::Dead);
    let refused = Outcome::Refused(Refusal::ServiceAbsent { service: B });
    assert_eq!(host.engine.connect(&leg(process_of(A)), socket), refused);
    host.set(B, Liveness::Alive);
    let second = flow_to(host.engine.connect(&leg(process_of(A)), socket), B);
    assert_eq!(host.engine.chain(second).unwrap().hops().len(), 2);
}

#[test]
fn listeners_are_reached_through_the_engine_only() {
    let mut host = Host::with(&[A]);
    for address in [listener_of(A).into(), SocketAddr::from((Ipv4Addr::LOCALHOST.to_ipv6_mapped(), 9001))] {
        let socket = host.socket();
        let outcome = host.engine.connect(&Leg { remote: address, ..leg(app()) }, socket);
        assert_eq!(outcome, Outcome::Refused(Refusal::ListenerDialled { service: A }));
    }
}

#[test]
fn a_service_is_absent_until_it_is_said_to_be_alive_and_without_an_endpoint_for_good() {
    let mut host = Host { engine: MemoryEngine::new(), sockets: 0 };
    host.install(&[A]);
    let absent = Outcome::Refused(Refusal::ServiceAbsent { service: A });
    assert_eq!(host.dial(app()), absent);
    host.set(A, Liveness::Alive);
    flow_to(host.dial(app()), A);
    host.set(A, Liveness::Dead);
    assert_eq!(host.dial(app()), absent);

    host.set(A, Liveness::Alive);
    let homeless = Installation { endpoints: vec![], ..installation(&[A], host.engine.slots().unwrap()) };
    host.engine.install(&homeless).unwrap();
    assert_eq!(host.dial(app()), absent);
}

#[test]
fn a_listener_takes_only_its_own_family() {
    let mut host = Host::with(&[A]);
    let socket = host.socket();
    let outcome =
        host.engine.connect(&Leg { remote: "[2001:db8::1]:443".parse().unwrap(), ..leg(app()) }, socket);
    assert_eq!(outcome, Outcome::Refused(Refusal::ServiceAbsent { service: A }));
}

#[test]
fn a_reload_keeps_flows_liveness_and_slots() {
    let mut host = Host::with(&[A, B]);
    let slot = host.engine.tables().slots().of(B);
    let first = flow_to(host.dial(app()), A);
    host.install(&[B]);
    assert_eq!(host.engine.tables().slots().of(B), slot);
    host.dial_with_records(A, first);
    let second = flow_to(host.dial(app()), B);
    assert_eq!(host.dial_with_records(B, second), Outcome::Direct);
    assert_eq!(host.engine.original_destination(first), Some(DESTINATION));
    assert!(host.engine.services_in_use().contains(A));

    // What is said of a service that is not there counts for nothing.
    host.set(A, Liveness::Alive);
    host.install(&[A, B]);
    let gone_meanwhile = Outcome::Refused(Refusal::ServiceAbsent { service: A });
    assert_eq!(host.dial(app()), gone_meanwhile);
}

/// Ends when nothing carries it: neither the flow, nor the socket that its service has set the records on.
#[test]
fn a_slot_is_free_again_only_when_nothing_carries_it() {
    let mut host = Host::with(&[A]);
    let (application, outbound) = (host.socket(), host.socket());
    let flow = flow_to(host.engine.connect(&leg(app()), application), A);
    let records = host.engine.query_records(flow, &process_of(A)).unwrap();
    host.install(&[]);
    host.engine.set_records(outbound, records, &process_of(A)).unwrap();

    let others: Vec<ServiceId> = (0..63).map(|id| ServiceId(100 + id)).collect();
    assert_eq!(host.engine.slots().unwrap().of(A), Some(0));
    host.engine.close(application);
    assert_eq!(host.engine.slots().unwrap().of(A), Some(0));
    let stolen = host.engine.install(&installation(&others, Slots::default()));
    let clash = SlotInUse { slot: 0, carried_for: A, given_to: others[0] };
    assert_eq!((stolen, host.engine.tables().services()), (Err(clash), &[][..]));
    host.install(&others);
    let all: Vec<ServiceId> = others.iter().copied().chain([ServiceId(999)]).collect();
    let full = Tables::compile_keeping(&policy(&all), host.engine.slots().unwrap());
    assert_eq!(full, Err(LimitError { limit: Limit::Slots, need: 65, allowed: 64 }));
    host.engine.close(outbound);
    assert_eq!(host.engine.slots().unwrap().of(A), None);
    host.install(&all);
    assert_eq!(host.engine.tables().slots().of(ServiceId(999)), Some(0));
    // Who had it is nobody now.
    assert_eq!(host.engine.query_records(flow, &process_of(A)), Err(QueryRecordsError::FlowEnded));
}

#[test]
fn a_mapped_address_is_ipv4() {
    let mut host = Host::with(&[A]);
    let socket = host.socket();
    let remote = SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1).to_ipv6_mapped(), 443));
    flow_to(host.engine.connect(&Leg { remote, ..leg(app()) }, socket), A);
}

#[test]
fn a_service_that_a_reload_removes_carries_on_what_it_has() {
    let mut host = Host::with(&[A, B]);
    let first = flow_to(host.dial(app()), A);
    host.install(&[B]);
    let second = flow_to(host.dial_with_records(A, first), B);
    assert_eq!(host.engine.chain(second).unwrap().hops().len(), 2);
    host.install(&[A]);
    host.set(A, Liveness::Alive);
    assert_eq!(host.dial_with_records(B, second), Outcome::Direct);
}

#[test]
fn records_count_only_when_the_service_that_set_them_dials() {
    let mut host = Host::with(&[A]);
    let flow = flow_to(host.dial(app()), A);
    let records = host.engine.query_records(flow, &process_of(A)).unwrap();
    let socket = host.socket();
    host.engine.set_records(socket, records, &process_of(A)).unwrap();
    flow_to(host.engine.connect(&leg(app()), socket), A);
}

#[test]
fn a_shortage_or_a_full_backlog_refuses() {
    let mut host = Host::with(&[A]);
    host.engine.world.availability.insert(A, Availability::BacklogFull);
    assert_eq!(host.dial(app()), Outcome::Refused(Refusal::BacklogFull { service: A }));
    host.engine.world.availability.clear();
    host.engine.world.room = Room::Exhausted(Resource::Flows);
    assert_eq!(host.dial(app()), Outcome::Refused(Refusal::Shortage(Resource::Flows)));
}

#[test]
fn events_come_in_order_and_once() {
    let mut host = Host::with(&[A]);
    host.dial(app());
    host.set(A, Liveness::Dead);
    host.dial(app());
    let lines: Vec<_> = host.events().iter().map(ToString::to_string).collect();
    assert_eq!(
        lines,
        [
            "[10] tcp 192.0.2.1:443: redirected to service 1 by filter 101, flow 0000000000000001",
            "[10] tcp 192.0.2.1:443: refused with ECONNREFUSED: service 1 is absent and fails closed",
        ]
    );
    assert!(host.events().is_empty());
}

#[test]
fn it_says_what_it_can_do() {
    let capabilities = MemoryEngine::new().capabilities();
    assert!(capabilities.has(Feature::RedirectTcp4) && capabilities.has(Feature::Records));
    assert!(!capabilities.has(Feature::HostScope));
}

#[test]
fn sockets_that_cannot_be_redirected_are_refused_and_told() {
    let mut host = Host::with(&[A]);
    let ping = SocketKind { family: 2, socket_type: 2, protocol: 1 };
    let refused = SocketVerdict::Refuse(Refusal::Unredirectable);
    assert_eq!(host.engine.make_socket(ping, &app()), refused);
    let told = |event: &Event| matches!(event, Event::SocketRefused { socket, .. } if socket.kind == ping);
    assert_eq!(host.events().iter().filter(|event| told(event)).count(), 1);
    assert_eq!(host.engine.make_socket(ping, &process_of(A)), SocketVerdict::Permit);
    assert_eq!(host.events(), []);
}

#[test]
fn legs_from_a_sandbox_are_told_once_a_cgroup() {
    let mut host = Host::with(&[A]);
    host.engine.world.confinement = Confinement::Sandboxed;
    for _ in 0..3 {
        assert_eq!(host.dial(app()), Outcome::Direct);
    }
    let told = |event: &&Event| matches!(event, Event::LeftAlone { reason: Reason::Sandbox, .. });
    assert_eq!(host.events().iter().filter(told).count(), 1);
    host.engine.world.confinement = Confinement::Free;
    assert!(matches!(host.dial(app()), Outcome::Redirected { .. }));
}

#[test]
fn legs_of_another_namespace_are_told_once_a_process() {
    let mut host = Host::with(&[A]);
    host.engine.world.namespace = Namespace::Foreign(7);
    for _ in 0..3 {
        assert_eq!(host.dial(app()), Outcome::Direct);
    }
    let told = |event: &&Event| matches!(event, Event::LeftAlone { .. });
    assert_eq!(host.events().iter().filter(told).count(), 1);
}
