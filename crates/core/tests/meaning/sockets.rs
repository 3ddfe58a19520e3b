//! What becomes of sockets and destinations that no service can stand in for.

use std::net::SocketAddr;

use waylay_core::{
    Cgroups, CommandName, Conditions, Confinement, FileId, Filter, ForeignNamespace, Namespace, NewSocket,
    Policy, PortRange, Process, ProcessConditions, Protocol, Records, Refusal, Sandboxes, ServiceId,
    SocketKind, SocketOwner, SocketReach, SocketVerdict, Unredirectable, Verdict, World, decide,
    decide_socket,
};

use crate::fixtures::*;

const TCP: SocketKind = SocketKind { family: 2, socket_type: 1, protocol: 6 };
const UDP_LITE: SocketKind = SocketKind { family: 10, socket_type: 2, protocol: 136 };
const PACKET: SocketKind = SocketKind { family: 17, socket_type: 3, protocol: 0 };
const VSOCK: SocketKind = SocketKind { family: 40, socket_type: 1, protocol: 0 };
const REFUSED: SocketVerdict = SocketVerdict::Refuse(Refusal::Unredirectable);

fn judge(policy: &Policy, socket: &NewSocket) -> SocketVerdict {
    decide_socket(policy, socket, &Cgroups::default())
}

fn socket(kind: SocketKind) -> NewSocket {
    let (owner, namespace, confinement) = (SocketOwner::Process, Namespace::Own, Confinement::Free);
    NewSocket { kind, maker: app(), owner, namespace, confinement }
}

fn with(conditions: Conditions) -> Policy {
    policy(vec![service(1, OPEN)], vec![], vec![Filter { conditions, ..redirect(101, 1) }])
}

#[test]
fn only_tcp_multipath_tcp_and_udp_can_be_redirected() {
    let kind = |family, socket_type, protocol| SocketKind { family, socket_type, protocol };
    for family in [2, 10] {
        for (socket_type, protocol) in [(1, 6), (1, 262), (2, 17)] {
            assert_eq!(kind(family, socket_type, protocol).reach(), SocketReach::Redirectable);
        }
        // ICMP, raw TCP, raw UDP, raw IP, UDP-Lite, SCTP, SMC, a stream of UDP that there is none of.
        for (socket_type, protocol) in
            [(2, 1), (2, 58), (3, 6), (3, 17), (3, 255), (2, 136), (1, 132), (5, 132), (1, 256), (1, 17)]
        {
            assert_eq!(kind(family, socket_type, protocol).reach(), SocketReach::Unredirectable);
        }
    }
    for family in [0, 1, 15, 16, 38] {
        assert_eq!(kind(family, 2, 0).reach(), SocketReach::Local);
    }
    for family in [17, 21, 29, 30, 31, 40, 41, 43, 44, 45, 200] {
        assert_eq!(kind(family, 1, 0).reach(), SocketReach::Unredirectable);
    }
}

#[test]
fn what_cannot_be_redirected_is_refused_unless_the_policy_permits_it() {
    let policy = services_for_all(&[OPEN]);
    for kind in [UDP_LITE, PACKET, VSOCK] {
        assert_eq!(judge(&policy, &socket(kind)), REFUSED);
    }
    assert_eq!(judge(&policy, &socket(TCP)), SocketVerdict::Permit);
    let permitting = policy.with_unredirectable(Unredirectable::Permit);
    for kind in [UDP_LITE, PACKET, VSOCK] {
        assert_eq!(judge(&permitting, &socket(kind)), SocketVerdict::Permit);
    }
    assert_eq!(Refusal::Unredirectable.errno().to_string(), "EACCES");
}

