//! What the IP header of a single datagram says is carried through every service, and so is that of an answer.
#![expect(clippy::unwrap_used, reason = "a failed set-up is a failed test")]

use std::{os::unix::fs::PermissionsExt, process::Command};

use waylay_netlab::{Family, Ground, Lines, Place, Process, Waylay, python};

/// Hop limit and traffic class, by the names of each family. The server answers with those that it is asked for, and
/// says which came with the question.
const BOTH: &str = "
import socket, struct, sys
V4 = dict(level=0, hop=2, tos=1, ask_hop=12, ask_tos=13, set_hop=2)
V6 = dict(level=41, hop=52, tos=67, ask_hop=51, ask_tos=66, set_hop=16)
def names(host):
    return V6 if ':' in host and '.' not in host else V4
def asking(host):
    s, n = socket.socket(socket.AF_INET6 if ':' in host else socket.AF_INET, socket.SOCK_DGRAM), names(host)
    s.setsockopt(n['level'], n['ask_hop'], 1)
    s.setsockopt(n['level'], n['ask_tos'], 1)
    return s
def beside(host, hop, tos):
    n = names(host)
    given = [(n['hop'], hop), (n['tos'], tos)]
    return [(n['level'], name, struct.pack('i', value)) for name, value in given if value is not None]
def receive(s, host):
    n = names(host)
    bytes, messages, _, peer = s.recvmsg(1000, 500)
    said = {name: data[0] for level, name, data in messages if level == n['level']}
    return bytes.decode(), said.get(n['hop']), said.get(n['tos']), peer
";

const SERVER: &str = "
host = sys.argv[1]
s = asking(host)
s.bind((host, 0))
print(s.getsockname()[1], flush=True)
while True:
    question, hop, tos, peer = receive(s, host)
    wanted = [int(word) if word != '-' else None for word in question.split()]
    s.sendmsg([f'{question} came with {hop} {tos}'.encode()], beside(host, *wanted), 0, peer)
";

/// Each line: what was asked, with which header it came to the server, and with which the answer came back.
const CLIENT: &str = "
host, port = sys.argv[1], int(sys.argv[2])
n = names(host)
def client(connected):
    s = asking(host)
    s.settimeout(20)
    if connected:
        s.connect((host, port))
    return s
def send(s, connected, question, hop=None, tos=None):
    to = () if connected else (0, (host, port))
    s.sendmsg([question.encode()], beside(host, hop, tos), *to)
