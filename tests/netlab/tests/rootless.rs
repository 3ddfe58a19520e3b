//! The engine that needs no privilege: what `waylay run` does for a user who has none, and what it cannot do for them.
//! tests/shapes.rs has the ways of connecting.

use std::{io::Write, process::Command};

use rustix::process::Signal;
use waylay_netlab::{Finished, Namespace, Running, TcpServer, Waylay, kill, patiently, system_python};

fn waylay() -> Waylay {
    Waylay::run_without_root(None)
}

fn greeter() -> TcpServer {
    TcpServer::with_backlog(4096, |mut stream| {
        stream.write_all(b"hello")?;
        std::io::copy(&mut stream, &mut std::io::sink())?;
        Ok(())
    })
}

/// What a program in Python prints, to whom the port of a server is given.
fn python_says(waylay: Waylay, server: &TcpServer, program: &str) -> Finished {
    let port = server.address().port().to_string();
    waylay.watch([system_python(), "-u", "-c", program, &port]).well()
}

#[test]
fn a_user_is_told_which_engine_it_is_and_what_it_does_not_do() {
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--"]).arg(Waylay::binary());
    let finished = Waylay::within(command).args(["run", "--", "true"]).finish().well();
    assert!(finished.stderr.contains("seccomp") && finished.stderr.contains("UDP"), "{finished:?}");
}

#[test]
fn a_connection_passes_every_service_in_order_and_sees_none_of_it() {
    let server = greeter();
    let see = "
import socket, sys
one = socket.create_connection(('127.0.0.1', int(sys.argv[1])))
print(one.recv(5), one.getpeername() == ('127.0.0.1', int(sys.argv[1])), one.getsockname()[0])";
    let services = ["--through", "log", "--through", "scan", "--through", "log"];
    let finished = python_says(waylay().args(services).reporting(), &server, see);
    assert_eq!(finished.stdout, "b'hello' True 127.0.0.1\n");
    for (service, chain) in
        [("log", &["log"][..]), ("scan", &["log", "scan"]), ("log-2", &["log", "scan", "log-2"])]
    {
        let report = finished.report_of(service);
        assert_eq!(report.original_destination, server.address());
        assert_eq!(report.chain, chain, "{finished:?}");
        assert!(report.application.contains("python"), "{report:?}");
    }
}

#[test]
fn services_that_forget_make_no_loop() {
    let server = greeter();
    let dial = "
import socket, sys
print(socket.create_connection(('127.0.0.1', int(sys.argv[1]))).recv(5))";
    let forgetful = ["--through", "log", "--through", "log", "--forget", "log", "--forget", "log-2"];
    let finished = python_says(waylay().args(forgetful).reporting(), &server, dial);
    assert_eq!(finished.stdout, "b'hello'\n");
    assert_eq!(
        (finished.reports_of("log").len(), finished.reports_of("log-2").len()),
        (1, 1),
        "{finished:?}"
    );
}

/// Each fails as it does without waylay.
#[test]
fn strange_arguments_have_the_kernels_own_errors() {
    let server = greeter();
    let ask = "
import ctypes, errno, os, socket, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
port = int(sys.argv[1])
good = struct.pack('=HH4s8x', socket.AF_INET, socket.htons(port), bytes([127, 0, 0, 1]))
def connect(fd, address, length):
    result = libc.connect(fd, address, length)
    print('ok' if result == 0 else errno.errorcode[ctypes.get_errno()])
stream = socket.socket()
connect(-1, good, 16)
connect(os.open('/dev/null', os.O_RDONLY), good, 16)
connect(stream.fileno(), ctypes.c_void_p(1), 16)
connect(stream.fileno(), ctypes.c_void_p(2**64 - 4096), 16)
connect(stream.fileno(), good, -1)
connect(stream.fileno(), good, 4096)
connect(stream.fileno(), good, 2)
connect(stream.fileno(), b'\\x7f\\x7f' + good[2:], 16)
connect(stream.fileno(), good, 16)
connect(stream.fileno(), good, 16)
name, length = ctypes.create_string_buffer(16), ctypes.c_int(16)
def peer(at, length_at):
    print('ok' if libc.getpeername(stream.fileno(), at, length_at) == 0 else errno.errorcode[ctypes.get_errno()])
peer(name, ctypes.byref(length)); print(name.raw == good, length.value)
peer(ctypes.c_void_p(1), ctypes.byref(length)); peer(name, ctypes.c_void_p(1))
length = ctypes.c_int(-1); peer(name, ctypes.byref(length))
length = ctypes.c_int(4); peer(name, ctypes.byref(length)); print(length.value)
unix, other = socket.socketpair(socket.AF_UNIX)
print(other.getpeername() == '')";
    let port = server.address().port().to_string();
    let direct = Command::new(system_python()).args(["-c", ask, &port]).output().unwrap();
    let expected = String::from_utf8(direct.stdout).unwrap();
    assert!(expected.contains("EBADF\nENOTSOCK\nEFAULT"), "{expected}");
    assert_eq!(python_says(waylay(), &server, ask).stdout, expected);
}

