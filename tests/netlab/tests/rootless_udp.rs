//! UDP without privileges: tests/datagrams.rs has what holds for every engine (`SUBJECT=seccomp`), and this is about the calls that are answered in
//! their callers' place.

#![expect(clippy::unwrap_used, reason = "a failed set-up is a failed test")]

use std::{
    fs,
    net::{SocketAddr, UdpSocket},
    os::unix::fs::PermissionsExt,
    process::Command,
    thread,
};

use rustix::process::Signal;
use waylay_netlab::{Corners, Finished, Process, Waylay, kill, patiently, system_python};

fn waylay() -> Waylay {
    Waylay::run_without_root(None)
}

/// Sends everything back, and ends with the test.
fn echo(host: &str) -> SocketAddr {
    let socket = UdpSocket::bind((host, 0)).unwrap();
    let address = socket.local_addr().unwrap();
    thread::spawn(move || {
        let mut bytes = vec![0; 70_000];
        loop {
            // An error is of somebody who has left.
            if let Ok((length, peer)) = socket.recv_from(&mut bytes) {
                let _left = socket.send_to(&bytes[..length], peer);
            }
        }
    });
    address
}

/// Of all: the servers' ports, two of IPv4 and one of IPv6, and the calls as C has them.
const PRELUDE: &str = "
import ctypes, errno, os, signal, socket, struct, sys, threading, time
one, two, six = map(int, sys.argv[1:4])
one, two, six = ('127.0.0.1', one), ('127.0.0.1', two), ('::1', six)
libc = ctypes.CDLL(None, use_errno=True)
def client(family=socket.AF_INET, wait=20):
    s = socket.socket(family, socket.SOCK_DGRAM)
    if wait: s.settimeout(wait)
    return s
def said(call):
    try: return call()
    except OSError as error: return errno.errorcode[error.errno] if error.errno else type(error).__name__
";

fn ports() -> [String; 3] {
    [echo("127.0.0.1"), echo("127.0.0.1"), echo("::1")].map(|address| address.port().to_string())
}

fn command(program: &str, ports: &[String; 3]) -> Vec<String> {
    let words = [system_python(), "-u", "-c", &format!("{PRELUDE}{program}")].map(str::to_owned);
    words.into_iter().chain(ports.iter().cloned()).collect()
}

/// What a program prints is the same without waylay and through three services.
fn same(program: &str) -> (String, Finished) {
    let command = command(program, &ports());
    let plain = Command::new(&command[0]).args(&command[1..]).output().unwrap();
    assert!(plain.status.success(), "{}", String::from_utf8_lossy(&plain.stderr));
    let watched = waylay().through_logs(3).reporting().watch(&command).well();
    let plain = String::from_utf8(plain.stdout).unwrap();
    assert_eq!(watched.stdout, plain, "{watched:?}");
    (plain, watched)
}

/// Datagrams by flow, as a service has reported them.
fn flows(finished: &Finished, service: &str) -> Vec<(u64, u64)> {
    let mut flows: Vec<_> =
        finished.reports_of(service).iter().map(|report| report.datagrams.unwrap()).collect();
    flows.sort();
    flows
}

