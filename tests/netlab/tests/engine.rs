//! Every verdict of the policy, carried out by the kernel on real connects.
#![expect(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    process::Command,
};

use socket2::{Domain, Socket, Type};
use waylay_core::{
    Action, AuthRule, Change, Conditions, Errno, FailurePolicy, Filter, FilterId, FlagConditions, Layer,
    Policy, PortRange, Prefix, Refusal, Right, Service, ServiceId, Sublayer, SublayerId, Tables,
};
use waylay_engine::{Endpoint, Engine, Installation, Liveness};
use waylay_engine_ebpf::{EbpfError, Limits};
use waylay_netlab::{Dialled, Lab, one_service};

const LOAD: &str = env!("CARGO_BIN_EXE_netlab-load");

const EACCES: i32 = 13;
const ENOBUFS: i32 = 105;
const ECONNREFUSED: i32 = 111;

fn listener4() -> TcpListener {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()
}

fn anywhere() -> SocketAddr {
    (Ipv4Addr::new(192, 0, 2, 1), 80).into()
}

fn service(id: u32, on_failure: FailurePolicy) -> Service {
    Service { id: ServiceId(id), name: format!("s{id}"), before: Vec::new(), after: Vec::new(), on_failure }
}

fn redirect(id: u32, service: u32) -> Filter {
    let layer = Layer::Redirect { service: ServiceId(service) };
    Filter { id: FilterId(id), weight: 0, conditions: Conditions::default(), layer }
}

#[test]
fn a_leg_goes_to_the_service_and_the_application_sees_what_it_asked_for() {
    let mut lab = Lab::new("redirect", Limits::default());
    let listener = lab.as_service(1, listener4);
    lab.install(&one_service(FailurePolicy::Closed), vec![lab.endpoint(1, [&listener])]);
    assert_eq!(lab.dial("app", &[anywhere()]), [Dialled::Connected(anywhere())]);
    listener.accept().unwrap();
}

#[test]
fn ipv6_goes_to_the_ipv6_listener_and_mapped_to_the_ipv4_one() {
    let mut lab = Lab::new("families", Limits::default());
    let six = || TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).unwrap();
    let (four, six) = lab.as_service(1, || (listener4(), six()));
    let endpoint = Endpoint { tcp6: lab.endpoint(1, [&six]).tcp6, ..lab.endpoint(1, [&four]) };
    lab.install(&one_service(FailurePolicy::Closed), vec![endpoint]);
    let mapped = SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1).to_ipv6_mapped(), 80));
    let real = SocketAddr::from((Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1), 80));
    assert_eq!(lab.dial("app", &[mapped, real]), [Dialled::Connected(mapped), Dialled::Connected(real)]);
    four.accept().unwrap();
    six.accept().unwrap();
}

#[test]
fn an_absent_service_refuses_if_closed_and_is_passed_if_open() {
    let server = listener4();
    let address = server.local_addr().unwrap();
    let mut lab = Lab::new("absent", Limits::default());
    let gone = lab.endpoint(1, [&lab.as_service(1, listener4)]);
    lab.install(&one_service(FailurePolicy::Closed), vec![gone]);
    assert_eq!(lab.dial("app", &[address]), [Dialled::Refused(ECONNREFUSED)]);
    assert_eq!(lab.refusals(), [Refusal::ServiceAbsent { service: ServiceId(1) }]);

    let mut open = Lab::new("absent-open", Limits::default());
    let gone = open.endpoint(1, [&open.as_service(1, listener4)]);
    open.install(&one_service(FailurePolicy::Open), vec![gone]);
    assert_eq!(open.dial("app", &[address]), [Dialled::Connected(address)]);
    server.accept().unwrap();
}

#[test]
fn a_service_marked_dead_is_absent_although_it_listens() {
    let mut lab = Lab::new("dead", Limits::default());
    let listener = lab.as_service(1, listener4);
    lab.install(&one_service(FailurePolicy::Closed), vec![lab.endpoint(1, [&listener])]);
    lab.engine.set_liveness(ServiceId(1), Liveness::Dead).unwrap();
    assert_eq!(lab.dial("app", &[anywhere()]), [Dialled::Refused(ECONNREFUSED)]);
}

