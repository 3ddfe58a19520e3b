//! Flows of datagrams: what an application sees is what it would see without waylay, and every service sees them.

#![expect(clippy::unwrap_used, reason = "a failed set-up is a failed test")]

use std::process::Command;

use rustix::process::Signal;
use waylay_netlab::{
    CheckedBy, Family, Finished, Ground, Lines, Place, Process, Report, patiently, program, python,
};

const SERVER: &str = include_str!("../scripts/datagram_server.py");

/// What clients have in common: the server's address, its ports, and how to say what came.
const PRELUDE: &str = "
import errno, socket, struct, sys
host, echo, other, elsewhere, dns = sys.argv[1], *map(int, sys.argv[2:6])
family = socket.AF_INET6 if ':' in host else socket.AF_INET
def client():
    s = socket.socket(family, socket.SOCK_DGRAM)
    s.settimeout(20)
    return s
def shown(datagram, peer):
    return (len(datagram), datagram[:20], peer[0], {echo: 'echo', other: 'other'}.get(peer[1], 'another port'))
";

struct Server {
    ground: Ground,
    ports: Vec<String>,
    _process: Process,
    _lines: Lines,
}

impl Server {
    fn start(family: Family, place: Place) -> Self {
        let ground = Ground::new(family, place);
        let mut command = match ground.server_namespace() {
            Some(namespace) => namespace.command(python()),
            None => Command::new(python()),
        };
        let command = command.args(["-u", "-c", SERVER, &ground.server().to_string()]);
        let (process, lines) = Process::spawn_read(command);
        let ports = (0..4).map(|line| lines.wait_for_line(line)).collect();
        Self { ground, ports, _process: process, _lines: lines }
    }

    /// The client's command line; the server's address may be given in another form.
    fn client(&self, program: &str, host: Option<&str>) -> Vec<String> {
        let host = host.map_or_else(|| self.ground.server().to_string(), str::to_owned);
        let words = [python().to_owned(), "-u".into(), "-c".into(), format!("{PRELUDE}{program}"), host];
        words.into_iter().chain(self.ports.iter().cloned()).collect()
    }

    /// Runs it without waylay and through three services: what it prints must be the same.
    fn same(&self, program: &str, host: Option<&str>) -> Finished {
        let command = self.client(program, host);
        let mut plain = match self.ground.client_namespace() {
            Some(namespace) => namespace.command(python()),
            None => Command::new(python()),
        };
        let plain = plain.args(&command[1..]).output().unwrap();
        assert!(plain.status.success(), "{}", String::from_utf8_lossy(&plain.stderr));
        let watched = self.ground.waylay().through_logs(3).reporting().watch(&command).well();
        assert_eq!(watched.stdout, String::from_utf8(plain.stdout).unwrap());
        watched
    }
}

/// Every flow has been through all three services, in order, and each has seen as much.
fn assert_chains(finished: &Finished, flows: usize) {
    let seen = |service: &str| {
        let mut seen: Vec<_> = finished
            .reports_of(service)
            .into_iter()
            .map(|report: Report| {
                (report.original_destination, report.datagrams, report.bytes_to_application)
            })
            .collect();
        seen.sort();
        seen
    };
    assert_eq!(seen("log").len(), flows, "{finished:?}");
    for (service, chain) in
        [("log", &["log"][..]), ("log-2", &["log", "log-2"]), ("log-3", &["log", "log-2", "log-3"])]
    {
        assert_eq!(seen(service), seen("log"), "{finished:?}");
        for report in finished.reports_of(service) {
            assert_eq!(
                (report.chain, report.transport.as_deref()),
                (chain.iter().map(|name| (*name).to_owned()).collect(), Some("udp"))
            );
        }
    }
}

/// Of every size: none, one that is larger than a packet of the network, the largest there is.
const SIZES: &str = "
for connected in (True, False):
    s = client()
    if connected:
        s.connect((host, echo))
        print(s.getpeername()[0], s.getsockname()[0])
    for size in (5, 0, 1, 1472, 9000, 65507):
        sent = bytes(size % 251 for _ in range(size))
        s.send(sent) if connected else s.sendto(sent, (host, echo))
        datagram, peer = s.recvfrom(70000)
        assert datagram == sent
        print(connected, shown(datagram, peer))
";

#[test]
fn of_any_size_arrive_over_the_loopback() {
    for (family, host) in [(Family::V4, None), (Family::V6, None), (Family::V4, Some("::ffff:127.0.0.1"))] {
        let finished = Server::start(family, Place::Loopback).same(SIZES, host);
        assert_chains(&finished, 2);
        assert!(finished.reports().iter().all(|report| report.datagrams == Some((6, 6))), "{finished:?}");
    }
}

#[test]
fn of_any_size_arrive_over_a_network() {
    for (family, host) in [(Family::V4, None), (Family::V6, None), (Family::V4, Some("::ffff:10.77.0.2"))] {
        let finished = Server::start(family, Place::Veth).same(SIZES, host);
        assert_chains(&finished, 2);
    }
}

