//! What is looked up is what is found when every filter is asked: over policies of up to some thousand filters of every kind.

use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use waylay_core::{
    Action, AuthOutcome, Conditions, Facts, Filter, FilterId, Flags, Layer, Namespace, OneOf, PortRange,
    Prefix, ProcessFacts, Protocol, Right, ServiceId, TableFilter, Tables, Warning, normal_form,
};

use crate::fixtures::*;
use crate::mix::{facts, policies};

/// The redirect layer, filter by filter.
pub(crate) fn asked_one_by_one(tables: &Tables, facts: &Facts, skip: u64) -> Option<FilterId> {
    let filters = tables.redirect_filters();
    let matches =
        |filter: &&&TableFilter| skip >> filter.slot & 1 == 0 && filter.conditions.match_facts(facts);
    filters.iter().find(matches).map(|filter| filter.id)
}

/// The same, looked up.
pub(crate) fn looked_up(tables: &Tables, facts: &Facts, skip: u64) -> Option<FilterId> {
    tables.classify_redirect(facts, skip).map(|filter| filter.id)
}

/// The auth layer, filter by filter.
pub(crate) fn heard_one_by_one(tables: &Tables, facts: &Facts, flags: Flags) -> AuthOutcome {
    let mut outcome = AuthOutcome::Permit(None);
    let mut decided_in = None;
    for filter in tables.auth_filters() {
        let heard = decided_in != Some(filter.sublayer);
        if !heard || !filter.flags.match_flags(flags) || !filter.conditions.match_facts(facts) {
            continue;
        }
        let right = match filter.action {
            Action::Continue => continue,
            Action::Permit(right) => {
                outcome = AuthOutcome::Permit(Some(filter.id));
                right
            }
            Action::Block { right, errno } => {
                outcome = AuthOutcome::Block { filter: filter.id, errno };
                right
            }
        };
        if right == Right::Hard {
            break;
        }
        decided_in = Some(filter.sublayer);
    }
    outcome
}

#[test]
fn a_lookup_finds_what_asking_all_filters_finds() {
    let config = ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() };
    let cases = (policies(), vec((facts(), any::<u64>(), any::<bool>(), any::<bool>()), 40));
    let outcome = TestRunner::new(config).run(&cases, |(policy, legs)| {
        let tables = Tables::compile(&policy).expect("few filters");
        for (facts, skip, redirected, proxied) in legs {
            let expected = asked_one_by_one(&tables, &facts, skip & 3);
            prop_assert_eq!(looked_up(&tables, &facts, skip & 3), expected, "{:?}", facts);
            let flags = Flags { redirected, proxied };
            let expected = heard_one_by_one(&tables, &facts, flags);
            prop_assert_eq!(tables.classify_auth(&facts, flags), expected, "{:?}", facts);
        }
        Ok(())
    });
    outcome.unwrap();
}

/// Filters that overlap in address and port in every way: nothing a tree could split.
#[test]
fn a_set_that_overlaps_everywhere_is_looked_up_in_blocks_and_warned_of() {
    let filter = |n: u32| {
        let scattered = n.wrapping_mul(2_654_435_761);
        let first = (scattered % 40_000) as u16;
        let prefix = |k: u32| {
            let address = Ipv4Addr::from_bits(scattered.rotate_left(7 * k) ^ k << 24).into();
            Prefix::covering(normal_form(address), 96 + 7 + (scattered >> k) as u8 % 5)
        };
        let conditions = Conditions {
            remote: Some(OneOf::these((0..4).map(prefix))),
            remote_ports: Some(PortRange::new(first, first + 20_000).expect("a range").into()),
            ..Conditions::default()
        };
        let layer = Layer::Redirect { service: ServiceId(1) };
        Filter { id: FilterId(n), weight: u64::from(scattered >> 4), conditions, layer }
    };
    let policy = policy(vec![service(1, OPEN)], vec![], (1..=3000).map(filter).collect());
    let tables = Tables::compile(&policy).unwrap();
    let report = tables.index().report();
    assert!(report.in_blocks > 2000, "{report:?}");
    assert!(matches!(report.warning(), Some(Warning::Overlapping { .. })) == (report.most_steps > 24));
    for n in 0..2000_u32 {
        let scattered = n.wrapping_mul(2_246_822_519);
        let facts = Facts {
            protocol: Protocol::Tcp,
            remote: normal_form(Ipv4Addr::from_bits(scattered).into()),
            remote_port: (scattered >> 7) as u16,
            local: None,
            hosts: vec![],
            namespace: Namespace::Own,
            application: ProcessFacts::default(),
            via: ProcessFacts::default(),
        };
        assert_eq!(looked_up(&tables, &facts, 0), asked_one_by_one(&tables, &facts, 0), "{facts:?}");
    }
}

#[test]
fn what_a_long_list_excludes_costs_no_filter_of_its_own() {
    let excluded = OneOf::none_of((0..20_000_u32).map(|n| Prefix::host(Ipv4Addr::from_bits(n << 7).into())));
    let filter = Filter {
        conditions: Conditions { remote: Some(excluded), ..Conditions::default() },
        ..redirect(1, 1)
    };
    let tables = Tables::compile(&policy(vec![service(1, OPEN)], vec![], vec![filter])).unwrap();
    assert_eq!((tables.index().report().filters, tables.index().report().most_steps), (1, 1));
    let facts = |address| Facts {
        protocol: Protocol::Tcp,
        remote: normal_form(address),
        remote_port: 1,
        local: None,
        hosts: vec![],
        namespace: Namespace::Own,
        application: ProcessFacts::default(),
        via: ProcessFacts::default(),
    };
    assert_eq!(looked_up(&tables, &facts(Ipv4Addr::from_bits(77 << 7).into()), 0), None);
    assert_eq!(looked_up(&tables, &facts(Ipv4Addr::from_bits((77 << 7) + 1).into()), 0), Some(FilterId(1)));
    assert_eq!(looked_up(&tables, &facts(Ipv6Addr::LOCALHOST.into()), 0), Some(FilterId(1)));
}
