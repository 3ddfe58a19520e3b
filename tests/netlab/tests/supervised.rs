//! connect() by the engine without privileges, where it takes time or leads nowhere: as it does without waylay.

#![expect(clippy::unwrap_used, reason = "a failed set-up is a failed test")]

use std::fs;

use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use tempfile::TempDir;
use waylay_netlab::{
    Corner, Corners, Greeter, Place, Report, Running, Waylay, kill, patiently, system_python,
};

mod where_nobody_listens {
    use super::*;

    const DIAL: &str = "
import errno, socket, sys
for host in sys.argv[2:]:
    try: print(socket.create_connection((host, int(sys.argv[1]))).recv(5, socket.MSG_WAITALL).decode())
    except OSError as error: print(errno.errorcode[error.errno])";

    fn dial(waylay: Waylay, port: u16, hosts: &[&str]) -> waylay_netlab::Finished {
        let port = port.to_string();
        let command = [&[system_python(), "-c", DIAL, &port][..], hosts].concat();
        waylay.through_logs(2).reporting().watch(command).well()
    }

    #[test]
    fn connect_is_refused_as_it_is_with_the_other_engine() {
        let free = std::net::TcpListener::bind("[::]:0").unwrap().local_addr().unwrap().port();
        let hosts = ["127.0.0.1", "::1", "::ffff:127.0.0.1", "0.0.0.0"];
        let finished = dial(Waylay::run_without_root(None), free, &hosts);
        assert_eq!(finished.stdout, "ECONNREFUSED\n".repeat(4), "{finished:?}");
        assert_eq!(finished.stderr.matches("refused with ECONNREFUSED: nobody listens there").count(), 4);
        assert_eq!(finished.reports(), []);
    }

    /// Which somebody without privileges cannot look at.
    #[test]
    fn a_rule_that_translates_addresses_is_followed() {
        let corners = Corners::new();
        let [four, ..] = corners.greeters();
        let (port, other) = (four.address.port(), 4242);
        let rule = format!(
            "table ip published {{\nchain out {{\ntype nat hook output priority -100\ntcp dport {other} redirect to :{port}\n}}\n}}"
        );
        assert!(corners.client("nft").arg(rule).status().unwrap().success());
        let finished = dial(corners.waylay_without_root(), other, &["127.0.0.1"]);
        assert_eq!(finished.stdout, "hello\n", "{finished:?}");
        assert_eq!(finished.reports_of("log-2").len(), 1, "{finished:?}");
    }
}

/// Each line is what comes of a connection, whether that took as long as it should, and how often the handler ran.
const INTERRUPTED: &str = "
import ctypes, errno, signal, socket, struct, sys, threading, time
libc = ctypes.CDLL(None, use_errno=True)
host, silent, slow = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
handled = []
signal.signal(signal.SIGALRM, lambda *_: handled.append(1))
def dial(port, least, most, restart=False, patience=None, alarm=0.2, send=signal.setitimer):
    signal.siginterrupt(signal.SIGALRM, not restart)
    address = struct.pack('=HH4s8x', socket.AF_INET, socket.htons(port), socket.inet_aton(host))
    one = socket.socket()
    option = (socket.SOL_SOCKET, socket.SO_SNDTIMEO)
    given = struct.pack('qq', 0, patience or 0)
    one.setsockopt(*option, given)
    signal.setitimer(signal.ITIMER_REAL, alarm)
    begun = time.monotonic()
    result = libc.connect(one.fileno(), address, 16)
    took = time.monotonic() - begun
    signal.setitimer(signal.ITIMER_REAL, 0)
    print('ok' if result == 0 else errno.errorcode.get(ctypes.get_errno(), ctypes.get_errno()),
          least <= took <= most or took, len(handled), one.getsockopt(*option, 16) == given, flush=True)
dial(silent, 0.15, 0.9)
dial(silent, 0.4, 1.2, alarm=0, patience=500000)
dial(silent, 0.15, 0.9, restart=True, patience=900000)
dial(slow, 0.8, 3, restart=True)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
dial(silent, 0.4, 1.2, patience=500000)
signal.signal(signal.SIGALRM, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGALRM])
dial(silent, 0.4, 1.2, patience=500000)
";

