//! Datagrams through nginx, which takes the token of a flow for its destination.

use std::net::IpAddr;

use waylay_netlab::{
    Family, Ground, Lines, Place, Process, Proxies, free_port, system_python, world_readable_file,
};

/// Answers at two ports with the port and what has come.
pub(crate) const ECHO: &str = "
import select, socket, sys
ports = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]
for port in ports: port.bind((sys.argv[1], 0))
print(*(port.getsockname()[1] for port in ports), flush=True)
while True:
    for port in select.select(ports, [], [])[0]:
        data, peer = port.recvfrom(65535)
        port.sendto(b'%d %d' % (port.getsockname()[1], len(data)), peer)
";

/// Asks both ports with one socket, and one of them with a connected one; says who answered what.
pub(crate) const ASK: &str = "
import socket, sys
host, ports = sys.argv[1], [int(port) for port in sys.argv[2:]]
one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for port in ports + ports:
    one.sendto(b'x' * 1000, (host, port))
    answer, peer = one.recvfrom(100)
    print(answer.decode(), peer == (host, port))
other = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
other.connect((host, ports[0]))
other.send(b'')
other.send(b'x' * 1400)
print(other.recv(100).decode(), other.recv(100).decode(), other.getpeername() == (host, ports[0]))
";

fn echo(ground: &Ground) -> (Process, Lines) {
    let mut server = match ground.server_namespace() {
        Some(namespace) => namespace.command(system_python()),
        None => std::process::Command::new(system_python()),
    };
    Process::spawn_read(server.args(["-u", "-c", ECHO, &ground.server().to_string()]))
}

fn pass_nginx(place: Place) {
    let ground = Ground::new(Family::V4, place);
    let proxies = Proxies::new(ground.client_namespace());
    pass("nginx", &proxies.spec_for_datagrams(), &ground);
}

/// Every datagram arrives, every answer, and the services around the proxy see one flow for each socket and destination.
fn pass(name: &str, spec: &str, ground: &Ground) {
    let (_server, lines) = echo(ground);
    let ports = lines.wait_for_line(0);
    let ports: Vec<&str> = ports.split(' ').collect();
    let host = ground.server().to_string();
    let ask = [system_python(), "-c", ASK, &host, ports[0], ports[1]];
    let through = ["--through", "log", "--through", spec, "--through", "log"];
    let finished = ground.waylay().args(through).reporting().watch(ask).well();
    let once = format!("{} 1000 True\n{} 1000 True\n", ports[0], ports[1]);
    let connected = format!("{0} 0 {0} 1400 True\n", ports[0]);
    assert_eq!(finished.stdout, format!("{once}{once}{connected}"), "{finished:?}");
    let reports = finished.reports_of("log-2");
    assert_eq!(reports.len(), 3, "{finished:?}");
    for report in reports {
        assert_eq!(report.chain, ["log", name, "log-2"]);
        assert_eq!(report.original_destination.ip(), host.parse::<IpAddr>().unwrap());
        assert!(report.application.contains("python"), "{report:?}");
    }
}

/// A flow is known by its token, so that services after it know the application, unlike with TCP.
#[test]
fn pass_nginx_and_keep_their_chain() {
    pass_nginx(Place::Veth);
}

/// Such a proxy takes whom an answer comes from for whom it has to speak as, and that has to be whom it has asked.
fn pass_one_that_speaks_as_whoever_answers(place: Place) {
    let ground = Ground::new(Family::V4, place);
    let program = world_readable_file("proxy.py", include_str!("../../scripts/datagram_proxy.py"));
    let (port, python) = (free_port(), system_python());
    let spec = format!("proxy=adopt/udp:0.0.0.0:{port}={python} {} {port}", program.path().display());
    pass("proxy", &spec, &ground);
}

#[test]
fn pass_a_proxy_that_speaks_as_whoever_answers() {
    pass_one_that_speaks_as_whoever_answers(Place::Veth);
}

#[test]
fn pass_a_proxy_that_speaks_as_whoever_answers_on_the_loopback() {
    pass_one_that_speaks_as_whoever_answers(Place::Loopback);
}

#[test]
fn pass_nginx_on_the_loopback() {
    pass_nginx(Place::Loopback);
}

#[test]
fn over_ipv6_are_left_to_the_failure_policy_and_the_user_is_told() {
    let ground = Ground::new(Family::V6, Place::Veth);
    let proxies = Proxies::new(ground.client_namespace());
    let send = "
import errno, socket
there = ('fd00:77::2', 9)
def attempt(what, act):
    try: act(socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)); print(what)
    except OSError as error: print(errno.errorcode[error.errno])
attempt('sent', lambda s: s.sendto(b'x', there))
attempt('connected', lambda s: s.connect(there))";
    for (policy, answer) in [("closed", "ECONNREFUSED\nECONNREFUSED\n"), ("open", "sent\nconnected\n")] {
        let through = ["--through", &proxies.spec_for_datagrams(), "--on-failure", policy];
        let finished = ground.waylay().args(through).watch([system_python(), "-c", send]).well();
        assert_eq!(finished.stdout, answer, "{finished:?}");
        assert!(finished.stderr.contains("no UDP over IPv6 gets to the service nginx"), "{finished:?}");
    }
}
