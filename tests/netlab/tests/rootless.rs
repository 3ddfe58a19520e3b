//! The engine that needs no privilege: what `waylay run` does for a user who has none, and what it cannot do for them.
//! tests/shapes.rs has the ways of connecting.

use std::{io::Write, process::Command};

use rustix::process::Signal;
use waylay_netlab::{Finished, Running, TcpServer, Waylay, kill, patiently, system_python};

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
fn io_uring_and_32_bit_calls_are_not_there() {
    let ask = "
import ctypes, errno
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall(425, 1, ctypes.create_string_buffer(200)); print(errno.errorcode[ctypes.get_errno()])
libc.syscall(0x40000000 | 41, 2, 1, 0); print(errno.errorcode[ctypes.get_errno()])";
    assert_eq!(python_says(waylay(), &greeter(), ask).stdout, "ENOSYS\nENOSYS\n");
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

#[test]
fn what_needs_root_is_refused_and_said() {
    let finished = waylay().args(["--through", "adopt:127.0.0.1:5000=true"]).watch(["true"]);
    assert_eq!(finished.code(), 2);
    assert!(finished.stderr.contains("needs root"), "{finished:?}");
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
mute = [socket.socket() for _ in range(3)]
answered = []
def dial(one):
    answered.append(libc.connect(one.fileno(), ctypes.c_void_p(page), 16))
for one in mute:
    threading.Thread(target=dial, args=(one,), daemon=True).start()
time.sleep(0.1)
begun = time.monotonic()
for _ in range(100):
    print(socket.create_connection(('127.0.0.1', int(sys.argv[1]))).recv(5))
print(time.monotonic() - begun < 2, answered, flush=True)
os._exit(0)";
    let mut command = Command::new(Waylay::binary());
    command.args(["run", "--engine", "seccomp", "--user", "root"]);
    let finished = python_says(Waylay::within(command).args(["--through", "log"]), &server, dial);
    assert_eq!(finished.stdout, format!("{}True []\n", "b'hello'\n".repeat(100)), "{finished:?}");
}
