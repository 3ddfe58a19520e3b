//! Datagrams through proxies that tell somebody else where these were going, and see it in the datagrams themselves.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use serde_json::json;
use waylay_engine_ebpf::{HookedProgram, hooked_to_loopback};
use waylay_netlab::{
    Family, Finished, Ground, Home, Namespace, Place, Process, Proxies, Station, Waylay, free_port,
    patiently, system_python,
};

use crate::{
    datagrams,
    tproxy::{ASK, One, serve_at},
};

/// What the services around a proxy see: of the first, a flow for each socket and destination; of the last, the proxy's own.
fn judge(finished: &Finished, server: IpAddr, flows: usize, program: &str) {
    assert_eq!(finished.reports_of("log").len(), flows, "{finished:?}");
    let last = finished.reports_of("log-2");
    assert!(!last.is_empty(), "{finished:?}");
    for report in last {
        assert_eq!(report.chain, ["log-2"]);
        assert_eq!(report.original_destination.ip(), server, "no token: {report:?}");
        assert!(report.application.contains(program), "{report:?}");
    }
}

/// Each datagram arrives and each answer, on twelve flows, from whom the application has asked.
fn pass(spec: &str, ground: &Ground, program: &str) -> Finished {
    pass_to(ground.server(), ground.server_namespace(), spec, ground, program)
}

fn pass_to(server: IpAddr, at: Option<&Namespace>, spec: &str, ground: &Ground, program: &str) -> Finished {
    let (_server, _lines, ports) = serve_at(server, at);
    let ask = [system_python(), "-c", ASK, &server.to_string(), &ports[0], &ports[1]];
    let through = ["--through", "log", "--through", spec, "--through", "log"];
    let finished = ground.waylay().args(through).reporting().watch(ask).well();
    assert_eq!(finished.stdout, "all of them\n", "{finished:?}");
    judge(&finished, server, 12, program);
    finished
}

/// A server that has to be told where datagrams are going, on the servers' host.
struct Remote {
    ground: Ground,
    proxies: Proxies,
    at: SocketAddr,
    _server: Process,
}

impl Remote {
    fn new(family: Family) -> Self {
        let ground = Ground::new(family, Place::Veth);
        let proxies = Proxies::new(ground.client_namespace());
        let at = SocketAddr::new(ground.server(), free_port());
        let server = proxies.ss_server(ground.server_namespace().unwrap(), at);
        Self { ground, proxies, at, _server: server }
    }
}

#[test]
fn ss_redir_tells_its_server_where_they_were_going() {
    let remote = Remote::new(Family::V4);
    pass(&remote.proxies.ss_redir(remote.at), &remote.ground, "ss-redir");
}

#[test]
fn sing_box_tells_a_server_where_they_were_going() {
    let remote = Remote::new(Family::V4);
    pass(&remote.proxies.sing_box_for_datagrams(remote.at), &remote.ground, "sing-box");
}

#[test]
fn ss_redir_tells_its_server_where_they_were_going_over_ipv6() {
    let remote = Remote::new(Family::V6);
    pass(&remote.proxies.ss_redir(remote.at), &remote.ground, "ss-redir");
}

#[test]
fn sing_box_tells_a_server_where_they_were_going_over_ipv6() {
    let remote = Remote::new(Family::V6);
    pass(&remote.proxies.sing_box_for_datagrams(remote.at), &remote.ground, "sing-box");
}

