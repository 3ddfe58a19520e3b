//! The example services, in every language they are written in: each works in
//! the middle of a chain, over IPv4 and IPv6, like the ones waylay brings along.

#![expect(clippy::unwrap_used, reason = "a failed set-up is a failed test")]

use std::{
    fs,
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc::{Sender, channel},
    },
    time::Duration,
};

use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use socket2::SockRef;
use tempfile::TempDir;
use waylay_netlab::{
    Family, Finished, Ground, Place, Running, TcpServer, Waylay, WebServer, kill, patiently, python,
    random_file, system_python,
};

const MIB: u64 = 1 << 20;
const FAMILIES: [Family; 2] = [Family::V4, Family::V6];
const CHAIN: [&str; 3] = ["log", "forward", "log-2"];

/// The example's program where the service's own user can reach it.
struct Example {
    directory: TempDir,
}

impl Example {
    fn rust() -> Self {
        Self::built("forward")
    }

    /// The one that is for Windows as well.
    fn portable() -> Self {
        Self::built("portable")
    }

    fn built(name: &str) -> Self {
        let built = built(name, "waylay-examples");
        Self::made_by(|path| copy(&built, path))
    }

    fn python() -> Self {
        Self::made_by(|path| copy(&source("forward.py"), path))
    }

    fn c() -> Self {
        Self::made_by(|path| {
            let mut compiler = Command::new("cc");
            compiler.args(["-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-pthread", "-o"]);
            compile(compiler.arg(path).arg(source("forward.c")));
        })
    }

    /// The one for Windows, with the library beside it under the name by which it is asked for.
    fn cpp() -> Self {
        let library = built("libwaylay_ws2.so", "waylay-ws2");
        Self::made_by(|path| {
            copy(&library, &path.with_file_name("libwaylay_ws2.so.0"));
            let mut compiler = Command::new("g++");
            compiler.args(["-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", "-I"]);
            compiler.arg(source("../crates/ws2/include/waylay")).arg("-o").arg(path);
            compile(compiler.arg(source("redirect-service.cpp")).arg(&library).arg("-Wl,-rpath,$ORIGIN"));
        })
    }

    fn made_by(make: impl FnOnce(&Path)) -> Self {
        let example = Self { directory: TempDir::new().unwrap() };
        make(&example.path());
        for path in [example.directory.path(), &example.path()] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        example
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("forward")
    }

    /// The same, but a connection is there before the program is.
    fn slow_to_start(self) -> Self {
        let (program, late) = (self.directory.path().join("late"), self.path());
        fs::rename(&late, &program).unwrap();
        fs::write(&late, format!("#!/bin/sh\nsleep 0.5\nexec {}\n", program.display())).unwrap();
        fs::set_permissions(&late, fs::Permissions::from_mode(0o755)).unwrap();
        self
    }

    fn spec(&self) -> String {
        format!("exec:{}", self.path().display())
    }

    /// Runs a command through a log, the example, and another log.
    fn watch<I: AsRef<std::ffi::OsStr>>(
        &self,
        ground: &Ground,
        watched: impl IntoIterator<Item = I>,
    ) -> Finished {
        let spec = self.spec();
        let through = ["--through", "log", "--through", &spec, "--through", "log"];
        ground.waylay().args(through).reporting().watch(watched)
    }
}

/// A file that this build has made.
fn built(name: &str, package: &str) -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let built = tests.ancestors().nth(2).unwrap().join(name);
    assert!(built.is_file(), "build it first: cargo build -p {package}");
    built
}

fn compile(compiler: &mut Command) {
    let output = compiler.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn copy(from: &Path, to: &Path) {
    fs::copy(from, to).unwrap();
}

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(name)
}

/// Both logs saw each connection, the second one on its way from the example.
fn check_reports(finished: &Finished, server: SocketAddr, verdict: &str) {
    let first = finished.reports_of("log");
    let second = finished.reports_of("log-2");
    assert_eq!((first.len(), second.len()), (1, 1), "{finished:#?}");
    for (report, chain) in [(&first[0], &CHAIN[..1]), (&second[0], &CHAIN[..])] {
        assert_eq!((report.original_destination, report.verdict.as_str()), (server, verdict), "{report:?}");
        assert_eq!(report.chain, chain, "{report:?}");
    }
}

