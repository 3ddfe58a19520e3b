//! What the rules come to for whole connections: every chain ends, whatever the services do.
//!
//! Long random chains through many services; `tests/model` tries everything that a few services can do.

use std::collections::BTreeSet;

use proptest::collection::vec;
use proptest::prelude::*;
use waylay_core::{Chain, Filter, Leg, Policy, PortRange, Records, ServiceId, Verdict, World, decide};

use crate::fixtures::*;

/// What a service does with the records of its inbound leg.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Habit {
    Carries,
    Forgets,
}

const BOTH: &[Habit] = &[Habit::Carries, Habit::Forgets];
const FIRST_PORT: u16 = 1000;

fn for_port(filter: usize, service: u32, port: u16) -> Filter {
    let mut filter = redirect(u32::try_from(filter).expect("few filters"), service);
    filter.conditions.remote_ports = Some(PortRange::single(port).into());
    filter
}

fn kept(habit: Habit, chain: &Chain) -> Records {
    match habit {
        Habit::Carries => Records::Carried(chain.clone()),
        Habit::Forgets => Records::None,
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
