//! Compiled tables: their order, their masks, and that they answer what `decide` answers.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::TestRunner;
use waylay_core::{
    Action, AuthRule, Availability, Cgroups, Chain, Change, CommandName, Conditions, Confinement, Errno,
    Family, FileId, Filter, FilterId, FlagConditions, ForeignNamespace, Hop, HostName, HostPattern, Layer,
    Leg, ListenerOwner, MAX_HOPS, Namespace, NewSocket, Obstacle, OneOf, Policy, PortRange, Prefix, Process,
    ProcessConditions, Protocol, Records, Refusal, Resource, Right, Room, Route, Sandboxes, Service,
    ServiceId, ServiceSet, Slots, SocketKind, SocketOwner, SocketVerdict, Sphere, SublayerId, Tables,
    Unredirectable, Verdict, World, decide, decide_socket,
};

use crate::fixtures::*;

/// Services 1 to this one may be declared; one more id is known to nobody.
const SERVICES: u32 = 5;
const SUBLAYERS: u32 = 3;

#[test]
fn tables_are_sorted_as_they_are_asked() {
    let mut first = service(2, OPEN);
    first.before = vec!["s1".into()];
    let mut heavy = redirect(9, 1);
    heavy.weight = 1;
    let filters = vec![
        redirect(5, 1),
        heavy,
        redirect(4, 1),
        redirect(6, 2),
        auth(10, 1, 0, Action::PERMIT),
        auth(11, 2, 0, Action::PERMIT),
        auth(12, 2, 3, Action::PERMIT),
    ];
    let sublayers = vec![sublayer(1, 1), sublayer(3, 2), sublayer(2, 9)];
    let tables = Tables::compile(&policy(vec![service(1, OPEN), first], sublayers, filters)).unwrap();

    let services: Vec<_> = tables.services().iter().map(|s| (s.id.0, s.slot, s.prefix_mask)).collect();
    assert_eq!(services, [(2, 0, 0b01), (1, 1, 0b11)]);
    let redirects: Vec<_> = tables.redirect_filters().iter().map(|f| (f.id.0, f.slot)).collect();
    assert_eq!(redirects, [(6, 0), (9, 1), (4, 1), (5, 1)]);
    let auths: Vec<_> = tables.auth_filters().iter().map(|f| (f.id.0, f.sublayer.0)).collect();
    assert_eq!(auths, [(12, 2), (11, 2), (10, 1)]);
}

#[test]
fn slots_survive_a_reload() {
    let before = Tables::compile(&services_for_all(&[OPEN, OPEN])).unwrap();
    let only_second_and_third = policy(vec![service(3, OPEN), service(2, OPEN)], vec![], vec![]);
    let after = Tables::compile_keeping(&only_second_and_third, before.slots().clone()).unwrap();
    let slots: Vec<_> = after.services().iter().map(|s| (s.id.0, s.slot, s.prefix_mask)).collect();
    assert_eq!(slots, [(3, 2, 0b100), (2, 1, 0b110)]);
    assert_eq!(after.mask_of(&ServiceSet::from_iter([ServiceId(1), ServiceId(2)])), 0b011);
    assert_eq!(after.services_of(0b011), ServiceSet::from_iter([ServiceId(1), ServiceId(2)]));
}

#[test]
fn tables_answer_what_decide_answers() {
    let config = ProptestConfig { cases: 6000, failure_persistence: None, ..ProptestConfig::default() };
    let seen = RefCell::new(BTreeMap::<&str, u32>::new());
    let cases = (policies(), slots(), legs(), records(), worlds());
    let outcome = TestRunner::new(config).run(&cases, |(policy, slots, leg, records, world)| {
        let tables = Tables::compile_keeping(&policy, slots).expect("few filters");
        let expected = decide(&policy, &leg, &records, &world);
        prop_assert_eq!(
            tables.decide(&leg, &records, &world),
            expected.verdict.clone(),
            "{}",
            expected.trace
        );
        *seen.borrow_mut().entry(kind(&expected.verdict)).or_default() += 1;
        Ok(())
    });
    outcome.unwrap();
    for kind in KINDS {
        assert!(seen.borrow().get(kind) > Some(&20), "{kind} hardly occurs: {seen:?}");
    }
}