/// One socket, in turns to several destinations, and connected anew.
const SEVERAL: &str = "
s = client()
for turn in range(3):
    for port in (echo, other):
        s.sendto(b'turn %d to %d' % (turn, port == echo), (host, port))
        print(shown(*s.recvfrom(100)))
s.connect((host, other))
s.send(b'connected')
print(shown(*s.recvfrom(100)))
s.connect((host, echo))
s.send(b'elsewhere')
print(shown(*s.recvfrom(100)))
s.sendto(b'once', (host, other))
";

#[test]
fn of_one_socket_to_several_destinations_are_kept_apart() {
    for (family, place) in
        [(Family::V4, Place::Veth), (Family::V6, Place::Veth), (Family::V4, Place::Loopback)]
    {
        Server::start(family, place).same(SEVERAL, None);
    }
}

#[test]
fn that_answer_from_another_port_reach_a_socket_that_is_not_connected() {
    const CLIENT: &str = "
s = client()
s.sendto(b'where?', (host, elsewhere))
datagram, peer = s.recvfrom(100)
print(shown(datagram, peer), peer[1] != elsewhere)
for number in range(3):
    s.sendto(b'more %d' % number, peer)
    datagram, again = s.recvfrom(100)
    print(shown(datagram, again), again == peer)
";
    for family in [Family::V4, Family::V6] {
        for place in [Place::Loopback, Place::Veth] {
            let finished = Server::start(family, place).same(CLIENT, None);
            assert_chains(&finished, 2);
        }
    }
}

#[test]
fn that_nobody_takes_are_an_error_to_a_connected_socket() {
    const CLIENT: &str = "
s = client()
nobody = client()
nobody.bind((host if host.endswith('1') else '', 0))
port = nobody.getsockname()[1]
nobody.close()
s.connect((host, port))
s.send(b'anybody?')
try:
    print(s.recv(100))
except OSError as error:
    print(errno.errorcode[error.errno])
";
    for family in [Family::V4, Family::V6] {
        let finished = Server::start(family, Place::Veth).same(CLIENT, None);
        assert_eq!(finished.stdout, "ECONNREFUSED\n");
        let last = finished.report_of("log-3");
        assert_eq!(last.verdict, "unreachable", "{last:?}");
        assert!(last.error.unwrap().starts_with("ECONNREFUSED"));
    }
}

#[test]
fn that_come_after_a_while_are_announced_again() {
    let server = Server::start(Family::V4, Place::Loopback);
    let client = server.client(
        "
s = client()
s.connect((host, echo))
for line in sys.stdin:
    s.send(line.encode())
    print(s.recv(100))
",
        None,
    );
    let waylay = server.ground.waylay().args(["--idle", "1"]).through_logs(1).reporting();
    let mut running = waylay.spawn(&client);
    assert_eq!(running.ask("one"), "b'one\\n'");
    let first = patiently("a report", || running.reports().pop());
    assert_eq!(running.ask("two"), "b'two\\n'");
    let finished = running.finish().well();
    let reports = finished.reports();
    assert_eq!(reports.len(), 2, "{reports:?}");
    assert_eq!(reports[0], first);
    assert!(reports.iter().all(|report| report.datagrams == Some((1, 1))), "{reports:?}");
}

#[test]
fn of_a_service_that_is_killed_go_no_further() {
    let server = Server::start(Family::V4, Place::Loopback);
    let client = server.client(
        "
for line in sys.stdin:
    s = client()
    try:
        s.sendto(b'x', (host, echo))
        print(s.recv(100))
    except OSError as error:
        print(errno.errorcode.get(error.errno, error))
",
        None,
    );
    let mut running = server.ground.waylay().through_logs(2).reporting().spawn(&client);
    assert_eq!(running.ask("before"), "b'x'");
    let service = running.service("log");
    waylay_netlab::kill(service, Signal::KILL);
    patiently("the end of the service", || {
        (!std::path::Path::new(&format!("/proc/{service}")).exists()).then_some(())
    });
    let refused = patiently("a refusal", || Some(running.ask("after")).filter(|answer| answer != "b'x'"));
    assert_eq!(refused, "ECONNREFUSED");
}

#[test]
fn of_the_dns_are_reported_with_name_type_and_answer() {
    let server = Server::start(Family::V4, Place::Loopback);
    let finished = server.same(
        "
s = client()
s.connect((host, dns))
for number, name in enumerate((b'\\x07example\\x04test\\0', b'\\x07nowhere\\0')):
    s.send(struct.pack('>HHHHHH', number, 0x0100, 1, 0, 0, 0) + name + b'\\0\\x1c\\0\\1')
    print(len(s.recv(100)))
",
        None,
    );
    let report = finished.report_of("log-2");
    let query = |name: &str, rcode: &str| (name.to_owned(), "AAAA".to_owned(), Some(rcode.to_owned()));
    assert_eq!(report.queries, [query("example.test", "NOERROR"), query("nowhere", "NXDOMAIN")]);
    assert_eq!((report.protocol.as_str(), report.datagrams), ("dns", Some((2, 2))));
}

