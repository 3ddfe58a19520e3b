//! What a program may try to get past the services. Each way is tried for real;
//! either the services see the connection, or nobody gets it.

#![expect(clippy::unwrap_used, reason = "a failed set-up is a failed test")]

use std::{
    collections::BTreeSet,
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::unix::fs::chown,
    process::Command,
    sync::{Arc, Mutex},
};

use waylay_netlab::{
    Fence, Finished, Ground, Running, TcpServer, Waylay, dialler_of, listeners_of, patiently, system_python,
    world_readable_file,
};

const ROOT: u32 = 0;
const NOBODY: u32 = 65534;

/// A server that knows who dialled it: services only, if all is well.
struct Target {
    server: TcpServer,
    dialled_by: Arc<Mutex<BTreeSet<u32>>>,
}

impl Target {
    fn new(greeting: &'static [u8]) -> Self {
        let dialled_by = Arc::new(Mutex::new(BTreeSet::new()));
        let noted = Arc::clone(&dialled_by);
        let server = TcpServer::start(Ipv4Addr::LOCALHOST.into(), move |mut stream| {
            noted.lock().unwrap().extend(dialler_of(&stream));
            stream.write_all(greeting)?;
            io::copy(&mut stream, &mut io::sink())?;
            Ok(())
        });
        Self { server, dialled_by }
    }

    fn address(&self) -> SocketAddr {
        self.server.address()
    }

    fn port(&self) -> String {
        self.address().port().to_string()
    }

    /// Nobody has reached it but services, which have users of their own.
    fn was_reached_by_services_only(&self) {
        let dialled_by = self.dialled_by.lock().unwrap();
        assert!(!dialled_by.contains(&ROOT) && !dialled_by.contains(&NOBODY), "dialled by {dialled_by:?}");
    }
}

fn waylay() -> Waylay {
    Ground::loopback().waylay()
}

fn run(program: &str, args: &[&str]) -> Finished {
    let command = [system_python(), "-c", program].into_iter().chain(args.iter().copied());
    waylay().through_logs(2).reporting().watch(command)
}

/// Where both services say the connections went, each in the order they ended.
fn seen(finished: &Finished) -> BTreeSet<SocketAddr> {
    let of = |name| -> BTreeSet<_> {
        finished.reports_of(name).iter().map(|report| report.original_destination).collect()
    };
    assert_eq!(of("log"), of("log-2"), "{finished:?}");
    of("log")
}

mod a_listener_of_a_service {
    use super::*;

    /// Those of the only service, which is what it is to be from its first connection on.
    fn listeners(run: &mut Running) -> Vec<SocketAddr> {
        let server = Target::new(b"hello");
        assert_eq!(run.ask(&format!("dial 127.0.0.1 {}", server.port())), "ok");
        let listeners = listeners_of(run.service("log"));
        assert_eq!(listeners.len(), 4);
        listeners
    }

    #[test]
    fn dialled_from_outside_resets_and_dials_nobody() {
        let target = Target::new(b"hello");
        let mut run = waylay().reporting().spawn_dialler();
        for listener in listeners(&mut run) {
            let mut stranger = TcpStream::connect(listener).unwrap();
            let request = format!("CONNECT {} HTTP/1.1\r\n\r\n", target.address());
            // The reset may come before the request or after it, and is told once.
            let error =
                stranger.write_all(request.as_bytes()).and_then(|()| stranger.read(&mut [0; 64]).map(drop));
            let error = error.unwrap_err();
            assert!(
                [io::ErrorKind::ConnectionReset, io::ErrorKind::BrokenPipe].contains(&error.kind()),
                "{error}"
            );
        }
        let finished = run.finish().well();
        assert_eq!(finished.reports().len(), 1, "the dial that was in order: {finished:?}");
        assert_eq!(target.server.accepted(), 0);
    }