#[test]
fn messages_with_names_are_sent_and_received_one_by_one_and_many_at_a_time() {
    const MANY: &str = "
class Part(ctypes.Structure): _fields_ = [('at', ctypes.c_void_p), ('length', ctypes.c_size_t)]
class Message(ctypes.Structure):
    _fields_ = [('name', ctypes.c_void_p), ('name_length', ctypes.c_uint), ('parts', ctypes.POINTER(Part)), ('count', ctypes.c_size_t),
                ('control', ctypes.c_void_p), ('control_length', ctypes.c_size_t), ('flags', ctypes.c_int), ('pad', ctypes.c_int),
                ('length', ctypes.c_uint), ('end', ctypes.c_int)]
def name(to): return struct.pack('=HH4s8x', socket.AF_INET, socket.htons(to[1]), bytes([127, 0, 0, 1]))
keep = []
def message(to, *parts):
    at = (Part * len(parts))(*[Part(ctypes.cast(part, ctypes.c_void_p), len(part)) for part in parts])
    place = ctypes.create_string_buffer(to, 28)
    keep.extend([at, place, parts])
    return Message(ctypes.cast(place, ctypes.c_void_p), len(to) or 28, at, len(parts), None, 0)
s = client()
s.sendto(b'plain', one); print(s.recvfrom(100) == (b'plain', one))
s.sendmsg([b'in ', b'two parts'], [], 0, two); print(s.recvmsg(100) == (b'in two parts', [], 0, two))
sent = (Message * 3)(message(name(one), b'first'), message(name(two), b''), message(name(one), b'th', b'ird'))
print(libc.sendmmsg(s.fileno(), sent, 3, 0), [m.length for m in sent])
s.setblocking(True)
rooms = [ctypes.create_string_buffer(8) for _ in range(4)]
got = (Message * 4)(*[message(b'', room) for room in rooms])
came = 0
while came < 3: came += max(0, libc.recvmmsg(s.fileno(), ctypes.byref(got, 64 * came), 3 - came, 0x10000, None))
seen = sorted((rooms[i].raw[:got[i].length], ctypes.string_at(got[i].name, got[i].name_length) == name(two)) for i in range(3))
print(seen)
bad = (Message * 2)(message(name(one), b'good'), Message(1, 16, None, 0, None, 0))
print(libc.sendmmsg(s.fileno(), bad, 2, 0), s.recvfrom(100) == (b'good', one))
print(libc.sendmmsg(s.fileno(), ctypes.byref(bad, 64), 1, 0), errno.errorcode[ctypes.get_errno()])
";
    let (printed, finished) = same(MANY);
    assert!(printed.contains("[(b'', True), (b'first', False), (b'third', False)]"), "{printed}");
    for service in ["log", "log-2", "log-3"] {
        assert_eq!(flows(&finished, service), [(2, 2), (4, 4)], "{finished:?}");
    }
}

/// Each fails, or does half of it, as without waylay.
#[test]
fn strange_arguments_have_the_kernels_own_errors() {
    const STRANGE: &str = "
import select
def comes(): select.select([s], [], [], 60)
def call(f, *arguments):
    result = f(*arguments)
    print(result if result >= 0 else errno.errorcode[ctypes.get_errno()])
good = struct.pack('=HH4s8x', socket.AF_INET, socket.htons(one[1]), bytes([127, 0, 0, 1]))
v = ctypes.c_void_p
s = client()
fd = s.fileno()
call(libc.sendto, -1, b'x', 1, 0, good, 16)
call(libc.sendto, os.open('/dev/null', os.O_RDONLY), b'x', 1, 0, good, 16)
call(libc.sendto, fd, b'x', 1, 0, v(1), 16)
call(libc.sendto, fd, v(1), 1, 0, good, 16)
call(libc.sendto, fd, b'x', 1, 0, good, 4096)
call(libc.sendto, fd, b'x', 1, 0, good, 2)
call(libc.sendto, fd, b'x', 1, 0, good, -1)
call(libc.sendto, fd, b'x', 1, 0, b'\\x7f\\x7f' + good[2:], 16)
call(libc.sendto, fd, b'x', 1, 0, good[:2] + b'\\0\\0' + good[4:], 16)
call(libc.sendto, fd, bytes(65508), 65508, 0, good, 16)
call(libc.sendmsg, fd, v(1), 0)
room, name, length = ctypes.create_string_buffer(100), ctypes.create_string_buffer(28), ctypes.c_int(28)
call(libc.recvfrom, fd, room, 100, socket.MSG_DONTWAIT, name, ctypes.byref(length))
for at, where, how_long in ((v(1), name, length), (room, v(1), length), (room, name, None), (room, name, ctypes.c_int(-1))):
    s.sendto(b'wasted', one); comes()
    call(libc.recvfrom, fd, at, 100, 0, where, ctypes.byref(how_long) if how_long is not None else v(1))
    call(libc.recvfrom, fd, room, 100, socket.MSG_DONTWAIT, name, ctypes.byref(length))
s.sendto(b'a long one', one); comes()
length = ctypes.c_int(4)
call(libc.recvfrom, fd, room, 3, socket.MSG_PEEK | socket.MSG_TRUNC, name, ctypes.byref(length)); print(length.value)
print(s.recvmsg(4)[:3])
s.settimeout(1); print(said(lambda: s.recvfrom(1, socket.MSG_DONTWAIT))); s.settimeout(20)
s.sendto(b'', one); print(s.recvfrom(9) == (b'', one))
s.setblocking(True)
s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack('ll', 0, 200000))
began = time.monotonic(); print(said(lambda: s.recvfrom(9)), 0.15 < time.monotonic() - began < 2)
print(said(lambda: client(wait=None).recvfrom(9, socket.MSG_DONTWAIT)), said(lambda: client(wait=0.1).recvfrom(9)))
";
    let (printed, _) = same(STRANGE);
    assert!(printed.starts_with("EBADF\nENOTSOCK\nEFAULT\nEFAULT\nEINVAL\n"), "{printed}");
}

