//! Flows whose end no program is told of, because a program of somebody else has switched the kernel's callbacks off.

#![expect(clippy::unwrap_used, reason = "a failed set-up is a failed test")]

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    path::Path,
    time::Duration,
};

use libbpf_rs::{
    MapCore, MapFlags, MapHandle,
    query::{ProgInfoIter, ProgInfoQueryOptions},
};
use rustix::process::Signal;
use socket2::{Domain, Protocol, Socket, Type};
use waylay::query_redirect_records;
use waylay_core::{FailurePolicy, ServiceId};
use waylay_engine::Endpoint;
use waylay_engine_ebpf::{Hook, Limits, hooked};
use waylay_netlab::{Foreign, Ground, Instance, Lab, Programs, kill, one_service, patiently, stop};

const COUNT: usize = 20;

fn switch_callbacks_off(cgroup: &Path) {
    Foreign::SOCK_OPS.attach_with(cgroup, "somebodys", &["no-callbacks"]);
}

/// A lab in which callbacks are off, with the listeners of its only service.
fn lab(name: &str) -> (Lab, TcpListener, TcpListener) {
    let mut lab = Lab::new(name, Limits::default());
    let (four, six) = lab.as_service(1, || {
        let four = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        (four, TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).unwrap())
    });
    lab.install(&one_service(FailurePolicy::Closed), vec![lab.endpoint(1, [&four, &six])]);
    switch_callbacks_off(&lab.cgroup(None));
    (lab, four, six)
}

/// Half of them over IPv6, some by multipath TCP.
fn dial(lab: &Lab) -> Vec<Socket> {
    let connect = |number| {
        let address: SocketAddr = match number % 2 {
            0 => (Ipv4Addr::new(192, 0, 2, 1), 80).into(),
            _ => (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1), 80).into(),
        };
        let mptcp = (number % 4 == 0).then_some(Protocol::MPTCP);
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, mptcp).unwrap();
        socket.connect(&address.into()).unwrap();
        socket
    };
    lab.as_application(|| (0..COUNT).map(connect).collect())
}

#[test]
fn of_connections_that_were_never_accepted_are_swept_up() {
    let (mut lab, four, six) = lab("leaks");
    let applications = dial(&lab);
    drop((four, six, applications));
    assert_eq!(lab.engine.flow_count().unwrap(), COUNT, "nothing leaks any more");
    let sweeper = lab.engine.flow_sweeper().unwrap();
    // Those that are younger than one sweep are not judged by it.
    sweeper.sweep().unwrap();
    assert_eq!(lab.engine.flow_count().unwrap(), COUNT);
    sweeper.sweep().unwrap();
    assert_eq!(lab.engine.flow_count().unwrap(), 0);
    // Nobody waits for the service either.
    let progress = lab.engine.progress_reader().unwrap().of(ServiceId(1)).unwrap();
    assert!(progress.iter().all(|listener| listener.waiting == 0), "{progress:?}");
}

/// As the service would find them, were it to accept them.
#[test]
fn of_connections_that_were_reset_while_they_waited_are_swept_up() {
    let (mut lab, _four, _six) = lab("resets");
    for application in dial(&lab) {
        application.set_linger(Some(Duration::ZERO)).unwrap();
    }
    let sweeper = lab.engine.flow_sweeper().unwrap();
    (0..2).for_each(|_| sweeper.sweep().unwrap());
    assert_eq!(lab.engine.flow_count().unwrap(), 0);
    let progress = lab.engine.progress_reader().unwrap().of(ServiceId(1)).unwrap();
    assert!(progress.iter().all(|listener| listener.waiting == 0), "{progress:?}");
}

