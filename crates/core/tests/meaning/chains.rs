//! What the rules come to for whole connections: every chain ends, whatever the services do.
//!
//! One part explores every behaviour of a few services, the other tries long random ones.

use std::collections::{BTreeMap, BTreeSet};

use proptest::collection::vec;
use proptest::prelude::*;
use waylay_core::{
    Chain, Filter, Leg, Policy, PortRange, Process, Records, ServiceId, Verdict, World, decide,
};

use crate::fixtures::*;

/// What a service does with the records of its inbound leg.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Habit {
    Carries,
    Forgets,
}

const BOTH: &[Habit] = &[Habit::Carries, Habit::Forgets];
const FIRST_PORT: u16 = 1000;

/// Services 1 to n, and a port for each subset of them: exactly the services of the subset match it.
fn every_subset_has_a_port(n: u32) -> Policy {
    let mut filters = Vec::new();
    for subset in 0..1u16 << n {
        for id in (1..=n).filter(|id| subset & (1 << (id - 1)) != 0) {
            filters.push(for_port(filters.len(), id, FIRST_PORT + subset));
        }
    }
    policy((1..=n).map(|id| service(id, OPEN)).collect(), vec![], filters)
}

fn for_port(filter: usize, service: u32, port: u16) -> Filter {
    let mut filter = redirect(u32::try_from(filter).expect("few filters"), service);
    filter.conditions.remote_ports = Some(PortRange::single(port));
    filter
}

/// Where a leg stands. Hops only matter through the hop limit, which these few services do not reach.
type State = (Option<ServiceId>, Option<Vec<ServiceId>>, u16);

/// Explores everything that services with these habits, dialling these ports, can do.
struct Explorer<'a> {
    policy: &'a Policy,
    world: World,
    habits: &'a [Habit],
    ports: Ports,
    longest: BTreeMap<State, usize>,
    path: BTreeSet<State>,
}

#[derive(Clone, Copy)]
enum Ports {
    AsAsked,
    Any { count: u16 },
}

impl<'a> Explorer<'a> {
    fn new(policy: &'a Policy, habits: &'a [Habit], ports: Ports) -> Self {
        let world = all_available(policy);
        Self { policy, world, habits, ports, longest: BTreeMap::new(), path: BTreeSet::new() }
    }

    /// The most redirects that can follow.
    fn longest_from(&mut self, caller: Process, records: &Records, port: u16) -> usize {
        let state = (caller.service, excluded(records), port);
        if let Some(&known) = self.longest.get(&state) {
            return known;
        }
        assert!(self.path.insert(state.clone()), "a connection goes round: {state:?}");
        let longest = match decide(self.policy, &leg_to(caller, port), records, &self.world).verdict {
            Verdict::Redirect { service, chain, .. } => 1 + self.longest_through(service, &chain, port),
            Verdict::Direct | Verdict::Refuse(_) => 0,
        };
        self.path.remove(&state);
        self.longest.insert(state, longest);
        longest
    }

    fn longest_through(&mut self, service: ServiceId, chain: &Chain, port: u16) -> usize {
        let ports = match self.ports {
            Ports::AsAsked => port..port + 1,
            Ports::Any { count } => FIRST_PORT..FIRST_PORT + count,
        };
        let choices = ports.flat_map(|port| self.habits.iter().map(move |&habit| (port, habit)));
        let longest =
            choices.map(|(port, habit)| self.longest_from(process_of(service), &kept(habit, chain), port));
        longest.max().expect("a service does something")
    }
}

fn excluded(records: &Records) -> Option<Vec<ServiceId>> {
    match records {
        Records::None => None,
        Records::Carried(chain) => Some(chain.excluded().iter().collect()),
    }
}

fn kept(habit: Habit, chain: &Chain) -> Records {
    match habit {
        Habit::Carries => Records::Carried(chain.clone()),
        Habit::Forgets => Records::None,
    }
}

/// The most redirects of any connection an application can start.
fn longest(n: u32, habits: &[Habit], any_port: bool) -> usize {
    let policy = every_subset_has_a_port(n);
    let count = 1 << n;
    let ports = if any_port { Ports::Any { count } } else { Ports::AsAsked };
    let mut explorer = Explorer::new(&policy, habits, ports);
    let from_each =
        (FIRST_PORT..FIRST_PORT + count).map(|port| explorer.longest_from(app(), &Records::None, port));
    from_each.max().expect("there are ports")
}