#[test]
fn where_tables_do_not_concern_datagrams_each_is_direct() {
    let config = ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() };
    let seen = RefCell::new(BTreeMap::<&str, u32>::new());
    let outcome = TestRunner::new(config).run(&datagrams(), |(policy, leg, records, world)| {
        let tables = Tables::compile(&policy).expect("few filters");
        let leg = Leg { protocol: Protocol::Udp, ..leg };
        let world = World { listener: None, ..world };
        let decision = decide(&policy, &leg, &records, &world);
        let concerned = if tables.concern_datagrams() { "concerned" } else { "unconcerned" };
        if !tables.concern_datagrams() {
            prop_assert_eq!(&decision.verdict, &Verdict::Direct, "{}", decision.trace);
            // What became of TCP shows that the policy does something.
            let leg = Leg { protocol: Protocol::Tcp, ..leg };
            let verdict = decide(&policy, &leg, &records, &world).verdict;
            *seen.borrow_mut().entry(kind(&verdict)).or_default() += 1;
        }
        *seen.borrow_mut().entry(concerned).or_default() += 1;
        Ok(())
    });
    outcome.unwrap();
    for kind in ["concerned", "unconcerned", "redirect", "blocked"] {
        assert!(seen.borrow().get(kind) > Some(&20), "{kind} hardly occurs: {seen:?}");
    }
}

/// Of policies of which many are about TCP alone.
fn datagrams() -> impl Strategy<Value = (Policy, Leg, Records, World)> {
    let narrowed = (policies(), prop::bool::weighted(0.7)).prop_map(|(policy, is_narrow)| {
        let narrow = |filter: &Filter| match filter.layer {
            Layer::Auth(AuthRule { action: Action::Permit(_) | Action::Continue, .. }) => filter.clone(),
            Layer::Auth(AuthRule { action: Action::Block { .. }, .. }) | Layer::Redirect { .. } => {
                let protocol = Some(Protocol::Tcp.into());
                Filter { conditions: Conditions { protocol, ..filter.conditions.clone() }, ..filter.clone() }
            }
        };
        if !is_narrow {
            return policy;
        }
        let filters = policy.filters().iter().map(narrow).collect();
        let narrowed = Policy::new(policy.services().to_vec(), policy.sublayers().to_vec(), filters);
        let (foreign, unredirectable) = (policy.foreign_namespace(), policy.unredirectable());
        let narrowed = narrowed.expect("as before").with_unredirectable(unredirectable);
        narrowed.with_foreign_namespace(foreign).with_sandboxes(policy.sandboxes())
    });
    (narrowed, legs(), records(), worlds())
}

#[test]
fn a_change_of_filters_is_known_to_concern_datagrams() {
    let of_tcp = |id| {
        let conditions = Conditions { protocol: Some(Protocol::Tcp.into()), ..Conditions::default() };
        Filter { conditions, ..redirect(id, 1) }
    };
    let before = policy(vec![service(1, OPEN)], vec![], vec![of_tcp(1)]);
    let tables = Tables::compile(&before).unwrap();
    assert!(!tables.concern_datagrams());
    let more = tables.change(&Change { removed: vec![], added: vec![redirect(2, 1)] }).unwrap();
    assert!(more.is_amended() && more.concern_datagrams());
    let less = more.change(&Change { removed: vec![FilterId(2)], added: vec![of_tcp(3)] }).unwrap();
    assert!(!less.concern_datagrams());
    let others = Tables::compile(&before.with_foreign_namespace(ForeignNamespace::Block)).unwrap();
    assert!(others.concern_datagrams(), "those of other network namespaces are blocked");
}

const KINDS: [&str; 11] = [
    "direct",
    "redirect",
    "blocked",
    "absent",
    "backlog",
    "hop limit",
    "listener",
    "namespace",
    "unredirectable",
    "no route",
    "shortage",
];

fn kind(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Direct => "direct",
        Verdict::Redirect { .. } => "redirect",
        Verdict::Refuse(Refusal::Blocked { .. }) => "blocked",
        Verdict::Refuse(Refusal::ServiceAbsent { .. }) => "absent",
        Verdict::Refuse(Refusal::BacklogFull { .. }) => "backlog",
        Verdict::Refuse(Refusal::HopLimit { .. }) => "hop limit",
        Verdict::Refuse(Refusal::ListenerDialled { .. }) => "listener",
        Verdict::Refuse(Refusal::ForeignNamespace) => "namespace",
        Verdict::Refuse(Refusal::Unredirectable) => "unredirectable",
        Verdict::Refuse(Refusal::NoRoute { .. }) => "no route",
        Verdict::Refuse(Refusal::Shortage(_)) => "shortage",
    }
}

