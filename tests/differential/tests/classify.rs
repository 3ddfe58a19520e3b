//! The programs' classification is that of `waylay_core::Tables`, which is compared with `decide` in `waylay-core`: both read the
//! same words.

#[path = "../../../crates/core/tests/meaning/mix.rs"]
mod mix;

use std::{collections::BTreeSet, net::SocketAddr};

use proptest::{collection::vec, prelude::*};
use waylay_core::{
    AuthOutcome, Conditions, Facts, FailurePolicy, Filter, FilterId, Flags, HostPattern, Layer, Namespace,
    OneOf, Policy, ProcessConditions, ProcessFacts, Protocol, Service, ServiceId, Tables,
};
use waylay_differential::{Leg, People, Who, Words, classify_auth, classify_redirect};

fn leg(facts: &Facts, flags: Flags) -> Leg {
    let remote = SocketAddr::from((facts.remote, facts.remote_port));
    let protocol = match facts.protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
    };
    let (redirected, proxied) = (flags.redirected.into(), flags.proxied.into());
    Leg { remote: remote.into(), caller_slot: u32::MAX, protocol, redirected, proxied, ..Leg::default() }
}

fn who(process: &ProcessFacts) -> Who {
    let mut who = Who {
        exe_device: process.exe.device,
        exe_inode: process.exe.inode,
        uid: process.uid,
        gid: process.gid,
        ..Who::default()
    };
    who.command.iter_mut().zip(process.command.as_bytes()).for_each(|(to, from)| *to = *from);
    who.lineage.iter_mut().zip(process.cgroups.iter().rev()).for_each(|(to, from)| *to = *from);
    who
}

fn people(facts: &Facts) -> People {
    let source = facts.local.map_or_else(Default::default, |ip| SocketAddr::from((ip, 0)).into());
    let mut people =
        People { application: who(&facts.application), via: who(&facts.via), source, ..People::default() };
    let keys: BTreeSet<u64> = facts.hosts.iter().map(HostPattern::key).collect();
    people.hosts.iter_mut().zip(keys).for_each(|(to, from)| *to = from);
    people.namespace = match facts.namespace {
        Namespace::Own => 0,
        Namespace::Foreign(cookie) => cookie,
    };
    people
}

fn words(tables: &Tables) -> Words<'_> {
    Words::new(tables.index().words(), tables.amendments().map(|index| index.words()).unwrap_or_default())
}

/// Tables of a policy, and those that some changes lead to one after the other.
fn tables_after(mut policy: Policy, changes: Vec<(Vec<usize>, Vec<Filter>)>) -> Vec<Tables> {
    let mut tables = vec![Tables::compile(&policy).expect("few filters")];
    for wishes in changes {
        let change = mix::change(&policy, wishes);
        policy.change(&change).expect("what goes is there");
        tables.push(tables[tables.len() - 1].change(&change).expect("what goes is there"));
    }
    tables
}

/// A hundred filters that no field tells apart are a block without rows.
#[test]
fn the_headers_look_at_no_more_filters_than_a_block_has() {
    const MINE: u64 = 7;
    let elsewhere = |id: u32| Filter {
        id: FilterId(id),
        weight: 0,
        conditions: Conditions {
            application: ProcessConditions {
                cgroup: Some(OneOf::none_of([MINE, 1000 + u64::from(id)])),
                ..ProcessConditions::default()
            },
            ..Conditions::default()
        },
        layer: Layer::Redirect { service: ServiceId(1) },
    };
    let service = Service {
        id: ServiceId(1),
        name: "s".into(),
        before: vec![],
        after: vec![],
        on_failure: FailurePolicy::Open,
    };
    let policy = Policy::new(vec![service], vec![], (1..=100).map(elsewhere).collect()).expect("a policy");
    let tables = Tables::compile(&policy).expect("few filters");
    let in_blocks = tables.index().report().in_blocks;
    assert_eq!(in_blocks, 2 * 100, "of their layer, and of what is asked about processes");
    for (cgroup, expected) in [(MINE, None), (MINE + 1, Some(1))] {
        let process = ProcessFacts { cgroups: vec![cgroup], ..ProcessFacts::default() };
        let facts = Facts {
            protocol: Protocol::Tcp,
            remote: std::net::Ipv6Addr::LOCALHOST,
            remote_port: 80,
            local: None,
            hosts: vec![],
            namespace: Namespace::Own,
            application: process.clone(),
            via: process,
        };
        let theirs = classify_redirect(&words(&tables), &leg(&facts, Flags::default()), &people(&facts), 0);
        assert_eq!(theirs, expected);
        assert_eq!(theirs, tables.classify_redirect(&facts, 0).map(|filter| filter.id.0));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn the_headers_choose_what_the_tables_choose(
        policy in mix::policies(),
        changes in vec(mix::wishes(), 0..6),
        legs in vec((mix::facts(), any::<u64>()), 40),
    ) {
        for tables in tables_after(policy, changes) {
            for (facts, skip) in &legs {
                let skip = skip & 3;
                let ours = tables.classify_redirect(facts, skip).map(|filter| filter.id.0);
                let leg = leg(facts, Flags::default());
                let theirs = classify_redirect(&words(&tables), &leg, &people(facts), skip);
                prop_assert_eq!(theirs, ours, "{:?}", facts);
            }
        }
    }

    #[test]
    fn the_headers_hear_whom_the_tables_hear(
        policy in mix::policies(),
        changes in vec(mix::wishes(), 0..6),
        legs in vec((mix::facts(), any::<bool>(), any::<bool>()), 40),
    ) {
        for tables in tables_after(policy, changes) {
            for &(ref facts, redirected, proxied) in &legs {
                let flags = Flags { redirected, proxied };
                let ours = match tables.classify_auth(facts, flags) {
                    AuthOutcome::Block { filter, errno } => Some((filter.0, Some(errno.number()))),
                    AuthOutcome::Permit(filter) => filter.map(|filter| (filter.0, None)),
                };
                let theirs = classify_auth(&words(&tables), &leg(facts, flags), &people(facts));
                prop_assert_eq!(theirs, ours, "{:?}", facts);
            }
        }
    }
}
