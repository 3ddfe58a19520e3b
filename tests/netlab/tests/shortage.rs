//! A socket that has no room for a record does not get out without one.

use std::net::Ipv4Addr;

use waylay_netlab::{Ground, TcpServer, python};

/// Keys of RFC 2385 are charged to the same budget as the kernel side's
/// storage, and any process may fill it: `TCP_MD5SIG`, tcp(7).
const CRAM: &str = "
import socket, struct, sys
s = socket.socket()
count = 0
try:
    while count < 10_000_000:
        peer = struct.pack('HH4s120x', socket.AF_INET, 0, struct.pack('!I', 0x0a000000 + count))
        s.setsockopt(socket.IPPROTO_TCP, 14, peer + struct.pack('BBHi80s', 0, 0, 1, 0, b'k'))
        count += 1
except OSError as error:
    print('crammed after', count > 0, error.errno)
try:
    s.connect((sys.argv[1], int(sys.argv[2])))
    print('connected')
except OSError as error:
    print('failed', error.errno)
";

#[test]
fn of_socket_memory_is_no_way_out() {
    let server = TcpServer::start(Ipv4Addr::LOCALHOST.into(), |_| Ok(()));
    let (ip, port) = (server.address().ip().to_string(), server.address().port().to_string());
    let run =
        Ground::loopback().waylay().args(["--on-failure", "open"]).watch([python(), "-c", CRAM, &ip, &port]);
    // ENOMEM for the key, ENOBUFS for the connect.
    assert_eq!(run.stdout, "crammed after True 12\nfailed 105\n");
    assert_eq!(server.accepted(), 0);
    assert!(run.stderr.contains("refused with ENOBUFS"), "{}", run.stderr);
}
