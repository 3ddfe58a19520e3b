//! What is looked up is what is found when every filter is asked: over policies of up to some thousand filters of every kind.

use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::TestRunner;
use waylay_core::{
    Action, AuthOutcome, AuthRule, CommandName, Conditions, Errno, Facts, Family, FileId, Filter, FilterId,
    FlagConditions, Flags, Layer, OneOf, Policy, PortRange, Prefix, ProcessConditions, ProcessFacts,
    Protocol, Right, ServiceId, SublayerId, Tables, Warning, normal_form,
};

use crate::fixtures::*;

const SERVICES: u32 = 4;
const SUBLAYERS: u32 = 3;

/// The redirect layer, filter by filter.
fn asked_one_by_one(tables: &Tables, facts: &Facts, skip: u64) -> Option<usize> {
    let mut filters = tables.redirect_filters().iter();
    filters.position(|filter| skip >> filter.slot & 1 == 0 && filter.conditions.match_facts(facts))
}

/// The auth layer, filter by filter.
fn heard_one_by_one(tables: &Tables, facts: &Facts, flags: Flags) -> AuthOutcome {
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
            prop_assert_eq!(tables.classify_redirect(&facts, skip & 3), expected, "{:?}", facts);
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
            application: ProcessFacts::default(),
            via: ProcessFacts::default(),
        };
        assert_eq!(tables.classify_redirect(&facts, 0), asked_one_by_one(&tables, &facts, 0), "{facts:?}");
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
        application: ProcessFacts::default(),
        via: ProcessFacts::default(),
    };
    assert_eq!(tables.classify_redirect(&facts(Ipv4Addr::from_bits(77 << 7).into()), 0), None);
    assert_eq!(tables.classify_redirect(&facts(Ipv4Addr::from_bits((77 << 7) + 1).into()), 0), Some(0));
    assert_eq!(tables.classify_redirect(&facts(Ipv6Addr::LOCALHOST.into()), 0), Some(0));
}

/// Many filters of few kinds, so that trees split, or few filters of all kinds.
fn policies() -> impl Strategy<Value = Policy> {
    let many = (conditions(0.25), layers()).prop_map(|(conditions, layer)| (conditions, layer));
    let filters =
        prop_oneof![vec(many, 0..30), vec((narrow(), layers()), 0..300), vec((mixed(), layers()), 0..300)];
    filters.prop_map(|filters| {
        let filters = (1..).zip(filters).map(|(id, (conditions, layer))| Filter {
            id: FilterId(id),
            weight: u64::from(id * 7 % 5),
            conditions,
            layer,
        });
        let services = (1..=SERVICES).map(|id| service(id, OPEN)).collect();
        policy(services, (1..=SUBLAYERS).map(|id| sublayer(id, 0)).collect(), filters.collect())
    })
}

fn layers() -> impl Strategy<Value = Layer> {
    let right = || select(vec![Right::Soft, Right::Hard]);
    let actions = prop_oneof![
        right().prop_map(Action::Permit),
        right().prop_map(|right| Action::Block { right, errno: Errno::EHOSTUNREACH }),
        Just(Action::Continue),
    ];
    let flag = || option::weighted(0.2, any::<bool>());
    let auth = (1..=SUBLAYERS, flag(), flag(), actions).prop_map(|(id, redirected, proxied, action)| {
        Layer::Auth(AuthRule {
            sublayer: SublayerId(id),
            flags: FlagConditions { redirected, proxied },
            action,
        })
    });
    prop_oneof![2 => (1..=SERVICES).prop_map(|id| Layer::Redirect { service: ServiceId(id) }), 1 => auth]
}

/// A list, or the exclusion of one.
fn list<T: std::fmt::Debug + Clone>(values: impl Strategy<Value = T>) -> impl Strategy<Value = OneOf<T>> {
    (vec(values, 0..4), prop::bool::weighted(0.25)).prop_map(|(values, negated)| match negated {
        true => OneOf::none_of(values),
        false if values.is_empty() => OneOf::none_of(values),
        false => OneOf::these(values),
    })
}