#[test]
fn a_signal_interrupts_a_connection_that_blocks_as_the_kernel_has_it() {
    let corners = Corners::new();
    let [_, _, far, _] = corners.greeters();
    let (silent, slow) = (4243, far.address.port());
    // The first packet to `slow` is lost, and the second comes after a second.
    let rules = format!(
        "flush ruleset\ntable ip holes {{\nchain in {{\ntype filter hook input priority 0\n\
         tcp dport {silent} drop\ntcp dport {slow} tcp flags syn quota until 100 bytes drop\n}}\n}}"
    );
    let make_holes = || assert!(corners.server(far.corner, "nft").arg(&rules).status().unwrap().success());
    let host = far.address.ip().to_string();
    let command = [system_python(), "-u", "-c", INTERRUPTED, &host, &silent.to_string(), &slow.to_string()]
        .map(str::to_owned);
    make_holes();
    let direct = corners.client(&command[0]).args(&command[1..]).output().unwrap();
    let expected = String::from_utf8(direct.stdout).unwrap();
    assert!(
        expected.starts_with("EINTR True 1 True\nEINPROGRESS True 1 True\nEINTR True 2 True\nok True 3"),
        "{expected}"
    );
    make_holes();
    // No service is wanted for these, so that they are the kernel's own.
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let policy = folder.path().join("policy.toml");
    std::fs::write(
        &policy,
        "[sublayer.base]\n[[filter]]\naction = \"block\"\nsublayer = \"base\"\nif.port = 9\n",
    )
    .unwrap();
    let waylay = corners.waylay_without_root().args(["--policy", policy.to_str().unwrap()]);
    let finished = waylay.watch(&command).well();
    assert_eq!(finished.stdout, expected, "{finished:?}");
}

/// A host that answers late, one that never does, and one that is near; and programs that do the same with and without waylay.
struct Hosts {
    corners: Corners,
    near: Greeter,
    late: Greeter,
    folder: TempDir,
}

/// Of programs: the address that answers late, a port there that never does, and the port on the loopback; `connect` says what comes of it.
const PRELUDE: &str = "
import ctypes, errno, os, random, signal, socket, struct, sys, threading, time
libc = ctypes.CDLL(None, use_errno=True)
host, silent, late, near = sys.argv[1], *map(int, sys.argv[2:5])
def name(port, host=host): return struct.pack('=HH4s8x', socket.AF_INET, socket.htons(port), socket.inet_aton(host))
def connect(fd, port):
    result = libc.connect(fd, name(port), 16)
    return 'ok' if result == 0 else errno.errorcode.get(ctypes.get_errno(), ctypes.get_errno())
def patience(one, seconds):
    one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack('qq', int(seconds), int(seconds % 1 * 1e6)))
    return one
def fd(seconds=0): return patience(socket.socket(), seconds).detach()
def greet(): return socket.create_connection(('127.0.0.1', near)).recv(5, socket.MSG_WAITALL)
";

impl Hosts {
    const SILENT: u16 = 4243;

    fn new() -> Self {
        let corners = Corners::new();
        let [near, _, late, _] = corners.greeters();
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let hosts = Self { corners, near, late, folder };
        // Of each connection the first packet is lost, and the second comes after a second.
        let rules = format!(
            "table ip holes {{\nset seen {{\ntype inet_service; flags dynamic; size 65535;\n}}\nchain in {{\ntype filter hook input priority 0\n\
             tcp dport {} drop\ntcp dport {} tcp flags syn tcp sport != @seen add @seen {{ tcp sport }} drop\n}}\n}}",
            Self::SILENT,
            hosts.late.address.port()
        );
        let mut nft = hosts.corners.server(hosts.late.corner, "nft");
        assert!(nft.arg(rules).status().unwrap().success());
        hosts
    }

