//! Messages without privileges: where nothing in a run concerns datagrams nobody is asked about them, and where anything does each is judged.

#![expect(clippy::unwrap_used, reason = "a failed set-up is a failed test")]

use std::{
    fs,
    io::Write,
    net::{SocketAddr, UdpSocket},
    os::unix::fs::PermissionsExt,
    thread,
    time::Duration,
};

use rustix::process::Signal;
use tempfile::TempDir;
use waylay_netlab::{TcpServer, Waylay, kill, patiently, system_python};

/// A service for TCP, which could take datagrams, and one block that is about TCP.
const OF_TCP: &str = "
[service.log]
run = \"log\"
[[filter]]
action = \"redirect\"
service = \"log\"
if.protocol = \"tcp\"
[sublayer.base]
[[filter]]
action = \"block\"
sublayer = \"base\"
if.protocol = \"tcp\"
if.port = 9
";

/// No service, and all datagrams are blocked but those to one port.
const BLOCKING: &str = "
[sublayer.base]
[[filter]]
action = \"block\"
sublayer = \"base\"
if.protocol = \"udp\"
unless.port = ";

/// Of all: ports of a server for datagrams, of another one and of a server for streams, and the calls as C has them.
const PRELUDE: &str = "
import ctypes, errno, socket, struct, sys
one, two, stream = (('127.0.0.1', int(port)) for port in sys.argv[1:4])
libc = ctypes.CDLL(None, use_errno=True)
left, right = socket.socketpair()
def client():
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.settimeout(20)
    return s
def said(call):
    try: return call()
    except OSError as error: return errno.errorcode[error.errno] if error.errno else type(error).__name__
";

struct Ground {
    folder: TempDir,
    echoes: [SocketAddr; 2],
    stream: TcpServer,
}

impl Ground {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let stream = TcpServer::with_backlog(64, |mut stream| stream.write_all(b"hello"));
        Self { folder, echoes: [echo(), echo()], stream }
    }

    /// A run by a policy.
    fn waylay(&self, policy: &str) -> Waylay {
        let path = self.folder.path().join("policy.toml");
        fs::write(&path, policy).unwrap();
        Waylay::run_without_root(None).args(["--policy", path.to_str().unwrap()])
    }

    fn command(&self, program: &str) -> Vec<String> {
        let [one, two] = self.echoes;
        let ports = [one, two, self.stream.address()].map(|address| address.port().to_string());
        let words = [system_python(), "-u", "-c", &format!("{PRELUDE}{program}")].map(str::to_owned);
        words.into_iter().chain(ports).collect()
    }
}

/// Sends everything back, and ends with the test.
fn echo() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    thread::spawn(move || {
        let mut bytes = [0; 100];
        while let Ok((length, peer)) = socket.recv_from(&mut bytes) {
            let _left = socket.send_to(&bytes[..length], peer);
        }
    });
    address
}

/// Whoever were asked about would have ENOSYS, as connect() has.
#[test]
fn nobody_is_asked_about_messages_where_nothing_concerns_datagrams() {
    const ASKED: &str = "
class Part(ctypes.Structure): _fields_ = [('at', ctypes.c_char_p), ('length', ctypes.c_size_t)]
class Message(ctypes.Structure):
    _fields_ = [('name', ctypes.c_char_p), ('name_length', ctypes.c_uint), ('parts', ctypes.POINTER(Part)), ('count', ctypes.c_size_t),
                ('rest', ctypes.c_size_t * 3), ('length', ctypes.c_uint)]
def many(call, *arguments):
    result = call(*arguments)
    return result if result >= 0 else errno.errorcode[ctypes.get_errno()]
name = struct.pack('=HH4s8x', socket.AF_INET, socket.htons(two[1]), bytes([127, 0, 0, 1]))
s = client()
# It waits itself, and not Python for it.
s.settimeout(None)
s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack('ll', 20, 0))
fastopen = 0x20000000
# Where descriptors cannot be copied there are no new sockets by then.
sockets = [socket.socket() for _ in range(4)]
for line in sys.stdin:
    left.sendmsg([b'stream']); s.sendmsg([b'message'], [], 0, one)
    print(said(lambda: right.recvmsg(9)[0]), said(lambda: s.recvmsg(9)[::3] == (b'message', one)), end=' ')
    s.sendto(b'named', one); print(said(lambda: s.recvfrom(9) == (b'named', one)), end=' ')
    sent = (Message * 2)(*[Message(name, 16, ctypes.pointer(Part(b'many', 4)), 1) for _ in range(2)])
    room = ctypes.create_string_buffer(9)
    got = Message(None, 0, ctypes.pointer(Part(ctypes.cast(room, ctypes.c_char_p), 9)), 1)
    print(many(libc.sendmmsg, s.fileno(), sent, 2, 0), s.recv(9), many(libc.recvmmsg, s.fileno(), ctypes.byref(got), 1, 0, None), end=' ')
    fast, slow = sockets.pop(), sockets.pop()
    print(said(lambda: fast.sendmsg([b'x'], [], fastopen, stream)), many(libc.sendmmsg, fast.fileno(), sent, 2, fastopen), end=' ')
    print(said(lambda: fast.sendto(b'x', fastopen, stream)), said(lambda: slow.connect(stream)))