prop_compose! {
    fn conditions(often: f64)(
        protocol in option::weighted(often, list(protocols())),
        family in option::weighted(often, list(select(vec![Family::Ipv4, Family::Ipv6]))),
        remote in option::weighted(often, list(prefixes())),
        remote_ports in option::weighted(often, list(ports())),
        local in option::weighted(often, list(prefixes())),
        application in processes(often),
        via in processes(often),
    ) -> Conditions {
        Conditions { protocol, family, remote, remote_ports, local, application, via }
    }
}

prop_compose! {
    fn processes(often: f64)(
        exe in option::weighted(often, list(files())),
        uid in option::weighted(often, list(0..8_u32)),
        gid in option::weighted(often, list(0..4_u32)),
        command in option::weighted(often, list(commands())),
        cgroup in option::weighted(often, list(0..9_u64)),
    ) -> ProcessConditions {
        ProcessConditions { exe, uid, gid, command, cgroup }
    }
}

/// One prefix and perhaps a port.
fn narrow() -> impl Strategy<Value = Conditions> {
    (prefixes(), option::of(ports())).prop_map(|(remote, ports)| Conditions {
        remote: Some(remote.into()),
        remote_ports: ports.map(Into::into),
        ..Conditions::default()
    })
}

/// As firewalls for applications have it: mostly an executable or a cgroup, and something of the destination.
fn mixed() -> impl Strategy<Value = Conditions> {
    let exe = option::weighted(0.6, list(files()));
    let cgroup = option::weighted(0.2, list(0..9_u64));
    let remote = option::weighted(0.7, list(prefixes()));
    (exe, cgroup, option::of(0..8_u32), remote, option::of(ports())).prop_map(
        |(exe, cgroup, uid, remote, ports)| Conditions {
            remote,
            remote_ports: ports.map(Into::into),
            application: ProcessConditions {
                exe,
                cgroup,
                uid: uid.map(Into::into),
                ..ProcessConditions::default()
            },
            ..Conditions::default()
        },
    )
}

fn protocols() -> impl Strategy<Value = Protocol> {
    select(vec![Protocol::Tcp, Protocol::Udp])
}

fn ports() -> impl Strategy<Value = PortRange> {
    let edge = || prop_oneof![4 => 0..60_u16, 1 => Just(u16::MAX)];
    (edge(), edge()).prop_map(|(a, b)| PortRange::new(a.min(b), a.max(b)).expect("a range"))
}

fn files() -> impl Strategy<Value = FileId> {
    (0..2_u64, 0..12_u64).prop_map(|(device, inode)| FileId { device, inode })
}

fn commands() -> impl Strategy<Value = CommandName> {
    select(vec!["a", "b", "curl", "a-long-command", ""]).prop_map(CommandName::new)
}

fn addresses() -> impl Strategy<Value = Ipv6Addr> {
    let few = 0..4_u8;
    prop_oneof![
        3 => (few.clone(), few.clone(), few.clone())
            .prop_map(|(a, b, c)| Ipv4Addr::new(10, a, b, c).to_ipv6_mapped()),
        1 => (0..4_u16, 0..4_u16, 0..4_u16).prop_map(|(a, b, c)| Ipv6Addr::new(0xfd00, a, 0, b, 0, 0, 0, c)),
        1 => select(vec![Ipv6Addr::LOCALHOST, Ipv6Addr::from_bits(0xffff_0000_0000), Ipv6Addr::from_bits(u128::MAX),
            Ipv6Addr::from_bits(0xfffe_ffff_ffff), Ipv6Addr::from_bits(0x1_0000_0000_0000)]),
    ]
}

fn prefixes() -> impl Strategy<Value = Prefix> {
    let lengths = select(vec![0, 1, 16, 33, 48, 64, 66, 80, 95, 96, 97, 104, 112, 120, 126, 127, 128]);
    (addresses(), lengths).prop_map(|(address, length)| Prefix::covering(address, length))
}

prop_compose! {
    fn who()(exe in files(), uid in 0..8_u32, gid in 0..4_u32, command in commands(), cgroups in vec(0..9_u64, 0..4))
        -> ProcessFacts {
        ProcessFacts { exe, uid, gid, command, cgroups }
    }
}

prop_compose! {
    fn facts()(
        protocol in protocols(),
        remote in addresses(),
        remote_port in prop_oneof![4 => 0..62_u16, 1 => Just(u16::MAX)],
        local in option::of(addresses()),
        application in who(),
        via in who(),
    ) -> Facts {
        Facts { protocol, remote, remote_port, local, application, via }
    }
}