/// Two destinations of one socket, and a datagram without a byte.
#[test]
fn of_no_length_pass_ss_redir() {
    let remote = Remote::new(Family::V4);
    let (_server, lines) =
        Process::spawn_read(remote.ground.server_namespace().unwrap().command(system_python()).args([
            "-u",
            "-c",
            datagrams::ECHO,
            &remote.ground.server().to_string(),
        ]));
    let ports = lines.wait_for_line(0);
    let ports: Vec<&str> = ports.split(' ').collect();
    let host = remote.ground.server().to_string();
    let ask = [system_python(), "-c", datagrams::ASK, &host, ports[0], ports[1]];
    let spec = remote.proxies.ss_redir(remote.at);
    let through = ["--through", "log", "--through", &spec, "--through", "log"];
    let finished = remote.ground.waylay().args(through).reporting().watch(ask).well();
    let once = format!("{} 1000 True\n{} 1000 True\n", ports[0], ports[1]);
    let connected = format!("{0} 0 {0} 1400 True\n", ports[0]);
    assert_eq!(finished.stdout, format!("{once}{once}{connected}"), "{finished:?}");
    judge(&finished, remote.ground.server(), 3, "ss-redir");
}

#[test]
fn a_proxy_answers_from_where_it_was_told_they_were_going() {
    pass(&One::that("sends").told(), &Ground::new(Family::V4, Place::Veth), "python");
}

#[test]
fn a_proxy_answers_from_where_it_was_told_they_were_going_over_ipv6() {
    pass(&One::that("sends").told_over_ipv6(), &Ground::new(Family::V6, Place::Veth), "python");
}

#[test]
fn a_proxy_of_a_policy_file_is_told_where_they_were_going() {
    let (ground, one) = (Ground::new(Family::V6, Place::Veth), One::that("sends"));
    let (_server, _lines, ports) = serve_at(ground.server(), ground.server_namespace());
    let folder = tempfile::tempdir().unwrap();
    let policy = folder.path().join("policy.toml");
    let text = format!(
        "[service.proxy]\nadopt = \"[::]:{}\"\ncommand = \"{} ipv6\"\ndestination = \"packet\"\nprotocol = \"udp\"\n\
         [[filter]]\naction = \"redirect\"\nservice = \"proxy\"\n",
        one.port,
        one.command()
    );
    std::fs::write(&policy, text).unwrap();
    let ask = [system_python(), "-c", ASK, &ground.server().to_string(), &ports[0], &ports[1]];
    let finished = ground.waylay().args(["--policy", policy.to_str().unwrap()]).watch(ask).well();
    assert_eq!(finished.stdout, "all of them\n", "{finished:?}");
}

/// The destination is then the address that tokens have.
#[test]
fn a_proxy_answers_from_where_it_was_told_they_were_going_over_the_loopback_of_ipv6() {
    let ground = Ground::new(Family::V6, Place::Veth);
    let here = Ipv6Addr::LOCALHOST.into();
    pass_to(here, ground.client_namespace(), &One::that("sends").told_over_ipv6(), &ground, "python");
}

#[test]
fn a_proxy_may_connect_what_it_answers_from_over_ipv6() {
    let ground = Ground::new(Family::V6, Place::Veth);
    let finished = pass(&One::that("connects").told_over_ipv6(), &ground, "python");
    assert_eq!(finished.stderr.matches("again").count(), 0, "{finished:?}");
}

/// Unlike with tokens nothing is refused first.
#[test]
fn a_proxy_may_connect_what_it_answers_from() {
    let ground = Ground::new(Family::V4, Place::Veth);
    let finished = pass(&One::that("connects").told(), &ground, "python");
    assert_eq!(finished.stderr.matches("again").count(), 0, "{finished:?}");
}

/// Also several that are handed to the kernel in one piece (`UDP_SEGMENT`).
#[test]
fn over_ipv6_of_any_size_are_told_where_they_were_going() {
    let (ground, one) = (Ground::new(Family::V6, Place::Veth), One::that("sends"));
    let (_server, _lines, ports) = serve_at(ground.server(), ground.server_namespace());
    let ask = "
import socket, struct, sys
one = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
one.settimeout(10)
def answers(count): return sorted({int(one.recv(100).split()[2]) for _ in range(3 * count)})
for size in 0, 1, 1400, 9000, 60000:
    one.sendto(b'x' * size, (sys.argv[1], int(sys.argv[2])))
    print(*answers(1))
segments = [(socket.IPPROTO_UDP, 103, struct.pack('H', 1000))]
one.sendmsg([b'x' * 2500], segments, 0, (sys.argv[1], int(sys.argv[2])))
print(*answers(3))";
    let watched = [system_python(), "-c", ask, &ground.server().to_string(), &ports[0]];
    let finished = ground.waylay().args(["--through", &one.told_over_ipv6()]).watch(watched).well();
    assert_eq!(finished.stdout, "0\n1\n1400\n9000\n60000\n500 1000\n", "{finished:?}");
}