/// What the example said of its connections, one a line.
fn lines(finished: &Finished) -> Vec<&str> {
    finished.stderr.lines().filter_map(|line| line.strip_prefix("forward: ")).collect()
}

fn a_body_arrives(example: &Example) {
    for ground in FAMILIES.map(|family| Ground::new(family, Place::Loopback)) {
        let directory = TempDir::new().unwrap();
        let web = WebServer::start(&ground, directory.path());
        let content = web.add_file("file", 16 * MIB);
        let finished = example.watch(&ground, ["curl", "-sS", "-o", "got", &web.url("file")]).well();
        assert!(finished.file("got") == content, "the file differs");
        check_reports(&finished, web.address(), "forwarded");
        let [line] = lines(&finished)[..] else { panic!("{finished:#?}") };
        assert!(line.contains("curl[") && line.contains(&web.address().port().to_string()), "{line}");
    }
}

/// Sends a file, ends its half, and keeps what comes back.
const HALF_CLOSE: &str = "\
import socket, sys
stream = socket.create_connection((sys.argv[1], int(sys.argv[2])))
stream.sendall(open(sys.argv[3], 'rb').read())
stream.shutdown(socket.SHUT_WR)
with open('got', 'wb') as got:
    while chunk := stream.recv(65536):
        got.write(chunk)
";

fn a_half_close_is_passed_on(example: &Example) {
    for ground in FAMILIES.map(|family| Ground::new(family, Place::Loopback)) {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("sent");
        let content = random_file(&path, 8 * MIB);
        let server = TcpServer::start(ground.server(), |mut stream| {
            let mut all = Vec::new();
            stream.read_to_end(&mut all)?;
            stream.write_all(&all)
        });
        let finished = example.watch(&ground, client(HALF_CLOSE, server.address(), &[&path])).well();
        assert!(finished.file("got") == content, "the answer differs");
        check_reports(&finished, server.address(), "forwarded");
        let counts = format!("{0} B up, {0} B down", 8 * MIB);
        assert!(lines(&finished)[..].iter().all(|line| line.ends_with(&counts)), "{finished:#?}");
    }
}

fn client(program: &str, server: SocketAddr, rest: &[&Path]) -> Vec<String> {
    let (host, port) = (server.ip().to_string(), server.port().to_string());
    let rest = rest.iter().map(|path| path.display().to_string());
    [python().to_owned(), "-c".into(), program.into(), host, port].into_iter().chain(rest).collect()
}

/// Reads to the end, whichever way it comes, and says which.
const READ: &str = "\
import errno, socket, sys
stream = socket.create_connection((sys.argv[1], int(sys.argv[2])))
count = 0
try:
    while chunk := stream.recv(65536):
        count += len(chunk)
    print('end after', count)
except OSError as error:
    print(errno.errorcode[error.errno], 'after', count)
";

fn a_reset_is_passed_on(example: &Example) {
    for ground in FAMILIES.map(|family| Ground::new(family, Place::Loopback)) {
        let server = TcpServer::start(ground.server(), |mut stream| {
            stream.write_all(&[7; 1000])?;
            // The bytes are on their way before the reset is.
            std::thread::sleep(Duration::from_millis(200));
            SockRef::from(&stream).set_linger(Some(Duration::ZERO))
        });
        let finished = example.watch(&ground, client(READ, server.address(), &[])).well();
        assert_eq!(finished.stdout.trim(), "ECONNRESET after 1000");
        check_reports(&finished, server.address(), "reset");
    }
}