#[test]
fn what_comes_beside_a_datagram_passes() {
    const BESIDE: &str = "
s = client()
s.setsockopt(socket.SOL_IP, socket.IP_RECVTOS, 1)
s.setsockopt(socket.SOL_IP, 8, 1)
pktinfo = (socket.SOL_IP, 8, struct.pack('i4s4s', 0, bytes(4), bytes(4)))
s.sendmsg([b'marked'], [(socket.SOL_IP, socket.IP_TOS, struct.pack('i', 1)), pktinfo], 0, one)
data, beside, flags, peer = s.recvmsg(100, 200)
print(data, sorted((level, kind) for level, kind, _ in beside), flags, peer == one)
s.sendmsg([bytes(2500)], [(socket.SOL_UDP if hasattr(socket, 'SOL_UDP') else 17, 103, struct.pack('H', 1000))], 0, two)
print([len(s.recvfrom(3000)[0]) for _ in range(3)])
left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
socket.send_fds(left, [b'passed'], [s.fileno()])
data, passed, _, _ = socket.recv_fds(right, 100, 1)
again = socket.socket(fileno=passed[0])
again.sendto(b'by another name', one); print(data, s.recvfrom(100) == (b'by another name', one))
";
    let (_, finished) = same(BESIDE);
    assert_eq!(flows(&finished, "log-3"), [(2, 2), (3, 3)], "{finished:?}");
}

#[test]
fn who_waits_for_a_datagram_is_interrupted_by_signals_and_keeps_nobody_else_waiting() {
    const WAIT: &str = "
seen = []
signal.signal(signal.SIGALRM, lambda *_: seen.append(1))
s = client(wait=None)
name, length = ctypes.create_string_buffer(16), ctypes.c_int(16)
def wait(restart):
    signal.siginterrupt(signal.SIGALRM, not restart)
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    if restart: threading.Timer(0.8, lambda: s.sendto(b'late', one)).start()
    result = libc.recvfrom(s.fileno(), ctypes.create_string_buffer(9), 9, 0, name, ctypes.byref(length))
    print(result if result >= 0 else errno.errorcode[ctypes.get_errno()], len(seen))
wait(False)
wait(True)
def hold():
    try: client(wait=None).recvfrom(9)
    except OSError: pass
def twenty():
    began = time.monotonic()
    for _ in range(20): s.sendto(b'x', two); s.recvfrom(9)
    return time.monotonic() - began
alone = twenty()
for _ in range(50): threading.Thread(target=hold, daemon=True).start()
beside = twenty()
print(beside < 5 + 20 * alone or (alone, beside))
os._exit(0)
";
    assert_eq!(same(WAIT).0, "EINTR 1\n4 2\nTrue\n");
}

#[test]
fn a_server_in_the_run_answers_those_who_have_called_it() {
    const SERVER: &str = "
for family, host in ((socket.AF_INET, '127.0.0.1'), (socket.AF_INET6, '::1')):
    server = client(family); server.bind((host, 0))
    def serve(server=server):
        for _ in range(2):
            datagram, peer = server.recvfrom(100)
            server.sendto(b're: ' + datagram, peer)
    thread = threading.Thread(target=serve); thread.start()
    for _ in range(2):
        c = client(family); c.sendto(b'hello', server.getsockname()); print(c.recvfrom(100)[0])
    thread.join()
";
    let (printed, finished) = same(SERVER);
    assert_eq!(printed, "b're: hello'\n".repeat(4));
    assert_eq!(flows(&finished, "log"), [(1, 1); 4], "answers are no flows: {finished:?}");
}

