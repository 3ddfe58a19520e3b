//! Tables after changes of filters answer what those of the changed policy do.

use std::net::Ipv4Addr;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use waylay_core::{
    Action, Cgroups, Change, Conditions, Confinement, Errno, Facts, Filter, FilterId, Flags, Layer,
    Namespace, NewSocket, Policy, PolicyError, Prefix, Process, ProcessFacts, Protocol, Right, ServiceId,
    SocketKind, SocketOwner, SublayerId, Tables, decide_socket, normal_form,
};

use crate::fixtures::*;
use crate::index::{asked_one_by_one, heard_one_by_one, looked_up};
use crate::mix::{change, facts, policies, who, wishes};

fn process(facts: &ProcessFacts) -> Process {
    let ProcessFacts { exe, uid, gid, command, ref cgroups } = *facts;
    Process { exe, uid, gid, command, cgroup: cgroups.first().copied().unwrap_or(0), ..Process::default() }
}

#[test]
fn amended_tables_answer_what_tables_of_the_changed_policy_answer() {
    let config = ProptestConfig { cases: 120, failure_persistence: None, ..ProptestConfig::default() };
    let legs = vec((facts(), any::<u64>(), any::<bool>(), any::<bool>(), who()), 10);
    let cases = (policies(), vec((wishes(), prop::bool::weighted(0.1), legs), 0..12));
    let (amended, anew) = (std::cell::Cell::new(0), std::cell::Cell::new(0));
    let outcome = TestRunner::new(config).run(&cases, |(mut policy, changes)| {
        let mut tables = Tables::compile(&policy).expect("few filters");
        for (wishes, renew, legs) in changes {
            let change = change(&policy, wishes);
            policy.change(&change).expect("what goes is there");
            let next = tables.change(&change).expect("what goes is there");
            let count = if next.share_whole_with(&tables) { &amended } else { &anew };
            count.set(count.get() + 1);
            tables = if renew { next.renewed().expect("few filters") } else { next };
            prop_assert!(!renew || !tables.is_amended());
            let fresh = Tables::compile(&policy).expect("few filters");
            prop_assert_eq!(tables.redirect_filters(), fresh.redirect_filters());
            prop_assert_eq!(tables.auth_filters(), fresh.auth_filters());
            for (facts, skip, redirected, proxied, maker) in legs {
                let expected = asked_one_by_one(&fresh, &facts, skip & 3);
                prop_assert_eq!(looked_up(&tables, &facts, skip & 3), expected, "{:?}", facts);
                let flags = Flags { redirected, proxied };
                let expected = heard_one_by_one(&fresh, &facts, flags);
                prop_assert_eq!(tables.classify_auth(&facts, flags), expected, "{:?}", facts);
                let kind = SocketKind { family: 2, socket_type: 3, protocol: 1 };
                let (owner, namespace) = (SocketOwner::Process, Namespace::Own);
                let socket = NewSocket {
                    kind,
                    maker: process(&maker),
                    owner,
                    namespace,
                    confinement: Confinement::Free,
                };
                let cgroups = Cgroups::default();
                let expected = decide_socket(&policy, &socket, &cgroups);
                prop_assert_eq!(tables.decide_socket(&socket, &cgroups), expected, "{:?}", maker);
            }
        }
        Ok(())
    });
    outcome.unwrap();
    let (amended, anew) = (amended.get(), anew.get());
    assert!(amended > 200, "{amended} changes were amendments, {anew} were not");
}

fn to(bits: u32) -> Facts {
    Facts {
        protocol: Protocol::Tcp,
        remote: normal_form(Ipv4Addr::from_bits(bits).into()),
        remote_port: 443,
        local: None,
        hosts: vec![],
        namespace: Namespace::Own,
        application: ProcessFacts::default(),
        via: ProcessFacts::default(),
    }
}

fn prefix(id: u32, weight: u64, bits: u32, length: u8) -> Filter {
    let remote = Prefix::covering(normal_form(Ipv4Addr::from_bits(bits).into()), 96 + length);
    let conditions = Conditions { remote: Some(remote.into()), ..Conditions::default() };
    Filter { id: FilterId(id), weight, conditions, layer: Layer::Redirect { service: ServiceId(1) } }
}

/// One filter for each of so many networks.
fn networks(count: u32) -> Policy {
    let filters = (1..=count).map(|id| prefix(id, 5, id << 12, 20));
    policy(vec![service(1, OPEN), service(2, OPEN)], vec![sublayer(1, 0)], filters.collect())
}

#[test]
fn what_a_removed_filter_has_hidden_is_found() {
    let mut policy = networks(200);
    let wide = prefix(900, 6, 0, 15);
    policy.change(&Change::add(wide.clone())).unwrap();
    let tables = Tables::compile(&policy).unwrap();
    assert_eq!(looked_up(&tables, &to(31 << 12), 0), Some(wide.id));
    let without = tables.change(&Change::remove(wide.id)).unwrap();
    assert!(without.share_whole_with(&tables), "few are hidden");
    for id in 1..=200 {
        assert_eq!(looked_up(&without, &to(id << 12), 0), Some(FilterId(id)));
    }
    let gone = without.change(&Change::remove(FilterId(31))).unwrap();
    assert_eq!(looked_up(&gone, &to(31 << 12), 0), None);
    let back = gone.change(&Change::add(wide)).unwrap();
    assert_eq!(looked_up(&back, &to(31 << 12), 0), Some(FilterId(900)));
    assert!(back.share_whole_with(&tables) && back.is_amended());
    let renewed = back.renewed().unwrap();
    assert!(!renewed.is_amended() && !renewed.share_whole_with(&tables));
    assert_eq!(looked_up(&renewed, &to(31 << 12), 0), Some(FilterId(900)));
}

