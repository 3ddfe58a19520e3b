//! What an application is told about its connections is what it would be told
//! without waylay, or names what went wrong.

#![expect(clippy::unwrap_used, reason = "a failed set-up is a failed test")]

use std::{
    io::Write,
    net::{Ipv4Addr, Ipv6Addr},
    process::Command,
};

use tempfile::TempDir;
use waylay_netlab::{Corners, Family, Ground, Place, TcpServer, WebServer, patiently, python};

/// What each address answers to a connect(): an error, or the names of both ends.
const CONNECT: &str = "
import errno, socket, sys
def outcome(host, port, bind=None):
    s = socket.socket(socket.AF_INET6 if ':' in host else socket.AF_INET)
    s.settimeout(20)
    try:
        if bind: s.bind((bind, 0))
        s.connect((host, int(port)))
        return f'from {s.getsockname()[0]} to {s.getpeername()[0]}'
    except OSError as error:
        return errno.errorcode.get(error.errno, error)
for word in sys.argv[1:]:
    host, port, *bind = word.split(',')
    print(word, outcome(host, port, *bind))
";

/// Runs python once without waylay and once through two services; both must print the same.
fn same(ground: &Ground, program: &str, args: &[String]) -> String {
    let command =
        || [python().to_owned(), "-c".into(), program.into()].into_iter().chain(args.iter().cloned());
    let mut plain = match ground.client_namespace() {
        Some(namespace) => namespace.command(python()),
        None => Command::new(python()),
    };
    let plain = plain.args(command().skip(1)).output().unwrap();
    let watched = ground.waylay().through_logs(2).watch(command()).well();
    let plain = String::from_utf8(plain.stdout).unwrap();
    assert_eq!(watched.stdout, plain);
    plain
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().copied().map(str::to_owned).collect()
}

mod without_a_route {
    use super::*;

    /// A host that knows one network, and says of some others why it does not.
    fn island() -> Ground {
        let ground = Ground::new(Family::V4, Place::Veth);
        let client = ground.client_namespace().unwrap();
        for (kind, network) in [
            ("unreachable", "198.51.100.0/25"),
            ("prohibit", "198.51.100.128/26"),
            ("blackhole", "198.51.100.192/26"),
            ("unreachable", "2001:db8:1::/48"),
            ("prohibit", "2001:db8:2::/48"),
        ] {
            client.ip(&["route", "add", kind, network]);
        }
        ground
    }

    #[test]
    fn the_application_gets_the_kernels_error() {
        let asked = [
            "192.0.2.1,80",
            "198.51.100.1,80",
            "198.51.100.129,80",
            "198.51.100.193,80",
            "224.0.0.251,80",
            "255.255.255.255,80",
            "10.77.0.255,80",
            "2001:db8:1::1,80",
            "2001:db8:2::1,80",
            "2001:db8:3::1,80",
            "ff02::fb,80",
            "::ffff:192.0.2.1,80",
            "::ffff:198.51.100.129,80",
        ];
        let told = same(&island(), CONNECT, &words(&asked));
        for (line, expected) in told.lines().zip([
            "ENETUNREACH",
            "EHOSTUNREACH",
            "EACCES",
            "EINVAL",
            "ENETUNREACH",
            "ENETUNREACH",
            "ENETUNREACH",
            "EHOSTUNREACH",
            "EACCES",
            "ENETUNREACH",
            "ENETUNREACH",
            "ENETUNREACH",
            "EACCES",
        ]) {
            assert!(line.ends_with(expected), "{line}, not {expected}");
        }
    }

    #[test]
    fn the_refusal_is_reported_and_no_service_sees_the_connection() {
        let dial = [python(), "-c", CONNECT, "192.0.2.1,80", "2001:db8:3::1,80"];
        let finished = island().waylay().reporting().watch(dial).well();
        let told = "refused with ENETUNREACH: the destination has no route";
        assert_eq!(finished.stderr.matches(told).count(), 2, "{finished:?}");
        assert_eq!(finished.reports(), []);
    }

