//! Every path of a small model, taken by the engine in memory as well: each dial comes to the same.

use std::net::{Ipv4Addr, SocketAddrV4};

use stateright::Model;
use waylay_core::{ServiceId, Tables, Verdict};
use waylay_engine::memory::{FlowId, Outcome, SocketId};
use waylay_engine::{Endpoint, Engine, Installation, Liveness, LocalName, MemoryEngine};
use waylay_model::{
    Chains, Declaration, Dial, Habit, Kind, Set, State, all_mixes, cgroup_of, contains, leg_from, process_of,
    subsets,
};

/// The engine where a path has led to.
#[derive(Clone)]
struct Place {
    engine: MemoryEngine,
    /// The declaration that is installed.
    installed: Option<usize>,
    /// The flow that the holder received.
    inbound: Option<FlowId>,
    sockets: u64,
}

struct Walk<'a> {
    model: &'a Chains,
    paths: u64,
    dials: u64,
}

impl Walk<'_> {
    fn on_from(&mut self, state: &State, place: &Place, so_far: &mut Vec<Dial>) {
        let mut dials = Vec::new();
        self.model.actions(state, &mut dials);
        self.paths += u64::from(dials.is_empty());
        for dial in dials {
            so_far.push(dial);
            let mut place = place.clone();
            place.prepare(self.model, &dial);
            let outcome = place.dial(state, &dial);
            self.dials += 1;
            let expected = self.model.judge(state, &dial);
            assert!(place.agrees(outcome, &expected), "{outcome:?}, not {expected:?}, after {so_far:#?}");
            let alike = self.model.judge(&state.representative(), &dial);
            assert_eq!(kind(&alike), kind(&expected), "{state:?} and {:?}", state.representative());
            let next = self.model.next_state(state, dial).expect("every dial comes to something");
            self.on_from(&next, &place, so_far);
            so_far.pop();
        }
    }
}

impl Place {
    fn new() -> Self {
        Self { engine: MemoryEngine::new(), installed: None, inbound: None, sockets: 0 }
    }

    /// Makes the world what it is at this dial.
    fn prepare(&mut self, model: &Chains, dial: &Dial) {
        let declaration = &model.declarations[dial.policy];
        if self.installed != Some(dial.policy) {
            let slots = self.engine.slots().expect("it cannot fail");
            let policy = &model.policies[dial.policy];
            let tables = Tables::compile_keeping(policy, slots).expect("few services");
            let endpoints = declaration.order.iter().map(|&service| endpoint(service)).collect();
            self.engine.install(&Installation { tables, endpoints }).expect("no slot is given away");
            self.installed = Some(dial.policy);
        }
        for &service in &declaration.order {
            let alive = if contains(dial.present, service) { Liveness::Alive } else { Liveness::Dead };
            self.engine.set_liveness(ServiceId(service), alive).expect("it cannot fail");
        }
    }

    fn dial(&mut self, state: &State, dial: &Dial) -> Outcome {
        self.sockets += 1;
        let socket = SocketId(self.sockets);
        if let (Some(service), Some(flow), Habit::Carries) = (state.holder, self.inbound, dial.habit) {
            let process = process_of(service);
            let records = self.engine.query_records(flow, &process).expect("it received the flow");
            self.engine.set_records(socket, records, &process).expect("the flow is its own");
        }
        self.engine.connect(&leg_from(state.holder, dial.destination), socket)
    }

    /// Whether it came to what the meaning says, down to the chain that is kept.
    fn agrees(&mut self, outcome: Outcome, expected: &Verdict) -> bool {
        match (outcome, expected) {
            (Outcome::Direct, Verdict::Direct) => true,
            (Outcome::Refused(refusal), Verdict::Refuse(expected)) => refusal == *expected,
            (Outcome::Redirected { service, flow }, Verdict::Redirect { service: to, chain, .. }) => {
                self.inbound = Some(flow);
                service == *to && self.engine.chain(flow) == Some(chain)
            }
            (Outcome::Direct | Outcome::Refused(_) | Outcome::Redirected { .. }, _) => false,
        }
    }
}

/// A verdict without the chain.
fn kind(verdict: &Verdict) -> String {
    verdict.to_string()
}

fn endpoint(service: u32) -> Endpoint {
    let port = 9000 + u16::try_from(service).expect("few services");
    let tcp4 = vec![SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)];
    Endpoint {
        service: ServiceId(service),
        cgroup: cgroup_of(service),
        tcp4,
        tcp6: Vec::new(),
        udp4: None,
        udp6: Vec::new(),
        behind6: None,
        local_name: LocalName::Listener,
    }
}

/// The engine agrees on every path of this model.
fn every_path(what: &str, model: &Chains) {
    let mut walk = Walk { model, paths: 0, dials: 0 };
    for state in model.init_states() {
        walk.on_from(&state, &Place::new(), &mut Vec::new());
    }
    eprintln!("{what}: {} paths, {} dials", walk.paths, walk.dials);
    assert!(walk.paths > 0);
}

const fn all(n: u32) -> Set {
    (1 << n) - 1
}

fn forgetful(n: u32) -> Vec<Vec<Kind>> {
    vec![vec![Kind::Forgetful; n as usize]]
}

#[test]
fn of_services_of_any_mix_lead_the_engine_where_they_lead_the_model() {
    let model = Chains::new(vec![Declaration::of(2)], subsets(2).collect());
    every_path("2 services of any mix", &Chains { elsewhere: true, mixes: all_mixes(2), ..model });
    let model = Chains::new(vec![Declaration::of(3)], vec![all(3), 0b101, 0b010]);
    every_path("3 forgetful services", &Chains { elsewhere: true, mixes: forgetful(3), ..model });
}

#[test]
fn of_services_that_come_and_go_lead_the_engine_where_they_lead_the_model() {
    let declarations = subsets(3).map(|closed| Declaration::of(3).closing(closed)).collect();
    let model = Chains::new(declarations, vec![all(3)]);
    every_path("3 services that come and go", &Chains { come_and_go: 0b101, mixes: forgetful(3), ..model });
}

#[test]
fn through_reloads_lead_the_engine_where_they_lead_the_model() {
    let orders = [vec![1, 2, 3], vec![3, 1], vec![2], vec![]];
    let declarations = orders.map(|order| Declaration { order, ..Declaration::of(0) }).into();
    let model = Chains::new(declarations, vec![all(3), 0b010]);
    every_path(
        "3 services and 2 reloads",
        &Chains { elsewhere: true, reloads: 2, mixes: forgetful(3), ..model },
    );
}