/// Flows are counted by cgroup, and there is room for so many cgroups at a time.
#[test]
fn of_cgroups_that_are_gone_are_swept_up() {
    let limits = Limits { cgroups: 2, datagram_idle: Duration::ZERO, ..Limits::default() };
    let mut lab = Lab::new("cgroups", limits);
    let (tcp, udp) = lab.as_service(1, || {
        let udp = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        (TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap(), udp)
    });
    let port = udp.local_addr().unwrap().port();
    lab.install(
        &one_service(FailurePolicy::Closed),
        vec![Endpoint { udp4: Some(port), ..lab.endpoint(1, [&tcp]) }],
    );
    let sweeper = lab.engine.flow_sweeper().unwrap();
    let destination = (Ipv4Addr::new(192, 0, 2, 1), 80);
    let use_both = |cgroup: &str| {
        lab.inside(cgroup, || {
            let sent = UdpSocket::bind("0.0.0.0:0").unwrap().send_to(b"x", destination).is_ok();
            (TcpStream::connect(destination).is_ok(), sent)
        })
    };
    for generation in 0..3 {
        let cgroups = ["app/one", "app/two"].map(|name| (name, lab.cgroup(Some(name))));
        for (name, path) in &cgroups {
            std::fs::create_dir(path).unwrap();
            assert_eq!(use_both(name), (true, true), "{name} of generation {generation}");
        }
        // No more at a time: what cannot be counted is refused.
        assert_eq!(use_both("app-2"), (false, false));
        cgroups.iter().for_each(|(_, path)| std::fs::remove_dir(path).unwrap());
        (0..2).for_each(|_| drop(tcp.accept().unwrap()));
        (0..4).for_each(|_| sweeper.sweep().unwrap());
    }
}

#[test]
fn are_all_that_is_swept_up() {
    let (mut lab, four, six) = lab("no-leaks");
    let sweeper = lab.engine.flow_sweeper().unwrap();
    let sweep = || (0..4).for_each(|_| sweeper.sweep().unwrap());
    let applications = dial(&lab);
    // They wait in the backlog.
    sweep();
    assert_eq!(lab.engine.flow_count().unwrap(), COUNT);
    let all =
        |listener: &TcpListener| -> Vec<_> { (0..COUNT / 2).map(|_| listener.accept().unwrap().0).collect() };
    let accepted: Vec<_> = all(&four).into_iter().chain(all(&six)).collect();
    sweep();
    // Their applications have gone, but what they sent has not been read.
    drop(applications);
    sweep();
    assert_eq!(lab.engine.flow_count().unwrap(), COUNT);
    for stream in &accepted {
        query_redirect_records(stream).unwrap();
    }
    drop(accepted);
    patiently("the end", || (lab.engine.flow_count().unwrap() == 0).then_some(()));
}

/// How many flows a run has, as root can see.
fn flows_of(run: &Instance) -> usize {
    let hooked = hooked(run.cgroup()).unwrap();
    let connect = hooked.iter().find(|hooked| hooked.hook == Hook::Inet4Connect).unwrap();
    let ours = |id| connect.programs.iter().any(|program| program.id == id);
    let programs = ProgInfoIter::with_query_opts(ProgInfoQueryOptions::default().include_map_ids(true));
    let maps = programs.filter(|program| ours(program.id)).flat_map(|program| program.map_ids);
    let mut maps = maps.map(|id| MapHandle::from_map_id(id).unwrap());
    let cells = maps.find(|map| map.name() == "cells").unwrap();
    let taken = cells.lookup(&0_u32.to_ne_bytes(), MapFlags::ANY).unwrap().unwrap();
    taken.iter().map(|byte| byte.count_ones() as usize).sum()
}

#[test]
fn of_a_run_are_swept_up_while_it_lasts() {
    let programs = Programs::new();
    let dial = format!(
        "echo ready; read go; {} dial {}; read end; true",
        programs.path("netlab-load"),
        "192.0.2.1:80 ".repeat(COUNT)
    );
    let mut run = Ground::loopback()
        .waylay()
        .args(["--through", "log", "--patience", "600"])
        .spawn(["sh", "-c", &dial]);
    // Not before the service is: the command is started after it.
    assert_eq!(run.answer(), "ready");
    let instance = run.instance();
    // It takes nothing, so that all of them wait.
    let service = run.service("log");
    stop(service);
    switch_callbacks_off(instance.cgroup());
    run.tell("go");
    run.stdout().wait_for_line(COUNT);
    kill(service, Signal::KILL);
    patiently("the end of the service", || instance.has_ended("svc-log").then_some(()));
    patiently("the sweep", || (flows_of(&instance) == 0).then_some(()));
    assert!(run.is_running());
    run.finish().well();
}
