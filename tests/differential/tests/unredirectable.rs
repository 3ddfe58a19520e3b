//! What cannot be redirected: the headers make of it what `waylay_core::Tables` makes, which is compared with
//! `decide_socket` in `waylay-core`.
#![expect(clippy::unwrap_used, reason = "a failed step is a failed test")]

use proptest::{collection::vec, option, prelude::*, sample::select};
use waylay_abi as abi;
use waylay_core::{
    Cgroups, Conditions, FailurePolicy, FileId, Filter, FilterId, ForeignNamespace, Layer, Leg as CoreLeg,
    Namespace, NewSocket, Policy, PortRange, Process, ProcessConditions, Protocol, Refusal, Service,
    ServiceId, SocketKind, SocketOwner, SocketVerdict, Tables, Unredirectable,
};
use waylay_differential::{Leg, Origin, is_group, judge_socket};
use waylay_engine_ebpf::encode;

const SERVICES: u32 = 3;

prop_compose! {
    fn conditions()(
        ports in option::weighted(0.3, Just(PortRange::single(443))),
        exe in option::weighted(0.3, file()),
        uid in option::weighted(0.3, 0_u32..2),
        cgroup in option::weighted(0.3, 0_u64..2),
        via_exe in option::weighted(0.3, file()),
    ) -> Conditions {
        Conditions {
            remote_ports: ports.map(Into::into),
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

fn file() -> impl Strategy<Value = FileId> {
    (0_u64..2).prop_map(|inode| FileId { device: 1, inode })
}

fn policy() -> impl Strategy<Value = Policy> {
    let filters = vec((conditions(), 1..=SERVICES), 0..6);
    (filters, any::<bool>(), any::<bool>()).prop_map(|(filters, block, foreign)| {
        let service = |id| Service {
            id: ServiceId(id),
            name: format!("s{id}"),
            before: Vec::new(),
            after: Vec::new(),
            on_failure: FailurePolicy::Closed,
        };
        let filter = |(id, (conditions, service))| {
            let layer = Layer::Redirect { service: ServiceId(service) };
            Filter { id: FilterId(id), weight: 0, conditions, layer }
        };
        let filters = (1..).zip(filters).map(filter).collect();
        Policy::new((1..=SERVICES).map(service).collect(), Vec::new(), filters)
            .unwrap()
            .with_unredirectable(if block { Unredirectable::Block } else { Unredirectable::Permit })
            .with_foreign_namespace(if foreign { ForeignNamespace::Block } else { ForeignNamespace::Permit })
    })
}

prop_compose! {
    fn process()(exe in file(), uid in 0_u32..2, cgroup in 0_u64..2, service in option::of(1..=SERVICES + 1)) -> Process {
        Process { pid: 1, start_time_ns: 0, uid, exe, cgroup, service: service.map(ServiceId), ..Process::default() }
    }
}

/// Every family there is, and every protocol of IP that anybody makes sockets of.
fn kind() -> impl Strategy<Value = SocketKind> {
    let ip = (select(vec![2, 10]), 1_u16..6, select(vec![0, 1, 6, 17, 33, 58, 132, 136, 255, 256, 262]));
    let any = (0_u16..50, 1_u16..6, Just(0));
    prop_oneof![ip, any].prop_map(|(family, socket_type, protocol)| SocketKind {
        family,
        socket_type,
        protocol,
    })
}

/// As the programs see who calls: a service by its slot.
fn caller(tables: &Tables, process: &Process) -> Leg {
    let service = process.service.and_then(|service| tables.service(service));
    Leg {
        caller: abi::Process {
            exe_device: process.exe.device,
            exe_inode: process.exe.inode,
            uid: process.uid,
            cgroup: process.cgroup,
            ..abi::Process::default()
        },
        origin: Origin {
            exe_device: process.exe.device,
            exe_inode: process.exe.inode,
            uid: process.uid,
            cgroup: process.cgroup,
            reserved: 0,
        },
        caller_slot: service.map_or(u32::MAX, |service| service.slot.into()),
        ..Leg::default()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(5_000))]

    #[test]
    fn sockets_are_to_the_headers_what_they_are_to_the_tables(policy in policy(), kind in kind(), maker in process(), foreign: bool) {
        let tables = Tables::compile(&policy).unwrap();
        let namespace = if foreign { Namespace::Foreign } else { Namespace::Own };
        let socket = NewSocket { kind, maker, owner: SocketOwner::Process, namespace };
        let expected = match tables.decide_socket(&socket, &Cgroups::default()) {
            SocketVerdict::Permit => 0,
            SocketVerdict::Refuse(Refusal::Unredirectable) => abi::Refusal::Unredirectable as u32,
            SocketVerdict::Refuse(Refusal::ForeignNamespace) => abi::Refusal::ForeignNamespace as u32,
            SocketVerdict::Refuse(other) => panic!("{other}"),
        };
        let arguments = [kind.family, kind.socket_type, kind.protocol];
        prop_assert_eq!(
            judge_socket(&encode(&tables, &[]).unwrap(), arguments, &caller(&tables, &maker), foreign),
            expected
        );
    }

    #[test]
    fn groups_of_hosts_are_the_same_to_both(four in any::<[u8; 4]>(), six in any::<[u8; 16]>(), narrow in 0_u8..4) {
        let narrowed = [[224, 0, 0, 251], [255; 4], [239, 255, 255, 255], [255, 255, 255, 254]];
        let four = if narrow == 0 { narrowed[usize::from(four[0] % 4)] } else { four };
        let six = if narrow == 1 { [&[0xff], &six[1..]].concat().try_into().unwrap() } else { six };
        for ip in [std::net::Ipv4Addr::from(four).to_ipv6_mapped(), six.into()] {
            let leg = CoreLeg {
                protocol: Protocol::Udp,
                local: None,
                remote: (ip, 1).into(),
                caller: Process { pid: 1, start_time_ns: 0, uid: 0, cgroup: 0, ..Process::default() },
            };
            prop_assert_eq!(is_group(ip.octets()), leg.is_to_a_group(), "{}", ip);
        }
    }
}