#[test]
fn a_full_backlog_refuses_even_under_open() {
    let mut lab = Lab::new("backlog", Limits::default());
    let listener = lab.as_service(1, || {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
        socket.listen(1).unwrap();
        TcpListener::from(socket)
    });
    lab.install(&one_service(FailurePolicy::Open), vec![lab.endpoint(1, [&listener])]);
    // A backlog of one holds two; from then on there is no room.
    let answers = lab.dial("app", &[anywhere(); 4]);
    let (connected, refused) = (Dialled::Connected(anywhere()), Dialled::Refused(ECONNREFUSED));
    assert_eq!(answers, [&connected, &connected, &refused, &refused].map(Clone::clone));
    assert!(lab.refusals().contains(&Refusal::BacklogFull { service: ServiceId(1) }));
}

#[test]
fn without_room_for_a_flow_nothing_leaves() {
    let mut lab = Lab::new("flows", Limits { flows: 1, flows_per_cgroup: 1, ..Limits::default() });
    let (listener, server) = (lab.as_service(1, listener4), listener4());
    lab.install(&one_service(FailurePolicy::Open), vec![lab.endpoint(1, [&listener])]);
    let destination = server.local_addr().unwrap();
    let answers = lab.dial("app", &[destination, destination]);
    assert_eq!(answers, [Dialled::Connected(destination), Dialled::Refused(ENOBUFS)]);
    // The first ends when the service has closed it too, and gives its place back.
    drop(listener.accept().unwrap());
    assert_eq!(lab.dial("app", &[destination]), [Dialled::Connected(destination)]);
    drop(listener.accept().unwrap());
    server.set_nonblocking(true).unwrap();
    assert!(server.accept().is_err(), "a connection reached the destination uninspected");
    assert_eq!(lab.engine.flow_count().unwrap(), 0);
}

#[test]
fn one_cgroup_cannot_take_the_flows_of_another() {
    let mut lab = Lab::new("share", Limits { flows: 8, flows_per_cgroup: 1, ..Limits::default() });
    let listener = lab.as_service(1, listener4);
    lab.install(&one_service(FailurePolicy::Open), vec![lab.endpoint(1, [&listener])]);
    let answers = lab.dial("app", &[anywhere(), anywhere()]);
    assert_eq!(answers, [Dialled::Connected(anywhere()), Dialled::Refused(ENOBUFS)]);
}

#[test]
fn a_listener_is_reached_through_the_engine_only() {
    let mut lab = Lab::new("dialled", Limits::default());
    let listener = lab.as_service(1, listener4);
    lab.install(&one_service(FailurePolicy::Closed), vec![lab.endpoint(1, [&listener])]);
    let port = listener.local_addr().unwrap().port();
    let mapped = SocketAddr::from((Ipv4Addr::LOCALHOST.to_ipv6_mapped(), port));
    let answers = lab.dial("app", &[listener.local_addr().unwrap(), mapped]);
    assert_eq!(answers, [Dialled::Refused(ECONNREFUSED), Dialled::Refused(ECONNREFUSED)]);
    assert_eq!(lab.refusals(), [Refusal::ListenerDialled { service: ServiceId(1) }; 2]);
}

/// A service that died leaves its entry in the registry until its run ends, and its port to anybody.
#[test]
fn a_port_is_whose_listener_it_is_now() {
    let (mut before, mut now) =
        (Lab::new("port-before", Limits::default()), Lab::new("port-now", Limits::default()));
    let listener = before.as_service(1, listener4);
    let address = listener.local_addr().unwrap();
    before.install(&one_service(FailurePolicy::Open), vec![before.endpoint(1, [&listener])]);
    drop(listener);
    let listener = now.as_service(1, || TcpListener::bind(address).unwrap());
    now.install(&one_service(FailurePolicy::Open), vec![now.endpoint(1, [&listener])]);
    assert_eq!(now.dial("app", &[address]), [Dialled::Refused(ECONNREFUSED)]);
    assert_eq!(now.dial("app", &[anywhere()]), [Dialled::Connected(anywhere())]);
    drop(before);
    assert_eq!(now.dial("app", &[address]), [Dialled::Refused(ECONNREFUSED)]);
}