#[test]
fn five_thousand_children_at_once_are_all_inspected() {
    let server = greeter();
    let load = [env!("CARGO_BIN_EXE_netlab-load"), "children", "5000", &server.address().to_string()];
    let finished = waylay().reporting().watch(load).well();
    assert_eq!(finished.stdout, "5000 of 5000 greeted\n");
    assert_eq!(finished.reports_of("log").len(), 5000);
}

/// Calls that are interrupted are made again, by the kernel.
#[test]
fn a_signal_interrupts_a_connection_and_loses_none() {
    let server = greeter();
    let dial = "
import signal, socket, sys, threading, time
seen = []
signal.signal(signal.SIGALRM, lambda *_: seen.append(1))
signal.siginterrupt(signal.SIGALRM, False)
signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
greeted = 0
for _ in range(300):
    with socket.create_connection(('127.0.0.1', int(sys.argv[1]))) as one:
        greeted += one.recv(5) == b'hello'
signal.setitimer(signal.ITIMER_REAL, 0)
print(greeted, len(seen) > 100)";
    assert_eq!(python_says(waylay(), &server, dial).stdout, "300 True\n");
}

#[test]
fn what_cannot_be_redirected_is_refused_unless_the_policy_permits_it() {
    let make = "
import errno, socket
for kind in [(socket.AF_INET, socket.SOCK_DGRAM, 136), (socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP),
             (socket.AF_INET6, socket.SOCK_STREAM, 132), (socket.AF_VSOCK, socket.SOCK_STREAM, 0),
             (socket.AF_INET, socket.SOCK_STREAM, 0), (socket.AF_UNIX, socket.SOCK_STREAM, 0)]:
    try: socket.socket(*kind); print('made')
    except OSError as error: print(errno.errorcode[error.errno])";
    let server = greeter();
    let refused = python_says(waylay(), &server, make);
    assert_eq!(refused.stdout, "EACCES\nEACCES\nEACCES\nEACCES\nmade\nmade\n");
    let permitted = python_says(waylay().args(["--unredirectable", "permit"]), &server, make);
    assert!(permitted.stdout.starts_with("made\n"), "{permitted:?}");
}

/// No filter of system calls sees what they do.
#[test]
fn io_uring_and_the_calls_of_x32_are_not_there() {
    let ask = "
import ctypes, errno
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall(425, 1, ctypes.create_string_buffer(200)); print(errno.errorcode[ctypes.get_errno()])
libc.syscall(0x40000000 | 41, 2, 1, 0); print(errno.errorcode[ctypes.get_errno()])";
    assert_eq!(python_says(waylay(), &greeter(), ask).stdout, "ENOSYS\nENOSYS\n");
}