    #[test]
    fn a_route_that_comes_and_goes_is_noticed() {
        let ground = Ground::new(Family::V4, Place::Veth);
        let (client, server) = (ground.client_namespace().unwrap(), ground.server_namespace().unwrap());
        let directory = TempDir::new().unwrap();
        let mut run = ground.waylay().spawn_dialler();
        for (host, length, network, via) in [
            ("203.0.113.7", "32", "203.0.113.0/24", "10.77.0.2"),
            ("2001:db8:7::7", "128", "2001:db8:7::/48", "fd00:77::2"),
        ] {
            server.ip(&["addr", "add", &format!("{host}/{length}"), "dev", "lo", "nodad"]);
            let web = WebServer::start_on(&ground, host.parse().unwrap(), directory.path());
            let get = format!("get {host} {}", web.address().port());
            assert_eq!(run.ask(&get), "ENETUNREACH");
            client.ip(&["route", "add", network, "via", via]);
            patiently("the new route", || (run.ask(&get) == "HTTP/").then_some(()));
            client.ip(&["route", "del", network]);
            patiently("the end of the route", || (run.ask(&get) == "ENETUNREACH").then_some(()));
        }
        run.finish().well();
    }

    #[test]
    fn a_second_address_changes_what_is_shown_as_the_source() {
        let ground = Ground::new(Family::V4, Place::Veth);
        let client = ground.client_namespace().unwrap();
        let directory = TempDir::new().unwrap();
        let mut run = ground.waylay().spawn_dialler();
        for (server, own, other, network) in [
            ("10.77.0.2", "10.77.0.1", "10.77.0.9/24", "10.77.0.0/24"),
            ("fd00:77::2", "fd00:77::1", "fd00:77::9/64", "fd00:77::/64"),
        ] {
            let web = WebServer::start_on(&ground, server.parse().unwrap(), directory.path());
            let source = format!("source {server} {}", web.address().port());
            assert_eq!(run.ask(&source), own);
            let (address, _) = other.split_once('/').unwrap();
            client.ip(&["addr", "add", other, "dev", "wire", "nodad"]);
            client.ip(&["route", "replace", network, "dev", "wire", "src", address]);
            patiently("the other source", || (run.ask(&source) == address).then_some(()));
        }
        run.finish().well();
    }
}

mod getsockname {
    use super::*;

    #[test]
    fn shows_what_the_route_gives_over_a_network() {
        for family in [Family::V4, Family::V6] {
            let ground = Ground::new(family, Place::Veth);
            let directory = TempDir::new().unwrap();
            let web = WebServer::start(&ground, directory.path());
            let port = web.address().port();
            let own = match family {
                Family::V4 => "10.77.0.1",
                Family::V6 => "fd00:77::1",
            };
            let server = ground.server();
            let mut asked = vec![format!("{server},{port}"), format!("{server},{port},{own}")];
            if family == Family::V4 {
                asked.push(format!("::ffff:{server},{port}"));
            }
            let told = same(&ground, CONNECT, &asked);
            assert_eq!(told.matches(&format!("from {own} to {server}")).count(), 2, "{told}");
        }
    }

    #[test]
    fn shows_what_the_route_gives_on_the_loopback() {
        let server = TcpServer::start(Ipv4Addr::UNSPECIFIED.into(), |mut stream| stream.write_all(b"x"));
        let port = server.address().port();
        let six = TcpServer::start(Ipv6Addr::UNSPECIFIED.into(), |mut stream| stream.write_all(b"x"));
        let hosts = ["127.0.0.1", "127.0.0.2", "0.0.0.0", "::ffff:127.0.0.1", "::ffff:0.0.0.0"];
        let mut asked: Vec<_> = hosts.iter().map(|host| format!("{host},{port}")).collect();
        asked.push(format!("127.0.0.1,{port},127.0.0.5"));
        let port = six.address().port();
        asked.extend(["::1", "::"].map(|host| format!("{host},{port}")));
        asked.push(format!("::1,{port},::1"));
        same(&Ground::loopback(), CONNECT, &asked);
    }

    const ANOTHER_LIFE: &str = "
import ctypes, socket, struct, sys
for host, port in zip(sys.argv[1::2], sys.argv[2::2]):
    s = socket.socket(socket.AF_INET6 if ':' in host else socket.AF_INET)
    print(s.getsockname()[0])
    s.connect((host, int(port)))
    print(s.getsockname()[0])
    ctypes.CDLL(None).connect(s.fileno(), struct.pack('H26x', socket.AF_UNSPEC), 28)
    print(s.getsockname()[0])
";