#[test]
fn a_leg_that_leaves_a_service_without_records_goes_past_it_and_those_before() {
    let mut lab = Lab::new("forgetful", Limits::default());
    let (first, second) = (lab.as_service(1, listener4), lab.as_service(2, listener4));
    let server = listener4();
    let services = vec![service(1, FailurePolicy::Closed), service(2, FailurePolicy::Closed)];
    let policy = Policy::new(services, Vec::new(), vec![redirect(1, 1), redirect(2, 2)]).unwrap();
    lab.install(&policy, vec![lab.endpoint(1, [&first]), lab.endpoint(2, [&second])]);
    let destination = server.local_addr().unwrap();
    lab.dial("svc-1", &[destination]);
    second.accept().unwrap();
    lab.dial("svc-2", &[destination]);
    server.accept().unwrap();
}

fn auth(id: u32, conditions: Conditions, flags: FlagConditions, action: Action) -> Filter {
    let layer = Layer::Auth(AuthRule { sublayer: SublayerId(1), flags, action });
    Filter { id: FilterId(id), weight: u64::from(100 - id), conditions, layer }
}

#[test]
fn the_auth_layer_blocks_with_the_errno_the_filter_names() {
    let mut lab = Lab::new("auth", Limits::default());
    let listener = lab.as_service(1, listener4);
    let port =
        |port| Conditions { remote_ports: Some(PortRange::single(port).into()), ..Conditions::default() };
    let net = Prefix::new(Ipv4Addr::new(198, 51, 100, 0).into(), 24).unwrap();
    let redirected = FlagConditions { redirected: Some(true), proxied: None };
    let errno = |number| Action::Block { right: Right::Hard, errno: Errno::new(number).unwrap() };
    let filters = vec![
        redirect(1, 1),
        auth(2, port(25), FlagConditions::default(), Action::BLOCK),
        auth(3, port(26), redirected, errno(101)),
        auth(4, port(443), FlagConditions::default(), Action::PERMIT),
        auth(
            5,
            Conditions { remote: Some(net.into()), ..Conditions::default() },
            FlagConditions::default(),
            errno(113),
        ),
    ];
    let sublayer = Sublayer { id: SublayerId(1), name: "auth".into(), weight: 1 };
    let policy = Policy::new(vec![service(1, FailurePolicy::Closed)], vec![sublayer], filters).unwrap();
    lab.install(&policy, vec![lab.endpoint(1, [&listener])]);
    let at = |ip: [u8; 4], port| SocketAddr::from((ip, port));
    let asked = [
        at([192, 0, 2, 1], 25),
        at([192, 0, 2, 1], 26),
        at([198, 51, 100, 7], 80),
        at([198, 51, 100, 7], 443),
        at([192, 0, 2, 1], 80),
    ];
    let expected = [
        Dialled::Refused(EACCES),
        Dialled::Refused(101),
        Dialled::Refused(113),
        Dialled::Connected(asked[3]),
        Dialled::Connected(asked[4]),
    ];
    assert_eq!(lab.dial("app", &asked), expected);
}

#[test]
fn a_reload_takes_the_next_connect() {
    let mut lab = Lab::new("reload", Limits::default());
    let (listener, server) = (lab.as_service(1, listener4), listener4());
    let destination = server.local_addr().unwrap();
    lab.install(&one_service(FailurePolicy::Closed), vec![lab.endpoint(1, [&listener])]);
    lab.dial("app", &[destination]);
    listener.accept().unwrap();
    let nothing = Tables::compile(&Policy::new(Vec::new(), Vec::new(), Vec::new()).unwrap()).unwrap();
    lab.engine.install(&Installation { tables: nothing, endpoints: Vec::new() }).unwrap();
    lab.dial("app", &[destination]);
    server.accept().unwrap();
}

/// What it has put down before it failed is taken back: nobody listens for a service that did not come.
#[test]
fn an_installation_that_fails_admits_nobody() {
    let mut lab = Lab::new("fails", Limits::default());
    let listener = lab.as_service(1, listener4);
    lab.install(&one_service(FailurePolicy::Closed), vec![lab.endpoint(1, [&listener])]);
    let (second, third) = (lab.as_service(2, listener4), lab.as_service(3, listener4));
    let elsewhere = lab.as_service(3, || TcpListener::bind((Ipv4Addr::new(127, 0, 0, 2), 0)).unwrap());
    let services = (1..4).map(|id| service(id, FailurePolicy::Closed)).collect();
    let policy = Policy::new(services, Vec::new(), (1..4).map(|id| redirect(id, id)).collect()).unwrap();
    let endpoints =
        vec![lab.endpoint(1, [&listener]), lab.endpoint(2, [&second]), lab.endpoint(3, [&third, &elsewhere])];
    assert!(matches!(lab.reload(&policy, endpoints), Err(EbpfError::ListenersApart { .. })));
    // Dialled by name it is a destination like any other, and led to the service there is.
    let dialled = second.local_addr().unwrap();
    assert_eq!(lab.dial("app", &[dialled]), [Dialled::Connected(dialled)]);
    assert_eq!(lab.refusals(), []);
    listener.accept().unwrap();
}