#[test]
fn with_records_there_are_at_most_n_hops_wherever_services_dial() {
    for n in 1..=5 {
        assert_eq!(longest(n, &[Habit::Carries], true), n as usize);
    }
}

#[test]
fn towards_one_destination_there_are_at_most_n_hops_whatever_services_forget() {
    for n in 1..=5 {
        assert_eq!(longest(n, BOTH, false), n as usize);
    }
}

#[test]
fn forgetful_services_that_dial_elsewhere_meet_exactly_the_bound() {
    for n in 1..=5 {
        assert_eq!(longest(n, BOTH, true), bound(n as usize));
    }
}

fn bound(n: usize) -> usize {
    n * (n + 1) / 2
}

/// The services that a connection visits, if each does what `behaviour` says in turn.
fn visits(
    policy: &Policy,
    world: &World,
    leg: Leg,
    behaviour: impl IntoIterator<Item = (Habit, u16)>,
) -> Vec<ServiceId> {
    let mut visited = Vec::new();
    let (mut leg, mut records) = (leg, Records::None);
    for (habit, port) in behaviour {
        match decide(policy, &leg, &records, world).verdict {
            Verdict::Redirect { service, chain, .. } => {
                visited.push(service);
                records = kept(habit, &chain);
                leg = leg_to(process_of(service), port);
            }
            Verdict::Direct | Verdict::Refuse(_) => break,
        }
    }
    visited
}

fn habits() -> impl Strategy<Value = Habit> {
    prop::sample::select(BOTH.to_vec())
}

/// Up to twenty services, more than a chain has hops, each matching some of eight ports.
fn random_policies() -> impl Strategy<Value = Policy> {
    vec(prop_oneof![1 => Just(0xffu8), 2 => any::<u8>()], 1..=20).prop_map(|matches| {
        let services: Vec<_> = (1..).zip(&matches).map(|(id, _)| service(id, OPEN)).collect();
        let mut filters = Vec::new();
        for (id, ports) in (1..).zip(matches) {
            for port in (0..8).filter(|port| ports & (1 << port) != 0) {
                filters.push(for_port(filters.len(), id, FIRST_PORT + port));
            }
        }
        policy(services, vec![], filters)
    })
}

fn behaviours() -> impl Strategy<Value = Vec<(Habit, u16)>> {
    vec((habits(), FIRST_PORT..FIRST_PORT + 8), bound(20) + 2)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_chain_ends(policy in random_policies(), behaviour in behaviours(), port in FIRST_PORT..FIRST_PORT + 8) {
        let visited = visits(&policy, &all_available(&policy), leg_to(app(), port), behaviour);
        prop_assert!(visited.len() <= bound(policy.services().len()), "{visited:?}");
    }

    #[test]
    fn with_fixed_habits_and_one_destination_nobody_is_met_twice(
        policy in random_policies(),
        habits in vec(habits(), 20),
        port in FIRST_PORT..FIRST_PORT + 8,
    ) {
        let mut visited = Vec::new();
        let (mut leg, mut records) = (leg_to(app(), port), Records::None);
        let world = all_available(&policy);
        while let Verdict::Redirect { service, chain, .. } = decide(&policy, &leg, &records, &world).verdict {
            prop_assert!(!visited.contains(&service), "{service} again after {visited:?}");
            records = kept(habits[visited.len()], &chain);
            leg = leg_to(process_of(service), port);
            visited.push(service);
        }
    }

    #[test]
    fn with_records_nobody_is_met_twice(policy in random_policies(), behaviour in behaviours()) {
        let carrying = behaviour.into_iter().map(|(_, port)| (Habit::Carries, port));
        let visited = visits(&policy, &all_available(&policy), leg_to(app(), FIRST_PORT), carrying);
        prop_assert!(visited.len() <= policy.services().len());
        prop_assert_eq!(visited.iter().collect::<BTreeSet<_>>().len(), visited.len(), "{:?}", visited);
    }
}