    fn command(&self, program: &str) -> Vec<String> {
        let numbers = [Self::SILENT, self.late.address.port(), self.near.address.port()];
        let words = [system_python(), "-u", "-c", &format!("{PRELUDE}{program}")].map(str::to_owned);
        let host = self.late.address.ip().to_string();
        words.into_iter().chain([host]).chain(numbers.map(|number| number.to_string())).collect()
    }

    /// Where no service is wanted, so that connections are to these hosts.
    fn waylay(&self) -> Waylay {
        let policy = self.folder.path().join("policy.toml");
        let text = "[sublayer.base]\n[[filter]]\naction = \"block\"\nsublayer = \"base\"\nif.port = 9\n";
        fs::write(&policy, text).unwrap();
        self.corners.waylay_without_root().args(["--policy", policy.to_str().unwrap()])
    }

    /// Connections over IPv4 that are under way.
    fn dialling(&self) -> usize {
        const SYN_SENT: &str = "02";
        let table = self.corners.client("cat").arg("/proc/net/tcp").output().unwrap();
        let table = String::from_utf8(table.stdout).unwrap();
        table.lines().filter(|line| line.split_whitespace().nth(3) == Some(SYN_SENT)).count()
    }

    /// What a program prints, which is the same without waylay.
    fn same(&self, program: &str) -> String {
        let command = self.command(program);
        let direct = self.corners.client(&command[0]).args(&command[1..]).output().unwrap();
        let said = String::from_utf8_lossy(&direct.stderr);
        assert!(direct.status.success(), "{said}");
        let expected = String::from_utf8(direct.stdout).unwrap();
        let finished = self.waylay().watch(&command).well();
        assert_eq!(finished.stdout, expected, "{finished:?}");
        expected
    }
}

#[test]
fn descriptors_that_are_closed_or_exchanged_while_they_are_connected_change_nothing_else() {
    const EXCHANGED: &str = "
for disturb in (lambda fd, other: os.close(fd), lambda fd, other: os.dup2(other, fd), lambda fd, other: os.dup2(0, fd)):
    for port, seconds in ((silent, 0.6), (late, 5)):
        one, other = patience(socket.socket(), seconds), socket.socket()
        fd, began = one.detach(), time.monotonic()
        threading.Timer(0.2, disturb, (fd, other.fileno())).start()
        result, took = connect(fd, port), time.monotonic() - began
        print(result, 0.5 < took < 3 or took, other.connect_ex(('127.0.0.1', near)), greet())
";
    let said = Hosts::new().same(EXCHANGED);
    let expected = "EINPROGRESS True 0 b'hello'\nok True 0 b'hello'\n";
    assert_eq!(said, expected.repeat(3));
}

#[test]
fn processes_that_are_stopped_while_they_connect_go_on_and_keep_nobody_else_waiting() {
    const STOPPED: &str = "
def greeted():
    began = time.monotonic()
    print(greet())
    return time.monotonic() - began
# The first takes Python longer.
greeted()
alone = greeted()
for port, seconds in ((late, 0), (silent, 0.9), (late, 5)):
    child = os.fork()
    if child == 0:
        print(connect(fd(seconds), port))
        os._exit(0)
    time.sleep(0.3)
    os.kill(child, signal.SIGSTOP)
    os.waitpid(child, os.WUNTRACED)
    print(greeted() < 1 + 5 * alone)
    os.kill(child, signal.SIGCONT)
    os.waitpid(child, 0)
";
    const GREETED: &str = "b'hello'\n";
    let said = Hosts::new().same(STOPPED);
    assert!(
        said.starts_with(&format!("{GREETED}{GREETED}{GREETED}True\nok\n{GREETED}True\nEINTR\n")),
        "{said}"
    );
}

#[test]
fn a_signal_that_the_first_thread_does_not_take_interrupts_the_other_one() {
    const BLOCKED: &str = "
signal.signal(signal.SIGALRM, lambda *_: None)
signal.siginterrupt(signal.SIGALRM, True)
results = []
waits = threading.Thread(target=lambda: results.append(connect(fd(), silent)), daemon=True)
waits.start()
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
time.sleep(0.3)
signal.setitimer(signal.ITIMER_REAL, 0.1)
waits.join(2)
print(results)
os._exit(0)
";
    assert_eq!(Hosts::new().same(BLOCKED), "['EINTR']\n");
}