/// One policy redirects by the last of three thousand filters, the other blocks by its only one. With the one's filters and the other's
/// absence of them a connection would get out.
#[test]
fn no_connect_sees_half_a_policy_while_it_is_replaced() {
    let mut lab = Lab::new("half", Limits::default());
    let (listener, server) = (lab.as_service(1, roomy_listener), listener4());
    let endpoints = vec![lab.endpoint(1, [&listener])];
    let elsewhere = |id| Filter {
        conditions: Conditions {
            remote: Some(Prefix::host(Ipv4Addr::from_bits(0x0a00_0000 + id).into()).into()),
            ..Conditions::default()
        },
        ..redirect(id, 1)
    };
    let many = (1..3000).map(elsewhere).chain([redirect(3000, 1)]).collect();
    let redirects = Policy::new(vec![service(1, FailurePolicy::Closed)], Vec::new(), many).unwrap();
    let unreachable = Action::Block { right: Right::Hard, errno: Errno::ENETUNREACH };
    let block = auth(1, Conditions::default(), FlagConditions::default(), unreachable);
    let sublayer = Sublayer { id: SublayerId(1), name: "auth".into(), weight: 1 };
    let blocks = Policy::new(vec![service(1, FailurePolicy::Closed)], vec![sublayer], vec![block]).unwrap();
    lab.install(&redirects, endpoints.clone());
    std::thread::spawn(move || listener.incoming().for_each(drop));

    let reload = |lab: &mut Lab| {
        lab.reload(&blocks, endpoints.clone()).unwrap();
        lab.reload(&redirects, endpoints.clone()).unwrap();
    };
    dial_meanwhile(&mut lab, &server, reload);
}

/// The same where only what differs is written, and the whole stays.
#[test]
fn no_connect_sees_half_a_change_of_filters() {
    let mut lab = Lab::new("half-a-change", Limits::default());
    let (listener, server) = (lab.as_service(1, roomy_listener), listener4());
    let endpoints = vec![lab.endpoint(1, [&listener])];
    let conditions = |id| Conditions {
        remote: Some(Prefix::host(Ipv4Addr::from_bits(0x0a00_0000 + id).into()).into()),
        ..Conditions::default()
    };
    let elsewhere = |id| Filter { conditions: conditions(id), ..redirect(id, 1) };
    let many = (1..3000).map(elsewhere).chain([redirect(3000, 1)]).collect();
    let sublayer = Sublayer { id: SublayerId(1), name: "auth".into(), weight: 1 };
    let policy = Policy::new(vec![service(1, FailurePolicy::Closed)], vec![sublayer], many).unwrap();
    lab.install(&policy, endpoints.clone());
    std::thread::spawn(move || listener.incoming().for_each(drop));

    let unreachable = Action::Block { right: Right::Hard, errno: Errno::ENETUNREACH };
    let block = auth(1, Conditions::default(), FlagConditions::default(), unreachable);
    let block = Filter { id: FilterId(4000), ..block };
    let slots = lab.engine.slots().unwrap();
    let redirects = Tables::compile_keeping(&policy, slots).unwrap();
    let blocks = Change { removed: vec![FilterId(3000)], added: vec![block] };
    let blocks = redirects.change(&blocks).unwrap();
    let again = Change { removed: vec![FilterId(4000)], added: vec![redirect(3000, 1)] };
    let again = blocks.change(&again).unwrap();
    assert!(blocks.share_whole_with(&redirects) && again.share_whole_with(&redirects));
    assert!(blocks.is_amended() && again.is_amended());
    let change = |lab: &mut Lab| {
        for tables in [&redirects, &blocks, &again, &blocks] {
            let installation = Installation { tables: tables.clone(), endpoints: endpoints.clone() };
            lab.engine.install(&installation).unwrap();
        }
    };
    dial_meanwhile(&mut lab, &server, change);
}

/// With room for all that is dialled at a time, however slowly it is accepted.
fn roomy_listener() -> TcpListener {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
    socket.listen(4096).unwrap();
    socket.into()
}