/// The application is told at once, and the report names the reason.
fn a_refusal_is_a_reset(example: &Example) {
    for ground in FAMILIES.map(|family| Ground::new(family, Place::Veth)) {
        let free = SocketAddr::new(ground.server(), 9);
        let spec = example.spec();
        let run = ground.waylay().args(["--through", &spec]).reporting();
        let finished = run.watch(client(READ, free, &[])).well();
        assert!(finished.stdout.starts_with("ECONN"), "{finished:?}");
        let [line] = lines(&finished)[..] else { panic!("{finished:#?}") };
        assert!(line.to_lowercase().contains("refused"), "{line}");
    }
}

fn many_connections_at_once(example: &Example) {
    let directory = TempDir::new().unwrap();
    let ground = Ground::loopback();
    let web = WebServer::start(&ground, directory.path());
    let content = web.add_file("file", MIB / 2);
    let args = (0..30).flat_map(|number| ["-o".into(), format!("got-{number}"), web.url("file")]);
    let curl = ["curl", "-sS", "--parallel", "--parallel-immediate"].map(str::to_owned);
    let finished = example.watch(&ground, curl.into_iter().chain(args)).well();
    for number in 0..30 {
        assert!(finished.file(&format!("got-{number}")) == content, "file {number} differs");
    }
    // Every connection was reported: the service ended in order, after its last. curl draws its meter between
    // the lines.
    let lines = finished.stderr.matches("forward: ").count();
    assert_eq!(lines, finished.reports_of("log").len(), "{finished:#?}");
}

/// A connection that is being served, and what there is to know about the service.
fn with_an_open_connection(example: &Example, then: impl FnOnce(&mut Running, u32)) {
    let server = TcpServer::start(Ipv4Addr::LOCALHOST.into(), |mut stream| {
        stream.write_all(b"hello")?;
        io::copy(&mut stream.try_clone()?, &mut stream)?;
        Ok(())
    });
    let mut run = Ground::loopback().waylay().args(["--through", &example.spec()]).spawn_dialler();
    assert_eq!(run.ask(&format!("open 127.0.0.1 {}", server.address().port())), "ok");
    assert_eq!(run.ask("ping"), "pong");
    let service = run.service("forward");
    then(&mut run, service);
}

fn being_killed_is_an_error(example: &Example) {
    with_an_open_connection(example, |run, service| {
        kill(service, Signal::KILL);
        assert_eq!(run.ask("drain"), "ECONNRESET");
    });
}

fn what_carries_no_record_is_reset(example: &Example) {
    with_an_open_connection(example, |run, service| {
        let environment = fs::read_to_string(format!("/proc/{service}/environ")).unwrap();
        let variable = |name: &str| {
            environment
                .split('\0')
                .find_map(|variable| variable.strip_prefix(name)?.strip_prefix('='))
                .unwrap()
        };
        let names = variable("LISTEN_FDNAMES").split(':');
        let addresses: Vec<SocketAddr> = variable("WAYLAY_LISTEN")
            .split(',')
            .zip(names)
            .filter(|(_, name)| name.starts_with("tcp"))
            .map(|(address, _)| address.parse().unwrap())
            .collect();
        assert!(addresses.iter().any(SocketAddr::is_ipv4) && addresses.iter().any(SocketAddr::is_ipv6));
        for address in addresses {
            let mut stream = TcpStream::connect(address).unwrap();
            let error = stream.read(&mut [0]).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{address}");
        }
        assert_eq!(run.ask("ping"), "pong");
    });
}

/// It takes no more, and lets those it has come to their end.
fn it_ends_in_order(example: &Example) {
    with_an_open_connection(example, |run, service| {
        kill(service, Signal::TERM);
        patiently("no listener", || (!listens(service)).then_some(()));
        assert_eq!(run.ask("ping"), "pong");
        run.close_input();
        run.stderr().wait_for("forward: ");
    });
}

/// Whether a process still holds a listening socket of TCP.
fn listens(pid: u32) -> bool {
    let table = |name| fs::read_to_string(format!("/proc/{pid}/net/{name}")).unwrap_or_default();
    let text = table("tcp") + &table("tcp6");
    let listening: Vec<String> = text
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|fields| fields.get(3) == Some(&"0A"))
        .filter_map(|fields| fields.get(9).map(|inode| format!("socket:[{inode}]")))
        .collect();
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    descriptors
        .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
        .any(|target| listening.iter().any(|socket| Path::new(socket) == target))
}