fn policies() -> impl Strategy<Value = Policy> {
    (
        services(),
        vec((filters(), any::<bool>()), 0..14),
        [0u16..3, 0..3, 0..3],
        foreign_namespaces(),
        unredirectable(),
        select(vec![Sandboxes::Stay, Sandboxes::Overridden]),
    )
        .prop_map(|(services, filters, weights, foreign, unredirectable, sandboxes)| {
            let sublayers = (1..=SUBLAYERS).zip(weights).map(|(id, weight)| sublayer(id, weight)).collect();
            let declared = |filter: &Filter| match filter.layer {
                Layer::Redirect { service } => services.iter().any(|known| known.id == service),
                Layer::Auth(_) => true,
            };
            // Ids scattered against the order of declaration.
            let numbered = (0u32..).zip(filters).map(|(n, (filter, low))| {
                let id = FilterId(if low { n } else { 1000 - n });
                Filter { id, ..filter }
            });
            let filters = numbered.filter(declared).collect();
            policy(services, sublayers, filters)
                .with_foreign_namespace(foreign)
                .with_unredirectable(unredirectable)
                .with_sandboxes(sandboxes)
        })
}

/// Any subset of the services in any order of declaration, each ordered after some of lower rank.
fn services() -> impl Strategy<Value = Vec<Service>> {
    let ids: Vec<u32> = (1..=SERVICES).collect();
    let ranks = Just(ids.clone()).prop_shuffle();
    let ranked = (ranks, vec((any::<bool>(), 0u8..32), 5), 0..=5usize).prop_map(|(ids, traits, count)| {
        let mut services: Vec<Service> = Vec::new();
        for (id, (open, after)) in ids.into_iter().zip(traits).take(count) {
            let mut new = service(id, if open { OPEN } else { CLOSED });
            let names = (0u8..).zip(&services).filter(|(rank, _)| after & (1 << rank) != 0);
            new.after = names.map(|(_, earlier)| earlier.name.clone()).collect();
            services.push(new);
        }
        services
    });
    ranked.prop_shuffle()
}

fn slots() -> impl Strategy<Value = Slots> {
    let taken = Just((0u8..64).collect::<Vec<_>>()).prop_shuffle();
    (taken, 0..=6usize).prop_map(|(slots, count)| {
        Slots::restore((1..).map(ServiceId).zip(slots).take(count)).expect("each slot once")
    })
}

fn filters() -> impl Strategy<Value = Filter> {
    let redirect = (1..=SERVICES).prop_map(|id| Layer::Redirect { service: ServiceId(id) });
    let auth = (1..=SUBLAYERS, flag_conditions(), actions())
        .prop_map(|(id, flags, action)| Layer::Auth(AuthRule { sublayer: SublayerId(id), flags, action }));
    (0u64..3, conditions(), prop_oneof![3 => redirect, 1 => auth]).prop_map(|(weight, conditions, layer)| {
        Filter { id: FilterId(0), weight, conditions: lawful(conditions, layer), layer }
    })
}

/// A permission can be taken away by a name, and not given.
fn lawful(mut conditions: Conditions, layer: Layer) -> Conditions {
    if let Layer::Auth(AuthRule { action: Action::Permit(_), .. }) = layer {
        conditions.host = conditions.host.map(|host| OneOf::none_of(host.values().to_vec()));
    }
    conditions
}

fn hosts() -> impl Strategy<Value = HostName> {
    select(vec!["a.example", "x.a.example", "b.example"])
        .prop_map(|name| HostName::new(name).expect("a name"))
}

fn host_patterns() -> impl Strategy<Value = HostPattern> {
    (hosts(), any::<bool>())
        .prop_map(|(name, one)| if one { HostPattern::Name(name) } else { HostPattern::Below(name) })
}

fn namespaces() -> impl Strategy<Value = Namespace> {
    prop_oneof![Just(Namespace::Own), (1..4_u64).prop_map(Namespace::Foreign)]
}

fn actions() -> impl Strategy<Value = Action> {
    let right = || select(vec![Right::Soft, Right::Hard]);
    prop_oneof![
        right().prop_map(Action::Permit),
        right().prop_map(|right| Action::Block { right, errno: Errno::EHOSTUNREACH }),
        Just(Action::Continue),
    ]
}