#[test]
fn descriptors_threads_and_children_share_a_flow() {
    const SHARE: &str = "
s = client()
copy = s.dup()
copy.settimeout(20)
copy.sendto(b'copy', one); print(s.recvfrom(100) == (b'copy', one))
child = os.fork()
if child == 0:
    s.sendto(b'child', one); print(s.recvfrom(100) == (b'child', one)); os._exit(0)
os.waitpid(child, 0)
t = threading.Thread(target=lambda: s.sendto(b'thread', one)); t.start(); t.join()
print(copy.recvfrom(100) == (b'thread', one))
n = client(socket.AF_INET6)
n.connect(six); n.send(b'x'); print(n.recvfrom(9)[1] == six + (0, 0), n.getpeername() == six + (0, 0))
n.close()
r = client()
r.connect(one); r.connect(two); r.send(b'x'); print(r.recvfrom(9) == (b'x', two), r.getpeername() == two)
libc.connect(r.fileno(), bytes(16), 16); print(said(r.getpeername))
";
    let (_, finished) = same(SHARE);
    assert!(flows(&finished, "log").contains(&(3, 3)), "{finished:?}");
}

#[test]
fn who_cannot_be_looked_at_sends_nothing_past_the_services() {
    const HIDE: &str = "
libc.prctl(4, 0, 0, 0, 0)
print(said(lambda: client().sendto(b'x', one)))
print(said(lambda: client().connect(one)))
left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
left.sendmsg([b'stays here']); print(right.recvmsg(100)[0])
";
    let finished = waylay().reporting().watch(command(HIDE, &ports())).well();
    assert_eq!(finished.stdout, "EACCES\nEACCES\nb'stays here'\n", "{finished:?}");
}

#[test]
fn when_waylay_is_killed_nothing_is_sent_any_more() {
    const ASKED: &str = "
connected, free = client(), client(wait=None)
for line in sys.stdin:
    print(said(lambda: free.sendto(b'x', one)), said(lambda: connected.connect(two)), said(lambda: free.recvfrom(9)[0]))
    if 'last' in line: break
";
    let mut running = waylay().spawn(command(ASKED, &ports()));
    assert_eq!(running.ask("one"), "1 None b'x'");
    kill(running.pid(), Signal::KILL);
    patiently("the end of waylay", || (!running.is_running()).then_some(()));
    assert_eq!(running.ask("last"), "ENOSYS ENOSYS ENOSYS");
}

/// A child of a process, of whichever of its threads, whose command line has this word.
fn child_of(parent: u32, word: &str) -> Option<u32> {
    let is_meant = |pid: &u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|&byte| byte == 0).any(|argument| argument == word.as_bytes())
    };
    let threads = fs::read_dir(format!("/proc/{parent}/task")).unwrap();
    let children =
        |thread: fs::DirEntry| fs::read_to_string(thread.path().join("children")).unwrap_or_default();
    let lists: Vec<String> = threads.flatten().map(children).collect();
    lists.iter().flat_map(|list| list.split_whitespace()).filter_map(|pid| pid.parse().ok()).find(is_meant)
}

#[test]
fn what_a_dead_service_would_have_seen_is_refused() {
    const ASKED: &str = "
s = client(wait=2)
for line in sys.stdin:
    print(said(lambda: s.sendto(b'x', one) and s.recvfrom(9)[0]), said(lambda: s.sendto(b'x', two) and s.recvfrom(9)[0]))
";
    let mut running = waylay().reporting().spawn(command(ASKED, &ports()));
    assert_eq!(running.ask("before"), "b'x' b'x'");
    let service = child_of(running.pid(), "log");
    kill(service.unwrap(), Signal::KILL);
    let refused = patiently("refusals", || {
        Some(running.ask("after")).filter(|said| !said.contains("b'x'") && !said.contains("Timeout"))
    });
    assert_eq!(refused, "ECONNREFUSED ECONNREFUSED");
}