/// Sends what it has to on many connections and is gone, before anybody has accepted one.
const SEND_AND_LEAVE: &str = "\
import socket, sys
for number in range(200):
    with socket.create_connection((sys.argv[1], int(sys.argv[2]))) as stream:
        stream.sendall(b'gone soon')
";

fn what_is_sent_right_before_the_end_arrives(waylay: Waylay, through: &[&str]) {
    let (sender, arrived) = std::sync::mpsc::channel();
    let server = TcpServer::start(Ipv4Addr::LOCALHOST.into(), move |mut stream| {
        let mut all = Vec::new();
        stream.read_to_end(&mut all)?;
        sender.send(all).map_err(io::Error::other)
    });
    let through: Vec<_> = through.iter().flat_map(|spec| ["--through", spec]).collect();
    let run = waylay.args(through).reporting();
    let (host, port) = (server.address().ip().to_string(), server.address().port().to_string());
    let finished = run.watch([system_python(), "-c", SEND_AND_LEAVE, &host, &port]).well();
    for number in 0..200 {
        let all = arrived.recv_timeout(Duration::from_secs(10));
        assert_eq!(all.as_deref().unwrap_or_default(), b"gone soon", "{number}: {finished:#?}");
    }
}

#[test]
fn what_is_sent_right_before_the_end_arrives_through_logs() {
    what_is_sent_right_before_the_end_arrives(Ground::loopback().waylay(), &["log", "log", "log"]);
}

fn it_sends_what_came_right_before_the_end(example: &Example) {
    let waylay = Ground::loopback().waylay();
    what_is_sent_right_before_the_end_arrives(waylay, &["log", &example.spec(), "log"]);
}

/// All has come and gone before the program is there. By the engine without privileges, where descriptors may be copied and where not.
#[test]
fn what_is_sent_before_a_service_has_begun_arrives() {
    let example = Example::python().slow_to_start();
    let slow = example.spec();
    for forbidden in [&[][..], &[libc::SYS_pidfd_getfd]] {
        let waylay = Waylay::run_without(forbidden, None);
        what_is_sent_right_before_the_end_arrives(waylay, &[&slow, "log"]);
    }
    what_is_sent_right_before_the_end_arrives(Ground::loopback().waylay(), &[&slow, "log"]);
}

#[test]
fn what_a_service_is_refused_is_told_by_its_name() {
    let server = TcpServer::start(Ipv4Addr::LOCALHOST.into(), |mut stream| stream.write_all(b"hello"));
    let mut run = Ground::loopback().waylay().through_logs(2).spawn_dialler();
    let dial = format!("dial 127.0.0.1 {}", server.address().port());
    assert_eq!(run.ask(&dial), "ok");
    kill(run.service("log-2"), Signal::KILL);
    run.stderr().wait_for("ended with signal 9");
    assert!(run.ask(&dial).ends_with("ECONNRESET"));
    let line = run.stderr().wait_for("refused with ECONNREFUSED");
    assert!(line.contains(" log["), "{line}");
}

/// Opens so many connections, has an echo from each, and keeps them until told to close them.
const KEEP: &str = "\
import resource, socket, sys
count = int(sys.argv[3])
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
streams = [socket.create_connection((sys.argv[1], int(sys.argv[2]))) for _ in range(count)]
for stream in streams:
    stream.sendall(b'x' * 1000)
for stream in streams:
    assert stream.recv(1000, socket.MSG_WAITALL) == b'x' * 1000
print('open', flush=True)
sys.stdin.read()
for stream in streams:
    stream.close()
";