    /// On 127.0.0.1 it listens; any other address of the loopback is a destination like others.
    #[test]
    fn is_not_reached_by_another_address_of_the_loopback() {
        let mut run = waylay().reporting().spawn_dialler();
        let port = listeners(&mut run)[0].port();
        for host in ["127.0.0.2", "127.255.255.254"] {
            let answer = run.ask(&format!("dial {host} {port}"));
            assert!(answer.ends_with("ECONNRESET"), "{host}: {answer}");
        }
        let reports = run.finish().well().reports_of("log");
        let unreachable = reports.iter().filter(|report| report.verdict == "unreachable");
        assert_eq!(
            unreachable.map(|report| report.original_destination.port()).collect::<Vec<_>>(),
            [port; 2]
        );
    }

    #[test]
    fn is_not_reached_by_the_unspecified_address() {
        let mut run = waylay().reporting().spawn_dialler();
        let port = listeners(&mut run)[0].port();
        for host in ["0.0.0.0", "::ffff:0.0.0.0"] {
            assert_eq!(run.ask(&format!("dial {host} {port}")), "ECONNREFUSED", "{host}");
        }
        let finished = run.finish().well();
        assert_eq!(finished.stderr.matches("was dialled past the engine").count(), 2, "{finished:?}");
    }
}

/// A service's port is free again when it has died; its connections are still nobody else's.
mod the_port_of_a_dead_service {
    use super::*;

    /// What the rules of a run do whose waylay was killed, once others listen on the ports of its service.
    fn is_taken_by(take: impl FnOnce(&mut Running, &[SocketAddr]) -> Vec<TcpListener>) {
        let target = Target::new(b"hello");
        let mut run = waylay().spawn_dialler();
        let dial = format!("dial 127.0.0.1 {}", target.port());
        assert_eq!(run.ask(&dial), "ok");
        let (service, instance) = (run.service("log"), run.instance());
        let ports = listeners_of(service);
        assert_eq!(ports.len(), 4);
        run.kill();
        patiently("the end of the service", || instance.has_ended("svc-log").then_some(()));
        let fakes = take(&mut run, &ports);
        for _ in 0..8 {
            assert_eq!(run.ask(&dial), "ECONNREFUSED");
        }
        for fake in fakes {
            fake.set_nonblocking(true).unwrap();
            assert_eq!(fake.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        }
    }

    #[test]
    fn is_no_use_to_another_process_of_the_host() {
        is_taken_by(|_, ports| ports.iter().map(|port| TcpListener::bind(port).unwrap()).collect());
    }

    #[test]
    fn is_no_use_to_the_command_itself() {
        is_taken_by(|run, ports| {
            for port in ports {
                assert_eq!(run.ask(&format!("listen 127.0.0.1 {}", port.port())), "listening");
            }
            Vec::new()
        });
    }
}

const RECONNECT: &str = "
import ctypes, socket, struct, sys
disconnect = lambda s: ctypes.CDLL(None).connect(s.fileno(), struct.pack('H14x', socket.AF_UNSPEC), 16)
s = socket.socket()
for port in sys.argv[1:]:
    s.connect(('127.0.0.1', int(port)))
    print(s.recv(5, socket.MSG_WAITALL).decode(), s.getpeername()[1] == int(port), disconnect(s))
";

#[test]
fn a_socket_that_is_disconnected_and_connected_again_is_inspected_again() {
    let (first, second) = (Target::new(b"first"), Target::new(b"other"));
    let finished = run(RECONNECT, &[&first.port(), &second.port(), &first.port()]).well();
    assert_eq!(finished.stdout, "first True 0\nother True 0\nfirst True 0\n");
    assert_eq!(seen(&finished), BTreeSet::from([first.address(), second.address()]));
    assert_eq!(finished.reports_of("log").len(), 3);
    first.was_reached_by_services_only();
    second.was_reached_by_services_only();
}

mod a_socket_made_before_the_run {
    use super::*;

    const PASS: &str = "
import os, socket, sys
s = socket.socket()
os.set_inheritable(s.fileno(), True)
os.execv(sys.argv[1], ['waylay', 'run', *sys.argv[2:], '--', sys.executable, '-c', '''
import socket
print(socket.socket(fileno=%d).getsockname()[0])
''' % s.fileno()])
";