/// A name server of somebody else's, a client of somebody else's, and the C library, which compares who answers with whom it has asked.
#[test]
fn resolvers_take_the_answers() {
    let corners = Corners::new();
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let (servers, pid) = (folder.path().join("resolv.conf"), folder.path().join("pid"));
    fs::write(&servers, "nameserver 127.0.0.1\n").unwrap();
    let mut dnsmasq = corners.client("dnsmasq");
    dnsmasq.args(["-k", "-C", "/dev/null", "--no-resolv", "--no-hosts", "--user=root", "--bind-interfaces"]);
    dnsmasq.args(["--listen-address=127.0.0.1", "--address=/example.test/192.0.2.7"]);
    let _dnsmasq = Process::spawn(dnsmasq.arg(format!("--pid-file={}", pid.display())));
    patiently("dnsmasq", || pid.exists().then_some(()));
    let mut inside = corners.client("unshare");
    let run = format!(
        "mount --bind {} /etc/resolv.conf && exec setpriv --reuid 65534 --regid 65534 --clear-groups -- {} run --engine seccomp --through log -- \
         sh -c \"$1\"",
        servers.display(),
        Waylay::binary().display()
    );
    let ask = "dig +short +timeout=5 +tries=1 @127.0.0.1 one.example.test; getent ahostsv4 two.example.test | head -n 1";
    inside.args(["-m", "sh", "-c", &run, "run", ask]);
    let output = inside.output().unwrap();
    let (said, log) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(said.starts_with("192.0.2.7\n192.0.2.7 "), "{said}{log}");
    assert!(log.contains("one.example.test") && log.contains("two.example.test"), "{log}");
}

#[test]
fn whoever_waits_for_a_datagram_is_woken_as_without_waylay_and_by_no_error_that_is_in_its_queue() {
    const WOKEN: &str = "
s = client(wait=0)
s.bind(('127.0.0.1', 0))
threading.Timer(0.3, lambda: said(lambda: s.shutdown(socket.SHUT_RD))).start()
print(said(lambda: s.recvfrom(9)), said(lambda: s.recvmsg(9)[::3]))
closed = client()
closed.bind(('127.0.0.1', 0))
nobody = closed.getsockname()
closed.close()
s = client(wait=0)
s.setsockopt(socket.SOL_IP, 11, 1) # IP_RECVERR
s.connect(nobody)
s.send(b'x')
print(said(lambda: s.recvfrom(9)))
def handle(*_): raise TimeoutError
signal.signal(signal.SIGALRM, handle)
signal.setitimer(signal.ITIMER_REAL, 0.3)
began = time.monotonic()
print(said(lambda: s.recvfrom(9)), time.monotonic() - began < 10, len(s.recvmsg(9, 100, socket.MSG_ERRQUEUE)[1]))
";
    let (said, _) = same(WOKEN);
    assert_eq!(said, "(b'', None) (b'', None)\nECONNREFUSED\nTimeoutError True 1\n");
}

#[test]
fn a_process_one_of_whose_threads_waits_for_a_datagram_is_stopped_and_goes_on() {
    const STOPPED: &str = "
child = os.fork()
if child == 0:
    s = client(wait=0)
    s.sendto(b'a', one)
    s.recvfrom(9)
    waits = threading.Thread(target=lambda: print(s.recvfrom(9)[0]))
    waits.start()
    time.sleep(1)
    s.sendto(b'b', two)
    waits.join()
    os._exit(0)
time.sleep(0.5)
os.kill(child, signal.SIGSTOP)
until = time.monotonic() + 10
while (stopped := os.waitpid(child, os.WUNTRACED | os.WNOHANG)) == (0, 0) and time.monotonic() < until: time.sleep(0.01)
print(os.WIFSTOPPED(stopped[1]))
os.kill(child, signal.SIGCONT)
os.waitpid(child, 0)
";
    let (said, _) = same(STOPPED);
    assert_eq!(said, "True\nb'b'\n");
}

#[test]
fn a_connected_socket_that_cannot_be_connected_elsewhere_stays_as_it_was() {
    const ELSEWHERE: &str = "
s = client()
s.connect(one)
def name(address, family=socket.AF_INET): return struct.pack('=HH4s8x', family, socket.htons(address[1]), socket.inet_aton(address[0]))
def connect(name, length): return libc.connect(s.fileno(), name, length) and errno.errorcode[ctypes.get_errno()]
for failing in (name(two), 15), (name(two, socket.AF_UNIX), 16):
    print(connect(*failing), s.getpeername() == one, s.send(b'a'), s.recvfrom(9) == (b'a', one))
print(connect(name(two), 16), s.getpeername() == two, s.send(b'b'), s.recvfrom(9) == (b'b', two))
print(connect(bytes(16), 16), said(s.getpeername), connect(None, 16), libc.connect(-1, None, 16), errno.errorcode[ctypes.get_errno()])
";
    let (said, _) = same(ELSEWHERE);
    assert!(said.ends_with("0 True 1 True\n0 ENOTCONN EFAULT -1 EBADF\n"), "{said}");
}