fn flag_conditions() -> impl Strategy<Value = FlagConditions> {
    let flag = || option::weighted(0.3, any::<bool>());
    (flag(), flag()).prop_map(|(redirected, proxied)| FlagConditions { redirected, proxied })
}

/// Now and then a list or the exclusion of one, else nothing is asked.
fn sometimes<T: fmt::Debug>(values: impl Strategy<Value = T>) -> impl Strategy<Value = Option<OneOf<T>>> {
    let lists = (vec(values, 1..3), option::weighted(0.2, any::<bool>()));
    let list = lists.prop_map(|(mut values, negated)| match negated {
        None => OneOf::these(values.pop()),
        Some(false) => OneOf::these(values),
        Some(true) => OneOf::none_of(values),
    });
    option::weighted(0.12, list)
}

fn conditions() -> impl Strategy<Value = Conditions> {
    let ports = select(vec![PortRange::single(80), PortRange::new(80, 443).expect("a range")]);
    (
        sometimes(protocols()),
        sometimes(select(vec![Family::Ipv4, Family::Ipv6])),
        sometimes(prefixes()),
        sometimes(ports),
        sometimes(prefixes()),
        (option::weighted(0.15, vec(host_patterns(), 1..3)), sometimes(namespaces())),
        process_conditions(),
        process_conditions(),
    )
        .prop_map(
            |(protocol, family, remote, remote_ports, local, (host, namespace), application, via)| {
                Conditions {
                    protocol,
                    family,
                    remote,
                    remote_ports,
                    local,
                    host: host.map(OneOf::these),
                    namespace,
                    application,
                    via,
                }
            },
        )
}

fn process_conditions() -> impl Strategy<Value = ProcessConditions> {
    let commands = select(vec![CommandName::new("curl"), CommandName::new("git")]);
    let each =
        (sometimes(files()), sometimes(0u32..2), sometimes(0u32..2), sometimes(commands), sometimes(0u64..4));
    each.prop_map(|(exe, uid, gid, command, cgroup)| ProcessConditions { exe, uid, gid, command, cgroup })
}

fn prefixes() -> impl Strategy<Value = Prefix> {
    let of = |address: IpAddr, length| Prefix::new(address, length).expect("a prefix");
    select(vec![
        of(Ipv4Addr::new(192, 0, 2, 0).into(), 24),
        of(Ipv4Addr::UNSPECIFIED.into(), 0),
        of(Ipv6Addr::UNSPECIFIED.into(), 0),
        of(Ipv6Addr::LOCALHOST.into(), 128),
    ])
}

fn addresses() -> impl Strategy<Value = IpAddr> {
    select(vec![
        Ipv4Addr::new(192, 0, 2, 1).into(),
        Ipv4Addr::new(198, 51, 100, 1).into(),
        Ipv4Addr::new(192, 0, 2, 1).to_ipv6_mapped().into(),
        Ipv6Addr::LOCALHOST.into(),
        Ipv4Addr::new(224, 0, 0, 251).into(),
    ])
}

fn protocols() -> impl Strategy<Value = Protocol> {
    select(vec![Protocol::Tcp, Protocol::Udp])
}

fn files() -> impl Strategy<Value = FileId> {
    (0u64..2).prop_map(|inode| FileId { device: 1, inode })
}

fn processes() -> impl Strategy<Value = Process> {
    let service = option::weighted(0.4, (1..=SERVICES + 1).prop_map(ServiceId));
    let commands = select(vec![CommandName::new("curl"), CommandName::new("git")]);
    (0u32..9, (0u32..2, 0u32..2), commands, files(), 0u64..4, service).prop_map(
        |(pid, (uid, gid), command, exe, cgroup, service)| Process {
            pid,
            start_time_ns: 1,
            uid,
            gid,
            command,
            exe,
            cgroup,
            service,
        },
    )
}

/// Cgroup 3 is below 2, and that below 1.
fn cgroups() -> Cgroups {
    Cgroups::new([(3, 2), (2, 1)])
}

fn legs() -> impl Strategy<Value = Leg> {
    let local = option::of(addresses().prop_map(|ip| SocketAddr::new(ip, 0)));
    (protocols(), local, addresses(), select(vec![80, 443, 8080]), processes()).prop_map(
        |(protocol, local, ip, port, caller)| Leg {
            protocol,
            local,
            remote: SocketAddr::new(ip, port),
            caller,
        },
    )
}

