//! Datagrams to proxies that are told where these were going, in the cases that [`packets`](crate::packets) does not serve: none of them
//! gets to anybody else, and none is answered by somebody else.

use std::net::IpAddr;

use waylay_netlab::{
    Family, Finished, Ground, Place, WorldReadable, free_port, system_python, world_readable_file,
};

use crate::tproxy::{One, serve_at};

struct Answering {
    program: WorldReadable,
    port: u16,
}

impl Answering {
    fn new() -> Self {
        let program = world_readable_file("proxy.py", include_str!("../../scripts/pktinfo_proxy.py"));
        Self { program, port: free_port() }
    }

    fn spec(&self, family: Family, how: &str) -> String {
        let (any, which) = match family {
            Family::V4 => ("0.0.0.0", ""),
            Family::V6 => ("[::]", "ipv6"),
        };
        let command =
            format!("{} -u {} {} {which} {how}", system_python(), self.program.path().display(), self.port);
        format!("proxy=adopt/udp+packet:{any}:{}={command}", self.port)
    }
}

/// What each of two sockets, of which one is connected, gets within two seconds for what it sends.
const ASK: &str = "
import socket, sys
host, port = sys.argv[1], int(sys.argv[2])
for connected in False, True:
    one = socket.socket(socket.AF_INET6 if ':' in host else socket.AF_INET, socket.SOCK_DGRAM)
    one.settimeout(2)
    if connected: one.connect((host, port))
    one.send(b'x') if connected else one.sendto(b'x', (host, port))
    try: answer, peer = one.recvfrom(1000)
    except OSError as error: print(type(error).__name__)
    else: print(answer.decode(), *peer[:2])
";

/// What becomes of answers from the listener, with the destination as their source, and who is shown what.
fn answered(family: Family, how: &str, became: &str) -> (Finished, IpAddr, u16) {
    let (ground, proxy) = (Ground::new(family, Place::Veth), Answering::new());
    let (server, port) = (ground.server(), proxy.port);
    let (_server, _lines, ports) = serve_at(server, ground.server_namespace());
    let watched = [system_python(), "-c", ASK, &server.to_string(), &ports[0]];
    let finished = ground.waylay().args(["--through", &proxy.spec(family, how)]).watch(watched).well();
    let told = format!("told {server} {} 1 {became}\n", ports[0]);
    assert_eq!(finished.stderr.matches(&told).count(), 2, "{finished:?}");
    (finished, server, port)
}

/// It is told so, and nothing goes anywhere.
#[test]
fn a_listener_is_refused_to_answer_from_the_destination_itself() {
    let refused = [
        (Family::V4, "", "ENETUNREACH"),
        (Family::V4, "freebind", "ENETUNREACH"),
        (Family::V6, "", "EINVAL"),
    ];
    for (family, how, error) in refused {
        let (finished, _, _) = answered(family, how, error);
        assert_eq!(finished.stdout, "TimeoutError\nTimeoutError\n", "{finished:?}");
    }
}

/// As under TPROXY: from the destination's address and the listener's own port.
#[test]
fn a_listener_that_may_answer_from_any_address_over_ipv6_does_so_from_its_own_port() {
    let (finished, server, port) = answered(Family::V6, "freebind", "sent");
    let [first, second] = finished.stdout.lines().collect::<Vec<_>>().try_into().unwrap();
    assert!(first.starts_with(&format!("{server} ")), "{finished:?}");
    assert!(first.ends_with(&format!(" 1 {server} {port}")), "{finished:?}");
    assert_eq!(second, "TimeoutError", "connected to another: {finished:?}");
}

/// What comes back for datagrams that are in one piece or in three, of sockets that are connected and not.
fn in_fragments(family: Family) -> String {
    let (ground, one) = (Ground::new(family, Place::Veth), One::that("sends"));
    ground.client_namespace().unwrap().ip(&["link", "set", "lo", "mtu", "1500"]);
    let (_server, _lines, ports) = serve_at(ground.server(), ground.server_namespace());
    let ask = "
import socket, sys
host, ports = sys.argv[1], [int(port) for port in sys.argv[2:]]
for connected in False, True:
    for size in 100, 4000, 100:
        for port in ports:
            one = socket.socket(socket.AF_INET6 if ':' in host else socket.AF_INET, socket.SOCK_DGRAM)
            one.settimeout(2 if size > 1500 and ':' in host else 10)
            if connected: one.connect((host, port))
            one.send(b'x' * size) if connected else one.sendto(b'x' * size, (host, port))
            try: answer, peer = one.recvfrom(1000)
            except OSError as error: print(size, type(error).__name__)
            else: print(size, (answer, peer[:2]) == (b'%d 0 %d' % (port, size), (host, port)))";
    let spec = match family {
        Family::V4 => one.told(),
        Family::V6 => one.told_over_ipv6(),
    };
    let watched = [system_python(), "-c", ask, &ground.server().to_string(), &ports[0], &ports[1]];
    ground.waylay().args(["--through", &spec]).watch(watched).well().stdout
}

/// The proxy is told the token, and answers from that as well.
#[test]
fn in_fragments_pass_by_their_token() {
    assert_eq!(
        in_fragments(Family::V4),
        "100 True\n100 True\n4000 True\n4000 True\n100 True\n100 True\n".repeat(2)
    );
}

/// Nobody listens at a token, and those before and after them arrive.
#[test]
fn in_fragments_are_lost_over_ipv6() {
    let lost = "4000 TimeoutError\n".repeat(2);
    assert_eq!(in_fragments(Family::V6), format!("100 True\n100 True\n{lost}100 True\n100 True\n").repeat(2));
}
