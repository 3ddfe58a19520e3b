//! Datagrams through proxies of the TPROXY kind, which answer from sockets that they bind to where a datagram was going.

use std::net::IpAddr;

use waylay_netlab::{
    Family, Finished, Ground, Home, Lines, Namespace, Other, Place, Process, Proxies, WorldReadable,
    free_port, system_python, world_readable_file,
};

/// How many answers come of each datagram.
const SERVE: &str = "
import select, socket, sys
family = socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET
ports = [socket.socket(family, socket.SOCK_DGRAM) for _ in range(2)]
for port in ports: port.bind((sys.argv[1], 0))
print(*(port.getsockname()[1] for port in ports), flush=True)
while True:
    for port in select.select(ports, [], [])[0]:
        data, peer = port.recvfrom(65535)
        for number in range(3):
            port.sendto(b'%d %d %d' % (port.getsockname()[1], number, len(data)), peer)
";

/// Twenty-five datagrams and three answers to each, on eight flows of sockets that are not connected and four of such that are.
pub(crate) const ASK: &str = "
import socket, sys
host, ports = sys.argv[1], [int(port) for port in sys.argv[2:]]
def made(port=None):
    one = socket.socket(socket.AF_INET6 if ':' in host else socket.AF_INET, socket.SOCK_DGRAM)
    one.settimeout(10)
    if port: one.connect((host, port))
    return one
unconnected, connected = [made() for _ in range(4)], [(made(port), port) for port in ports + ports]
for size in range(1, 26):
    for one in unconnected:
        for port in ports:
            one.sendto(b'x' * size, (host, port))
            for number in range(3):
                answer, peer = one.recvfrom(100)
                assert (answer, peer[:2]) == (b'%d %d %d' % (port, number, size), (host, port)), (size, answer, peer)
    for one, port in connected:
        one.send(b'x' * size)
        for number in range(3):
            answer = one.recv(100)
            assert answer == b'%d %d %d' % (port, number, size), (size, answer)
print('all of them')
";

/// The server of a test, and the ports of it.
pub(crate) fn serve(ground: &Ground) -> (Process, Lines, Vec<String>) {
    serve_at(ground.server(), ground.server_namespace())
}

pub(crate) fn serve_at(host: IpAddr, namespace: Option<&Namespace>) -> (Process, Lines, Vec<String>) {
    let mut server = match namespace {
        Some(namespace) => namespace.command(system_python()),
        None => std::process::Command::new(system_python()),
    };
    let (process, lines) = Process::spawn_read(server.args(["-u", "-c", SERVE, &host.to_string()]));
    let ports = lines.wait_for_line(0).split(' ').map(str::to_owned).collect();
    (process, lines, ports)
}

/// Each datagram arrives and each answer, and the services around the proxy see a flow for each socket and destination.
fn pass(name: &str, spec: &str, ground: &Ground) -> Finished {
    let (_server, _lines, ports) = serve(ground);
    let host = ground.server().to_string();
    let ask = [system_python(), "-c", ASK, &host, &ports[0], &ports[1]];
    let through = ["--through", "log", "--through", spec, "--through", "log"];
    let finished = ground.waylay().args(through).reporting().watch(ask).well();
    assert_eq!(finished.stdout, "all of them\n", "{finished:?}");
    let reports = finished.reports_of("log-2");
    assert_eq!(reports.len(), 12, "{finished:?}");
    for report in reports {
        assert_eq!(report.chain, ["log", name, "log-2"]);
        assert_eq!(report.original_destination.ip(), host.parse::<IpAddr>().unwrap());
        assert!(report.application.contains("python"), "{report:?}");
    }
    finished
}

fn pass_sing_box(place: Place) {
    let ground = Ground::new(Family::V4, place);
    let proxies = Proxies::new(ground.client_namespace());
    pass("sing-box", &proxies.spec_of(Other::SingBoxTproxy), &ground);
}

#[test]
fn pass_sing_box_to_another_host() {
    pass_sing_box(Place::Veth);
}

#[test]
fn pass_sing_box_on_the_loopback() {
    pass_sing_box(Place::Loopback);
}

/// A proxy that does with its sockets what is said, and where it listens.
pub(crate) struct One {
    program: WorldReadable,
    how: &'static str,
    pub(crate) port: u16,
}

impl One {
    pub(crate) fn that(how: &'static str) -> Self {
        let program = world_readable_file("proxy.py", include_str!("../../scripts/tproxy_proxy.py"));
        Self { program, how, port: free_port() }
    }

    pub(crate) fn command(&self) -> String {
        format!("{} -u {} {} {}", system_python(), self.program.path().display(), self.port, self.how)
    }