fn records() -> impl Strategy<Value = Records> {
    let hop =
        || (1..=SERVICES + 1, 0u32..9).prop_map(|(s, f)| Hop { service: ServiceId(s), filter: FilterId(f) });
    let hops = prop_oneof![3 => vec(hop(), 0..4), 1 => hop().prop_map(|hop| vec![hop; MAX_HOPS])];
    let excluded = vec((1..=SERVICES + 1).prop_map(ServiceId), 0..3);
    let chain = (hops, excluded, option::of(processes())).prop_map(|(hops, excluded, origin)| {
        Records::Carried(Chain::new(hops, excluded.into_iter().collect(), origin).expect("few hops"))
    });
    prop_oneof![Just(Records::None), chain]
}

fn worlds() -> impl Strategy<Value = World> {
    let states =
        [Availability::Available, Availability::Available, Availability::Absent, Availability::BacklogFull];
    let listener = prop_oneof![
        (1..=SERVICES).prop_map(|id| ListenerOwner::OwnInstance(ServiceId(id))),
        Just(ListenerOwner::OtherInstance)
    ];
    (
        vec(option::weighted(0.9, select(states.to_vec())), 5),
        prop_oneof![15 => Just(SocketOwner::Process), 1 => Just(SocketOwner::Kernel)],
        prop_oneof![15 => Just(Sphere::Inside), 1 => Just(Sphere::Outside)],
        prop_oneof![6 => Just(Namespace::Own), 1 => namespaces()],
        prop_oneof![9 => Just(Route::Exists), 1 => Just(Route::Missing(Errno::ENETUNREACH))],
        prop_oneof![4 => Just(Room::Granted), 1 => Just(Room::Exhausted(Resource::Flows))],
        option::weighted(0.1, listener),
        prop_oneof![9 => Just(Confinement::Free), 1 => Just(Confinement::Sandboxed)],
        option::weighted(0.1, select(vec![Obstacle::Device, Obstacle::Broadcast])),
        vec(host_patterns(), 0..3),
    )
        .prop_map(
            |(
                states,
                socket_owner,
                sphere,
                namespace,
                route,
                room,
                listener,
                confinement,
                obstacle,
                hosts,
            )| {
                let known = (1..).zip(states).filter_map(|(id, state)| Some((id, state?)));
                let cgroups = cgroups();
                World {
                    socket_owner,
                    sphere,
                    namespace,
                    route,
                    room,
                    listener,
                    confinement,
                    obstacle,
                    cgroups,
                    hosts,
                    ..with_availability(known)
                }
            },
        )
}

fn foreign_namespaces() -> impl Strategy<Value = ForeignNamespace> {
    select(vec![ForeignNamespace::Permit, ForeignNamespace::Block])
}

fn unredirectable() -> impl Strategy<Value = Unredirectable> {
    select(vec![Unredirectable::Permit, Unredirectable::Block])
}

fn sockets() -> impl Strategy<Value = NewSocket> {
    let kinds = [(2, 1, 6), (2, 2, 1), (10, 3, 6), (1, 1, 0), (17, 3, 0), (40, 1, 0)];
    let kinds = kinds.map(|(family, socket_type, protocol)| SocketKind { family, socket_type, protocol });
    (select(kinds.to_vec()), processes(), worlds()).prop_map(|(kind, maker, world)| NewSocket {
        kind,
        maker,
        owner: world.socket_owner,
        namespace: world.namespace,
        confinement: world.confinement,
    })
}

#[test]
fn tables_make_of_sockets_what_decide_socket_makes() {
    let config = ProptestConfig { cases: 6000, failure_persistence: None, ..ProptestConfig::default() };
    let seen = RefCell::new(BTreeMap::<SocketVerdict, u32>::new());
    let outcome = TestRunner::new(config).run(&(policies(), sockets()), |(policy, socket)| {
        let tables = Tables::compile(&policy).expect("few filters");
        let expected = decide_socket(&policy, &socket, &cgroups());
        prop_assert_eq!(tables.decide_socket(&socket, &cgroups()), expected);
        *seen.borrow_mut().entry(expected).or_default() += 1;
        Ok(())
    });
    outcome.unwrap();
    assert_eq!(seen.borrow().len(), 3, "{seen:?}");
}