#[test]
fn what_has_hidden_very_many_is_removed_by_compiling_anew() {
    let mut policy = networks(1000);
    policy.change(&Change::add(Filter { weight: 6, ..redirect(5000, 1) })).unwrap();
    let tables = Tables::compile(&policy).unwrap();
    let without = tables.change(&Change::remove(FilterId(5000))).unwrap();
    assert!(!without.share_whole_with(&tables) && !without.is_amended());
    assert_eq!(looked_up(&without, &to(31 << 12), 0), Some(FilterId(31)));
}

#[test]
fn where_there_is_no_room_between_two_filters_the_whole_is_compiled_anew() {
    let mut tables = Tables::compile(&networks(3)).unwrap();
    let first = tables.clone();
    let mut stayed = 0;
    for id in 0..100 {
        tables = tables.change(&Change::add(prefix(1000 + id, 5, id << 24, 8))).unwrap();
        stayed += u32::from(tables.share_whole_with(&first));
        let expected = (0..=id).find(|id| *id == 7).map(|_| FilterId(1007));
        assert_eq!(looked_up(&tables, &to(7 << 24), 0), expected);
    }
    assert_eq!(stayed, 64, "as many as there are ranks in a gap");
}

#[test]
fn a_change_that_does_not_fit_changes_nothing() {
    let mut policy = networks(3);
    let tables = Tables::compile(&policy).unwrap();
    let unknown_sublayer = auth(50, 9, 0, Action::PERMIT);
    let cases = [
        (Change::remove(FilterId(9)), PolicyError::UnknownFilter { filter: FilterId(9) }),
        (Change::add(prefix(2, 5, 0, 8)), PolicyError::DuplicateFilter { filter: FilterId(2) }),
        (
            Change::add(redirect(50, 7)),
            PolicyError::UnknownService { filter: FilterId(50), service: ServiceId(7) },
        ),
        (
            Change::add(unknown_sublayer),
            PolicyError::UnknownSublayer { filter: FilterId(50), sublayer: SublayerId(9) },
        ),
        (
            Change { removed: vec![FilterId(1), FilterId(1)], added: vec![] },
            PolicyError::UnknownFilter { filter: FilterId(1) },
        ),
        (
            Change { removed: vec![], added: vec![redirect(50, 1), redirect(50, 2)] },
            PolicyError::DuplicateFilter { filter: FilterId(50) },
        ),
    ];
    for (change, error) in cases {
        let before = policy.clone();
        assert_eq!(policy.change(&change), Err(error.clone()), "{change:?}");
        assert_eq!(policy, before);
        assert_eq!(tables.change(&change), Err(error), "{change:?}");
    }
    let moved = Change { removed: vec![FilterId(2)], added: vec![prefix(2, 9, 7 << 12, 20)] };
    policy.change(&moved).unwrap();
    assert_eq!(policy.filters()[0].id, FilterId(2));
    assert_eq!(looked_up(&tables.change(&moved).unwrap(), &to(7 << 12), 0), Some(FilterId(2)));
}

/// Whatever is added before or after what a sublayer has, and to one that has nothing: the next sublayer is heard from its first.
#[test]
fn each_sublayer_is_heard_from_its_first_filter_on() {
    let block = Action::Block { right: Right::Soft, errno: Errno::EACCES };
    let base = [auth(1, 1, 5, Action::PERMIT), auth(2, 3, 5, Action::PERMIT)];
    let sublayers = vec![sublayer(1, 3), sublayer(2, 2), sublayer(3, 1)];
    let policy = policy(vec![], sublayers, base.to_vec());
    let tables = Tables::compile(&policy).unwrap();
    let places = [(1, 9), (1, 0), (2, 9), (2, 0), (3, 9), (3, 0)];
    let each: Vec<Filter> = (10..)
        .zip(places.into_iter().flat_map(|place| [(place, Action::PERMIT), (place, block)]))
        .map(|(id, ((sublayer, weight), action))| auth(id, sublayer, weight, action))
        .collect();
    for chosen in (0_u32..1 << each.len()).filter(|chosen| chosen.count_ones() <= 3) {
        for removed in [vec![], vec![FilterId(1)], vec![FilterId(2)], vec![FilterId(1), FilterId(2)]] {
            let added = each.iter().enumerate().filter(|(at, _)| chosen >> at & 1 == 1);
            let change = Change { removed, added: added.map(|(_, filter)| filter.clone()).collect() };
            let mut changed = policy.clone();
            changed.change(&change).unwrap();
            let fresh = Tables::compile(&changed).unwrap();
            let amended = tables.change(&change).unwrap();
            assert!(amended.share_whole_with(&tables));
            let expected = heard_one_by_one(&fresh, &to(1), Flags::default());
            assert_eq!(amended.classify_auth(&to(1), Flags::default()), expected, "{change:?}");
        }
    }
}
