//! The promises about chains, tried on everything that services and the host may do.
//!
//! What is ignored here takes minutes: `make model`.

use std::time::Duration;

use stateright::{Checker, HasDiscoveries, Model};
use waylay_core::MAX_HOPS;
use waylay_model::{
    ALL_CARRY, BOLD_ONE_DESTINATION, BOLD_RELOAD, BOUND, Begin, CLOSED, Chains, Declaration, Defect, End,
    FULL, Kind, ONE_DESTINATION, Set, State, TWICE, all_mixes, only, subsets,
};

/// Only a model that has outgrown itself takes as long.
const PATIENCE: Duration = Duration::from_secs(3600);

/// Tries everything, and finds every promise kept.
fn keeps_every_promise(what: &str, model: Chains) {
    let search = model.checker().threads(2).timeout(PATIENCE).symmetry_fn(State::representative);
    let checker = search.spawn_dfs().join();
    eprintln!(
        "{what}: {} states, {} of them different, at most {} dials",
        checker.state_count(),
        checker.unique_state_count(),
        checker.max_depth() - 1
    );
    assert!(checker.is_done(), "{what}: not everything was tried");
    checker.assert_properties();
}

/// Finds this promise broken, says how, and returns where the connection stands then.
fn breaks(what: &str, model: Chains, promise: &'static str) -> State {
    let condition = model.property(promise).condition;
    let search = model.checker().finish_when(HasDiscoveries::AnyOf([promise].into())).timeout(PATIENCE);
    let search = search.spawn_bfs().join();
    let path = search.assert_any_discovery(promise).into_vec();
    eprintln!("{what}: \"{promise}\" is broken by");
    for (state, dial) in path {
        if !condition(search.model(), &state) {
            return state;
        }
        eprintln!("  {:?}: {dial:?}", state.holder);
    }
    unreachable!("the last state breaks it");
}

/// These do all that services of the other kinds do.
fn forgetful(n: u32) -> Vec<Vec<Kind>> {
    vec![vec![Kind::Forgetful; n as usize]]
}

/// Services 1 to n that dial any destination with or without records.
fn anywhere(n: u32, mixes: Vec<Vec<Kind>>) -> Chains {
    let model = Chains::new(vec![Declaration::of(n)], subsets(n).collect());
    Chains { elsewhere: true, mixes, ..model }
}

/// Services 1 to n that come and go, each open or closed.
fn coming_and_going(n: u32, destinations: Vec<Set>) -> Chains {
    let declarations = subsets(n).map(|closed| Declaration::of(n).closing(closed)).collect();
    let elsewhere = destinations.len() > 1;
    let model = Chains::new(declarations, destinations);
    Chains { elsewhere, come_and_go: all(n), mixes: forgetful(n), ..model }
}

/// Services 1 to n under policies that replace each other: in every order, with services added, removed and without filters.
fn reloaded(n: u32, reloads: usize, destinations: Vec<Set>) -> Chains {
    let mut declarations: Vec<Declaration> = Vec::new();
    for order in orders(n) {
        for length in 0..=order.len() {
            let order = order[..length].to_vec();
            let idle = order.first().map_or(0, |&first| only(first));
            let declaration = Declaration { order, ..Declaration::of(0) };
            declarations.push(Declaration { idle, ..declaration.clone() });
            declarations.push(declaration);
        }
    }
    declarations
        .sort_by_key(|declaration| (declaration.order != (1..n).collect::<Vec<_>>(), declaration.idle));
    declarations.dedup();
    let elsewhere = destinations.len() > 1;
    let model = Chains::new(declarations, destinations);
    Chains { elsewhere, reloads, mixes: forgetful(n), ..model }
}

fn orders(n: u32) -> Vec<Vec<u32>> {
    (1..=n).fold(vec![Vec::new()], |orders, new| {
        let with_new = |order: &Vec<u32>| {
            let order = order.clone();
            (0..=order.len()).map(move |at| [&order[..at], &[new], &order[at..]].concat())
        };
        orders.iter().flat_map(with_new).collect()
    })
}

/// A chain that is nearly full already, and services of which some are closed and some are absent.
fn nearly_full(n: u32, hops: usize) -> Chains {
    let begin = Begin::InTheMiddle { holder: 32, hops };
    Chains { begin, ..coming_and_going(n, vec![all(n)]) }
}

const fn all(n: u32) -> Set {
    (1 << n) - 1
}

#[test]
fn every_chain_ends_whatever_services_of_any_mix_do() {
    for n in 1..=3 {
        keeps_every_promise(&format!("{n} services of every mix"), anywhere(n, all_mixes(n)));
    }
    keeps_every_promise("4 forgetful services", anywhere(4, forgetful(4)));
    keeps_every_promise("5 forgetful services", anywhere(5, forgetful(5)));
}

#[test]
fn every_chain_ends_while_services_come_and_go() {
    keeps_every_promise("2 services that come and go, anywhere", coming_and_going(2, subsets(2).collect()));
    keeps_every_promise("3 services that come and go", coming_and_going(3, vec![all(3)]));
}

#[test]
fn every_chain_ends_once_reloads_do() {
    keeps_every_promise("3 services, 1 reload", reloaded(3, 1, vec![all(3)]));
    keeps_every_promise("2 services, 2 reloads, anywhere", reloaded(2, 2, subsets(2).collect()));
}