/// Any program may make them, where the kernel has them at all. What makes no sockets is as ever.
#[test]
#[cfg(target_arch = "x86_64")]
fn calls_of_32_bits_make_no_sockets() {
    let ask = "
import ctypes, errno, mmap, os, sys
# push rbx; mov eax, edi; mov ebx, esi; mov r8, rcx; mov ecx, edx; mov edx, r8d; int 0x80; pop rbx; ret
code = bytes.fromhex('53 89f8 89f3 4989c8 89d1 4489c2 cd80 5b c3')
page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
page.write(code)
at = ctypes.addressof(ctypes.c_char.from_buffer(page))
call = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int)(at)
said = lambda result: errno.errorcode[-result] if result < 0 else 'done'
child = os.fork()
if child == 0:
    print('getpid', said(call(20, 0, 0, 0)), flush=True)
    for name, number in [('socketcall', 102), ('socket', 359), ('connect', 362), ('sendmmsg', 345), ('sendto', 369), ('sendmsg', 370), ('io_uring_setup', 425)]:
        print(name, said(call(number, 2, 1, 0)))
    sys.stdout.flush()
    os._exit(0)
print(os.waitpid(child, 0)[1])";
    let server = greeter();
    let direct = Command::new(system_python()).args(["-c", ask, "0"]).output().unwrap();
    let direct = String::from_utf8(direct.stdout).unwrap();
    let inside = python_says(waylay(), &server, ask).stdout;
    if !direct.starts_with("getpid done\n") {
        // A kernel without them.
        return assert_eq!(inside, direct);
    }
    assert!(direct.contains("socket done\n"), "{direct}");
    let (first, rest) = inside.split_once('\n').unwrap();
    assert_eq!(first, "getpid done");
    let calls: Vec<_> = rest.lines().filter_map(|line| line.split_once(' ')).collect();
    assert_eq!((calls.len(), rest.lines().last()), (7, Some("0")), "{inside}");
    assert!(calls.iter().all(|(_, said)| *said == "ENOSYS"), "{inside}");
}

/// Its bytes would come beside the address, and who has been refused so connects first.
#[test]
fn messages_make_no_connection_by_themselves() {
    let ask = "
import ctypes, socket, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
to = ('127.0.0.1', int(sys.argv[1]))
name = ctypes.create_string_buffer(struct.pack('=HH4s8x', socket.AF_INET, socket.htons(to[1]), socket.inet_aton(to[0])), 16)
byte = ctypes.create_string_buffer(b'x')
vector = ctypes.create_string_buffer(struct.pack('PN', ctypes.addressof(byte), 1))
message = struct.pack('PIPNPNi4xI4x', ctypes.addressof(name), 16, ctypes.addressof(vector), 1, 0, 0, 0, 0)
for send in (lambda fd: libc.sendmsg(fd, message, socket.MSG_FASTOPEN),
             lambda fd: libc.sendmmsg(fd, message, 1, socket.MSG_FASTOPEN)):
    one = socket.socket()
    print(ctypes.get_errno() if send(one.fileno()) < 0 else 'sent', one.connect_ex(to))
    print(one.recv(5))";
    let server = greeter();
    let port = server.address().port().to_string();
    let direct = Command::new(system_python()).args(["-c", ask, &port]).output().unwrap();
    let direct = String::from_utf8(direct.stdout).unwrap();
    assert_eq!(direct, format!("sent {}\nb'hello'\n", libc::EISCONN).repeat(2));
    let before = server.accepted();
    let finished = python_says(waylay().args(["--through", "log"]).reporting(), &server, ask);
    assert_eq!(finished.stdout, format!("{} 0\nb'hello'\n", libc::EOPNOTSUPP).repeat(2));
    assert_eq!((finished.reports().len(), server.accepted() - before), (2, 2), "{finished:?}");
}

/// A program that belongs to root, and whose mode says that it runs as root.
#[test]
fn a_program_of_roots_gains_nothing_and_is_inspected() {
    let server = greeter();
    let folder = tempfile::tempdir().unwrap();
    let anybody = |mode| std::os::unix::fs::PermissionsExt::from_mode(mode);
    std::fs::set_permissions(folder.path(), anybody(0o755)).unwrap();
    let program = folder.path().join("python");
    std::fs::copy(std::fs::canonicalize(system_python()).unwrap(), &program).unwrap();
    std::fs::set_permissions(&program, anybody(0o4755)).unwrap();
    let program = program.to_str().unwrap();
    let dial = "
import os, socket, sys
print(os.getuid(), os.geteuid(), socket.create_connection(('127.0.0.1', int(sys.argv[1]))).recv(5))";
    let port = server.address().port().to_string();
    let mut direct = Command::new("setpriv");
    direct.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", program, "-c", dial, &port]);
    let direct = direct.output().unwrap();
    assert_eq!(String::from_utf8_lossy(&direct.stdout), "65534 0 b'hello'\n", "{direct:?}");
    let finished = waylay().reporting().watch([program, "-c", dial, &port]).well();
    assert_eq!(finished.stdout, "65534 65534 b'hello'\n");
    let report = finished.report_of("log");
    assert_eq!((report.original_destination, server.accepted()), (server.address(), 2), "{report:?}");
}

