//! What cannot be redirected: the headers make of it what `waylay_core::Tables` makes, which is compared with
//! `decide_socket` in `waylay-core`.
#![expect(clippy::unwrap_used, reason = "a failed step is a failed test")]

use proptest::{collection::vec, option, prelude::*, sample::select};
use waylay_abi as abi;
use waylay_core::{
    Cgroups, Change, CommandName, Conditions, Confinement, FailurePolicy, FileId, Filter, FilterId,
    ForeignNamespace, Layer, Leg, Namespace, NewSocket, OneOf, Policy, PortRange, Process, ProcessConditions,
    Protocol, Refusal, Sandboxes, Service, ServiceId, SocketKind, SocketOwner, SocketVerdict, Tables,
    Unredirectable,
};
use waylay_differential::{Who, Words, is_group, judge_socket};
use waylay_engine_ebpf::encode;

const SERVICES: u32 = 3;

prop_compose! {
    fn conditions()(
        ports in option::weighted(0.3, Just(PortRange::single(443))),
        application in processes(),
        via in processes(),
    ) -> Conditions {
        Conditions { remote_ports: ports.map(Into::into), application, via, ..Conditions::default() }
    }
}

prop_compose! {
    fn processes()(
        exe in sometimes(file()),
        uid in sometimes(0_u32..2),
        gid in sometimes(0_u32..2),
        command in sometimes(command()),
        cgroup in sometimes(1_u64..5),
    ) -> ProcessConditions {
        ProcessConditions { exe, uid, gid, command, cgroup }
    }
}

fn sometimes<T: std::fmt::Debug>(
    values: impl Strategy<Value = T>,
) -> impl Strategy<Value = Option<OneOf<T>>> {
    let list = (vec(values, 0..3), any::<bool>());
    let list =
        list.prop_map(|(list, negated)| if negated { OneOf::none_of(list) } else { OneOf::these(list) });
    option::weighted(0.25, list)
}

fn command() -> impl Strategy<Value = CommandName> {
    select(vec![CommandName::new("curl"), CommandName::new("ping")])
}

fn file() -> impl Strategy<Value = FileId> {
    (0_u64..2).prop_map(|inode| FileId { device: 1, inode })
}

fn policy() -> impl Strategy<Value = Policy> {
    let filters = vec((conditions(), 1..=SERVICES), 0..7);
    (filters, any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
        |(filters, block, foreign, overridden)| {
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
                .with_foreign_namespace(if foreign {
                    ForeignNamespace::Block
                } else {
                    ForeignNamespace::Permit
                })
                .with_sandboxes(if overridden { Sandboxes::Overridden } else { Sandboxes::Stay })
        },
    )
}

/// Some filters stay, and another policy's take the places of the others.
fn change(policy: &Policy, others: &Policy, stay: &[bool]) -> Change {
    let goes = |filter: &&Filter| !stay[filter.id.0 as usize - 1];
    let removed = policy.filters().iter().filter(goes).map(|filter| filter.id).collect();
    Change { removed, added: others.filters().iter().filter(goes).cloned().collect() }
}

prop_compose! {
    fn process()(
        exe in file(),
        uid in 0_u32..2,
        gid in 0_u32..2,
        command in command(),
        cgroup in 1_u64..5,
        service in option::of(1..=SERVICES + 1),
    ) -> Process {
        Process { pid: 1, start_time_ns: 0, uid, gid, command, exe, cgroup, service: service.map(ServiceId) }
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

/// As the programs see who calls.
fn who(process: &Process, cgroups: &Cgroups) -> Who {
    let mut who = Who {
        exe_device: process.exe.device,
        exe_inode: process.exe.inode,
        uid: process.uid,
        gid: process.gid,
        ..Who::default()
    };
    who.command.iter_mut().zip(process.command.as_bytes()).for_each(|(to, from)| *to = *from);
    let lineage = cgroups.lineage(process.cgroup);
    who.lineage.iter_mut().zip(lineage.iter().rev()).for_each(|(to, from)| *to = *from);
    who
}

fn slot(tables: &Tables, process: &Process) -> u32 {
    process
        .service
        .and_then(|service| tables.service(service))
        .map_or(u32::MAX, |service| service.slot.into())
}

/// Cgroup 3 is below 2, and that below 1.
fn cgroups() -> Cgroups {
    Cgroups::new([(3, 2), (2, 1)])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(5_000))]

    #[test]
    fn sockets_are_to_the_headers_what_they_are_to_the_tables(
        policy in policy(),
        others in policy(),
        stay in vec(any::<bool>(), 6),
        kind in kind(),
        maker in process(),
        foreign: bool,
        sandboxed: bool,
    ) {
        let tables = Tables::compile(&policy).unwrap();
        let tables = tables.change(&change(&policy, &others, &stay)).unwrap();
        let namespace = if foreign { Namespace::Foreign(7) } else { Namespace::Own };
        let confinement = if sandboxed { Confinement::Sandboxed } else { Confinement::Free };
        let socket = NewSocket { kind, maker, owner: SocketOwner::Process, namespace, confinement };
        let cgroups = cgroups();
        let expected = match tables.decide_socket(&socket, &cgroups) {
            SocketVerdict::Permit => 0,
            SocketVerdict::Refuse(Refusal::Unredirectable) => abi::Refusal::Unredirectable as u32,
            SocketVerdict::Refuse(Refusal::ForeignNamespace) => abi::Refusal::ForeignNamespace as u32,
            SocketVerdict::Refuse(other) => panic!("{other}"),
        };
        let arguments = [kind.family, kind.socket_type, kind.protocol];
        let amendments = tables.amendments().map(|index| index.words()).unwrap_or_default();
        let words = Words::new(tables.index().words(), amendments);
        let maker = (&who(&maker, &cgroups), slot(&tables, &maker));
        prop_assert_eq!(judge_socket(&encode(&tables, &[]), &words, arguments, maker, [foreign, sandboxed]), expected);
    }

    #[test]
    fn groups_of_hosts_are_the_same_to_both(four in any::<[u8; 4]>(), six in any::<[u8; 16]>(), narrow in 0_u8..4) {
        let narrowed = [[224, 0, 0, 251], [255; 4], [239, 255, 255, 255], [255, 255, 255, 254]];
        let four = if narrow == 0 { narrowed[usize::from(four[0] % 4)] } else { four };
        let six = if narrow == 1 { [&[0xff], &six[1..]].concat().try_into().unwrap() } else { six };
        for ip in [std::net::Ipv4Addr::from(four).to_ipv6_mapped(), six.into()] {
            let leg = Leg {
                protocol: Protocol::Udp,
                local: None,
                remote: (ip, 1).into(),
                caller: Process { pid: 1, start_time_ns: 0, uid: 0, cgroup: 0, ..Process::default() },
            };
            prop_assert_eq!(is_group(ip.octets()), leg.is_to_a_group(), "{}", ip);
        }
    }
}