    #[test]
    fn shows_nothing_of_a_socket_that_is_not_connected() {
        let corners = Corners::new();
        let servers = corners.greeters();
        let addresses = servers.each_ref().map(|server| server.address);
        let asked = addresses.iter().flat_map(|to| [to.ip().to_string(), to.port().to_string()]);
        same(&corners.ground, ANOTHER_LIFE, &asked.collect::<Vec<_>>());
    }
}

mod a_destination_that {
    use super::*;

    const READ: &str = "
import errno, socket, sys
for host in sys.argv[1:]:
    s = socket.socket(socket.AF_INET6 if ':' in host else socket.AF_INET)
    try:
        s.connect((host, 9))
        s.recv(1)
        print('an orderly end')
    except OSError as error:
        print(errno.errorcode[error.errno])
";

    /// The application is reset, and each service of the chain says why. Far only: of its own loopback a host knows
    /// at once (`where_nobody_listens`).
    fn fails(ground: &Ground, hosts: [&str; 2], errno: &str) {
        let command = [&[python(), "-c", READ][..], &hosts].concat();
        let finished = ground.waylay().through_logs(2).reporting().watch(command).well();
        assert_eq!(finished.stdout, "ECONNRESET\n".repeat(2));
        let (first, last) = (finished.reports_of("log"), finished.reports_of("log-2"));
        assert_eq!((first.len(), last.len()), (2, 2), "{finished:?}");
        for last in last {
            assert_eq!(last.verdict, "unreachable");
            assert!(last.error.as_ref().is_some_and(|error| error.contains(errno)), "{last:?}");
        }
        for first in first {
            assert!(["reset", "unreachable"].contains(&first.verdict.as_str()), "{first:?}");
        }
    }

    #[test]
    fn refuses_resets_the_application_and_is_named() {
        fails(&Ground::new(Family::V4, Place::Veth), ["10.77.0.2", "fd00:77::2"], "ECONNREFUSED");
    }

    #[test]
    fn is_not_there_resets_the_application_and_is_named() {
        fails(&Ground::new(Family::V4, Place::Veth), ["10.77.0.77", "fd00:77::77"], "EHOSTUNREACH");
    }

    #[test]
    fn never_answers_resets_the_application_and_is_named() {
        let ground = Ground::new(Family::V4, Place::Veth);
        ground.client_namespace().unwrap().sysctl("net/ipv4/tcp_syn_retries", "1");
        for own in ["10.77.0.1/32", "fd00:77::1/128"] {
            ground.server_namespace().unwrap().ip(&["route", "add", "blackhole", own]);
        }
        fails(&ground, ["10.77.0.2", "fd00:77::2"], "ETIMEDOUT");
    }
}

/// An address of the loopback, which is known at once.
mod where_nobody_listens {
    use super::*;

    const DIAL: &str = "
import errno, socket, sys
for host in sys.argv[2:]:
    try:
        s = socket.create_connection((host, int(sys.argv[1])))
        print(s.recv(5, socket.MSG_WAITALL).decode())
    except OSError as error:
        print(errno.errorcode[error.errno])
";
    const HOSTS: [&str; 4] = ["127.0.0.1", "::1", "::ffff:127.0.0.1", "0.0.0.0"];

    fn dial(ground: &Ground, port: u16, hosts: &[&str]) -> waylay_netlab::Finished {
        let port = port.to_string();
        let command = [&[python(), "-c", DIAL, &port][..], hosts].concat();
        ground.waylay().through_logs(2).reporting().watch(command).well()
    }

    #[test]
    fn connect_is_refused_as_it_is_without_waylay() {
        let free = std::net::TcpListener::bind("[::]:0").unwrap().local_addr().unwrap().port();
        let finished = dial(&Ground::loopback(), free, &HOSTS);
        assert_eq!(finished.stdout, "ECONNREFUSED\n".repeat(4), "{finished:?}");
        assert_eq!(finished.stderr.matches("refused with ECONNREFUSED: nobody listens there").count(), 4);
        assert_eq!(finished.reports(), []);
    }

    /// Of both families at once, too.
    #[test]
    fn is_nowhere_that_a_listener_for_all_addresses_is_found() {
        let server = TcpServer::start(std::net::Ipv6Addr::UNSPECIFIED.into(), |mut stream| {
            std::io::Write::write_all(&mut stream, b"hello")
        });
        let finished = dial(&Ground::loopback(), server.address().port(), &HOSTS);
        assert_eq!(finished.stdout, "hello\n".repeat(4), "{finished:?}");
        assert_eq!(finished.reports_of("log-2").len(), 4);
    }