#[test]
fn sockets_of_one_host_connect_as_ever() {
    let server = greeter();
    let ask = "
import errno, os, socket, struct, sys, tempfile
os.chdir(tempfile.mkdtemp())
def peer(at, kind=socket.SOCK_STREAM):
    listener = socket.socket(socket.AF_UNIX, kind)
    listener.bind(at)
    listener.listen()
    client = socket.socket(socket.AF_UNIX, kind)
    client.connect(at)
    met = listener.accept()[0]
    of = lambda one: struct.unpack('iII', one.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    print(of(met)[0] == of(client)[0] == os.getpid(), of(met)[1] == os.geteuid(), client.getpeername() == listener.getsockname())
os.mkdir('below')
peer('relative')
peer('below/relative')
peer(os.path.join(os.getcwd(), 'absolute'), socket.SOCK_SEQPACKET)
peer('\\0waylay' + str(os.getpid()))
for at in ('nowhere', 'below', '\\0nobody'):
    print(errno.errorcode[socket.socket(socket.AF_UNIX).connect_ex(at)])
box, letter = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
box.bind('box')
letter.sendto(b'one', 'box'); letter.connect('box'); letter.send(b'two'); letter.sendmsg([b'three'], [], 0, 'box')
print([box.recv(10) for _ in range(3)])
netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)
netlink.connect((0, 0))
print(netlink.getpeername())";
    let direct = Command::new(system_python()).args(["-c", ask]).output().unwrap();
    let expected = String::from_utf8(direct.stdout).unwrap();
    assert!(expected.starts_with(&"True True True\n".repeat(4)), "{expected}");
    assert!(expected.ends_with("[b'one', b'two', b'three']\n(0, 0)\n"), "{expected}");
    assert_eq!(python_says(waylay(), &server, ask).stdout, expected);
}

/// What is judged is what is dialled, whatever is written where the address was, and whichever socket gets the descriptor's number.
#[test]
fn an_address_that_changes_while_it_is_judged_leads_nowhere_else() {
    let (open, closed) = (greeter(), greeter());
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let policy = folder.path().join("policy.toml");
    let filter = "[sublayer.base]\n[[filter]]\naction = \"block\"\nsublayer = \"base\"\nif.port = ";
    std::fs::write(&policy, format!("{filter}{}\n", closed.address().port())).unwrap();
    let race = "
import ctypes, errno, itertools, os, socket, struct, sys, threading
libc = ctypes.CDLL(None, use_errno=True)
sys.setswitchinterval(1e-4)
ports = [struct.pack('!H', int(port)) for port in sys.argv[1:3]]
address = ctypes.create_string_buffer(struct.pack('=H2s4s8x', socket.AF_INET, ports[0], bytes([127, 0, 0, 1])), 16)
over, results = False, {}
def write():
    for port in itertools.cycle(ports):
        address[2:4] = port
        if over: break
def exchange(fd, one, other):
    os.dup2(other, fd)
    os.dup2(one, fd)
threading.Thread(target=write).start()
for turn in range(2000):
    with socket.socket() as one, socket.socket() as other:
        copy = os.dup(one.fileno())
        thread = threading.Thread(target=exchange, args=(one.fileno(), copy, other.fileno()))
        if turn % 3 == 0: thread.start()
        result = libc.connect(one.fileno(), address, 16)
        said = 'ok' if result == 0 else errno.errorcode[ctypes.get_errno()]
        results[said] = results.get(said, 0) + 1
        if turn % 3 == 0: thread.join()
        os.close(copy)
over = True
# One byte of each is a port where nobody listens.
print(min(results.get('ok', 0), results.get('EACCES', 0)) > 100 and results.keys() <= {'ok', 'EACCES', 'ECONNREFUSED'} or results)";
    let [port, other] = [&open, &closed].map(|server| server.address().port().to_string());
    let waylay = waylay().args(["--policy", policy.to_str().unwrap()]);
    let finished = waylay.watch([system_python(), "-u", "-c", race, &port, &other]).well();
    assert_eq!(finished.stdout, "True\n");
    assert_eq!(closed.accepted(), 0);
    assert!(open.accepted() > 100);
}