    /// The same for IPv6, told likewise.
    pub(crate) fn told_over_ipv6(&self) -> String {
        format!("proxy=adopt/udp+packet:[::]:{}={} ipv6", self.port, self.command())
    }

    fn spec(&self, which: &str) -> String {
        format!("proxy=adopt/udp+tproxy:0.0.0.0:{}{which}", self.port)
    }

    pub(crate) fn started(&self) -> String {
        self.spec(&format!("={}", self.command()))
    }

    /// The same, which is told in datagrams where these were going.
    pub(crate) fn told(&self) -> String {
        format!("proxy=adopt/udp+packet:0.0.0.0:{}={}", self.port, self.command())
    }
}

#[test]
fn pass_a_proxy_that_sends_from_where_the_datagrams_were_going() {
    pass("proxy", &One::that("sends").started(), &Ground::new(Family::V4, Place::Veth));
}

/// The first is refused to be connected, and from then on they are bound to the token itself.
#[test]
fn pass_a_proxy_that_connects_what_it_answers_from() {
    let finished = pass("proxy", &One::that("connects").started(), &Ground::new(Family::V4, Place::Veth));
    assert_eq!(finished.stderr.matches("again").count(), 1, "{finished:?}");
}

#[test]
fn pass_a_proxy_that_runs_already() {
    let (home, one) = (Home::new("proxy"), One::that("sends"));
    let (_process, lines) = home.start(&one.command());
    lines.wait_for("listening");
    pass("proxy", &one.spec(&format!("@cgroup={}", home.path().display())), &Ground::loopback());
}

/// Its own sockets for answers are reached by nobody of the run, wherever they are bound.
#[test]
fn cannot_be_sent_past_the_engine_to_what_answers() {
    let (ground, one) = (Ground::loopback(), One::that("sends"));
    let (_server, _lines, ports) = serve(&ground);
    let ask = "
import errno, socket, sys
one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
one.sendto(b'x', ('127.0.0.1', int(sys.argv[1])))
print(one.recv(100).decode().split()[2])
bound = [line.split()[1] for line in open('/proc/net/udp') if line.split()[1].endswith(':%04X' % int(sys.argv[2]))]
for where in bound:
    host = socket.inet_ntoa(bytes.fromhex(where.split(':')[0])[::-1])
    try: one.sendto(b'x', (host, int(sys.argv[2]))); print('sent to', host)
    except OSError as error: print(errno.errorcode[error.errno])";
    let through = ["--through", &one.started()];
    let watched = [system_python(), "-c", ask, &ports[0], &one.port.to_string()];
    let finished = ground.waylay().args(through).watch(watched).well();
    assert_eq!(finished.stdout, "1\nECONNREFUSED\nECONNREFUSED\n", "the listener and one more: {finished:?}");
}

/// The listener lets others bind there that ask for `SO_REUSEADDR`, as it does itself.
#[test]
fn are_taken_by_nobody_who_binds_where_they_arrive() {
    let (ground, one) = (Ground::loopback(), One::that("sends"));
    let (_server, _lines, ports) = serve(&ground);
    let ask = "
import errno, socket, sys
port = int(sys.argv[2])
def bind(family, where, port, only=0):
    one = socket.socket(family, socket.SOCK_DGRAM)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6: one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only)
    try: one.bind((where, port))
    except OSError as error: print(where, errno.errorcode[error.errno])
    else: print(where, 'bound')
    return one
one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
one.sendto(b'x', ('127.0.0.1', int(sys.argv[1])))
v4, v6 = socket.AF_INET, socket.AF_INET6
kept = [bind(v4, '0.0.0.0', port), bind(v6, '::', port), bind(v6, '::ffff:0.0.0.0', port),
    bind(v4, '127.128.0.1', port), bind(v6, '::ffff:127.128.0.1', port),
    bind(v6, '::', port, 1), bind(v4, '0.0.0.0', 0), bind(v4, '127.128.0.1', 0), bind(v4, '127.0.0.1', port)]
print(one.recv(100).decode().split()[2])";
    let through = ["--through", &one.started()];
    let watched = [system_python(), "-c", ask, &ports[0], &one.port.to_string()];
    let finished = ground.waylay().args(through).watch(watched).well();
    let taken = ["0.0.0.0", "::", "::ffff:0.0.0.0", "127.128.0.1", "::ffff:127.128.0.1"];
    let taken: String = taken.iter().map(|place| format!("{place} EADDRINUSE\n")).collect();
    let others = ":: bound\n0.0.0.0 bound\n127.128.0.1 bound\n127.0.0.1 bound\n";
    assert_eq!(finished.stdout, format!("{taken}{others}1\n"), "{finished:?}");
}
