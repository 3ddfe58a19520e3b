//! What is never given to another as long as something goes by it: slots, ids of flows, ids of instances.

#![expect(clippy::unwrap_used, reason = "a failed set-up is a failed test")]

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use socket2::{Domain, Socket, Type};
use waylay::{
    QueryError, RedirectRecords, SetError, query_redirect_chain, query_redirect_context,
    query_redirect_records, set_redirect_records,
};
use waylay_core::{
    Conditions, FailurePolicy, Filter, FilterId, Layer, Limit, LimitError, Policy, Refusal, Service,
    ServiceId, SlotInUse, Tables,
};
use waylay_engine::{Endpoint, Engine, Installation, Liveness};
use waylay_engine_ebpf::{EbpfError, Limits};
use waylay_netlab::{Dialled, Lab, patiently};

/// The service that is removed, and the one that gets its slot.
const LEAVING: ServiceId = ServiceId(1);
const NEXT: ServiceId = ServiceId(2);
const ECONNREFUSED: i32 = 111;

fn anywhere() -> SocketAddr {
    (Ipv4Addr::new(192, 0, 2, 1), 80).into()
}

/// Each for every connection, in this order.
fn policy(services: impl IntoIterator<Item = ServiceId>, on_failure: FailurePolicy) -> Policy {
    let ids: Vec<ServiceId> = services.into_iter().collect();
    let service = |&id: &ServiceId| Service {
        id,
        name: format!("s{}", id.0),
        before: Vec::new(),
        after: Vec::new(),
        on_failure,
    };
    let filter = |&service: &ServiceId| Filter {
        id: FilterId(service.0),
        weight: 0,
        conditions: Conditions::default(),
        layer: Layer::Redirect { service },
    };
    Policy::new(ids.iter().map(service).collect(), Vec::new(), ids.iter().map(filter).collect()).unwrap()
}

/// Services that are nowhere; without them one slot is left.
fn others() -> impl Iterator<Item = ServiceId> {
    (101..=163).map(ServiceId)
}

fn tcp() -> Socket {
    Socket::new(Domain::IPV4, Type::STREAM, None).unwrap()
}

/// A lab with one service, number 1, and a connection that it has accepted.
struct Carried {
    lab: Lab,
    listener: TcpListener,
    application: Socket,
    accepted: TcpStream,
    records: RedirectRecords,
}

