//! Policies and legs that meet often, for whoever compares lookups: filters of every kind, in lists and exclusions.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use waylay_core::{
    Action, AuthRule, Change, CommandName, Conditions, Errno, Facts, FailurePolicy, Family, FileId, Filter,
    FilterId, FlagConditions, HostName, HostPattern, Layer, Namespace, OneOf, Policy, PortRange, Prefix,
    ProcessConditions, ProcessFacts, Protocol, Right, Service, ServiceId, Sublayer, SublayerId,
};

const SERVICES: u32 = 4;
const SUBLAYERS: u32 = 3;
const WEIGHTS: u32 = 5;
/// More than policies here have filters, so that changes have ids to choose among.
pub(crate) const MOST_IDS: u32 = 320;

/// What a filter may ask of names depends on what it does.
fn lawful(mut conditions: Conditions, layer: Layer) -> Conditions {
    let host = conditions.host.take().map(|host| host.values().to_vec());
    let permits = matches!(layer, Layer::Auth(AuthRule { action: Action::Permit(_), .. }));
    conditions.host = host.map(|host| if permits { OneOf::none_of(host) } else { OneOf::these(host) });
    conditions
}

/// Many filters of few kinds, so that trees split, or few filters of all kinds.
pub(crate) fn policies() -> impl Strategy<Value = Policy> {
    let many = (conditions(0.25), layers()).prop_map(|(conditions, layer)| (conditions, layer));
    let filters =
        prop_oneof![vec(many, 0..30), vec((narrow(), layers()), 0..300), vec((mixed(), layers()), 0..300)];
    filters.prop_map(|filters| {
        let filters = (1..).zip(filters).map(|(id, (conditions, layer))| Filter {
            id: FilterId(id),
            weight: u64::from(id * 7 % WEIGHTS),
            conditions: lawful(conditions, layer),
            layer,
        });
        let service = |id| Service {
            id: ServiceId(id),
            name: format!("s{id}"),
            before: vec![],
            after: vec![],
            on_failure: FailurePolicy::Open,
        };
        let sublayer = |id| Sublayer { id: SublayerId(id), name: format!("l{id}"), weight: 0 };
        let (services, sublayers) = ((1..=SERVICES).map(service), (1..=SUBLAYERS).map(sublayer));
        Policy::new(services.collect(), sublayers.collect(), filters.collect()).expect("a policy")
    })
}

/// A filter that comes, under an id that may be taken.
pub(crate) fn filters() -> impl Strategy<Value = Filter> {
    let conditions = prop_oneof![conditions(0.25), narrow(), mixed(), Just(Conditions::default())];
    (1..MOST_IDS, 0..WEIGHTS, conditions, layers()).prop_map(|(id, weight, conditions, layer)| Filter {
        id: FilterId(id),
        weight: weight.into(),
        conditions: lawful(conditions, layer),
        layer,
    })
}

/// Some filters that are there, by their place, and some that come.
pub(crate) fn wishes() -> impl Strategy<Value = (Vec<usize>, Vec<Filter>)> {
    (vec(any::<usize>(), 0..3), vec(filters(), 0..3))
}

/// What they come to: those that are there go, and so does whoever has the id of one that comes.
pub(crate) fn change(policy: &Policy, (going, coming): (Vec<usize>, Vec<Filter>)) -> Change {
    let there = policy.filters();
    let going = going.into_iter().filter(|_| !there.is_empty()).map(|at| there[at % there.len()].id);
    let coming: BTreeMap<FilterId, Filter> = coming.into_iter().map(|filter| (filter.id, filter)).collect();
    let replaced = there.iter().map(|filter| filter.id).filter(|id| coming.contains_key(id));
    let removed: BTreeSet<FilterId> = going.chain(replaced).collect();
    Change { removed: removed.into_iter().collect(), added: coming.into_values().collect() }
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
        host in option::weighted(often / 2.0, list(host_patterns())),
        namespace in option::weighted(often / 4.0, list(namespaces())),
        application in processes(often),
        via in processes(often),
    ) -> Conditions {
        Conditions { protocol, family, remote, remote_ports, local, host, namespace, application, via }
    }
}

prop_compose! {
    fn processes(often: f64)(
        exe in option::weighted(often, list(files())),
        uid in option::weighted(often, list(0..8_u32)),
        gid in option::weighted(often, list(0..4_u32)),
        command in option::weighted(often, list(commands())),
        cgroup in option::weighted(often, list(1..10_u64)),
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

/// As firewalls for applications have it: mostly an executable, a cgroup or a name, and something of the destination.
fn mixed() -> impl Strategy<Value = Conditions> {
    let exe = option::weighted(0.6, list(files()));
    let cgroup = option::weighted(0.2, list(1..10_u64));
    let remote = option::weighted(0.7, list(prefixes()));
    let host = option::weighted(0.2, list(host_patterns()));
    let namespace = option::weighted(0.05, list(namespaces()));
    (exe, cgroup, option::of(0..8_u32), remote, option::of(ports()), host, namespace).prop_map(
        |(exe, cgroup, uid, remote, ports, host, namespace)| Conditions {
            remote,
            host,
            namespace,
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

fn hosts() -> impl Strategy<Value = HostName> {
    select(vec!["a", "a.b", "c.b", "x.a.b", "b", "x.c.b", "d.e.f"])
        .prop_map(|name| HostName::new(name).expect("a name"))
}

fn host_patterns() -> impl Strategy<Value = HostPattern> {
    (hosts(), any::<bool>())
        .prop_map(|(name, one)| if one { HostPattern::Name(name) } else { HostPattern::Below(name) })
}

fn namespaces() -> impl Strategy<Value = Namespace> {
    prop_oneof![Just(Namespace::Own), (1..5_u64).prop_map(Namespace::Foreign)]
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
    pub(crate) fn who()(exe in files(), uid in 0..8_u32, gid in 0..4_u32, command in commands(), cgroups in vec(1..10_u64, 0..4))
        -> ProcessFacts {
        ProcessFacts { exe, uid, gid, command, cgroups }
    }
}

prop_compose! {
    pub(crate) fn facts()(
        protocol in protocols(),
        remote in addresses(),
        remote_port in prop_oneof![4 => 0..62_u16, 1 => Just(u16::MAX)],
        local in option::of(addresses()),
        hosts in vec(host_patterns(), 0..3),
        namespace in prop_oneof![4 => Just(Namespace::Own), 1 => namespaces()],
        application in who(),
        via in who(),
    ) -> Facts {
        Facts { protocol, remote, remote_port, local, hosts, namespace, application, via }
    }
}