#[test]
fn the_log_has_five_thousand_connections_at_once() {
    const COUNT: usize = 5000;
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).unwrap();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let server = listener.local_addr().unwrap();
    let echoing = std::thread::spawn(move || {
        let mut streams: Vec<TcpStream> = listener.incoming().take(COUNT).map(Result::unwrap).collect();
        for stream in &mut streams {
            let mut bytes = [0; 1000];
            stream.read_exact(&mut bytes).unwrap();
            stream.write_all(&bytes).unwrap();
        }
        // Until the client has closed them all.
        for mut stream in streams {
            assert_eq!(stream.read(&mut [0]).unwrap(), 0);
        }
    });
    let mut command = client(KEEP, server, &[]);
    command.push(COUNT.to_string());
    let mut run = Ground::loopback().waylay().through_logs(1).reporting().spawn(command);
    patiently("the connections", || {
        let ended = !run.is_running();
        assert!(!ended, "{}", run.stderr().text());
        run.stdout().text().contains("open").then_some(())
    });
    let log = run.service("log");
    let status = fs::read_to_string(format!("/proc/{log}/status")).unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let resident: usize = resident.trim().trim_end_matches(" kB").parse().unwrap();
    eprintln!("{resident} KiB for {COUNT} connections");
    // A buffer for each direction would be 640 MB.
    assert!(resident < 100_000, "{resident} KiB");
    let finished = run.finish().well();
    echoing.join().unwrap();
    let reports = finished.reports_of("log");
    assert_eq!(reports.len(), COUNT);
    assert!(
        reports.iter().all(|report| report.verdict == "forwarded" && report.bytes_to_application == 1000)
    );
}

/// Large enough to be spliced by both services most of the way.
const DOWNLOAD: usize = 256 << 20;
const CHUNK: usize = 1 << 20;

/// A server whose download waits for a word before its last chunk, so that nothing that happens
/// before can come too late; and how much of it has been sent.
struct Download {
    server: TcpServer,
    sent: Arc<AtomicUsize>,
    go_on: Sender<()>,
}

impl Download {
    fn start() -> Self {
        let (go_on, word) = channel();
        let (sent, word) = (Arc::new(AtomicUsize::new(0)), Mutex::new(word));
        let progress = Arc::clone(&sent);
        let server = TcpServer::start(Ipv4Addr::LOCALHOST.into(), move |mut stream| {
            let chunk = vec![7; CHUNK];
            for _ in 1..DOWNLOAD / CHUNK {
                stream.write_all(&chunk)?;
                progress.fetch_add(CHUNK, Ordering::SeqCst);
            }
            word.lock().unwrap().recv().map_err(io::Error::other)?;
            stream.write_all(&chunk)
        });
        Self { server, sent, go_on }
    }
}

#[test]
fn a_log_killed_at_any_moment_never_makes_a_download_look_complete() {
    for round in 0..12 {
        let download = Download::start();
        let command = client(READ, download.server.address(), &[]);
        let mut run = Ground::loopback().waylay().through_logs(2).spawn(command);
        let victim = run.service(["log", "log-2"][round % 2]);
        // The last one when nothing flows any more, the others somewhere in full flight.
        let moment = (DOWNLOAD - CHUNK) / 11 * round / CHUNK * CHUNK;
        patiently("the download", || {
            let begun = download.server.accepted() > 0;
            (begun && download.sent.load(Ordering::SeqCst) >= moment).then_some(())
        });
        kill(victim, Signal::KILL);
        // The server may be gone already, by the reset.
        let _gone = download.go_on.send(());
        let finished = run.finish();
        let ending = finished.stdout.trim();
        assert!(ending.starts_with("ECONNRESET after "), "round {round}: {ending:?} {}", finished.stderr);
    }
}

/// Not a matter of when the program has told its listeners what to pass on to those they accept.
macro_rules! early {
    ($($test:ident = $language:ident;)+) => {
        $(
            #[test]
            fn $test() {
                a_reset_is_passed_on(&Example::$language().slow_to_start());
            }
        )+
    };
}

early! {
    in_rust_a_reset_is_passed_on_to_who_came_early = rust;
    in_portable_rust_a_reset_is_passed_on_to_who_came_early = portable;
    in_python_a_reset_is_passed_on_to_who_came_early = python;
    in_c_a_reset_is_passed_on_to_who_came_early = c;
    in_cpp_a_reset_is_passed_on_to_who_came_early = cpp;
}

