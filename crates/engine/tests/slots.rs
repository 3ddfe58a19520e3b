//! Slots of services that come and go, on the engine in memory: whatever happens, what is carried keeps its slot.

#![expect(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};

use proptest::prelude::*;
use waylay_core::{
    Conditions, FailurePolicy, Filter, FilterId, Layer, Leg, Policy, Process, Protocol, Service, ServiceId,
    Tables,
};
use waylay_engine::memory::{FlowId, Outcome, SocketId};
use waylay_engine::{Endpoint, Engine, Installation, Liveness, LocalName, MemoryEngine};

#[derive(Clone, Debug)]
enum Step {
    /// So many of the services that are there stay, the oldest first, and so many come.
    Reload {
        stay: usize,
        come: u32,
    },
    Dial,
    /// The service of one of the flows carries it on.
    CarryOn(usize),
    /// One of the sockets is closed.
    Close(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        2 => (0_usize..6, 0_u32..6).prop_map(|(stay, come)| Step::Reload { stay, come }),
        3 => Just(Step::Dial),
        3 => any::<usize>().prop_map(Step::CarryOn),
        4 => any::<usize>().prop_map(Step::Close),
    ];
    prop::collection::vec(step, 1..120)
}

#[derive(Default)]
struct Host {
    engine: MemoryEngine,
    services: Vec<ServiceId>,
    last_service: u32,
    last_socket: u64,
    sockets: Vec<SocketId>,
    flows: Vec<(FlowId, ServiceId)>,
    /// Which slot each service was given when it came.
    given: BTreeMap<ServiceId, u8>,
}

impl Host {
    fn take(&mut self, step: Step) {
        match step {
            Step::Reload { stay, come } => self.reload(stay, come),
            Step::Dial => drop(self.dial(process(1), None)),
            Step::CarryOn(which) if !self.flows.is_empty() => self.carry_on(which % self.flows.len()),
            Step::Close(which) if !self.sockets.is_empty() => {
                let socket = self.sockets.swap_remove(which % self.sockets.len());
                self.engine.close(socket);
            }
            Step::CarryOn(_) | Step::Close(_) => {}
        }
    }

    fn reload(&mut self, stay: usize, come: u32) {
        let mut services = self.services.clone();
        services.truncate(stay);
        services.extend((1..=come).map(|more| ServiceId(self.last_service + more)));
        let slots = self.engine.slots().unwrap();
        // What does not fit is not installed, and what was there stays.
        let Ok(tables) = Tables::compile_keeping(&policy(&services), slots) else { return };
        let endpoints = services.iter().map(|&service| endpoint(service)).collect();
        self.engine.install(&Installation { tables, endpoints }).unwrap();
        self.last_service += come;
        for &service in &services {
            self.engine.set_liveness(service, Liveness::Alive).unwrap();
            let slot = self.engine.tables().slots().of(service).unwrap();
            assert_eq!(*self.given.entry(service).or_insert(slot), slot, "{service} has another slot");
        }
        self.services = services;
    }

    fn dial(&mut self, caller: Process, carried_on: Option<(FlowId, ServiceId)>) -> Option<()> {
        self.last_socket += 1;
        let socket = SocketId(self.last_socket);
        if let Some((flow, service)) = carried_on {
            let records = self.engine.query_records(flow, &process(cgroup_of(service))).ok()?;
            self.engine.set_records(socket, records, &process(cgroup_of(service))).ok()?;
        }
        let remote = (Ipv4Addr::new(192, 0, 2, 1), 443).into();
        let leg = Leg { protocol: Protocol::Tcp, local: None, remote, caller };
        let outcome = self.engine.connect(&leg, socket);
        self.sockets.push(socket);
        if let Outcome::Redirected { service, flow } = outcome {
            self.flows.push((flow, service));
        }
        Some(())
    }

    fn carry_on(&mut self, which: usize) {
        let (flow, service) = self.flows[which];
        if self.dial(process(cgroup_of(service)), Some((flow, service))).is_none() {
            self.flows.swap_remove(which);
        }
    }

    fn check(&mut self) {
        let taken: BTreeMap<ServiceId, u8> = self.engine.slots().unwrap().iter().collect();
        let slots: BTreeSet<u8> = taken.values().copied().collect();
        assert_eq!(slots.len(), taken.len(), "two services have one slot: {taken:?}");
        let carried = self.engine.services_in_use();
        for service in carried.iter() {
            assert_eq!(taken.get(&service), self.given.get(&service), "{service} is carried");
        }
        for service in taken.keys() {
            let has_reason = self.services.contains(service) || carried.contains(*service);
            assert!(has_reason, "{service} has gone and nothing carries it");
        }
    }
}

fn policy(services: &[ServiceId]) -> Policy {
    let declare = |&id: &ServiceId| Service {
        id,
        name: id.to_string(),
        before: vec![],
        after: vec![],
        on_failure: FailurePolicy::Open,
    };
    let redirect = |&service: &ServiceId| Filter {
        id: FilterId(service.0),
        weight: 0,
        conditions: Conditions::default(),
        layer: Layer::Redirect { service },
    };
    let filters = services.iter().map(redirect).collect();
    Policy::new(services.iter().map(declare).collect(), vec![], filters).unwrap()
}

fn endpoint(service: ServiceId) -> Endpoint {
    let listener = SocketAddrV4::new(Ipv4Addr::LOCALHOST, u16::try_from(9000 + service.0).unwrap());
    Endpoint {
        service,
        cgroup: cgroup_of(service),
        tcp4: vec![listener],
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

fn process(cgroup: u64) -> Process {
    Process { pid: 10, start_time_ns: 5, uid: 1000, cgroup, ..Process::default() }
}

proptest! {
    #[test]
    fn stay_as_long_as_anything_carries_them_and_no_longer(steps in steps()) {
        let mut host = Host::default();
        for step in steps {
            host.take(step);
            host.check();
        }
    }
}