#[test]
fn of_quic_are_reported_with_the_host_that_is_asked_for() {
    let server = Server::start(Family::V4, Place::Loopback);
    let directory =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../crates/inspect/tests/packets");
    // Where an unprivileged user can read it.
    let packets = tempfile::tempdir().unwrap();
    std::fs::set_permissions(packets.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let packet = packets.path().join("packet");
    std::fs::copy(directory.join("aioquic-0"), &packet).unwrap();
    let program = format!(
        "
s = client()
s.connect((host, echo))
s.send(open({:?}, 'rb').read())
print(len(s.recv(2000)))
",
        packet.to_str().unwrap()
    );
    let report = server.same(&program, None).report_of("log-3");
    assert_eq!((report.protocol.as_str(), report.host.as_deref()), ("quic", Some("sni.example.test")));
}

/// A service in C, by WSARecvMsg and WSASendMsg. The flow that it does not know it would end over.
#[test]
fn carry_records_and_context_through_a_service_written_for_windows() {
    let server = Server::start(Family::V4, Place::Veth);
    let directory = tempfile::tempdir().unwrap();
    std::fs::set_permissions(directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let service = directory.path().join("forward");
    std::fs::copy(program("datagrams", &CheckedBy::Nothing), &service).unwrap();
    let client = server.client(
        "
for number in range(2):
    s = client()
    s.sendto(b'one', (host, echo))
    print(shown(*s.recvfrom(100)))
    s.sendto(b'two', (host, echo))
    print(shown(*s.recvfrom(100)))
",
        None,
    );
    let waylay = server.ground.waylay().args(["--through", &format!("exec/udp:{}", service.display())]);
    let finished = waylay.through_logs(1).reporting().watch(&client).well();
    let answered =
        format!("(3, b'one', '{0}', 'echo')\n(3, b'two', '{0}', 'echo')\n", server.ground.server());
    assert_eq!(finished.stdout, answered.repeat(2));
    let said: Vec<_> = finished.stderr.lines().filter_map(|line| line.strip_prefix("forward: ")).collect();
    assert_eq!(said, ["announced 48 520", "followed"].repeat(2), "{finished:?}");
    for report in finished.reports_of("log") {
        assert_eq!(report.chain, ["forward", "log"], "{report:?}");
    }
    assert_eq!(finished.reports_of("log").len(), 2, "{finished:?}");
}

/// A service in Rust with a task for each flow: examples/datagrams.rs, two of them around a log.
#[test]
fn of_each_flow_have_a_handler_in_a_service_made_with_the_library() {
    const CLIENT: &str = "
s = client()
s.sendto(b'where?', (host, elsewhere))
datagram, peer = s.recvfrom(100)
print(shown(datagram, peer), peer[1] != elsewhere)
s.sendto(b'more', peer)
print(shown(*s.recvfrom(100)))
for port in (echo, other, echo):
    s.sendto(b'', (host, port))
    print(shown(*s.recvfrom(100)))
c = client()
c.connect((host, echo))
c.send(bytes(65507))
print(shown(*c.recvfrom(70000)))
nobody = client()
nobody.bind((host if host.endswith('1') else '', 0))
port = nobody.getsockname()[1]
nobody.close()
c.connect((host, port))
c.send(b'anybody?')
try:
    print(c.recv(100))
except OSError as error:
    print(errno.errorcode[error.errno])
";
    let directory = tempfile::tempdir().unwrap();
    std::fs::set_permissions(directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let service = directory.path().join("datagrams");
    let built = waylay_netlab::Waylay::binary().with_file_name("datagrams");
    assert!(built.is_file(), "build it first: cargo build -p waylay-examples");
    std::fs::copy(built, &service).unwrap();
    let spec = format!("exec/udp:{}", service.display());
    for family in [Family::V4, Family::V6] {
        let server = Server::start(family, Place::Loopback);
        let client = server.client(CLIENT, None);
        let plain = Command::new(python()).args(&client[1..]).output().unwrap();
        let waylay =
            server.ground.waylay().args(["--through", &spec, "--through", "log", "--through", &spec]);
        let finished = waylay.reporting().watch(&client).well();
        assert_eq!(finished.stdout, String::from_utf8(plain.stdout).unwrap());
        let reports = finished.reports_of("log");
        assert!(reports.iter().all(|report| report.chain == ["datagrams", "log"]), "{reports:?}");
        // Three destinations and a port that answered of the first socket, two of the second.
        assert_eq!(reports.len(), 6, "{reports:?}");
    }
}
