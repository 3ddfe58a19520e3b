//! What an application asked of its socket is asked of the service's too.
#![expect(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::process::Command;

use waylay_netlab::{Family, Ground, Place, Process, Waylay, WebServer, python};

const CLIENT: &str = "
import socket, sys
s = socket.socket()
exec(sys.argv[3])
try:
    s.connect((sys.argv[1], int(sys.argv[2])))
    s.sendall(b'GET / HTTP/1.0\\r\\n\\r\\n')
    print('answered' if s.recv(4).startswith(b'HTTP') else 'ended')
except OSError as error:
    print('failed', error.errno)
";

/// The server can be reached by one rule only, which looks at the socket.
fn reached_by(rule: &[&str], wish: &str) -> String {
    reached(Ground::waylay, rule, wish)
}

fn reached(waylay: impl FnOnce(&Ground) -> Waylay, rule: &[&str], wish: &str) -> String {
    let ground = Ground::new(Family::V4, Place::Veth);
    let client = ground.client_namespace().unwrap();
    client.ip(&["route", "del", "10.77.0.0/24", "dev", "wire"]);
    client.ip(&["route", "add", "10.77.0.0/24", "dev", "wire", "src", "10.77.0.1", "table", "100"]);
    client.ip(&[&["rule", "add"], rule, &["lookup", "100"]].concat());
    let directory = tempfile::tempdir().unwrap();
    let server = WebServer::start(&ground, directory.path());
    let (ip, port) = (server.address().ip().to_string(), server.address().port().to_string());
    let run = waylay(&ground).through_logs(2).watch([python(), "-c", CLIENT, &ip, &port, wish]);
    run.stdout.trim().to_owned()
}

#[test]
fn a_mark_is_carried_through_every_service() {
    let rule = ["fwmark", "0x42"];
    assert_eq!(reached_by(&rule, "s.setsockopt(socket.SOL_SOCKET, 36, 0x42)"), "answered");
    assert_eq!(reached_by(&rule, "pass"), "failed 104");
}

/// Rules may ask for the source, too.
#[test]
fn a_way_that_is_there_for_one_source_alone_is_found() {
    let rule = ["from", "10.77.0.1"];
    assert_eq!(reached_by(&rule, "s.bind(('10.77.0.1', 0))"), "answered");
}

/// Where eBPF is not to be had, root may set one all the same.
#[test]
fn a_mark_is_carried_by_a_supervisor_too() {
    let supervised = |ground: &Ground| ground.waylay().args(["--engine", "seccomp"]);
    let rule = ["fwmark", "0x42"];
    assert_eq!(reached(supervised, &rule, "s.setsockopt(socket.SOL_SOCKET, 36, 0x42)"), "answered");
    assert_eq!(reached(supervised, &rule, "pass"), "failed 101");
}

#[test]
fn a_device_is_carried_through_every_service() {
    let rule = ["oif", "wire"];
    assert_eq!(reached_by(&rule, "s.setsockopt(socket.SOL_SOCKET, 25, b'wire')"), "answered");
    assert_eq!(reached_by(&rule, "pass"), "failed 104");
}

/// Says of each connection who it is from, and with which TOS or traffic class it came.
const WITNESS: &str = "
import socket, struct, sys
host = sys.argv[1]
v6 = ':' in host
level, receive, options, wanted = (41, 66, 6, 67) if v6 else (0, 13, 9, 1)
listener = socket.socket(socket.AF_INET6 if v6 else socket.AF_INET)
listener.setsockopt(level, receive, 1)
listener.bind((host, 0))
listener.listen()
print(listener.getsockname()[1], flush=True)
while True:
    stream, peer = listener.accept()
    stream.recv(4)
    rest, found = stream.getsockopt(level, options, 256), None
    while len(rest) >= 16:
        length, at, name = struct.unpack_from('NiI', rest)
        if (at, name) == (level, wanted):
            found = rest[16]
        rest = rest[(length + 7) // 8 * 8:]
    print(peer[0], found, flush=True)
    stream.sendall(b'HTTP')
    stream.close()
";

/// What a server learns of a connection that came through two services.
fn seen_by_the_server(family: Family, wish: &str) -> String {
    let ground = Ground::new(family, Place::Loopback);
    let ip = ground.server().to_string();
    let (_server, lines) = Process::spawn_read(Command::new(python()).args(["-u", "-c", WITNESS, &ip]));
    let port = lines.wait_for_line(0);
    let client =
        CLIENT.replace("socket.socket()", "socket.socket(socket.AF_INET6 if ':' in sys.argv[1] else 2)");
    let finished = ground.waylay().through_logs(2).watch([python(), "-c", &client, &ip, &port, wish]);
    assert_eq!(finished.stdout.trim(), "answered", "{finished:?}");
    lines.wait_for_line(1)
}

#[test]
fn a_source_address_is_carried_through_every_service() {
    assert_eq!(seen_by_the_server(Family::V4, "s.bind(('127.0.0.77', 0))"), "127.0.0.77 0");
    assert_eq!(seen_by_the_server(Family::V4, "pass"), "127.0.0.1 0");
}

#[test]
fn a_type_of_service_is_carried_through_every_service() {
    assert_eq!(seen_by_the_server(Family::V4, "s.setsockopt(0, 1, 0x48)"), "127.0.0.1 72");
}

#[test]
fn a_traffic_class_is_carried_through_every_service() {
    assert_eq!(seen_by_the_server(Family::V6, "s.setsockopt(41, 67, 0x48)"), "::1 72");
    assert_eq!(seen_by_the_server(Family::V6, "pass"), "::1 0");
}
