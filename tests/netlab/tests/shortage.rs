//! A socket that has no room for a record does not get out without one.

use std::net::Ipv4Addr;

use waylay_netlab::{Ground, TcpServer, python};

/// Some things that any process may hang on its socket are charged to the same
/// budget as the kernel side's storage, `net.core.optmem_max`. How they are
/// hung there is the way's own. Storage is wanted where other sockets, which
/// come right before by their cookies, have every place there is without it.
const SOCKETS: &str = "
import errno, os, socket, struct, sys
TURN = 65536
os.sched_setaffinity(0, [next(iter(os.sched_getaffinity(0)))])
to = ('::ffff:' + sys.argv[1], int(sys.argv[2]))
def place(s): return struct.unpack('Q', s.getsockopt(socket.SOL_SOCKET, 57, 8))[0] % TURN
def neighbour():
    while True:
        s = socket.socket(socket.AF_INET6)
        if place(s) == here: return s
s = socket.socket(socket.AF_INET6)
here = place(s)
crowd = []
for _ in range(int(sys.argv[3])):
    s.connect(to)
    crowd.append(s)
    s = neighbour()
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
    s.connect(to)
    print('connected')
except OSError as error:
    print('failed', errno.errorcode[error.errno])
";

/// However the budget was used up, under `open` too.
fn is_no_way_out(way: &str) {
    let server = TcpServer::start(Ipv4Addr::LOCALHOST.into(), |_| Ok(()));
    let (ip, port) = (server.address().ip().to_string(), server.address().port().to_string());
    let program = [SOCKETS, way, CONNECT].concat();
    let run = |crowd: &str| {
        let command = [python(), "-c", &program, &ip, &port, crowd];
        Ground::loopback().waylay().args(["--on-failure", "open"]).through_logs(1).reporting().watch(command)
    };
    let alone = run("0");
    assert_eq!(alone.stdout, "crammed True ENOMEM\nconnected\n");
    assert_eq!(alone.reports().len(), 1, "{}", alone.stderr);
    let crowded = run("4");
    assert_eq!(crowded.stdout, "crammed True ENOMEM\nfailed ENOBUFS\n");
    assert_eq!(crowded.reports().len(), 4, "{}", crowded.stderr);
    assert!(crowded.stderr.contains("refused with ENOBUFS"), "{}", crowded.stderr);
    assert_eq!(server.accepted(), 5);
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