/// The listener lets others bind there that ask for `SO_REUSEADDR`, as it does itself; `::1` would get all that is led to it.
#[test]
fn over_ipv6_are_taken_and_sent_by_nobody_else_where_they_arrive() {
    let (ground, one) = (Ground::new(Family::V6, Place::Veth), One::that("sends"));
    let (_server, _lines, ports) = serve_at(ground.server(), ground.server_namespace());
    let ask = "
import errno, socket, sys
host, to, port = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
def bind(where, port, only=0):
    one = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only)
    try: one.bind((where, port))
    except OSError as error: print(where, errno.errorcode[error.errno])
    else: print(where, 'bound')
    return one
one = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
one.settimeout(10)
one.sendto(b'x', (host, to))
kept = [bind('::', port), bind('::', port, 1), bind('::1', port), bind('::1', 0), bind(host, port)]
print(one.recv(100).decode().split()[2])
local = [line.split()[1].split(':') for line in open('/proc/net/udp6') if ':' in line.split()[1]]
theirs = {int(where, 16) for ip, where in local if ip == '0' * 24 + '01000000'} | {port}
theirs -= {one.getsockname()[1], *(other.getsockname()[1] for other in kept)}
refused = 0
for there in theirs:
    try: one.sendto(b'x', ('::1', there))
    except ConnectionRefusedError: refused += 1
print(len(theirs) - refused, refused > 64)";
    let through = ["--through", &one.told_over_ipv6()];
    let port = one.port.to_string();
    let watched = [system_python(), "-c", ask, &ground.server().to_string(), &ports[0], &port];
    let finished = ground.waylay().args(through).watch(watched).well();
    let taken = ["::", "::", "::1"].map(|where_to| format!("{where_to} EADDRINUSE\n")).concat();
    let bound = format!("{taken}::1 bound\n{} EADDRNOTAVAIL\n1\n", ground.server());
    // What it answers from is a socket as any other.
    assert_eq!(finished.stdout, format!("{bound}1 True\n"), "{finished:?}");
}

/// Another process may start from any address, but cannot know what belongs behind the token.
#[test]
fn over_ipv6_answers_are_forged_by_nobody() {
    let (ground, one) = (Ground::new(Family::V6, Place::Veth), One::that("sends"));
    let (_server, _lines, ports) = serve_at(ground.server(), ground.server_namespace());
    let ask = "
import socket, sys
one = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
one.settimeout(10)
one.sendto(b'x', (sys.argv[1], int(sys.argv[2])))
for number in range(3): one.recv(100)
print(one.getsockname()[1], flush=True)
sources = set()
while True:
    data, peer = one.recvfrom(100)
    if data == b'end': break
    sources.add(peer[0][:4])
print(*sources)";
    let forge = "
import socket, sys
def send(source, data):
    one = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    one.setsockopt(socket.IPPROTO_IPV6, 78, 1)  # IPV6_FREEBIND
    one.bind((source, 0))
    one.sendto(data, ('::1', int(sys.argv[1])))
local = [line.split()[1].split(':') for line in open('/proc/net/udp6') if ':' in line.split()[1]]
bank = [int(port, 16) for ip, port in local if ip == '0' * 24 + '01000000']
assert len(bank) > 64
for port in bank: send('fd77:%x::1234:5678:9abc:def0' % port, b'forged')
send('::1', b'end')";
    let watched = [system_python(), "-u", "-c", ask, &ground.server().to_string(), &ports[0]];
    let mut running = ground.waylay().args(["--through", &one.told_over_ipv6()]).spawn(watched);
    let port = running.answer();
    let forged =
        ground.client_namespace().unwrap().command(system_python()).args(["-c", forge, &port]).status();
    assert!(forged.unwrap().success());
    assert_eq!(running.answer(), "fd77");
    assert!(running.finish().status.success());
}