#[test]
fn of_what_a_message_does_not_have_the_length_does_not_matter() {
    const LENGTHS: &str = "
class Part(ctypes.Structure): _fields_ = [('at', ctypes.c_char_p), ('length', ctypes.c_size_t)]
class Message(ctypes.Structure):
    _fields_ = [('name', ctypes.c_char_p), ('name_length', ctypes.c_int), ('parts', ctypes.POINTER(Part)), ('count', ctypes.c_size_t),
                ('control', ctypes.c_void_p), ('control_length', ctypes.c_size_t), ('flags', ctypes.c_int)]
def call(which, message, flags=0):
    result = which(s.fileno(), ctypes.byref(message), flags)
    return result if result >= 0 else errno.errorcode[ctypes.get_errno()]
s = client(wait=0)
s.setsockopt(socket.SOL_SOCKET, 29, 1) # SO_TIMESTAMP
s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack('ll', 20, 0))
room = ctypes.create_string_buffer(9)
part = ctypes.pointer(Part(ctypes.cast(room, ctypes.c_char_p), 9))
name = ctypes.cast(ctypes.create_string_buffer(16), ctypes.c_char_p)
for at, name_length, control_length in ((None, -7, 0), (name, 16, 1 << 40), (name, 16, 100)):
    s.sendto(b'asked', one)
    message = Message(at, name_length, part, 1, None, control_length)
    print(call(libc.recvmsg, message), message.flags, message.control_length, message.name_length if at else None)
print(call(libc.sendmsg, Message(None, -7, part, 1)), call(libc.sendmsg, Message(name, -7, part, 1)))
";
    let (said, _) = same(LENGTHS);
    assert!(said.starts_with("5 8 0 None\n5 8 0 16\n5 8 0 16\n"), "{said}");
}

#[test]
fn a_broadcast_of_a_network_is_no_more_redirected_than_that_of_all() {
    const BROADCAST: &str = "
server = client()
server.bind(('0.0.0.0', 0))
to = ('127.255.255.255', server.getsockname()[1])
for wish in 0, 1:
    s = client()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, wish)
    print(said(lambda: s.sendto(b'sent', to)), said(lambda: s.connect(to)), said(lambda: s.send(b'on')))
server.settimeout(1)
for _ in range(2): print(said(lambda: server.recvfrom(9)[0]))
";
    let command = command(BROADCAST, &ports());
    let plain = Command::new(&command[0]).args(&command[1..]).output().unwrap();
    let plain = String::from_utf8(plain.stdout).unwrap();
    assert_eq!(plain, "EACCES EACCES EDESTADDRREQ\n4 None 2\nb'sent'\nb'on'\n");
    let through = |how| waylay().through_logs(1).args(["--unredirectable", how]).watch(&command).well();
    assert_eq!(through("permit").stdout, plain);
    let refused = through("block");
    assert!(refused.stdout.starts_with(&"EACCES EACCES EDESTADDRREQ\n".repeat(2)), "{refused:?}");
    assert_eq!(refused.stderr.matches("it cannot be redirected").count(), 4, "{refused:?}");
}

#[test]
fn where_a_datagram_is_to_start_from_is_left_out_of_those_of_connected_sockets_too() {
    const STARTED: &str = "
s = client()
s.connect(one)
start = struct.pack('i4s4x', 0, socket.inet_aton('127.0.0.9')) # IP_PKTINFO
for _ in range(2): print(s.sendmsg([b'sent'], [(socket.SOL_IP, 8, start)]), said(lambda: s.recvfrom(9) == (b'sent', one)))
";
    let watched = waylay().through_logs(1).reporting().watch(command(STARTED, &ports())).well();
    assert_eq!(watched.stdout, "4 True\n4 True\n", "{watched:?}");
    assert_eq!(flows(&watched, "log"), [(2, 2)], "{watched:?}");
}