#[test]
fn an_application_is_covered_by_what_filters_ask_about_it() {
    let about_destinations = Conditions {
        protocol: Some(Protocol::Tcp.into()),
        remote_ports: Some(PortRange::single(443).into()),
        ..Conditions::default()
    };
    assert_eq!(judge(&with(about_destinations), &socket(VSOCK)), REFUSED);
    let none = ProcessConditions::default;
    let asked = [
        ProcessConditions { uid: Some(app().uid.into()), ..none() },
        ProcessConditions { gid: Some(app().gid.into()), ..none() },
        ProcessConditions { exe: Some(app().exe.into()), ..none() },
        ProcessConditions { command: Some(app().command.into()), ..none() },
        ProcessConditions { cgroup: Some(app().cgroup.into()), ..none() },
    ];
    let of_application = |application| Conditions { application, ..Conditions::default() };
    let of_caller = |via| Conditions { via, ..Conditions::default() };
    let command = CommandName::new("somebody else");
    let somebody_else = Process { uid: 7, gid: 7, command, exe: FileId::default(), cgroup: 7, ..app() };
    for conditions in asked.clone().map(of_application).into_iter().chain(asked.map(of_caller)) {
        let policy = with(conditions);
        assert_eq!(judge(&policy, &socket(VSOCK)), REFUSED);
        let theirs = NewSocket { maker: somebody_else, ..socket(VSOCK) };
        assert_eq!(judge(&policy, &theirs), SocketVerdict::Permit);
    }
    assert_eq!(judge(&Policy::default(), &socket(VSOCK)), SocketVerdict::Permit);
}

#[test]
fn services_and_the_kernel_make_what_they_like() {
    let policy = services_for_all(&[OPEN, CLOSED]);
    let of_a_service = NewSocket { maker: process_of(ServiceId(1)), ..socket(VSOCK) };
    assert_eq!(judge(&policy, &of_a_service), SocketVerdict::Permit);
    let of_a_stranger = NewSocket { maker: process_of(ServiceId(9)), ..socket(VSOCK) };
    assert_eq!(judge(&policy, &of_a_stranger), REFUSED);
    let of_the_kernel = NewSocket { owner: SocketOwner::Kernel, ..socket(UDP_LITE) };
    assert_eq!(judge(&policy, &of_the_kernel), SocketVerdict::Permit);
}

#[test]
fn of_a_foreign_namespace_are_those_sockets_that_are_of_one() {
    let policy = services_for_all(&[OPEN]);
    let elsewhere = |kind| NewSocket { namespace: Namespace::Foreign(7), ..socket(kind) };
    for kind in [UDP_LITE, PACKET] {
        assert_eq!(judge(&policy, &elsewhere(kind)), SocketVerdict::Permit);
    }
    // It reaches the same machines from everywhere.
    assert_eq!(judge(&policy, &elsewhere(VSOCK)), REFUSED);
    let blocking =
        policy.with_foreign_namespace(ForeignNamespace::Block).with_unredirectable(Unredirectable::Permit);
    let refused = SocketVerdict::Refuse(Refusal::ForeignNamespace);
    assert_eq!(judge(&blocking, &elsewhere(UDP_LITE)), refused);
    // Its connections will be.
    assert_eq!(judge(&blocking, &elsewhere(TCP)), SocketVerdict::Permit);
}

#[test]
fn datagrams_to_a_group_of_hosts_are_not_redirected_but_refused_or_permitted() {
    let policy = services_for_all(&[OPEN]);
    let permitting = policy.clone().with_unredirectable(Unredirectable::Permit);
    let world = all_available(&policy);
    let to = |address: &str, caller| {
        let mut leg = leg_to(caller, 53);
        (leg.protocol, leg.remote) = (Protocol::Udp, SocketAddr::new(address.parse().unwrap(), 53));
        leg
    };
    for group in ["224.0.0.251", "255.255.255.255", "::ffff:239.1.2.3", "ff02::fb"] {
        let leg = to(group, app());
        let refused = Verdict::Refuse(Refusal::Unredirectable);
        assert_eq!(decide(&policy, &leg, &Records::None, &world).verdict, refused);
        assert_eq!(decide(&permitting, &leg, &Records::None, &world).verdict, Verdict::Direct);
        // Nobody is after it.
        let of_a_service = to(group, process_of(ServiceId(1)));
        assert_eq!(decide(&policy, &of_a_service, &Records::None, &world).verdict, Verdict::Direct);
    }
    let verdict = decide(&policy, &to("192.0.2.255", app()), &Records::None, &World { ..world }).verdict;
    assert!(matches!(verdict, Verdict::Redirect { .. }));
}

#[test]
fn in_a_sandbox_nothing_is_redirected_that_others_could_be_a_way_around() {
    let policy = with(Conditions::default());
    let sandboxed = NewSocket { confinement: Confinement::Sandboxed, ..socket(PACKET) };
    assert_eq!(judge(&policy, &sandboxed), SocketVerdict::Permit);
    assert_eq!(judge(&policy.with_sandboxes(Sandboxes::Overridden), &sandboxed), REFUSED);
}