";
    let ground = Ground::new();
    // EOPNOTSUPP, as Python calls that number.
    let messages = "b'stream' True True 2 b'many' 1 ENOTSUP ENOTSUP";
    let of_tcp = Waylay::run_without_root(None).args(["--through", "log/tcp"]);
    for waylay in [ground.waylay(OF_TCP), of_tcp] {
        let mut running = waylay.spawn(ground.command(ASKED));
        assert_eq!(running.ask("watched"), format!("{messages} 1 None"));
        kill(running.pid(), Signal::KILL);
        patiently("the end of waylay", || (!running.is_running()).then_some(()));
        assert_eq!(running.ask("by nobody"), format!("{messages} ENOSYS ENOSYS"));
    }
}

#[test]
fn streams_pass_their_service_and_datagrams_go_directly_where_it_takes_only_those() {
    const SEND: &str = "
c = socket.create_connection(stream); print(c.recvmsg(5, 0, socket.MSG_WAITALL)[0], c.getpeername() == stream)
s = client()
s.sendto(b'named', one); print(s.recvfrom(9) == (b'named', one))
s.connect(two); s.send(b'connected'); print(s.recvmsg(9)[::3] == (b'connected', two), s.getpeername() == two)
print(said(lambda: socket.create_connection(('127.0.0.1', 9))), said(lambda: client().sendto(b'x', ('127.0.0.1', 9))))
";
    let ground = Ground::new();
    let finished = ground.waylay(OF_TCP).reporting().watch(ground.command(SEND)).well();
    assert_eq!(finished.stdout, "b'hello' True\nTrue\nTrue True\nEACCES 1\n", "{finished:?}");
    let reports = finished.reports();
    assert_eq!(
        (reports.len(), reports[0].original_destination),
        (1, ground.stream.address()),
        "{finished:?}"
    );
}

#[test]
fn each_datagram_is_judged_where_a_policy_blocks_some_and_answers_are_none() {
    const SEND: &str = "
s = client()
for send in (lambda to: s.sendto(b'named', to), lambda to: s.sendmsg([b'message'], [], 0, to)):
    print(said(lambda: send(one)), said(lambda: send(two)))
print(said(lambda: client().connect(two)), s.recvfrom(9) == (b'named', one))
left.sendmsg([b'stream']); print(right.recvmsg(9)[0])
server = client()
server.bind(('127.0.0.1', 0))
print(server.getsockname()[1])
question, peer = server.recvfrom(9)
print(server.sendto(b're: ' + question, peer))
";
    let ground = Ground::new();
    let policy = format!("{BLOCKING}{}\n", ground.echoes[0].port());
    let running = ground.waylay(&policy).spawn(ground.command(SEND));
    let port = running.stdout().wait_for_line(4);
    let caller = UdpSocket::bind("127.0.0.1:0").unwrap();
    caller.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    caller.send_to(b"who", ("127.0.0.1", port.trim().parse().unwrap())).unwrap();
    let mut answer = [0; 9];
    assert_eq!(caller.recv(&mut answer).map(|length| answer[..length].to_vec()).unwrap(), b"re: who");
    let finished = running.finish().well();
    let expected = format!("5 EACCES\n7 EACCES\nEACCES True\nb'stream'\n{}\n7\n", port.trim());
    assert_eq!(finished.stdout, expected, "{finished:?}");
}
