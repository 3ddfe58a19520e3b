//! Flows of datagrams: what an application sees is what it would see without waylay, and every service sees them.

#![expect(clippy::unwrap_used, reason = "a failed set-up is a failed test")]

use rustix::process::Signal;
use waylay_netlab::{
    CheckedBy, Corner, Corners, Family, Finished, Lines, Process, Report, Waylay, patiently, program, python,
};

const SERVER: &str = include_str!("../scripts/datagram_server.py");

/// What clients have in common: each corner with the server's address and its ports, the same over IPv4-mapped addresses, and
/// how to say what came.
const PRELUDE: &str = "
import errno, json, socket, struct, sys
def towards(host):
    s = socket.socket(socket.AF_INET6 if ':' in host else socket.AF_INET, socket.SOCK_DGRAM)
    s.settimeout(20)
    return s
class Corner:
    def __init__(self, host, echo, other, elsewhere, dns):
        self.__dict__.update(host=host, echo=echo, other=other, elsewhere=elsewhere, dns=dns)
    def client(self):
        return towards(self.host)
    def shown(self, datagram, peer):
        port = {self.echo: 'echo', self.other: 'other'}.get(peer[1], 'another port')
        return len(datagram), datagram[:20], peer[0], port
    def ask_nobody(self, s):
        nobody = self.client()
        nobody.bind((self.host if self.host.endswith('1') else '', 0))
        port = nobody.getsockname()[1]
        nobody.close()
        s.connect((self.host, port))
        s.send(b'anybody?')
        try:
            print(s.recv(100))
        except OSError as error:
            print(errno.errorcode[error.errno])
corners = [Corner(*corner) for corner in json.loads(sys.argv[1])]
";
/// And of those that do the same in each.
const IN_EACH_CORNER: &str = "
for corner in corners:
    host, echo, other, elsewhere, dns = corner.host, corner.echo, corner.other, corner.elsewhere, corner.dns
    client, shown = corner.client, corner.shown
    exec(sys.argv[2])
";

/// Servers near and far, over IPv4 and IPv6.
struct Servers {
    corners: Corners,
    /// Corner by corner.
    ports: Vec<(Corner, Vec<u16>)>,
    _processes: Vec<(Process, Lines)>,
}

impl Servers {
    fn start() -> Self {
        let corners = Corners::new();
        let (mut ports, mut processes) = (Vec::new(), Vec::new());
        for corner in Corner::ALL {
            let mut command = corners.server(corner, python());
            let command = command.args(["-u", "-c", SERVER, &corner.server().to_string()]);
            let (process, lines) = Process::spawn_read(command);
            ports.push((corner, (0..4).map(|line| lines.wait_for_line(line).parse().unwrap()).collect()));
            processes.push((process, lines));
        }
        Self { corners, ports, _processes: processes }
    }

    /// Where clients go: address and ports. IPv4 also as mapped addresses, if that is asked for.
    fn destinations(&self, mapped: bool) -> Vec<(String, Vec<u16>)> {
        let plain = self.ports.iter().map(|(corner, ports)| (corner.server().to_string(), ports.clone()));
        let of_ipv4 = self.ports.iter().filter(|(corner, _)| mapped && corner.family == Family::V4);
        let mapped = of_ipv4.map(|(corner, ports)| (format!("::ffff:{}", corner.server()), ports.clone()));
        plain.chain(mapped).collect()
    }

    /// A client's command line: a program that has `corners`.
    fn client(&self, program: &str) -> Vec<String> {
        Self::command(&format!("{PRELUDE}{program}"), &self.destinations(false), None)
    }

    fn command(program: &str, destinations: &[(String, Vec<u16>)], each: Option<&str>) -> Vec<String> {
        let corners: Vec<Vec<serde_json::Value>> = destinations
            .iter()
            .map(|(host, ports)| {
                std::iter::once(host.as_str().into()).chain(ports.iter().map(|port| (*port).into())).collect()
            })
            .collect();
        let corners = serde_json::to_string(&corners).unwrap();
        let words = [python(), "-u", "-c", program, &corners].into_iter().chain(each);
        words.map(str::to_owned).collect()
    }

