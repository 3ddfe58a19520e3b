//! Whether a service can take a connection: its listeners, all of them, and
//! what becomes of those that wait for a service which does not come.
#![expect(clippy::unwrap_used, reason = "a failed set-up is a failed test")]

use std::{
    io::Write,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    thread,
    time::Duration,
};

use rustix::process::Signal;
use socket2::{Domain, Socket, Type};
use waylay_core::{
    Conditions, FailurePolicy, Filter, FilterId, Layer, Limit, Policy, Refusal, Service, ServiceId, Tables,
};
use waylay_engine::{Endpoint, Engine, Installation, MAX_LISTENERS};
use waylay_engine_ebpf::{EbpfError, Limits};
use waylay_netlab::{
    Dialled, Family, Ground, Lab, Place, Running, TcpServer, kill, patiently, python, stop, system_python,
    world_readable_file,
};

const ECONNREFUSED: i32 = 111;

fn policy(on_failure: FailurePolicy) -> Policy {
    let id = ServiceId(1);
    let service = Service { id, name: "s1".into(), before: Vec::new(), after: Vec::new(), on_failure };
    let everything = Filter {
        id: FilterId(1),
        weight: 0,
        conditions: Conditions::default(),
        layer: Layer::Redirect { service: id },
    };
    Policy::new(vec![service], Vec::new(), vec![everything]).unwrap()
}

/// So many of them.
fn listeners(count: usize, backlog: i32) -> Vec<TcpListener> {
    (0..count).map(|_| listener(backlog)).collect()
}

/// A listener whose backlog holds one connection more than `backlog`.
fn listener(backlog: i32) -> TcpListener {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
    socket.listen(backlog).unwrap();
    socket.into()
}

fn anywhere() -> SocketAddr {
    (Ipv4Addr::new(192, 0, 2, 1), 80).into()
}

fn accepted(listener: &TcpListener) -> usize {
    listener.set_nonblocking(true).unwrap();
    std::iter::from_fn(|| listener.accept().ok()).count()
}

mod a_set_of_listeners {
    use super::*;

    #[test]
    fn shares_the_connections() {
        let mut lab = Lab::new("set-shares", Limits::default());
        let listeners = lab.as_service(1, || listeners(4, 128));
        lab.install(&policy(FailurePolicy::Closed), vec![lab.endpoint(1, &listeners)]);
        assert_eq!(lab.dial("app", &[anywhere(); 100]), vec![Dialled::Connected(anywhere()); 100]);
        let shares: Vec<usize> = listeners.iter().map(accepted).collect();
        assert_eq!(shares.iter().sum::<usize>(), 100);
        assert!(shares.iter().all(|&share| share > 0), "{shares:?}");
    }

    #[test]
    fn refuses_only_once_all_are_full() {
        let mut lab = Lab::new("set-full", Limits::default());
        let listeners = lab.as_service(1, || listeners(3, 1));
        lab.install(&policy(FailurePolicy::Open), vec![lab.endpoint(1, &listeners)]);
        let answers = lab.dial("app", &[anywhere(); 8]);
        // A backlog of one holds two.
        assert_eq!(answers[..6], vec![Dialled::Connected(anywhere()); 6]);
        assert_eq!(answers[6..], vec![Dialled::Refused(ECONNREFUSED); 2]);
        assert_eq!(lab.refusals(), vec![Refusal::BacklogFull { service: ServiceId(1) }; 2]);
    }

    #[test]
    fn is_there_as_long_as_one_listens() {
        let mut lab = Lab::new("set-one", Limits::default());
        let mut listeners = lab.as_service(1, || listeners(4, 128));
        lab.install(&policy(FailurePolicy::Closed), vec![lab.endpoint(1, &listeners)]);
        listeners.truncate(1);
        assert_eq!(lab.dial("app", &[anywhere(); 20]), vec![Dialled::Connected(anywhere()); 20]);
        assert_eq!(accepted(&listeners[0]), 20);
        listeners.clear();
        assert_eq!(lab.dial("app", &[anywhere()]), [Dialled::Refused(ECONNREFUSED)]);
        assert_eq!(lab.refusals(), [Refusal::ServiceAbsent { service: ServiceId(1) }]);
    }

    fn install(lab: &mut Lab, endpoint: Endpoint) -> EbpfError {
        let tables = Tables::compile(&policy(FailurePolicy::Closed)).unwrap();
        lab.engine.install(&Installation { tables, endpoints: vec![endpoint] }).unwrap_err()
    }

    #[test]
    fn has_sixteen_listeners_of_one_address_at_most() {
        let mut lab = Lab::new("set-limits", Limits::default());
        let listeners = lab.as_service(1, || listeners(MAX_LISTENERS + 1, 1));
        let too_many = lab.endpoint(1, &listeners);
        let EbpfError::Limit(error) = install(&mut lab, too_many) else { panic!("it holds no more") };
        assert_eq!((error.limit, error.need, error.allowed), (Limit::Listeners, 17, 16));

        let elsewhere = TcpListener::bind((Ipv4Addr::new(127, 0, 0, 2), 0)).unwrap();
        let apart = lab.endpoint(1, [&listeners[0], &elsewhere]);
        assert!(matches!(install(&mut lab, apart), EbpfError::ListenersApart { service: ServiceId(1) }));
    }

    /// More connections at a time than there are local ports towards one listener.
    #[test]
    fn holds_more_connections_than_one_listener_has_ports() {
        let ground = Ground::new(Family::V4, Place::Veth);
        ground.client_namespace().unwrap().sysctl("net/ipv4/ip_local_port_range", "40000 40049");
        let run = ground.waylay().args(["--through", SLEEPER]).spawn(open_many(100));
        // One listener would hold 50.
        assert_eq!(run.stdout().wait_for("connected"), "100 connected, then None");
        run.finish().well();
    }
}