#[test]
fn processes_one_of_whose_threads_connects_are_stopped_at_once() {
    const STOPPED: &str = "
for port in (silent, late):
    child = os.fork()
    if child == 0:
        waits = threading.Thread(target=lambda: print(connect(fd(), port)), daemon=True)
        waits.start()
        waits.join(30 if port == late else 1)
        os._exit(0)
    time.sleep(0.3)
    os.kill(child, signal.SIGSTOP)
    until = time.monotonic() + 0.5
    while (stopped := os.waitpid(child, os.WUNTRACED | os.WNOHANG)) == (0, 0) and time.monotonic() < until: time.sleep(0.01)
    print(os.WIFSTOPPED(stopped[1]))
    os.kill(child, signal.SIGCONT)
    os.waitpid(child, 0)
";
    assert_eq!(Hosts::new().same(STOPPED), "True\nTrue\nok\n");
}

#[test]
fn processes_that_are_traced_connect_as_others_do() {
    const TRACED: &str = "
TRACEME, SYSCALL = 0, 24
child = os.fork()
if child == 0:
    libc.ptrace(TRACEME, 0, 0, 0)
    os.kill(os.getpid(), signal.SIGSTOP)
    print(greet(), connect(fd(0.3), silent), connect(fd(), late))
    os._exit(7)
stops = 0
while True:
    _, status = os.waitpid(child, 0)
    if not os.WIFSTOPPED(status): break
    stops += 1
    assert libc.ptrace(SYSCALL, child, 0, 0) == 0
print(stops > 100, os.WEXITSTATUS(status))
";
    assert_eq!(Hosts::new().same(TRACED), "b'hello' EINPROGRESS ok\nTrue 7\n");
}

#[test]
fn connections_that_block_keep_nobody_else_waiting() {
    // As patient as a slow machine is slow; and each that waits is looked at twenty times a second.
    const MANY: &str = "
def twenty(): return [greet() for _ in range(20)] == [b'hello'] * 20
began = time.monotonic()
print(twenty())
slow = time.monotonic() - began
patient, many = 3 + 20 * slow, min(200, 20 + int(20 / slow))
began, results = time.monotonic(), []
def wait(): results.append(connect(fd(patient), silent))
threads = [threading.Thread(target=wait) for _ in range(many)]
for thread in threads: thread.start()
print(twenty(), results)
for thread in threads: thread.join()
print(results == ['EINPROGRESS'] * many, time.monotonic() - began < 3 * patient or time.monotonic() - began)
";
    assert_eq!(Hosts::new().same(MANY), "True\nTrue []\nTrue True\n");
}

#[test]
fn where_as_many_wait_as_may_everybody_else_goes_on() {
    const TOO_MANY: &str = "
import resource
limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
threading.stack_size(64 * 1024)
for _ in range(1050): threading.Thread(target=connect, args=(fd(), silent), daemon=True).start()
time.sleep(1)
print([greet() for _ in range(5)] == [b'hello'] * 5)
os._exit(0)
";
    assert_eq!(Hosts::new().same(TOO_MANY), "True\n");
}

/// The usual limit is for programs that do as they like, and not for whoever does it for all of them.
#[test]
fn as_many_connections_are_made_at_a_time_as_programs_may_have_descriptors() {
    const LIMITED: &str = "
import resource
limits = resource.getrlimit(resource.RLIMIT_NOFILE)
print(limits[0])
resource.setrlimit(resource.RLIMIT_NOFILE, (limits[1], limits[1]))
results = []
threads = [threading.Thread(target=lambda: results.append(connect(fd(2), silent))) for _ in range(300)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(set(results), len(results))
";
    let hosts = Hosts::new();
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(256), ..limit }).unwrap();
    assert_eq!(hosts.same(LIMITED), "256\n{'EINPROGRESS'} 300\n");
}

