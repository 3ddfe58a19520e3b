//! What an application asked of its socket is asked of the service's too.
#![expect(clippy::unwrap_used, reason = "a failed step is a failed test")]

use waylay_netlab::{Family, Ground, Place, WebServer, python};

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
    let ground = Ground::new(Family::V4, Place::Veth);
    let client = ground.client_namespace().unwrap();
    client.ip(&["route", "del", "10.77.0.0/24", "dev", "wire"]);
    client.ip(&["route", "add", "10.77.0.0/24", "dev", "wire", "src", "10.77.0.1", "table", "100"]);
    client.ip(&[&["rule", "add"], rule, &["lookup", "100"]].concat());
    let directory = tempfile::tempdir().unwrap();
    let server = WebServer::start(&ground, directory.path());
    let (ip, port) = (server.address().ip().to_string(), server.address().port().to_string());
    let run = ground.waylay().through_logs(2).watch([python(), "-c", CLIENT, &ip, &port, wish]);
    run.stdout.trim().to_owned()
}

#[test]
fn a_mark_is_carried_through_every_service() {
    let rule = ["fwmark", "0x42"];
    assert_eq!(reached_by(&rule, "s.setsockopt(socket.SOL_SOCKET, 36, 0x42)"), "answered");
    assert_eq!(reached_by(&rule, "pass"), "failed 104");
}

#[test]
fn a_device_is_carried_through_every_service() {
    let rule = ["oif", "wire"];
    assert_eq!(reached_by(&rule, "s.setsockopt(socket.SOL_SOCKET, 25, b'wire')"), "answered");
    assert_eq!(reached_by(&rule, "pass"), "failed 104");
}