    /// As engines for containers have them.
    #[test]
    fn is_not_known_where_a_rule_translates_addresses() {
        let corners = Corners::new();
        let [four, six, ..] = corners.greeters();
        let ports = [four.address.port(), six.address.port()];
        let other = (4242..).find(|port| !ports.contains(port)).unwrap();
        let rules = |family: &str, port: u16| {
            format!(
                "table {family} published {{\nchain out {{\ntype nat hook output priority -100\n\
                 tcp dport {other} redirect to :{port}\n}}\n}}\n"
            )
        };
        let rules = rules("ip", ports[0]) + &rules("ip6", ports[1]);
        assert!(corners.client("nft").arg(rules).status().unwrap().success());
        let finished = dial(&corners.ground, other, &["127.0.0.1", "::1"]);
        assert_eq!(finished.stdout, "hello\nhello\n", "{finished:?}");
        let reports = finished.reports_of("log-2");
        assert_eq!(reports.len(), 2, "{finished:?}");
        assert!(reports.iter().all(|report| report.original_destination.port() == other), "{reports:?}");
    }
}

mod name_resolution {
    use super::*;

    const HOSTS: &str = "\
10.77.0.2 many.test
192.0.2.80 many.test
127.0.0.1 many.test
fd00:77::2 many.test
2001:db8::80 many.test
::1 many.test
";
    /// There may be no file to mount it over.
    const MOUNT: &str = "
if [ ! -e /etc/hosts ]; then
    etc=$(mktemp -d -p \"$(dirname \"$1\")\")
    cp -a /etc/. \"$etc\"
    touch \"$etc/hosts\"
    mount --bind \"$etc\" /etc
fi
mount --bind \"$1\" /etc/hosts
exec \"$2\" -c \"$3\"
";
    const RESOLVE: &str = "
import socket
for found in socket.getaddrinfo('many.test', 80, type=socket.SOCK_STREAM):
    print(found[4][0])
";

    /// getaddrinfo sorts by what it learns from sockets of its own (RFC 6724).
    #[test]
    fn gives_addresses_in_the_same_order() {
        let ground = Ground::new(Family::V4, Place::Veth);
        let directory = TempDir::new().unwrap();
        let hosts = directory.path().join("hosts");
        std::fs::write(&hosts, HOSTS).unwrap();
        let hosts = hosts.to_str().unwrap();
        let command = ["unshare", "--mount", "sh", "-ec", MOUNT, "sh", hosts, python(), RESOLVE];
        let plain = ground.client_namespace().unwrap().command("env").args(command).output().unwrap();
        assert!(plain.status.success(), "{}", String::from_utf8_lossy(&plain.stderr));
        let plain = String::from_utf8(plain.stdout).unwrap();
        let watched = ground.waylay().through_logs(2).watch(command).well();
        assert_eq!(watched.stdout, plain);
        assert_eq!(plain.lines().count(), 6, "{plain}");
    }
}

mod a_server_of_the_run {
    use super::*;

    /// Clients and servers of one program: whether each side sees the other's address as the other sees it itself.
    const TALK: &str = "
import socket, sys
def pair(kind, host):
    family = socket.AF_INET6 if ':' in host else socket.AF_INET
    server, client = socket.socket(family, kind), socket.socket(family, kind)
    for end in server, client:
        end.settimeout(20)
    server.bind((host, 0))
    return server, client, server.getsockname()[:2]
def stream(host):
    server, client, address = pair(socket.SOCK_STREAM, host)
    server.listen()
    client.connect(address)
    accepted, peer = server.accept()
    own = client.getsockname()
    return peer == own, accepted.getpeername() == own, client.getpeername()[:2] == address
def datagrams(host, prepare):
    server, client, address = pair(socket.SOCK_DGRAM, host)
    prepare(client, address)
    send = client.send if prepare is socket.socket.connect else lambda data: client.sendto(data, address)
    seen = []
    for answer in b'one', b'two':
        send(b'question')
        question, peer = server.recvfrom(99)
        server.sendto(answer, peer)
        answered, sender = client.recvfrom(99)
        seen += [peer == client.getsockname(), sender[:2] == address, answered == answer]
    return seen
for host in sys.argv[1:]:
    print(host, stream(host), datagrams(host, socket.socket.connect),
          datagrams(host, lambda client, _: client.bind((host, 0))))
";