impl Carried {
    fn new(name: &str) -> Self {
        let mut lab = Lab::new(name, Limits::default());
        let listener = lab.as_service(1, || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
        let endpoint = lab.endpoint(1, [&listener]);
        lab.install(&policy([LEAVING], FailurePolicy::Open), vec![endpoint]);
        let application = lab.as_application(|| {
            let socket = tcp();
            socket.connect(&anywhere().into()).unwrap();
            socket
        });
        let (accepted, _) = listener.accept().unwrap();
        let records = query_redirect_records(&accepted).unwrap();
        Self { lab, listener, application, accepted, records }
    }

    fn socket_with_records(&self) -> Socket {
        self.lab.as_service(1, || {
            let socket = tcp();
            set_redirect_records(&socket, &self.records).unwrap();
            socket
        })
    }

    /// Returns the lab once the flow has ended.
    fn end_flow(self) -> (Lab, TcpListener) {
        drop((self.application, self.accepted));
        let lab = self.lab;
        patiently("the end of the flow", || (lab.engine.flow_count().unwrap() == 0).then_some(()));
        (lab, self.listener)
    }
}

fn slot_of_leaving(lab: &mut Lab) -> Option<u8> {
    lab.engine.slots().unwrap().of(LEAVING)
}

/// Whatever fills the others: one has no slot until that of the removed one is free.
fn is_full(lab: &mut Lab) {
    let all = policy(others().chain([NEXT]), FailurePolicy::Open);
    let refused = lab.reload(&all, Vec::new());
    let full = LimitError { limit: Limit::Slots, need: 65, allowed: 64 };
    assert!(matches!(&refused, Err(EbpfError::Limit(error)) if *error == full), "{refused:?}");
}

#[test]
fn a_slot_is_not_given_to_another_service_while_a_flow_carries_it() {
    let mut carried = Carried::new("slot-flow");
    carried.lab.reload(&policy(others(), FailurePolicy::Open), Vec::new()).unwrap();
    is_full(&mut carried.lab);
    assert_eq!(slot_of_leaving(&mut carried.lab), Some(0));
    // Until then the service can carry on what it has received, and the chain still excludes it.
    let socket = carried.socket_with_records();
    assert_eq!(query_redirect_chain(&socket).unwrap().len(), 1);
    drop(socket);
    let (mut lab, _listener) = carried.end_flow();
    patiently("a free slot", || slot_of_leaving(&mut lab).is_none().then_some(()));
    lab.reload(&policy(others().chain([NEXT]), FailurePolicy::Open), Vec::new()).unwrap();
    assert_eq!(lab.engine.slots().unwrap().of(NEXT), Some(0));
}

#[test]
fn a_slot_is_not_given_to_another_service_while_a_socket_carries_it() {
    let carried = Carried::new("slot-socket");
    let socket = carried.socket_with_records();
    let (mut lab, _listener) = carried.end_flow();
    lab.reload(&policy(others(), FailurePolicy::Open), Vec::new()).unwrap();
    is_full(&mut lab);
    assert_eq!(slot_of_leaving(&mut lab), Some(0));
    drop(socket);
    patiently("a free slot", || slot_of_leaving(&mut lab).is_none().then_some(()));
    lab.reload(&policy(others().chain([NEXT]), FailurePolicy::Open), Vec::new()).unwrap();
    assert_eq!(lab.engine.slots().unwrap().of(NEXT), Some(0));
}

/// What it has carried on may carry the slot for as long as it lives, through other services too.
#[test]
fn a_slot_is_not_free_while_the_chain_goes_on_elsewhere() {
    let mut carried = Carried::new("slot-chain");
    let second = carried.lab.as_service(2, || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
    let both = vec![carried.lab.endpoint(1, [&carried.listener]), carried.lab.endpoint(2, [&second])];
    carried.lab.reload(&policy([LEAVING, NEXT], FailurePolicy::Closed), both.clone()).unwrap();
    carried.lab.engine.set_liveness(NEXT, Liveness::Alive).unwrap();
    let outbound = carried.lab.as_service(1, || {
        let socket = tcp();
        set_redirect_records(&socket, &carried.records).unwrap();
        socket.connect(&anywhere().into()).unwrap();
        socket
    });
    let (onward, _) = second.accept().unwrap();
    carried.lab.reload(&policy([NEXT], FailurePolicy::Closed), both[1..].to_vec()).unwrap();
    drop((carried.application, carried.accepted));
    let mut lab = carried.lab;
    patiently("the end of the first leg", || (lab.engine.flow_count().unwrap() == 1).then_some(()));
    assert_eq!(slot_of_leaving(&mut lab), Some(0));
    drop(outbound);
    // Its peer has not closed yet, and could ask.
    assert_eq!(slot_of_leaving(&mut lab), Some(0));
    drop(onward);
    patiently("a free slot", || slot_of_leaving(&mut lab).is_none().then_some(()));
}

#[test]
fn tables_that_give_a_slot_away_are_refused_and_the_old_rules_stay() {
    let mut carried = Carried::new("slot-stolen");
    let endpoint = carried.lab.endpoint(1, [&carried.listener]);
    let forgetful = Tables::compile(&policy([NEXT], FailurePolicy::Closed)).unwrap();
    let stolen = carried.lab.engine.install(&Installation { tables: forgetful, endpoints: Vec::new() });
    let clash = SlotInUse { slot: 0, carried_for: LEAVING, given_to: NEXT };
    assert!(matches!(&stolen, Err(EbpfError::Slot(error)) if *error == clash), "{stolen:?}");
    assert_eq!(carried.lab.dial("app", &[anywhere()]), [Dialled::Connected(anywhere())]);
    carried.lab.reload(&policy([LEAVING], FailurePolicy::Open), vec![endpoint]).unwrap();
}

/// Who had the slot before is nobody any more, and who has it now starts with nothing of the other's.
#[test]
fn who_gets_a_slot_inherits_nothing() {
    let carried = Carried::new("slot-heir");
    let (mut lab, former) = carried.end_flow();
    // It has left one waiting.
    assert_eq!(lab.dial("app", &[anywhere()]), [Dialled::Connected(anywhere())]);
    patiently("the end of the dialler", || (former.accept().is_ok()).then_some(()));
    patiently("the end of the flow", || (lab.engine.flow_count().unwrap() == 0).then_some(()));
    lab.reload(&policy([], FailurePolicy::Open), Vec::new()).unwrap();
    patiently("a free slot", || slot_of_leaving(&mut lab).is_none().then_some(()));

    let listener = lab.as_service(2, || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
    let endpoint: Endpoint = lab.endpoint(2, [&listener]);
    lab.engine.serve_cgroup(NEXT, &lab.cgroup(Some("svc-2"))).unwrap();
    lab.reload(&policy([NEXT], FailurePolicy::Closed), vec![endpoint]).unwrap();
    assert_eq!(lab.engine.slots().unwrap().of(NEXT), Some(0));
    // Not alive until somebody says so.
    assert_eq!(lab.dial("app", &[anywhere()]), [Dialled::Refused(ECONNREFUSED)]);
    assert_eq!(lab.refusals(), [Refusal::ServiceAbsent { service: NEXT }]);
    let marks = lab.engine.liveness_marks().unwrap();
    marks.set(NEXT, Liveness::Alive).unwrap();
    // Marks that somebody keeps of the one that has gone do not hit it.
    marks.set(LEAVING, Liveness::Dead).unwrap();
    let progress = lab.engine.progress_reader().unwrap().of(NEXT).unwrap();
    assert!(progress.iter().all(|listener| (listener.waiting, listener.taken) == (0, 0)), "{progress:?}");

    // A process of the one that has gone is an application now, and its listener a destination.
    let former_address = former.local_addr().unwrap();
    assert_eq!(lab.dial("svc-1", &[former_address]), [Dialled::Connected(former_address)]);
    let (accepted, _) = listener.accept().unwrap();
    let records = query_redirect_records(&accepted).unwrap();
    let foreign = lab.as_service(1, || set_redirect_records(&tcp(), &records));
    // No program answers there any more.
    assert!(matches!(foreign, Err(SetError::NotRegistered)), "{foreign:?}");
    lab.as_service(2, || set_redirect_records(&tcp(), &records)).unwrap();
    drop((accepted, former));
}

/// The number is one more each time, in 64 bits; a handle on one that has ended is worthless for good.
#[test]
fn the_number_of_a_flow_is_never_used_again() {
    let carried = Carried::new("flow-numbers");
    let records = carried.records.clone();
    let mut last = query_redirect_context(&carried.accepted).unwrap().flow();
    let (lab, listener) = carried.end_flow();
    for _ in 0..50 {
        let application = lab.as_application(|| {
            let socket = tcp();
            socket.connect(&anywhere().into()).unwrap();
            socket
        });
        let (accepted, _) = listener.accept().unwrap();
        let flow = query_redirect_context(&accepted).unwrap().flow();
        assert!(flow > last, "{flow} after {last}");
        last = flow;
        let ended = lab.as_service(1, || set_redirect_records(&tcp(), &records));
        assert!(matches!(ended, Err(SetError::FlowEnded)), "{ended:?}");
        application.set_linger(Some(Duration::ZERO)).unwrap();
        drop(application);
        let ended = |error| matches!(error, QueryError::FlowEnded);
        patiently("its end", || query_redirect_context(&accepted).is_err_and(ended).then_some(()));
    }
}