/// A service that has listeners and does not accept.
const SLEEPER: &str = "exec:sleep 1000";

const OPEN_MANY: &str = "
import socket, sys
kept, error = [], None
try:
    for _ in range(int(sys.argv[1])):
        kept.append(socket.create_connection(('192.0.2.1' if len(sys.argv) < 3 else sys.argv[2], 80), 10))
except OSError as failed:
    error = failed.errno
print(len(kept), 'connected, then', error, flush=True)
";

fn open_many(count: u32) -> Vec<String> {
    vec![
        python().to_owned(),
        "-c".to_owned(),
        OPEN_MANY.to_owned(),
        count.to_string(),
        "10.77.0.2".to_owned(),
    ]
}

#[test]
fn without_a_local_port_towards_the_service_a_connection_fails_and_nothing_gets_out() {
    let ground = Ground::new(Family::V4, Place::Veth);
    let client = ground.client_namespace().unwrap();
    client.sysctl("net/ipv4/ip_local_port_range", "40000 40009");
    // Whatever got out would be answered by the server's kernel with a reset.
    let run = ground.waylay().args(["--through", SLEEPER, "--on-failure", "open"]).spawn(open_many(80));
    let said = run.stdout().wait_for("connected");
    let (connected, errno) = said.split_once(" connected, then ").unwrap();
    // Each listener has the ten ports that nothing listens on; which one is picked is chance.
    assert!((1..=40).contains(&connected.parse::<u32>().unwrap()), "{said}");
    assert_eq!(errno, "99", "EADDRNOTAVAIL: {said}");
    run.finish().well();
}

mod a_hung_service {
    use super::*;

    fn greeter() -> TcpServer {
        TcpServer::start(Ipv4Addr::LOCALHOST.into(), |mut stream| stream.write_all(b"hello"))
    }

    fn dial(server: &TcpServer) -> String {
        format!("dial 127.0.0.1 {}", server.address().port())
    }

    fn through(spec: &str, on_failure: &str) -> Running {
        let args = ["--patience", "1", "--on-failure", on_failure, "--through", "log", "--through", spec];
        Ground::loopback().waylay().args(args).spawn_dialler()
    }

    fn ended(run: &Running) {
        run.stderr().wait_for("has taken no connection for 1 s while some waited; ending it");
        run.stderr().wait_for("ended with signal 9");
    }

    #[test]
    fn resets_who_waits_and_refuses_from_then_on_if_closed() {
        let server = greeter();
        let mut run = through(SLEEPER, "closed");
        let answer = run.ask(&dial(&server));
        assert!(answer.ends_with("ECONNRESET"), "{answer}");
        ended(&run);
        // The service before it is told, and resets the application.
        let answer = run.ask(&dial(&server));
        assert!(answer.ends_with("ECONNRESET"), "{answer}");
        assert_eq!(server.accepted(), 0);
        run.finish().well();
    }

    #[test]
    fn is_passed_from_then_on_if_open() {
        let server = greeter();
        let mut run = through(SLEEPER, "open");
        let answer = run.ask(&dial(&server));
        assert!(answer.ends_with("ECONNRESET"), "{answer}");
        ended(&run);
        patiently("a connection without it", || (run.ask(&dial(&server)) == "ok").then_some(()));
        run.finish().well();
    }

    #[test]
    fn that_was_stopped_is_noticed() {
        let server = greeter();
        let mut run = through("log", "closed");
        assert_eq!(run.ask(&dial(&server)), "ok");
        stop(run.service("log-2"));
        let answer = run.ask(&dial(&server));
        assert!(answer.ends_with("ECONNRESET"), "{answer}");
        ended(&run);
        run.finish().well();
    }

    /// Takes what comes by its first listener only, and answers by itself.
    const ONE_EAR: &str = "
import socket
first = socket.socket(fileno=3)
while True:
    stream = first.accept()[0]
    stream.getsockopt(0x5759, 220, 48)
    stream.sendall(b'hello')
    stream.close()
";

    #[test]
    fn that_serves_one_of_its_listeners_only_is_noticed() {
        let server = greeter();
        let script = world_readable_file("one_ear.py", ONE_EAR);
        let mut run = through(&format!("exec:{} {}", system_python(), script.path().display()), "closed");
        // Sooner or later one of the others is picked.
        patiently("a connection that waits", || (run.ask(&dial(&server)) != "ok").then_some(()));
        ended(&run);
        run.finish().well();
    }

    #[test]
    fn is_not_one_for_which_nobody_waits() {
        let server = greeter();
        let mut run = through("log", "closed");
        let service = run.service("log-2");
        stop(service);
        thread::sleep(Duration::from_millis(2500));
        kill(service, Signal::CONT);
        assert_eq!(run.ask(&dial(&server)), "ok");
        let finished = run.finish().well();
        assert!(!finished.stderr.contains("ending it"), "{finished:?}");
    }

    #[test]
    fn is_not_one_that_keeps_its_connections_for_long() {
        let server = TcpServer::start(Ipv4Addr::LOCALHOST.into(), |mut stream| {
            stream.write_all(b"hello")?;
            std::io::copy(&mut stream, &mut std::io::sink())?;
            Ok(())
        });
        let mut run = through("log", "closed");
        assert_eq!(run.ask(&format!("open 127.0.0.1 {}", server.address().port())), "ok");
        thread::sleep(Duration::from_millis(2500));
        let finished = run.finish().well();
        assert!(!finished.stderr.contains("ending it"), "{finished:?}");
    }
}