#[test]
fn when_waylay_is_killed_nothing_connects_any_more() {
    let server = greeter();
    let dial = "
import errno, socket, sys
for line in sys.stdin:
    try: print(socket.create_connection(('127.0.0.1', int(sys.argv[1]))).recv(5))
    except OSError as error: print(errno.errorcode[error.errno])
    if 'last' in line: break";
    let port = server.address().port().to_string();
    let mut running: Running = waylay().spawn([system_python(), "-u", "-c", dial, &port]);
    assert_eq!(running.ask("one"), "b'hello'");
    kill(running.pid(), Signal::KILL);
    patiently("the end of waylay", || (!running.is_running()).then_some(()));
    assert_eq!(running.ask("last"), "ENOSYS");
}

#[test]
fn a_run_lasts_as_long_as_what_it_has_started() {
    let server = greeter();
    let port = server.address().port();
    let later = format!("(sleep 1; exec 3<>/dev/tcp/127.0.0.1/{port}; head -c 5 <&3) & exit 3");
    let finished = waylay().reporting().watch(["bash", "-c", &later]);
    assert_eq!((finished.code(), finished.stdout.as_str()), (3, "hello\n"), "{finished:?}");
    assert_eq!(finished.reports_of("log").len(), 1);
}

/// In a session of its own as well; and its service is told to end as at any end.
#[test]
fn what_is_left_in_the_background_ends_with_the_next_signal() {
    let server = greeter();
    let port = server.address().port();
    let leave = format!(
        "exec 3<>/dev/tcp/127.0.0.1/{port}; exec 3>&-; sleep 1000 & echo $!; setsid sleep 1000 & echo $!"
    );
    let mut running = waylay().reporting().spawn(["bash", "-c", &leave]);
    let left: Vec<String> = (0..2).map(|_| running.answer()).collect();
    running.stderr().wait_for("waiting for processes it started");
    running.signal(Signal::TERM);
    patiently("the end of waylay", || (!running.is_running()).then_some(()));
    for pid in left {
        // One that has ended may wait for somebody to ask how.
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let is_alive =
            stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'));
        assert!(!is_alive, "{stat}");
    }
    let finished = running.finish().well();
    assert_eq!(finished.reports_of("log").len(), 1, "{finished:?}");
}

#[test]
fn what_needs_root_is_refused_and_said() {
    for (spec, why) in [
        ("adopt/udp:0.0.0.0:5000=true", "is adopted and takes datagrams"),
        ("adopt:127.0.0.1:5000@uid=1", "runs already"),
    ] {
        let finished = waylay().args(["--through", spec]).watch(["true"]);
        assert_eq!(finished.code(), 2);
        let said = finished.stderr.contains("needs root") && finished.stderr.contains(why);
        assert!(said, "{finished:?}");
    }
    let finished = waylay().args(["--through", "adopt/udp+packet:0.0.0.0:5000=true"]).watch(["true"]);
    assert_eq!(finished.code(), 2);
    assert!(finished.stderr.contains("takes a program on the loopback and so root"), "{finished:?}");
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let policy = folder.path().join("policy.toml");
    for (condition, what) in
        [("host = \"a.example\"", "names of hosts"), ("network_namespace = \"host\"", "network namespaces")]
    {
        let text = "[sublayer.base]\n[[filter]]\naction = \"block\"\nsublayer = \"base\"\nif.";
        std::fs::write(&policy, format!("{text}{condition}\n")).unwrap();
        let finished = waylay().args(["--policy", policy.to_str().unwrap()]).watch(["true"]);
        assert_eq!(finished.code(), 2, "{finished:?}");
        assert!(finished.stderr.contains(what) && finished.stderr.contains("needs root"), "{finished:?}");
    }
}

