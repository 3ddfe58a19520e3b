//! Datagrams through proxies of the TPROXY kind, which answer from sockets that they bind to where a datagram was going.

use std::net::IpAddr;

use waylay_netlab::{
    Family, Finished, Ground, Lines, Other, Place, Process, Proxies, free_port, system_python,
    world_readable_file,
};

/// How many answers come of each datagram.
const SERVE: &str = "
import select, socket, sys
ports = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]
for port in ports: port.bind((sys.argv[1], 0))
print(*(port.getsockname()[1] for port in ports), flush=True)
while True:
    for port in select.select(ports, [], [])[0]:
        data, peer = port.recvfrom(65535)
        for number in range(3):
            port.sendto(b'%d %d %d' % (port.getsockname()[1], number, len(data)), peer)
";

/// Twenty-five datagrams and three answers to each, on eight flows of sockets that are not connected and four of such that are.
const ASK: &str = "
import socket, sys
host, ports = sys.argv[1], [int(port) for port in sys.argv[2:]]
def made(port=None):
    one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    one.settimeout(10)
    if port: one.connect((host, port))
    return one
unconnected, connected = [made() for _ in range(4)], [(made(port), port) for port in ports + ports]
for size in range(1, 26):
    for one in unconnected:
        for port in ports:
            one.sendto(b'x' * size, (host, port))
            for number in range(3):
                answer = one.recvfrom(100)
                assert answer == (b'%d %d %d' % (port, number, size), (host, port)), (size, answer)
    for one, port in connected:
        one.send(b'x' * size)
        for number in range(3):
            answer = one.recv(100)
            assert answer == b'%d %d %d' % (port, number, size), (size, answer)
print('all of them')
";

/// The server of a test, and the ports of it.
fn serve(ground: &Ground) -> (Process, Lines, Vec<String>) {
    let mut server = match ground.server_namespace() {
        Some(namespace) => namespace.command(system_python()),
        None => std::process::Command::new(system_python()),
    };
    let (process, lines) = Process::spawn_read(server.args(["-u", "-c", SERVE, &ground.server().to_string()]));
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

/// A proxy that does with its sockets what is said.
fn spec_of_one_that(how: &str) -> String {
    let program = world_readable_file("proxy.py", include_str!("../../scripts/tproxy_proxy.py"));
    let (port, python) = (free_port(), system_python());
    let spec = format!("proxy=adopt/udp+tproxy:0.0.0.0:{port}={python} {} {port} {how}", program.path().display());
    std::mem::forget(program);
    spec
}

#[test]
fn pass_a_proxy_that_sends_from_where_the_datagrams_were_going() {
    pass("proxy", &spec_of_one_that("sends"), &Ground::new(Family::V4, Place::Veth));
}

/// The first is refused to be connected, and from then on they are bound to the token itself.
#[test]
fn pass_a_proxy_that_connects_what_it_answers_from() {
    let finished = pass("proxy", &spec_of_one_that("connects"), &Ground::new(Family::V4, Place::Veth));
    assert_eq!(finished.stderr.matches("again").count(), 1, "{finished:?}");
}