macro_rules! examples {
    ($($language:ident: $($test:ident = $case:ident),+;)+) => {
        $($(
            #[test]
            fn $test() {
                $case(&Example::$language());
            }
        )+)+
    };
}

examples! {
    rust:
        in_rust_a_body_arrives = a_body_arrives,
        in_rust_a_half_close_is_passed_on = a_half_close_is_passed_on,
        in_rust_a_reset_is_passed_on = a_reset_is_passed_on,
        in_rust_a_refusal_is_a_reset = a_refusal_is_a_reset,
        in_rust_many_connections_are_served_at_once = many_connections_at_once,
        in_rust_being_killed_is_an_error = being_killed_is_an_error,
        in_rust_what_carries_no_record_is_reset = what_carries_no_record_is_reset,
        in_rust_the_end_is_in_order = it_ends_in_order,
        in_rust_what_came_right_before_the_end_is_sent = it_sends_what_came_right_before_the_end;
    portable:
        in_portable_rust_a_body_arrives = a_body_arrives,
        in_portable_rust_a_half_close_is_passed_on = a_half_close_is_passed_on,
        in_portable_rust_a_reset_is_passed_on = a_reset_is_passed_on,
        in_portable_rust_a_refusal_is_a_reset = a_refusal_is_a_reset,
        in_portable_rust_many_connections_are_served_at_once = many_connections_at_once,
        in_portable_rust_being_killed_is_an_error = being_killed_is_an_error,
        in_portable_rust_what_carries_no_record_is_reset = what_carries_no_record_is_reset,
        in_portable_rust_the_end_is_in_order = it_ends_in_order,
        in_portable_rust_what_came_right_before_the_end_is_sent = it_sends_what_came_right_before_the_end;
    python:
        in_python_a_body_arrives = a_body_arrives,
        in_python_a_half_close_is_passed_on = a_half_close_is_passed_on,
        in_python_a_reset_is_passed_on = a_reset_is_passed_on,
        in_python_a_refusal_is_a_reset = a_refusal_is_a_reset,
        in_python_many_connections_are_served_at_once = many_connections_at_once,
        in_python_being_killed_is_an_error = being_killed_is_an_error,
        in_python_what_carries_no_record_is_reset = what_carries_no_record_is_reset,
        in_python_the_end_is_in_order = it_ends_in_order,
        in_python_what_came_right_before_the_end_is_sent = it_sends_what_came_right_before_the_end;
    c:
        in_c_a_body_arrives = a_body_arrives,
        in_c_a_half_close_is_passed_on = a_half_close_is_passed_on,
        in_c_a_reset_is_passed_on = a_reset_is_passed_on,
        in_c_a_refusal_is_a_reset = a_refusal_is_a_reset,
        in_c_many_connections_are_served_at_once = many_connections_at_once,
        in_c_being_killed_is_an_error = being_killed_is_an_error,
        in_c_what_carries_no_record_is_reset = what_carries_no_record_is_reset,
        in_c_the_end_is_in_order = it_ends_in_order,
        in_c_what_came_right_before_the_end_is_sent = it_sends_what_came_right_before_the_end;
    cpp:
        in_cpp_a_body_arrives = a_body_arrives,
        in_cpp_a_half_close_is_passed_on = a_half_close_is_passed_on,
        in_cpp_a_reset_is_passed_on = a_reset_is_passed_on,
        in_cpp_a_refusal_is_a_reset = a_refusal_is_a_reset,
        in_cpp_many_connections_are_served_at_once = many_connections_at_once,
        in_cpp_being_killed_is_an_error = being_killed_is_an_error,
        in_cpp_what_carries_no_record_is_reset = what_carries_no_record_is_reset,
        in_cpp_the_end_is_in_order = it_ends_in_order,
        in_cpp_what_came_right_before_the_end_is_sent = it_sends_what_came_right_before_the_end;
}