#[test]
fn every_chain_ends_whatever_happens_at_once() {
    let model = reloaded(2, 1, subsets(2).collect());
    keeps_every_promise("2 services, all at once", Chains { come_and_go: all(2), ..model });
}

#[test]
fn the_hop_limit_skips_no_closed_service() {
    for hops in MAX_HOPS - 2..=MAX_HOPS {
        keeps_every_promise(&format!("3 services after {hops} hops"), nearly_full(3, hops));
    }
}

#[test]
fn every_chain_ends_whatever_a_filter_on_the_dialling_program_picks() {
    let model = Chains { mixes: forgetful(3), elsewhere: true, ..picky() };
    let search = model.checker().spawn_dfs().join();
    for promise in [TWICE, ALL_CARRY, BOUND, CLOSED, FULL] {
        search.assert_no_discovery(promise);
    }
}

/// The first service looks at what the second dials and nothing else.
fn picky() -> Chains {
    let declaration = Declaration { via: vec![(1, 2)], ..Declaration::of(3) };
    Chains { mixes: forgetful(3), ..Chains::new(vec![declaration], vec![all(3)]) }
}

mod is_not_promised {
    use super::*;

    #[test]
    fn n_hops_towards_one_destination_when_an_open_service_comes_back() {
        let model = Chains { bold: true, ..coming_and_going(2, vec![all(2)]) };
        let state = breaks("2 services, one comes back", model, BOLD_ONE_DESTINATION);
        assert!(state.account.wavered && state.account.hops == 3);
    }

    #[test]
    fn n_hops_towards_one_destination_when_a_filter_asks_who_dials() {
        assert_eq!(breaks("a filter on the dialling program", picky(), ONE_DESTINATION).account.hops, 4);
    }

    #[test]
    fn the_bound_of_one_policy_when_it_is_reloaded() {
        let other = Declaration { order: vec![2, 1], ..Declaration::of(2) };
        let model = Chains::new(vec![Declaration::of(2), other], vec![all(2)]);
        let model = Chains { bold: true, reloads: 3, mixes: forgetful(2), ..model };
        let state = breaks("2 services that change places", model, BOLD_RELOAD);
        assert_eq!((state.account.first_bound, state.account.hops), (3, 4));
    }
}

/// The promises can be broken, by an engine that is wrong and by claiming one hop less.
mod control {
    use super::*;

    #[test]
    fn one_hop_less_is_too_few() {
        for n in 1..=3 {
            let broken = |promise| {
                let model = Chains { stricter_by: 1, ..anywhere(n, forgetful(n)) };
                u32::from(breaks(&format!("{n} services"), model, promise).account.hops)
            };
            assert_eq!(broken(BOUND), n * (n + 1) / 2);
            assert_eq!(broken(ONE_DESTINATION), n);
            assert_eq!(broken(ALL_CARRY), n);
        }
    }

    #[test]
    fn an_engine_that_loses_records_makes_a_loop() {
        let model = Chains { defect: Some(Defect::LosesRecords), ..anywhere(2, forgetful(2)) };
        assert!(breaks("records are lost", model.clone(), TWICE).account.met_twice);
        assert_eq!(breaks("records are lost", model, BOUND).account.hops, 4);
    }

    #[test]
    fn an_engine_that_passes_at_the_limit_skips_a_closed_service() {
        let model = Chains { defect: Some(Defect::PassesAtTheLimit), ..nearly_full(3, MAX_HOPS - 1) };
        assert_eq!(breaks("a full chain passes", model, CLOSED).end, Some(End::Direct));
    }
}

/// What takes minutes.
mod full {
    use super::*;

    #[test]
    #[ignore = "the full form: make model"]
    fn every_chain_ends_whatever_five_services_of_any_mix_do() {
        keeps_every_promise("4 services of every mix", anywhere(4, all_mixes(4)));
        keeps_every_promise("5 services of every mix", anywhere(5, all_mixes(5)));
    }

    #[test]
    #[ignore = "the full form: make model"]
    fn every_chain_ends_while_five_services_come_and_go() {
        keeps_every_promise(
            "3 services that come and go, anywhere",
            coming_and_going(3, subsets(3).collect()),
        );
        keeps_every_promise("5 services that come and go", coming_and_going(5, vec![all(5)]));
        keeps_every_promise(
            "4 services that come and go, anywhere",
            coming_and_going(4, subsets(4).collect()),
        );
    }

    #[test]
    #[ignore = "the full form: make model"]
    fn every_chain_ends_once_many_reloads_do() {
        keeps_every_promise("3 services, 3 reloads", reloaded(3, 3, vec![all(3)]));
        keeps_every_promise("3 services, 2 reloads, anywhere", reloaded(3, 2, subsets(3).collect()));
        keeps_every_promise("5 services, 1 reload", reloaded(5, 1, vec![all(5)]));
        keeps_every_promise("4 services, 2 reloads", reloaded(4, 2, vec![all(4)]));
    }

    #[test]
    #[ignore = "the full form: make model"]
    fn every_chain_ends_whatever_happens_to_three_at_once() {
        let model = reloaded(3, 1, subsets(3).collect());
        keeps_every_promise("3 services, all at once", Chains { come_and_go: all(3), ..model });
    }

    #[test]
    #[ignore = "the full form: make model"]
    fn the_hop_limit_skips_no_closed_service_of_five() {
        for hops in MAX_HOPS - 5..=MAX_HOPS {
            keeps_every_promise(&format!("5 services after {hops} hops"), nearly_full(5, hops));
        }
    }
}
