//! A socket that has no room for a record does not get out without one.

use std::net::Ipv4Addr;

use waylay_netlab::{Ground, TcpServer, python};

/// Some things that any process may hang on its socket are charged to the same
/// budget as the kernel side's storage, `net.core.optmem_max`. How they are
/// hung there is the way's own.
const CRAM: &str = "
import errno, socket, struct, sys
s = socket.socket(socket.AF_INET6)
";
const CONNECT: &str = "
count, error = 0, 0
try:
    while count < 10_000_000:
        cram(count)
        count += 1
except OSError as failed:
    error = failed.errno
print('crammed', count > 0, errno.errorcode.get(error))
try:
    s.connect(('::ffff:' + sys.argv[1], int(sys.argv[2])))
    print('connected')
except OSError as error:
    print('failed', errno.errorcode[error.errno])
";

/// However the budget was used up, under `open` too.
fn is_no_way_out(way: &str) {
    let server = TcpServer::start(Ipv4Addr::LOCALHOST.into(), |_| Ok(()));
    let (ip, port) = (server.address().ip().to_string(), server.address().port().to_string());
    let program = [CRAM, way, CONNECT].concat();
    let command = [python(), "-c", &program, &ip, &port];
    let run = Ground::loopback().waylay().args(["--on-failure", "open"]).watch(command);
    assert_eq!(run.stdout, "crammed True ENOMEM\nfailed ENOBUFS\n");
    assert_eq!(server.accepted(), 0);
    assert!(run.stderr.contains("refused with ENOBUFS"), "{}", run.stderr);
}

/// Keys of RFC 2385: `TCP_MD5SIG`, tcp(7).
#[test]
fn of_socket_memory_by_signature_keys_is_no_way_out() {
    is_no_way_out(
        "
def cram(count):
    peer = struct.pack('HHI16sI100x', socket.AF_INET6, 0, 0, struct.pack('!QQ', 0xfd << 56, count), 0)
    s.setsockopt(socket.IPPROTO_TCP, 14, peer + struct.pack('BBHi80s', 0, 0, 1, 0, b'k'))
",
    );
}

/// `MCAST_JOIN_GROUP`, which a TCP socket may do although it is of no use to it.
#[test]
fn of_socket_memory_by_group_memberships_is_no_way_out() {
    is_no_way_out(
        "
def cram(count):
    group = socket.inet_pton(socket.AF_INET6, f'ff15::{count >> 16:x}:{count & 0xffff:x}')
    loopback = 1
    address = struct.pack('HHI16sI100x', socket.AF_INET6, 0, 0, group, 0)
    s.setsockopt(socket.IPPROTO_IPV6, 42, struct.pack('I4x', loopback) + address)
",
    );
}