    /// Does the same in each corner, without waylay and through `waylay`: what is printed must be the same.
    fn same_through(&self, waylay: Waylay, program: &str) -> Finished {
        let whole = format!("{PRELUDE}{IN_EACH_CORNER}");
        let command = Self::command(&whole, &self.destinations(true), Some(program));
        let plain = self.corners.client(python()).args(&command[1..]).output().unwrap();
        assert!(plain.status.success(), "{}", String::from_utf8_lossy(&plain.stderr));
        let watched = waylay.reporting().watch(&command).well();
        assert_eq!(watched.stdout, String::from_utf8(plain.stdout).unwrap());
        watched
    }

    /// A first answer from far away takes as long as neighbours do to be found, which may be longer than a flow lasts.
    fn find_neighbours(&self) {
        let ask = "
for corner in corners:
    s = corner.client()
    s.sendto(b'there?', (corner.host, corner.echo))
    s.recv(100)
";
        let asked = self.corners.client(python()).args(&self.client(ask)[1..]).status().unwrap();
        assert!(asked.success());
    }

    /// Through three services, over mapped addresses too.
    fn same(&self, program: &str) -> Finished {
        self.same_through(self.corners.waylay().through_logs(3), program)
    }

    /// How many destinations [`same`](Self::same) has.
    const PLACES: usize = 6;
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
fn of_any_size_arrive() {
    let finished = Servers::start().same(SIZES);
    assert_chains(&finished, 2 * Servers::PLACES);
    assert!(finished.reports().iter().all(|report| report.datagrams == Some((6, 6))), "{finished:?}");
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
    Servers::start().same(SEVERAL);
}

/// What a socket is sent by need not be where it was bound (`IP_PKTINFO`).
#[test]
fn that_start_from_several_addresses_of_one_socket_are_of_one_flow() {
    const CLIENT: &str = "
s = client()
for source in ('127.0.0.1', '127.0.0.2', '127.0.0.1') if host == '127.0.0.1' else ():
    from_there = struct.pack('=i4s4s', 0, socket.inet_aton(source), bytes(4))
    s.sendmsg([source.encode()], [(socket.SOL_IP, 8, from_there)], 0, (host, echo))
    print(shown(*s.recvfrom(100)))
";
    let finished = Servers::start().same(CLIENT);
    for service in ["log", "log-2", "log-3"] {
        assert_eq!(finished.report_of(service).datagrams, Some((3, 3)), "{finished:?}");
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
    let finished = Servers::start().same(CLIENT);
    assert_chains(&finished, 2 * Servers::PLACES);
}

#[test]
fn that_nobody_takes_are_an_error_to_a_connected_socket() {
    const CLIENT: &str = "
s = client()
corner.ask_nobody(s)
";
    let finished = Servers::start().same(CLIENT);
    assert_eq!(finished.stdout, "ECONNREFUSED\n".repeat(Servers::PLACES));
    let last = finished.reports_of("log-3");
    assert_eq!(last.len(), Servers::PLACES, "{last:?}");
    for report in last {
        assert_eq!(report.verdict, "unreachable", "{report:?}");
        assert!(report.error.unwrap().starts_with("ECONNREFUSED"));
    }
}

#[test]
fn that_come_after_a_while_are_announced_again() {
    let servers = Servers::start();
    let client = servers.client(
        "
sockets = [corner.client() for corner in corners]
for corner, s in zip(corners, sockets):
    s.connect((corner.host, corner.echo))
for line in sys.stdin:
    for s in sockets:
        s.send(line.encode())
    print([s.recv(100) for s in sockets])
",
    );
    servers.find_neighbours();
    let waylay = servers.corners.waylay().args(["--idle", "1"]).through_logs(1).reporting();
    let mut running = waylay.spawn(&client);
    assert_eq!(running.ask("one"), r"[b'one\n', b'one\n', b'one\n', b'one\n']");
    let first = patiently("the reports", || Some(running.reports()).filter(|reports| reports.len() == 4));
    assert_eq!(running.ask("two"), r"[b'two\n', b'two\n', b'two\n', b'two\n']");
    let finished = running.finish().well();
    let reports = finished.reports();
    assert_eq!(reports.len(), 8, "{reports:?}");
    assert_eq!(reports[..4], first);
    assert!(reports.iter().all(|report| report.datagrams == Some((1, 1))), "{reports:?}");
}

#[test]
fn of_a_service_that_is_killed_go_no_further() {
    let servers = Servers::start();
    let client = servers.client(
        "
def sent(corner):
    s = corner.client()
    try:
        s.sendto(b'x', (corner.host, corner.echo))
        return s.recv(100)
    except OSError as error:
        return errno.errorcode.get(error.errno, error)
for line in sys.stdin:
    print(*map(sent, corners))
",
    );
    let mut running = servers.corners.waylay().through_logs(2).reporting().spawn(&client);
    assert_eq!(running.ask("before"), "b'x' b'x' b'x' b'x'");
    let service = running.service("log");
    waylay_netlab::kill(service, Signal::KILL);
    patiently("the end of the service", || {
        (!std::path::Path::new(&format!("/proc/{service}")).exists()).then_some(())
    });
    let refused =
        patiently("refusals", || Some(running.ask("after")).filter(|answer| !answer.contains("b'x'")));
    assert_eq!(refused, "ECONNREFUSED ECONNREFUSED ECONNREFUSED ECONNREFUSED");
}

#[test]
fn of_the_dns_are_reported_with_name_type_and_answer() {
    let finished = Servers::start().same(
        "
s = client()
s.connect((host, dns))
for number, name in enumerate((b'\\x07example\\x04test\\0', b'\\x07nowhere\\0')):
    s.send(struct.pack('>HHHHHH', number, 0x0100, 1, 0, 0, 0) + name + b'\\0\\x1c\\0\\1')
    print(len(s.recv(100)))
",
    );
    let reports = finished.reports_of("log-2");
    assert_eq!(reports.len(), Servers::PLACES, "{reports:?}");
    let query = |name: &str, rcode: &str| (name.to_owned(), "AAAA".to_owned(), Some(rcode.to_owned()));
    for report in reports {
        assert_eq!(report.queries, [query("example.test", "NOERROR"), query("nowhere", "NXDOMAIN")]);
        assert_eq!((report.protocol.as_str(), report.datagrams), ("dns", Some((2, 2))));
    }
}

#[test]
fn of_quic_are_reported_with_the_host_that_is_asked_for() {
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
    let reports = Servers::start().same(&program).reports_of("log-3");
    assert_eq!(reports.len(), Servers::PLACES, "{reports:?}");
    for report in reports {
        assert_eq!((report.protocol.as_str(), report.host.as_deref()), ("quic", Some("sni.example.test")));
    }
}

/// A service in C, by WSARecvMsg and WSASendMsg, for IPv4. The flow that it does not know it would end over.
#[test]
fn carry_records_and_context_through_a_service_written_for_windows() {
    let servers = Servers::start();
    let directory = tempfile::tempdir().unwrap();
    std::fs::set_permissions(directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let service = directory.path().join("forward");
    std::fs::copy(program("datagrams", &CheckedBy::Nothing), &service).unwrap();
    let client = servers.client(
        "
for corner in corners:
    for number in range(2 if ':' not in corner.host else 0):
        s = corner.client()
        for said in b'one', b'two':
            s.sendto(said, (corner.host, corner.echo))
            print(corner.shown(*s.recvfrom(100)))
",
    );
    let through = format!("exec/udp:{}", service.display());
    let waylay = servers.corners.waylay().args(["--through", &through]);
    let finished = waylay.through_logs(1).reporting().watch(&client).well();
    let answered = |host| format!("(3, b'one', '{host}', 'echo')\n(3, b'two', '{host}', 'echo')\n").repeat(2);
    assert_eq!(finished.stdout, answered("127.0.0.1") + &answered("10.77.0.2"));
    let said: Vec<_> = finished.stderr.lines().filter_map(|line| line.strip_prefix("forward: ")).collect();
    assert_eq!(said, ["announced 48 520", "followed"].repeat(4), "{finished:?}");
    for report in finished.reports_of("log") {
        assert_eq!(report.chain, ["forward", "log"], "{report:?}");
    }
    assert_eq!(finished.reports_of("log").len(), 4, "{finished:?}");
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
corner.ask_nobody(c)
";
    let directory = tempfile::tempdir().unwrap();
    std::fs::set_permissions(directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let service = directory.path().join("datagrams");
    let built = waylay_netlab::Waylay::binary().with_file_name("datagrams");
    assert!(built.is_file(), "build it first: cargo build -p waylay-examples");
    std::fs::copy(built, &service).unwrap();
    let spec = format!("exec/udp:{}", service.display());
    let servers = Servers::start();
    let waylay = servers.corners.waylay().args(["--through", &spec, "--through", "log", "--through", &spec]);
    let finished = servers.same_through(waylay, CLIENT);
    let reports = finished.reports_of("log");
    assert!(reports.iter().all(|report| report.chain == ["datagrams", "log"]), "{reports:?}");
    // Three destinations and a port that answered of the first socket, two of the second.
    assert_eq!(reports.len(), 6 * Servers::PLACES, "{reports:?}");
}

/// Each is looked at by itself. What is stopped is seen by the service behind: it does not get there.
#[test]
fn in_which_a_pattern_is_go_no_further_nor_do_those_after_them() {
    const CLIENT: &str = "
s = client()
s.connect((host, echo))
s.send(b'harmless')
print(s.recv(100))
s.send(b'a needle')
s.send(b'harmless again')
a = client()
a.sendto(b'hay', (host, elsewhere))
a.sendto(b'straw', (host, elsewhere))
print(shown(*a.recvfrom(100)))
";
    let servers = Servers::start();
    let patterns = ["--pattern", "needle", "--pattern", "elsewhere: hay"];
    let waylay = servers.corners.waylay().args(["--through", "scan", "--through", "log"]).args(patterns);
    let finished = waylay
        .reporting()
        .watch(Servers::command(
            &format!("{PRELUDE}{IN_EACH_CORNER}"),
            &servers.destinations(true),
            Some(CLIENT),
        ))
        .well();
    let answers = finished.stdout.lines().collect::<Vec<_>>();
    assert_eq!(answers.len(), 2 * Servers::PLACES, "{finished:?}");
    for answered in answers.chunks(2) {
        assert_eq!(answered[0], "b'harmless'");
        assert!(answered[1].contains("b'from elsewhere: stra'"), "{answered:?}");
    }
    let scanned = finished.reports_of("scan");
    for (pattern, direction, datagrams) in
        [("needle", "to-destination", (1, 1)), ("elsewhere: hay", "to-application", (0, 0))]
    {
        let stopped = scanned.iter().filter(|report| report.pattern.as_deref() == Some(pattern));
        assert_eq!(stopped.clone().count(), Servers::PLACES, "{scanned:?}");
        for report in stopped {
            let is = (report.verdict.as_str(), report.direction.as_deref(), report.datagrams);
            assert_eq!(is, ("stopped", Some(direction), Some(datagrams)), "{report:?}");
        }
    }
    let arrived = finished.reports_of("log").into_iter().filter(|report| report.datagrams == Some((1, 1)));
    assert_eq!(arrived.filter(|report| report.bytes_to_destination == 8).count(), Servers::PLACES);
}

/// To all hosts of the loopback's network and of the other, which no service can stand in for; and what TCP gets there.
const BROADCASTS: &str = "
import errno, socket
def said(do):
    try:
        return do()
    except OSError as error:
        return errno.errorcode[error.errno]
for family, before in (socket.AF_INET, ''), (socket.AF_INET6, '::ffff:'):
    for network in '127.255.255.255', '10.77.0.255':
        server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        server.bind(('0.0.0.0', 0))
        server.settimeout(1)
        to = (before + network, server.getsockname()[1])
        for wish in 0, 1:
            s = socket.socket(family, socket.SOCK_DGRAM)
            s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, wish)
            print(said(lambda: s.sendto(b'sent', to)), said(lambda: s.connect(to)), said(lambda: s.send(b'on')))
        print(said(lambda: socket.socket(family).connect(to)))
        for _ in range(2):
            try:
                print(server.recv(9))
            except TimeoutError:
                print('nothing')
";

#[test]
fn to_all_hosts_of_a_network_are_no_more_redirected_than_those_to_all_of_any() {
    const NETWORKS: usize = 4;
    let corners = Corners::new();
    let command = [python(), "-c", BROADCASTS];
    let plain = corners.client(command[0]).args(&command[1..]).output().unwrap();
    let plain = String::from_utf8(plain.stdout).unwrap();
    let refused = "EACCES EACCES EDESTADDRREQ\n";
    let sent = format!("{refused}4 None 2\nENETUNREACH\nb'sent'\nb'on'\n");
    assert_eq!(plain, sent.repeat(NETWORKS));
    let through =
        |how| corners.waylay().through_logs(1).args(["--unredirectable", how]).watch(command).well();
    let permitted = through("permit");
    assert_eq!(permitted.stdout, plain, "{permitted:?}");
    let blocked = through("block");
    let nothing = format!("{}ENETUNREACH\nnothing\nnothing\n", refused.repeat(2));
    assert_eq!(blocked.stdout, nothing.repeat(NETWORKS), "{blocked:?}");
    assert_eq!(blocked.stderr.matches("it cannot be redirected").count(), 4 * NETWORKS, "{blocked:?}");
}