    fn passed(args: &[&str]) -> Finished {
        let mut command = Command::new(system_python());
        command.args(["-c", PASS]).arg(Waylay::binary()).args(args);
        Waylay::within(command).finish()
    }

    #[test]
    fn is_not_passed_in() {
        let refused = passed(&[]);
        let line = refused.refused_in_a_line();
        assert!(line.contains("descriptor 3 is a network socket made outside this run"), "{line}");
        assert!(line.contains("3>&-") && line.contains("--keep-sockets"), "{line}");
        assert_eq!(refused.stdout, "");
    }

    #[test]
    fn is_passed_in_if_that_is_asked_for() {
        assert_eq!(passed(&["--keep-sockets"]).well().stdout, "0.0.0.0\n");
    }
}

/// The socket is made by root, the connect is another process's and user's.
const CHANGE_BETWEEN: &str = "
import os, socket, sys
s = socket.socket()
os.set_inheritable(s.fileno(), True)
pid = os.fork()
if pid == 0:
    os.setuid(65534)
    os.execv(sys.executable, [sys.executable, '-c', '''
import os, socket, sys
s = socket.socket(fileno=%d)
s.connect((\"127.0.0.1\", %s))
print(os.getpid(), os.getuid(), s.recv(5, socket.MSG_WAITALL).decode())
''' % (s.fileno(), sys.argv[1])])
os.waitpid(pid, 0)
";

#[test]
fn who_connects_counts_and_not_who_made_the_socket() {
    let target = Target::new(b"hello");
    let finished = run(CHANGE_BETWEEN, &[&target.port()]).well();
    let (pid, rest) = finished.stdout.trim().split_once(' ').unwrap();
    assert_eq!(rest, "65534 hello");
    for name in ["log", "log-2"] {
        assert_eq!(finished.report_of(name).pid.to_string(), pid);
    }
    target.was_reached_by_services_only();
}

const SOCKET_OF_ANOTHER_USER: &str = "
import os, socket, sys
ours, theirs = socket.socketpair(socket.AF_UNIX)
if os.fork() == 0:
    os.setuid(65534)
    s = socket.socket()
    socket.send_fds(theirs, [b'x'], [s.fileno()])
    os._exit(0)
s = socket.socket(fileno=socket.recv_fds(ours, 1, 1)[1][0])
s.connect(('127.0.0.1', int(sys.argv[1])))
print(os.getpid(), s.recv(5, socket.MSG_WAITALL).decode())
";

#[test]
fn a_socket_passed_on_by_another_user_is_inspected() {
    let target = Target::new(b"hello");
    let finished = run(SOCKET_OF_ANOTHER_USER, &[&target.port()]).well();
    let (pid, greeting) = finished.stdout.trim().split_once(' ').unwrap();
    assert_eq!(greeting, "hello");
    for name in ["log", "log-2"] {
        assert_eq!(finished.report_of(name).pid.to_string(), pid);
    }
    target.was_reached_by_services_only();
}

/// A service that makes a socket with its records on it and gives it away.
const GENEROUS: &str = "
import os, socket, struct, threading
def listeners():
    names = os.environ['LISTEN_FDNAMES'].split(':')
    return [socket.socket(fileno=3 + n) for n, name in enumerate(names) if name.startswith('tcp')]
def accept(listener):
    while True:
        threading.Thread(target=serve, args=(listener.accept()[0],)).start()
def serve(stream):
    records = stream.getsockopt(0x5759, 220, 48)
    gift = socket.socket()
    gift.setsockopt(0x5759, 222, records)
    post = socket.socket(socket.AF_UNIX)
    try:
        post.connect('\\0' + 'waylay-netlab-gift-' + str(stream.getpeername()[1]))
        socket.send_fds(post, [b'x'], [gift.fileno()])
    except OSError:
        pass
    stream.sendall(b'stop!')
    stream.recv(1)
for listener in listeners():
    threading.Thread(target=accept, args=(listener,)).start()
";

const TAKE_THE_GIFT: &str = "
import socket, sys
first = socket.socket()
first.bind(('127.0.0.1', 0))
box = socket.socket(socket.AF_UNIX)
box.bind('\\0' + 'waylay-netlab-gift-' + str(first.getsockname()[1]))
box.listen()
box.settimeout(30)
first.connect(('127.0.0.1', int(sys.argv[1])))
gift = socket.socket(fileno=socket.recv_fds(box.accept()[0], 1, 1)[1][0])
gift.connect(('127.0.0.1', int(sys.argv[1])))
print(gift.recv(5, socket.MSG_WAITALL).decode())
";

/// Records open the way for their service alone, also where they are on a socket already.
#[test]
fn a_socket_with_records_on_it_is_of_no_use_to_an_application() {
    let target = Target::new(b"hello");
    let service = world_readable_file("generous.py", GENEROUS);
    let spec = format!("exec:{} {}", system_python(), service.path().display());
    let command = [system_python(), "-c", TAKE_THE_GIFT, &target.port()];
    let finished = waylay().args(["--through", &spec]).watch(command).well();
    assert_eq!(finished.stdout, "stop!\n");
    assert_eq!(target.server.accepted(), 0);
}

const MOVE: &str = "
import socket, sys
try:
    with open(sys.argv[2] + '/cgroup.procs', 'w') as procs:
        procs.write('0')
    print('moved')
except OSError as error:
    print(error.strerror)
s = socket.create_connection(('127.0.0.1', int(sys.argv[1])))
print(s.recv(5, socket.MSG_WAITALL).decode())
";

#[test]
fn a_user_who_owns_another_cgroup_cannot_move_there() {
    let target = Target::new(b"hello");
    let fence = Fence::new();
    for file in ["", "cgroup.procs", "cgroup.threads", "cgroup.subtree_control"] {
        chown(fence.path().join(file), Some(NOBODY), Some(NOBODY)).unwrap();
    }
    let (port, refuge) = (target.port(), fence.path().display().to_string());
    let command = [system_python(), "-c", MOVE, &port, &refuge];
    let finished = waylay().through_logs(2).args(["--user", "nobody"]).reporting().watch(command).well();
    assert_eq!(finished.stdout, "Permission denied\nhello\n");
    assert_eq!(seen(&finished), BTreeSet::from([target.address()]));
    target.was_reached_by_services_only();
}

#[test]
fn five_thousand_children_at_once_are_all_inspected() {
    let target = TcpServer::with_backlog(4096, |mut stream| {
        stream.write_all(b"hello")?;
        stream.read_to_end(&mut Vec::new())?;
        Ok(())
    });
    let command = [env!("CARGO_BIN_EXE_netlab-load"), "children", "5000", &target.address().to_string()];
    let finished = waylay().through_logs(2).reporting().watch(command).well();
    assert_eq!(finished.stdout, "5000 of 5000 greeted\n");
    for name in ["log", "log-2"] {
        let reports = finished.reports_of(name);
        let pids: BTreeSet<u32> = reports.iter().map(|report| report.pid).collect();
        assert_eq!((reports.len(), pids.len()), (5000, 5000), "{name}");
        assert!(reports.iter().all(|report| report.original_destination == target.address()));
    }
}

#[test]
fn a_cgroup_of_its_own_inside_the_run_is_no_way_out() {
    let target = Target::new(b"hello");
    let inner = "\
set -e
own=$(sed -n 's/^0:://p' /proc/self/cgroup)
mount=$(sed -n 's/^.* \\([^ ]*\\) [^ ]* - cgroup2 .*/\\1/p' /proc/self/mountinfo | head -n 1)
mkdir \"$mount$own/inner\"
echo $$ > \"$mount$own/inner/cgroup.procs\"
read -n 5 word < /dev/tcp/127.0.0.1/$0
echo $word
";
    let finished = waylay().through_logs(2).reporting().watch(["bash", "-c", inner, &target.port()]).well();
    assert_eq!(finished.stdout, "hello\n");
    assert_eq!(seen(&finished), BTreeSet::from([target.address()]));
    target.was_reached_by_services_only();
}