for connected in (False, True):
    s = client(connected)
    for hop, tos in ((None, None), (1, None), (None, 1), (255, 0xb9), (None, None)):
        send(s, connected, '- -', hop, tos)
        print('there', connected, *receive(s, host)[:3])
    for question in ('7 -', '- 2', '200 255', '- -'):
        send(s, connected, question)
        print('back', connected, *receive(s, host)[:3])
    # Many at once, of one size, so that services take and send several by one call.
    for number in range(40):
        send(s, connected, f'{number % 3 + 100} {number % 4:03}', number // 2 + 2, number % 3)
    print('many', connected, *sorted(receive(s, host)[:3] for _ in range(40)))
    # The socket's own, from before its first datagram and from later.
    s = client(connected)
    for hop, tos in ((9, 8), (64, 0), (30, 0x28)):
        s.setsockopt(n['level'], n['set_hop'], hop)
        s.setsockopt(n['level'], n['tos'], tos)
        send(s, connected, '- -')
        send(s, connected, '- -', None, 0)
        send(s, connected, '- -', 3, None)
        print('set', connected, *(receive(s, host)[:3] for _ in range(3)))
";

struct Server {
    ground: Ground,
    port: String,
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
        let program = format!("{BOTH}{SERVER}");
        let command = command.args(["-u", "-c", &program, &ground.server().to_string()]);
        let (process, lines) = Process::spawn_read(command);
        let port = lines.wait_for_line(0);
        Self { ground, port, _process: process, _lines: lines }
    }

    fn client(&self, host: Option<&str>) -> Vec<String> {
        let host = host.map_or_else(|| self.ground.server().to_string(), str::to_owned);
        let program = format!("{BOTH}{CLIENT}");
        vec![python().into(), "-u".into(), "-c".into(), program, host, self.port.clone()]
    }

    /// What the client prints without waylay.
    fn plain(&self, client: &[String]) -> String {
        let mut command = match self.ground.client_namespace() {
            Some(namespace) => namespace.command(&client[0]),
            None => Command::new(&client[0]),
        };
        let output = command.args(&client[1..]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn assert_same(&self, host: Option<&str>, through: impl Fn(Waylay) -> Waylay) {
        let client = self.client(host);
        let plain = self.plain(&client);
        let watched = through(self.ground.waylay()).watch(&client).well();
        assert_eq!(watched.stdout.lines().collect::<Vec<_>>(), plain.lines().collect::<Vec<_>>());
    }

    fn assert_same_through_one_and_three(&self, host: Option<&str>) {
        self.assert_same(host, |waylay| waylay.through_logs(1));
        self.assert_same(host, |waylay| waylay.through_logs(3));
    }
}

#[test]
fn are_carried_both_ways_over_the_loopback() {
    for (family, host) in [(Family::V4, None), (Family::V6, None), (Family::V4, Some("::ffff:127.0.0.1"))] {
        Server::start(family, Place::Loopback).assert_same_through_one_and_three(host);
    }
}

#[test]
fn are_carried_both_ways_over_a_network() {
    for (family, host) in [(Family::V4, None), (Family::V6, None), (Family::V4, Some("::ffff:10.77.0.2"))] {
        Server::start(family, Place::Veth).assert_same_through_one_and_three(host);
    }
}

/// examples/datagrams.rs, which does not care: who passes a message on passes its header on.
#[test]
fn are_carried_by_a_service_made_with_the_library() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let service = directory.path().join("datagrams");
    let built = Waylay::binary().with_file_name("datagrams");
    assert!(built.is_file(), "build it first: cargo build -p waylay-examples");
    std::fs::copy(built, &service).unwrap();
    let spec = format!("exec/udp:{}", service.display());
    for family in [Family::V4, Family::V6] {
        let server = Server::start(family, Place::Loopback);
        server.assert_same(None, |waylay| {
            waylay.args(["--through", &spec, "--through", "log", "--through", &spec])
        });
    }
}

/// Connected, as only such sockets are told; each line with what the socket then says of the path.
const TOO_BIG: &str = "
import errno, socket, sys
host = sys.argv[1]
level, name = (41, 24) if ':' in host else (0, 14)
s = socket.socket(socket.AF_INET6 if ':' in host else socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(20)
s.connect((host, 9))
s.send(bytes(1400))
try:
    s.recv(1)
except OSError as error:
    print(errno.errorcode[error.errno])
s.send(bytes(1400))
print(s.getsockopt(level, name) < 1400)
";

/// Behind the server's namespace is a network for smaller packets. The error is an ICMP message, which would make the
/// whole loopback of IPv6 one for smaller packets, too.
#[test]
fn that_say_a_datagram_must_not_be_cut_are_answered_with_an_error_of_that_socket_alone() {
    for (family, network, via, known) in
        [(Family::V4, "10.99.0", "10.77.0.2", "True"), (Family::V6, "fd00:99:", "fd00:77::2", "False")]
    {
        let (ground, end) = (Ground::new(family, Place::Veth), if family == Family::V4 { "." } else { ":" });
        let (client, router) = (ground.client_namespace().unwrap(), ground.server_namespace().unwrap());
        router.sysctl("net/ipv4/ip_forward", "1");
        router.sysctl("net/ipv6/conf/all/forwarding", "1");
        router.ip(&["link", "add", "far", "mtu", "1300", "type", "veth", "peer", "name", "farther"]);
        for device in ["far", "farther"] {
            router.ip(&["link", "set", device, "up"]);
        }
        let prefix = if family == Family::V4 { "10.99.0.0/24" } else { "fd00:99::/64" };
        router.ip(&["route", "add", prefix, "dev", "far"]);
        client.ip(&["route", "add", prefix, "via", via]);
        let to = |last: &str| format!("{network}{end}{last}");
        let mut plain = client.command(python());
        let plain = plain.args(["-c", TOO_BIG, &to("1")]).output().unwrap();
        assert_eq!(String::from_utf8(plain.stdout).unwrap(), "EMSGSIZE\nTrue\n");
        for (services, last) in [(1, "2"), (3, "3")] {
            let finished =
                ground.waylay().through_logs(services).watch([python(), "-c", TOO_BIG, &to(last)]).well();
            assert_eq!(finished.stdout, format!("EMSGSIZE\n{known}\n"));
        }
        let route = client.command("ip").args(["-6", "route", "get", "::1"]).output().unwrap();
        let route = String::from_utf8(route.stdout).unwrap();
        assert!(route.contains("lo") && !route.contains("mtu"), "{route}");
    }
}