#[test]
fn whoever_waits_for_a_socket_that_another_thread_connects_is_interrupted_by_signals() {
    const BOTH: &str = "
one = fd(2)
signal.signal(signal.SIGALRM, lambda *_: None)
signal.siginterrupt(signal.SIGALRM, True)
first = threading.Thread(target=connect, args=(one, silent))
first.start()
time.sleep(0.3)
signal.setitimer(signal.ITIMER_REAL, 0.3)
began = time.monotonic()
print(connect(one, silent), time.monotonic() - began < 1.2)
first.join()
";
    assert_eq!(Hosts::new().same(BOTH), "EINTR True\n");
}

#[test]
fn of_those_who_end_while_they_connect_nothing_is_left() {
    const ENDING: &str = "
random.seed(7)
for line in sys.stdin:
    for kind in range(int(line)):
        children = []
        for _ in range(60):
            child = os.fork()
            if child == 0:
                # A process ends with one of its threads at work, or is killed.
                if kind == 1: threading.Timer(random.random() / 50, os._exit, (0,)).start()
                connect(fd(), near if kind == 2 else silent)
                os._exit(0)
            children.append(child)
        for child in children:
            time.sleep(random.random() / 500)
            if kind != 1: os.kill(child, signal.SIGKILL)
        for child in children: os.waitpid(child, 0)
    print(greet())
";
    let hosts = Hosts::new();
    let mut running: Running = hosts.waylay().spawn(hosts.command(ENDING));
    let pid = running.pid();
    let count = |what: &str| fs::read_dir(format!("/proc/{pid}/{what}")).unwrap().count();
    assert_eq!(running.ask("0"), "b'hello'");
    let before = ["task", "fd"].map(count);
    assert_eq!(running.ask("3"), "b'hello'");
    // Who is dead waits for nothing; what is kept of others is looked through every two seconds.
    patiently("threads and descriptors to be as few as before", || {
        let by_now = ["task", "fd"].map(count);
        let is_over = by_now[0] < before[0] + 3 && by_now[1] < before[1] + 10 && hosts.dialling() == 0;
        is_over.then_some(())
    });
    running.finish().well();
}

#[test]
fn when_waylay_is_killed_who_waits_is_told_that_there_is_no_such_call() {
    const WAIT: &str = "
for _ in sys.stdin:
    done = []
    threads = [threading.Thread(target=lambda: done.append(connect(fd(), silent))) for _ in range(3)]
    for thread in threads: thread.start()
    time.sleep(0.3)
    print('waiting', done)
    for thread in threads: thread.join()
    print(done)
";
    let hosts = Hosts::new();
    let mut running = hosts.waylay().spawn(hosts.command(WAIT));
    assert_eq!(running.ask("dial"), "waiting []");
    kill(running.pid(), Signal::KILL);
    assert_eq!(running.answer(), "['ENOSYS', 'ENOSYS', 'ENOSYS']");
}

/// A socket stays bound to nothing by having been led to a service: what it is connected to next may be on another host.
#[test]
fn a_socket_that_is_disconnected_from_a_service_goes_directly_to_another_host() {
    const AGAIN: &str = "
import ctypes, socket, sys
libc = ctypes.CDLL(None, use_errno=True)
addresses = list(zip(sys.argv[1::2], map(int, sys.argv[2::2])))
for family, near, far in zip((socket.AF_INET, socket.AF_INET6), addresses[:2], addresses[2:]):
    s = socket.socket(family)
    for to in near, near, far, near:
        s.connect(to)
        print(s.recv(5, socket.MSG_WAITALL), s.getpeername()[:2] == to)
        libc.connect(s.fileno(), bytes(16), 16)
";
    let corners = Corners::new();
    let servers = corners.greeters();
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let policy = folder.path().join("policy.toml");
    let redirecting = servers[..2].iter().map(|near| {
        format!("[[filter]]\naction = \"redirect\"\nservice = \"log\"\nif.port = {}\n", near.address.port())
    });
    let text: String = ["[service.log]\nrun = \"log\"\n".to_owned()].into_iter().chain(redirecting).collect();
    fs::write(&policy, text).unwrap();
    let addresses = servers
        .iter()
        .flat_map(|server| [server.address.ip().to_string(), server.address.port().to_string()]);
    let command = [system_python(), "-u", "-c", AGAIN].map(str::to_owned).into_iter().chain(addresses);
    let waylay = corners.waylay_without_root().reporting().args(["--policy", policy.to_str().unwrap()]);
    let finished = waylay.watch(command).well();
    assert_eq!(finished.stdout, "b'hello' True\n".repeat(8), "{finished:?}");
    assert_eq!(finished.reports().len(), 6, "{finished:?}");
}

