//! The programs' classification is that of `waylay_core::Tables`, which is
//! compared with `decide` in `waylay-core`.
#![expect(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::net::{IpAddr, SocketAddr};

use proptest::{collection::vec, option, prelude::*};
use waylay_abi as abi;
use waylay_core::{
    Action, AuthOutcome, AuthRule, Conditions, Errno, Facts, FailurePolicy, FileId, Filter, FilterId,
    FlagConditions, Flags, Layer, Policy, PortRange, Prefix, ProcessConditions, ProcessFacts, Protocol,
    Right, Service, ServiceId, Sublayer, SublayerId, Tables, normal_form,
};
use waylay_differential::{Leg, Origin, classify_auth, classify_redirect};
use waylay_engine_ebpf::encode;

const SERVICES: u32 = 5;
const SUBLAYERS: u32 = 3;

/// Few values, so that filters and legs meet often.
fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        (0_u8..4, 0_u8..4).prop_map(|(a, b)| IpAddr::from([10, a, 0, b])),
        (0_u16..4, 0_u16..4).prop_map(|(a, b)| IpAddr::from([0xfd00, a, 0, 0, 0, 0, 0, b])),
    ]
}

fn prefix() -> impl Strategy<Value = Prefix> {
    (address(), 0_u8..=128).prop_map(|(address, length)| {
        let bits = length % if address.is_ipv4() { 33 } else { 129 };
        let whole = Prefix::host(address).network().to_bits();
        let kept = if address.is_ipv4() { 96 + u32::from(bits) } else { u32::from(bits) };
        let network = whole & u128::MAX.checked_shl(128 - kept).unwrap_or(0);
        let ip = std::net::Ipv6Addr::from_bits(network);
        let ip = if address.is_ipv4() { ip.to_canonical() } else { ip.into() };
        Prefix::new(ip, bits).unwrap()
    })
}

fn file() -> impl Strategy<Value = FileId> {
    (0_u64..2, 0_u64..2).prop_map(|(device, inode)| FileId { device, inode })
}

fn protocol() -> impl Strategy<Value = Protocol> {
    prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp)]
}

prop_compose! {
    fn conditions()(
        protocol in option::weighted(0.2, protocol()),
        remote in option::weighted(0.4, prefix()),
        ports in option::weighted(0.4, (0_u16..6, 0_u16..6)),
        exe in option::weighted(0.2, file()),
        uid in option::weighted(0.2, 0_u32..2),
        cgroup in option::weighted(0.2, 0_u64..2),
        via_exe in option::weighted(0.2, file()),
    ) -> Conditions {
        Conditions {
            protocol: protocol.map(Into::into),
            remote: remote.map(Into::into),
            remote_ports: ports.map(|(a, b)| PortRange::new(a.min(b), a.max(b)).unwrap().into()),
            application: ProcessConditions {
                exe: exe.map(Into::into),
                uid: uid.map(Into::into),
                cgroup: cgroup.map(Into::into),
                ..ProcessConditions::default()
            },
            via: ProcessConditions { exe: via_exe.map(Into::into), ..ProcessConditions::default() },
            ..Conditions::default()
        }
    }
}

fn right() -> impl Strategy<Value = Right> {
    prop_oneof![Just(Right::Soft), Just(Right::Hard)]
}

fn layer() -> impl Strategy<Value = Layer> {
    let action = prop_oneof![
        right().prop_map(Action::Permit),
        right().prop_map(|right| Action::Block { right, errno: Errno::EACCES }),
        Just(Action::Continue),
    ];
    let flags = (option::weighted(0.2, any::<bool>()), option::weighted(0.2, any::<bool>()));
    prop_oneof![
        (1..=SERVICES).prop_map(|service| Layer::Redirect { service: ServiceId(service) }),
        (1..=SUBLAYERS, flags, action).prop_map(|(sublayer, (redirected, proxied), action)| {
            let flags = FlagConditions { redirected, proxied };
            Layer::Auth(AuthRule { sublayer: SublayerId(sublayer), flags, action })
        }),
    ]
}

fn policy() -> impl Strategy<Value = Policy> {
    vec((0_u64..4, conditions(), layer()), 0..48).prop_map(|filters| {
        let service = |id| Service {
            id: ServiceId(id),
            name: format!("s{id}"),
            before: Vec::new(),
            after: Vec::new(),
            on_failure: FailurePolicy::Closed,
        };
        let sublayer = |id| Sublayer { id: SublayerId(id), name: format!("l{id}"), weight: (id % 2) as u16 };
        let filter =
            |(id, (weight, conditions, layer))| Filter { id: FilterId(id), weight, conditions, layer };
        Policy::new(
            (1..=SERVICES).map(service).collect(),
            (1..=SUBLAYERS).map(sublayer).collect(),
            (1..).zip(filters).map(filter).collect(),
        )
        .unwrap()
    })
}

prop_compose! {
    fn facts()(
        protocol in protocol(),
        remote in address(),
        remote_port in 0_u16..6,
        exe in file(),
        uid in 0_u32..2,
        cgroup in 0_u64..2,
        via_exe in file(),
    ) -> Facts {
        let application = ProcessFacts { exe, uid, cgroups: vec![cgroup], ..ProcessFacts::default() };
        let via = ProcessFacts { exe: via_exe, ..ProcessFacts::default() };
        Facts { protocol, remote: normal_form(remote), remote_port, local: None, application, via }
    }
}

fn leg(facts: &Facts, flags: Flags) -> Leg {
    let remote = SocketAddr::from((facts.remote, facts.remote_port));
    let origin = Origin {
        exe_device: facts.application.exe.device,
        exe_inode: facts.application.exe.inode,
        uid: facts.application.uid,
        cgroup: facts.application.cgroups[0],
        reserved: 0,
    };
    let caller = abi::Process {
        exe_device: facts.via.exe.device,
        exe_inode: facts.via.exe.inode,
        ..abi::Process::default()
    };
    let protocol = match facts.protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
    };
    let (redirected, proxied) = (flags.redirected.into(), flags.proxied.into());
    Leg { remote: remote.into(), caller, origin, caller_slot: u32::MAX, protocol, redirected, proxied }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(5_000))]

    #[test]
    fn the_headers_choose_what_the_tables_choose(policy in policy(), facts in facts(), skip: u64) {
        let tables = Tables::compile(&policy).unwrap();
        let bytes = encode(&tables, &[]).unwrap();
        prop_assert_eq!(
            classify_redirect(&bytes, &leg(&facts, Flags::default()), skip),
            tables.classify_redirect(&facts, skip)
        );
    }

    #[test]
    fn the_headers_block_what_the_tables_block(policy in policy(), facts in facts(), redirected: bool, proxied: bool) {
        let flags = Flags { redirected, proxied };
        let tables = Tables::compile(&policy).unwrap();
        let bytes = encode(&tables, &[]).unwrap();
        let ours = match tables.classify_auth(&facts, flags) {
            AuthOutcome::Block { filter, .. } => Some(filter.0),
            AuthOutcome::Permit(_) => None,
        };
        prop_assert_eq!(classify_auth(&bytes, &leg(&facts, flags)).map(|index| bytes.auth[index].id), ours);
    }
}