    fn all_agree(ground: &Ground, hosts: &[&str]) {
        let told = same(ground, TALK, &words(hosts));
        assert_eq!(told.lines().count(), hosts.len(), "{told}");
        assert!(!told.contains("False"), "{told}");
    }

    #[test]
    fn sees_the_application_as_its_client_on_the_loopback() {
        all_agree(&Ground::loopback(), &["127.0.0.1", "127.1.2.3", "::1"]);
    }

    #[test]
    fn sees_the_application_as_its_client_at_an_address_of_the_host() {
        let ground = Ground::new(Family::V4, Place::Veth);
        all_agree(&ground, &["10.77.0.1", "fd00:77::1"]);
    }
}

/// Of a socket that is bound, it means what that is bound to.
mod the_unspecified_address_to_a_bound_socket {
    use std::net::{SocketAddr, UdpSocket};

    use waylay_netlab::{Waylay, system_python};

    use super::*;

    const OWN: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
    const ASK: &str = "
import socket, sys
stream, datagrams = map(int, sys.argv[1:])
def bound(kind, to):
    mapped = '::ffff:' if ':' in to else ''
    s = socket.socket(socket.AF_INET6 if mapped else socket.AF_INET, kind)
    s.settimeout(20)
    s.bind((mapped + '127.0.0.2', 0))
    return s
for to in '0.0.0.0', '::ffff:0.0.0.0', '::':
    s = bound(socket.SOCK_STREAM, to)
    s.connect((to, stream))
    print(to, s.recv(9, socket.MSG_WAITALL), s.getpeername()[0])
    s = bound(socket.SOCK_DGRAM, to)
    s.connect((to, datagrams))
    s.send(b'who?')
    print(to, s.recv(9), s.getpeername()[0])
    s = bound(socket.SOCK_DGRAM, to)
    s.sendto(b'who?', (to, datagrams))
    said, peer = s.recvfrom(9)
    print(to, said, peer[0])
";

    /// Says which address it has; ends with the test.
    fn say(socket: UdpSocket) -> SocketAddr {
        let own = socket.local_addr().unwrap();
        std::thread::spawn(move || {
            while let Ok((_, peer)) = socket.recv_from(&mut [0; 9]) {
                // An error is of somebody who has left.
                let _left = socket.send_to(own.ip().to_string().as_bytes(), peer);
            }
        });
        own
    }

    fn is_its_own_by(waylay: Waylay) {
        let stream = TcpServer::start(Ipv4Addr::UNSPECIFIED.into(), |mut stream| {
            let own = stream.local_addr()?.ip();
            stream.write_all(own.to_string().as_bytes())
        });
        let stream = stream.address().port();
        let datagrams = say(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()).port();
        say(UdpSocket::bind((OWN, datagrams)).unwrap());
        let command =
            [system_python(), "-c", ASK, &stream.to_string(), &datagrams.to_string()].map(str::to_owned);
        let plain = Command::new(&command[0]).args(&command[1..]).output().unwrap();
        let finished = waylay.through_logs(2).reporting().watch(&command).well();
        assert_eq!(finished.stdout, String::from_utf8(plain.stdout).unwrap(), "{finished:?}");
        for service in ["log", "log-2"] {
            let mut seen: Vec<_> =
                finished.reports_of(service).iter().map(|report| report.original_destination).collect();
            seen.sort();
            // Those of :: go to the loopback's address.
            let mut expected = [&[(OWN, stream); 2][..], &[(OWN, datagrams); 4]].concat();
            expected.extend([(Ipv4Addr::LOCALHOST, stream), (Ipv4Addr::LOCALHOST, datagrams)]);
            expected.push((Ipv4Addr::LOCALHOST, datagrams));
            let mut expected: Vec<_> = expected.into_iter().map(SocketAddr::from).collect();
            expected.sort();
            assert_eq!(seen, expected, "{finished:?}");
        }
    }

    #[test]
    fn is_its_own() {
        is_its_own_by(Waylay::run(None));
    }

    #[test]
    fn is_its_own_without_root() {
        is_its_own_by(Waylay::run_without_root(None));
    }
}