/// While rules that redirect and rules that block take turns, nobody gets to the server.
fn dial_meanwhile(lab: &mut Lab, server: &TcpListener, mut replace: impl FnMut(&mut Lab)) {
    let (procs, destination) = (lab.procs("app"), server.local_addr().unwrap().to_string());
    let dial = || {
        let mut dialling = Command::new("sh");
        dialling.args(["-c", "echo $$ > \"$0\"; exec \"$@\""]).arg(&procs).args([LOAD, "dial"]);
        dialling.args(std::iter::repeat_n(&destination, 1000));
        std::thread::spawn(move || String::from_utf8(dialling.output().unwrap().stdout).unwrap())
    };
    let (mut redirected, mut blocked) = (0, 0);
    while redirected + blocked < 3000 || redirected == 0 || blocked == 0 {
        let dialling = dial();
        while !dialling.is_finished() {
            replace(lab);
        }
        for line in dialling.join().unwrap().lines() {
            match line.split(' ').nth(1) {
                Some("connected") => redirected += 1,
                _ if line.ends_with(" errno 101") => blocked += 1,
                _ => panic!("{line}: {:?}", lab.engine.events(std::time::Duration::ZERO)),
            }
        }
    }
    server.set_nonblocking(true).unwrap();
    assert_eq!(server.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock, "one got out");
}

#[test]
fn a_service_that_comes_back_is_absent_until_it_is_said_to_be_alive() {
    let mut lab = Lab::new("comes-back", Limits::default());
    let listener = lab.as_service(1, listener4);
    let endpoints = vec![lab.endpoint(1, [&listener])];
    lab.install(&one_service(FailurePolicy::Closed), endpoints.clone());
    let slots = Tables::compile(&one_service(FailurePolicy::Closed)).unwrap().slots().clone();
    let mut install = |policy: &Policy| {
        let tables = Tables::compile_keeping(policy, slots.clone()).unwrap();
        lab.engine.install(&Installation { tables, endpoints: endpoints.clone() }).unwrap();
    };
    install(&Policy::default());
    install(&one_service(FailurePolicy::Closed));
    assert_eq!(lab.dial("app", &[anywhere()]), [Dialled::Refused(ECONNREFUSED)]);
}

#[test]
fn a_service_that_a_reload_has_removed_dials_as_anybody() {
    let mut lab = Lab::new("removed", Limits::default());
    let (listener, server) = (lab.as_service(1, listener4), listener4());
    lab.install(&one_service(FailurePolicy::Closed), vec![lab.endpoint(1, [&listener])]);
    let from_services = FlagConditions { redirected: None, proxied: Some(true) };
    let sublayer = Sublayer { id: SublayerId(1), name: "auth".into(), weight: 1 };
    let block = auth(1, Conditions::default(), from_services, Action::BLOCK);
    let policy = |services, filters| Policy::new(services, vec![sublayer.clone()], filters).unwrap();
    let slots = Tables::compile(&one_service(FailurePolicy::Closed)).unwrap().slots().clone();
    let mut dial = |policy: &Policy| {
        let tables = Tables::compile_keeping(policy, slots.clone()).unwrap();
        lab.engine.install(&Installation { tables, endpoints: Vec::new() }).unwrap();
        lab.dial("svc-1", &[server.local_addr().unwrap()])
    };
    let still_there = policy(vec![service(1, FailurePolicy::Closed)], vec![block.clone()]);
    assert_eq!(dial(&still_there), [Dialled::Refused(EACCES)]);
    let removed = policy(Vec::new(), vec![block]);
    assert_eq!(dial(&removed), [Dialled::Connected(server.local_addr().unwrap())]);
}

#[test]
fn another_network_namespace_is_left_alone() {
    let mut lab = Lab::new("netns", Limits::default());
    let listener = lab.as_service(1, listener4);
    lab.install(&one_service(FailurePolicy::Closed), vec![lab.endpoint(1, [&listener])]);
    let procs = lab.procs("app");
    let output = Command::new("sh")
        .args(["-c", "echo $$ > \"$0\"; exec unshare --net -- \"$@\""])
        .arg(procs)
        .args([LOAD, "dial", &anywhere().to_string()])
        .output()
        .unwrap();
    // Nothing is up there, so it is the namespace itself that answers.
    assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("{} errno 101\n", anywhere()));
    assert_eq!(lab.refusals(), []);
}