/// The engine's programs on a namespace's loopback.
fn on_loopback(namespace: &Namespace) -> usize {
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| {
            namespace.enter();
            let is_ours = |program: &HookedProgram| program.name.as_deref() == Some("wl_packets");
            hooked_to_loopback().unwrap().iter().filter(|program| is_ours(program)).count()
        });
        asked.join().unwrap()
    })
}

fn said_by_doctor(namespace: &Namespace) -> usize {
    let told = namespace
        .command(Waylay::binary().to_str().unwrap())
        .args(["doctor", "-o", "json"])
        .output()
        .unwrap();
    let told: serde_json::Value = serde_json::from_slice(&told.stdout).unwrap();
    usize::try_from(told["facts"]["in_packets"].as_u64().unwrap()).unwrap()
}

/// On a kernel that lacks the hook the rest of waylay is as it is, and such a service is refused.
#[test]
fn a_kernel_without_the_hook_is_said_to_lack_it() {
    let (proxy, ground) = (One::that("sends"), Ground::new(Family::V4, Place::Veth));
    let finished = ground.waylay().args(["--through", &proxy.told()]).watch(["true"]);
    match hooked_to_loopback() {
        Ok(_) => assert!(finished.status.success(), "{finished:?}"),
        Err(_) => assert!(finished.stderr.contains("Linux 6.6 or later is needed"), "{finished:?}"),
    }
    let without = ground.waylay().args(["--through", &proxy.started()]).watch(["true"]);
    assert!(without.status.success(), "{without:?}");
}

/// Whatever ends the run, a kill included.
#[test]
fn the_program_on_the_loopback_is_there_for_such_services_only_and_goes_with_them() {
    let ground = Ground::new(Family::V4, Place::Veth);
    let namespace = ground.client_namespace().unwrap();
    let proxy = One::that("sends");
    for (spec, expected) in [(proxy.started(), 0), (proxy.told(), 1)] {
        let mut running = ground.waylay().args(["--through", &spec]).spawn_dialler();
        running.instance();
        running.service("proxy");
        patiently("the run", || (on_loopback(namespace) == expected).then_some(()));
        assert_eq!(said_by_doctor(namespace), expected);
        drop(running);
        patiently("its end", || (on_loopback(namespace) == 0).then_some(()));
    }
    let mut running = ground.waylay().args(["--through", &proxy.told()]).spawn_dialler();
    running.instance();
    patiently("the run", || (on_loopback(namespace) == 1).then_some(()));
    running.signal(rustix::process::Signal::KILL);
    patiently("its end", || (on_loopback(namespace) == 0).then_some(()));
}

/// One that asks for `IP_TRANSPARENT` at its start comes with a change, and what was there for it goes after it, without another one.
#[test]
fn the_program_on_the_loopback_comes_and_goes_with_a_change_of_the_policy() {
    if hooked_to_loopback().is_err() {
        return;
    }
    let (home, namespace) = (Home::new("packets"), Namespace::new());
    namespace.ip(&["link", "set", "lo", "up"]);
    let mut station = Station::open_inside(home.directory(), &namespace);
    let proxy = One::that("sends");
    let told = json!({
        "id": 1, "name": "proxy", "command": ["/bin/sh", "-c", proxy.command()],
        "listens": format!("0.0.0.0:{}", proxy.port),
        "udp": "only", "destination": "packet",
    });
    station.apply(&[]).unwrap();
    assert_eq!(on_loopback(&namespace), 0);
    station.apply(&[told]).unwrap();
    assert_eq!(on_loopback(&namespace), 1);
    station.apply(&[]).unwrap();
    patiently("it is gone", || (on_loopback(&namespace) == 0).then_some(()));
    station.close();
}