/// No service is reached over a device other than the loopback's, and only privileges take a socket off it.
#[test]
fn what_is_kept_to_a_device_is_refused_unless_the_policy_permits_it() {
    const KEPT: &str = "
import errno, socket, sys
for host, port, device in zip(*[iter(sys.argv[1:])] * 3):
    family = socket.AF_INET6 if ':' in host else socket.AF_INET
    for kind, act in [('STREAM', 'connect'), ('DGRAM', 'connect'), ('DGRAM', 'sendto')]:
        with socket.socket(family, getattr(socket, 'SOCK_' + kind)) as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
            try:
                s.connect((host, int(port))) if act == 'connect' else s.sendto(b'', (host, int(port)))
                print(device, s.recv(5).decode() if kind == 'STREAM' else 'sent')
            except OSError as error: print(device, errno.errorcode[error.errno])
";
    let corners = Corners::new();
    let servers = corners.greeters();
    let wanted = servers.iter().zip(Corner::ALL).flat_map(|(server, corner)| {
        let device = if corner.place == Place::Loopback { "lo" } else { "wire" };
        [server.address.ip().to_string(), server.address.port().to_string(), device.to_owned()]
    });
    let command: Vec<_> =
        [system_python(), "-u", "-c", KEPT].map(str::to_owned).into_iter().chain(wanted).collect();
    let run = |waylay: Waylay| waylay.reporting().watch(command.clone()).well();
    let over_the_loopback = "lo hello\nlo sent\nlo sent\n".repeat(2);

    let refused = run(corners.waylay_without_root());
    assert_eq!(refused.stdout, format!("{over_the_loopback}{}", "wire EACCES\n".repeat(6)), "{refused:?}");
    let permitted = run(corners.waylay_without_root().args(["--unredirectable", "permit"]));
    let direct = "wire hello\nwire sent\nwire sent\n".repeat(2);
    assert_eq!(permitted.stdout, format!("{over_the_loopback}{direct}"), "{permitted:?}");
    for finished in [refused, permitted] {
        let is_over_the_loopback = |report: &Report| report.original_destination.ip().is_loopback();
        assert!(finished.reports().iter().all(is_over_the_loopback), "{finished:?}");
    }
}

/// Datagrams get there.
#[test]
fn nobody_connects_to_a_group_of_hosts() {
    const DIAL: &str = "
import errno, socket
for group in '224.0.0.1', '::ffff:224.0.0.1', 'ff02::1', '255.255.255.255':
    family = socket.AF_INET6 if ':' in group else socket.AF_INET
    try: print(socket.socket(family).connect((group, 9)))
    except OSError as error: print(errno.errorcode[error.errno])
";
    let corners = Corners::new();
    let route = ["route", "add", "224.0.0.0/4", "dev", "wire"];
    assert!(corners.client("ip").args(route).status().unwrap().success());
    let command = [system_python(), "-c", DIAL];
    let plain = corners.client(command[0]).args(&command[1..]).output().unwrap();
    let finished = corners.waylay_without_root().watch(command);
    assert_eq!(finished.stdout, "ENETUNREACH\n".repeat(4), "{finished:?}");
    assert_eq!(finished.stdout, String::from_utf8(plain.stdout).unwrap());
}