/// What is kept of a thread is not what it runs: that is looked at with each call.
#[test]
fn who_dials_is_asked_anew_after_each_exec() {
    let server = greeter();
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let policy = folder.path().join("policy.toml");
    let perl = std::fs::canonicalize("/usr/bin/perl").unwrap();
    std::fs::write(
        &policy,
        format!(
            "[sublayer.base]\n[[filter]]\naction = \"block\"\nsublayer = \"base\"\nif.exe = {:?}\n",
            perl.to_str().unwrap()
        ),
    )
    .unwrap();
    let dial = "
import os, socket, sys, threading
port = sys.argv[1]
for _ in range(3):
    print(socket.create_connection(('127.0.0.1', int(port))).recv(5), os.getpid(), flush=True)
perl = '''use IO::Socket::INET;
print $$, ' ', IO::Socket::INET->new(PeerAddr => '127.0.0.1:' . shift) ? 'through' : $!{EACCES} ? 'refused' : $!, '\\n';
exec '/bin/sh', '-c', \"exec %s -c '$ARGV[0]' @ARGV[1..1]\"''' % sys.executable
again = 'import os, socket, sys; print(os.getpid(), socket.create_connection((\"127.0.0.1\", int(sys.argv[1]))).recv(5))'
run = lambda: os.execv('/usr/bin/perl', ['perl', '-e', perl, port, again, port])
threading.Thread(target=run).start() if sys.argv[2] == 'thread' else run()";
    for from_where in ["first", "thread"] {
        let port = server.address().port().to_string();
        let waylay = waylay().args(["--policy", policy.to_str().unwrap()]);
        let finished = waylay.watch([system_python(), "-u", "-c", dial, &port, from_where]).well();
        let lines: Vec<&str> = finished.stdout.lines().collect();
        let pid = lines[0].rsplit(' ').next().unwrap();
        assert_eq!(lines[0], format!("b'hello' {pid}"), "{finished:?}");
        assert_eq!(lines[3..], [format!("{pid} refused"), format!("{pid} b'hello'")], "{finished:?}");
    }
}

/// Before Linux 6.9 there are no handles on threads, and it connects nowhere.
#[test]
fn a_thread_with_descriptors_of_its_own_is_not_taken_for_its_process() {
    let server = greeter();
    let dial = "
import ctypes, errno, socket, sys, threading
shown, other = socket.socketpair()
number, libc = shown.fileno(), ctypes.CDLL(None)
def dial():
    libc.unshare(0x400)
    shown.close()
    one = socket.socket()
    has_handle = libc.syscall(434, threading.get_native_id(), 0x80) >= 0
    print(one.fileno() == number, has_handle)
    try: one.connect(('127.0.0.1', int(sys.argv[1])))
    except OSError as error: return print(errno.errorcode[error.errno])
    print(one.recv(5))
thread = threading.Thread(target=dial)
thread.start()
thread.join()";
    let finished = python_says(waylay().reporting(), &server, dial);
    let connected = match finished.stdout.as_str() {
        "True True\nb'hello'\n" => 1,
        "True False\nEACCES\n" => 0,
        _ => panic!("{finished:?}"),
    };
    assert_eq!((server.accepted(), finished.reports().len()), (connected, connected), "{finished:?}");
}

/// An address in memory that nobody provides: it takes a privilege to have such.
#[test]
fn memory_that_does_not_come_keeps_nobody_else_waiting() {
    let server = greeter();
    let dial = "
import ctypes, fcntl, os, socket, struct, sys, threading, time
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
faults = libc.syscall({'x86_64': 323, 'aarch64': 282}[os.uname().machine], os.O_CLOEXEC)
fcntl.ioctl(faults, 0xc018aa3f, bytearray(struct.pack('QQQ', 0xaa, 0, 0)))
page = libc.mmap(None, 4096, 3, 0x22, -1, 0)
fcntl.ioctl(faults, 0xc020aa00, bytearray(struct.pack('QQQQ', page, 4096, 1, 0)))
def hundred():
    begun = time.monotonic()
    for _ in range(100):
        print(socket.create_connection(('127.0.0.1', int(sys.argv[1]))).recv(5))
    return time.monotonic() - begun
alone = hundred()
mute = [socket.socket() for _ in range(3)]
answered = []
def dial(one):
    answered.append(libc.connect(one.fileno(), ctypes.c_void_p(page), 16))
for one in mute:
    threading.Thread(target=dial, args=(one,), daemon=True).start()
time.sleep(0.1)
beside = hundred()
print(beside < 5 * alone + 1 or (alone, beside), answered, flush=True)
os._exit(0)";
    let mut command = Command::new(Waylay::binary());
    command.args(["run", "--engine", "seccomp", "--user", "root"]);
    let finished = python_says(Waylay::within(command).args(["--through", "log"]), &server, dial);
    assert_eq!(finished.stdout, format!("{}True []\n", "b'hello'\n".repeat(200)), "{finished:?}");
}

/// A way that was there is not looked for each time; that it has gone is heard.
#[test]
fn a_way_that_comes_and_goes_is_known_to_the_next_connection() {
    let namespace = Namespace::new();
    let change = |what| namespace.ip(&["addr", what, "192.0.2.1/32", "dev", "lo"]);
    let dial = "
import errno, socket, sys
for _ in sys.stdin:
    try:
        socket.create_connection(('192.0.2.1', 9)).close()
        print('there')
    except OSError as error:
        print(errno.errorcode[error.errno])";
    let waylay = Waylay::run_without_root(Some(&namespace)).args(["--through", "log"]);
    let mut running = waylay.spawn([system_python(), "-u", "-c", dial]);
    assert_eq!(running.ask(""), "ENETUNREACH");
    for _ in 0..2 {
        change("add");
        assert_eq!([(); 3].map(|()| running.ask("")), ["there"; 3]);
        change("del");
        assert_eq!([(); 2].map(|()| running.ask("")), ["ENETUNREACH"; 2]);
    }
    running.close_input();
    running.finish().well();
}

/// A process that has dialled in memory that another has too, its parent or its child, executes another file of the same name.
#[test]
fn who_dials_is_asked_anew_where_memory_outlives_what_ran_in_it() {
    let server = greeter();
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let dial = r#"
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
static char stack[65536];
static int stay(void *nothing) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    alarm(10);
    for (;;) pause();
}
static void dial(const char *port) {
    struct sockaddr_in to = { AF_INET, htons(atoi(port)), { htonl(INADDR_LOOPBACK) } };
    int failed = connect(socket(AF_INET, SOCK_STREAM, 0), (struct sockaddr *)&to, sizeof to);
    dprintf(1, "%s\n", !failed ? "through" : errno == EACCES ? "refused" : "otherwise");
}
int main(int count, char **words) {
    if (count == 3 && vfork() == 0) {
        dial(words[1]);
        execl(words[2], words[2], words[1], (char *)0);
        _exit(9);
    }
    if (count == 3) {
        if (wait(0) < 0) return 8;
        dial(words[1]);
        if (clone(stay, stack + sizeof stack, CLONE_VM | SIGCHLD, 0) < 0) return 8;
        execl(words[2], words[2], words[1], (char *)0);
        return 9;
    }
    dial(words[1]);
}"#;
    let source = folder.path().join("same.c");
    std::fs::write(&source, dial).unwrap();
    let programs = ["one", "other"].map(|place| folder.path().join(place).join("same"));
    for program in &programs {
        std::fs::create_dir(program.parent().unwrap()).unwrap();
        assert!(Command::new("cc").arg("-o").args([program, &source]).status().unwrap().success());
    }
    let policy = folder.path().join("policy.toml");
    let [one, other] = programs;
    let block = "[sublayer.base]\n[[filter]]\naction = \"block\"\nsublayer = \"base\"\nif.exe =";
    std::fs::write(&policy, format!("{block} {:?}\n", other.to_str().unwrap())).unwrap();
    let port = server.address().port().to_string();
    let watched = [one.to_str().unwrap(), &port, other.to_str().unwrap()];
    let finished = waylay().args(["--policy", policy.to_str().unwrap()]).watch(watched).well();
    assert_eq!(finished.stdout, "through\nrefused\n".repeat(2), "{finished:?}");
}
