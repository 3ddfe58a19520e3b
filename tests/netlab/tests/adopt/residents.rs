//! Proxies that run already, whoever has started them, and those who share a cgroup with them.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, TcpStream},
    path::Path,
    process::Command,
};

use rustix::process::Signal;
use waylay_engine_ebpf::hooked;
use waylay_netlab::{
    Ground, Home, Lines, Process, Proxies, Proxy, Running, TcpServer, Waylay, WorldReadable, free_port, kill,
    listens, patiently, system_python, world_readable_file,
};

const RESIDENT: &str = include_str!("../../scripts/resident.py");
const ONLY_IPV4: &str =
    "waylay: no IPv6 gets to the service there; over it, new connections are refused (closed)\n";
/// Of nobody else on the host.
const UID: u32 = 1_899_999_999;

/// A server that greets, and a proxy that leads there who has found it by himself.
struct Resident {
    home: Home,
    process: Process,
    lines: Lines,
    port: u16,
    direct: TcpServer,
    _program: WorldReadable,
}

impl Resident {
    fn new(cgroup: &str, before: &str, how: &str) -> Self {
        let (home, port, direct) = (Home::new(cgroup), free_port(), greeter());
        let program = world_readable_file("resident.py", RESIDENT);
        let python = system_python();
        let file = program.path().display();
        let to = direct.address().port();
        let command = format!("{before} {python} -u {file} {port} 127.0.0.1 {to} {how}");
        let (process, lines) = home.start(&command);
        lines.wait_for("listening");
        Self { home, process, lines, port, direct, _program: program }
    }

    fn as_uid() -> Self {
        let before = format!("setpriv --reuid {UID} --clear-groups --bounding-set -all --inh-caps -all");
        Self::new("shared.scope", &before, "")
    }

    /// A run through it, between two that report.
    fn run(&self, known_by: &str) -> Running {
        self.run_with(known_by, &[])
    }

    fn run_with(&self, known_by: &str, more: &[&str]) -> Running {
        let spec = format!("there=adopt:127.0.0.1:{}@{known_by}", self.port);
        let through = ["--through", "log", "--through", &spec, "--through", "log"];
        Ground::loopback().waylay().args(through).args(more).reporting().spawn_dialler()
    }

    /// As somebody who is in no run and has found it by himself.
    fn greets_directly(&self) -> bool {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).unwrap();
        let mut greeting = [0; 5];
        stream.read_exact(&mut greeting).is_ok_and(|()| &greeting == b"hello")
    }

    fn pid(&mut self) -> u32 {
        self.process.child().id()
    }
}

fn greeter() -> TcpServer {
    TcpServer::start(Ipv4Addr::LOCALHOST.into(), |mut stream| {
        stream.write_all(b"hello")?;
        // Until the other side ends it.
        std::io::copy(&mut stream, &mut std::io::sink()).map(drop)
    })
}

fn dial(server: &TcpServer) -> String {
    format!("dial 127.0.0.1 {}", server.address().port())
}

fn nothing_is_attached(cgroup: &Path) -> bool {
    hooked(cgroup).unwrap().iter().all(|hooked| hooked.programs.is_empty())
}

/// The application passes the first, the proxy is the application to the last, and nobody else's connections are seen.
fn takes_its_place(resident: &Resident, known_by: &str) {
    let server = greeter();
    let mut run = resident.run(known_by);
    assert_eq!(run.ask(&dial(&server)), "ok");
    assert!(resident.greets_directly());
    assert!(!nothing_is_attached(resident.home.directory()));
    let finished = run.finish().well();
    assert_eq!(finished.stderr, ONLY_IPV4);
    for (service, program) in [("log", "python3"), ("log-2", "python3")] {
        let report = finished.report_of(service);
        assert!(report.application.contains(program), "{report:?}");
        assert_eq!(report.original_destination, server.address());
    }
    assert_eq!(finished.report_of("log").chain, ["log"]);
    assert_eq!(finished.report_of("log-2").chain, ["log-2"]);
    assert!(resident.greets_directly(), "it goes on as before");
    assert!(nothing_is_attached(resident.home.directory()));
}

#[test]
fn one_is_known_by_its_cgroup() {
    let resident = Resident::new("proxy", "", "");
    takes_its_place(&resident, &format!("cgroup={}", resident.home.path().display()));
    takes_its_place(&resident, &format!("cgroup={}", resident.home.directory().display()));
}

#[test]
fn one_is_known_by_its_unit() {
    let name = format!("netlab-{}.service", std::process::id());
    takes_its_place(&Resident::new(&name, "", ""), &format!("unit={name}"));
}

#[test]
fn one_is_known_by_its_user() {
    takes_its_place(&Resident::as_uid(), &format!("uid={UID}"));
}

/// HAProxy as it is, with the documented configuration, beside somebody else in its cgroup.
#[test]
fn one_is_known_by_its_executable() {
    let (home, proxies, server) = (Home::new("shared.scope"), Proxies::new(None), greeter());
    let (configuration, port) = proxies.documented(Proxy::Haproxy);
    let (mut process, _lines) = home.start(&proxies.command(Proxy::Haproxy, port, &configuration));
    let pid = process.child().id();
    patiently("HAProxy", || listens(pid, port).then_some(()));
    let mut bystander = home.start_dialler();
    let exe = proxies.executable(Proxy::Haproxy);
    let spec = format!("adopt/tproxy:127.0.0.1:{port},[::1]:{port}@exe={exe}");
    let through = ["--through", &spec, "--through", "log"];
    let mut run = Ground::loopback().waylay().args(through).reporting().spawn_dialler();
    let port = server.address().port();
    assert_eq!(run.ask(&format!("open 127.0.0.1 {port}")), "ok");
    assert_eq!(bystander.ask(&dial(&server)), "ok");
    let report = run.finish().well().report_of("log");
    assert!(report.application.ends_with("/haproxy"), "{report:?}");
}

/// What the proxy dials for others does not depend on the services of a run, wherever it goes; what it dials for the run
/// does.
#[test]
fn only_what_one_dials_for_the_run_depends_on_the_services_after_it() {
    let (mut resident, server) = (Resident::as_uid(), greeter());
    let mut bystander = resident.home.start_dialler();
    let mut run = resident.run(&format!("uid={UID}"));
    let port = server.address().port();
    assert_eq!(run.ask(&format!("open 127.0.0.1 {port}")), "ok");
    kill(run.service("log-2"), Signal::KILL);
    run.stderr().wait_for("the service log-2 ended with signal 9");
    assert!(resident.greets_directly());
    assert_eq!(bystander.ask(&dial(&server)), "ok");
    assert_eq!(bystander.ask(&dial(&resident.direct)), "ok");
    let doctor = Command::new(Waylay::binary()).arg("doctor").output().unwrap();
    let said = String::from_utf8_lossy(&doctor.stdout).into_owned();
    let shared = format!("{}, shared with python3", resident.home.directory().display());
    let line = said.lines().find(|line| line.contains(&shared)).unwrap_or_else(|| panic!("{said}"));
    assert!(line.contains(&format!("there (uid={UID}) ran already")), "{line}");
    assert!(!line.contains(&format!("[{}]", resident.pid())), "{line}");
    assert_ne!(run.ask(&dial(&server)), "ok");
    resident.lines.wait_for(&format!("127.0.0.1:{port} ECONNREFUSED"));
    run.finish().well();
}

/// As one does that has a server for SOCKS behind it: the services after it see what it dials, as of any other proxy. What
/// it dials for others meanwhile they do not.
#[test]
fn one_that_dials_elsewhere_does_so_through_the_services_after_it() {
    let (resident, server) = (Resident::new("proxy", "", "elsewhere"), greeter());
    let known_by = format!("cgroup={}", resident.home.path().display());
    let mut run = resident.run(&known_by);
    let port = server.address().port();
    // To the loopback's other addresses connections are led although nobody listens there.
    assert_eq!(run.ask(&format!("open 127.0.0.9 {port}")), "ok");
    assert!(resident.greets_directly());
    assert_eq!(run.ask(&format!("dial 127.0.0.8 {port}")), "ok");
    let finished = run.finish().well();
    let seen = finished.reports_of("log-2");
    assert!(seen.iter().all(|report| report.original_destination == server.address()), "{seen:?}");
    assert_eq!((finished.reports_of("log").len(), seen.len()), (2, 2));
}

/// One that dies while it is adopted is gone, as others are, and a run neither ends nor restarts it.
#[test]
fn one_that_dies_is_gone_to_the_failure_policy() {
    let (mut resident, server) = (Resident::new("proxy", "", ""), greeter());
    let known_by = format!("cgroup={}", resident.home.path().display());
    let mut run = resident.run(&known_by);
    assert_eq!(run.ask(&dial(&server)), "ok");
    kill(resident.pid(), Signal::KILL);
    run.stderr().wait_for("the service there does not listen any more");
    assert_ne!(run.ask(&dial(&server)), "ok");
    assert_eq!(server.accepted(), 1);
    run.finish().well();
}

/// A classic mistake, and the loop that comes of it.
#[test]
fn one_that_dials_itself_is_refused() {
    let (resident, server) = (Resident::new("proxy", "", "name"), greeter());
    let known_by = format!("cgroup={}", resident.home.path().display());
    let mut run = resident.run(&known_by);
    assert_eq!(run.ask(&dial(&server)), "connected, then an end after 0");
    run.stderr().wait_for("was dialled past the engine (there)");
    resident.lines.wait_for(&format!("127.0.0.1:{} ECONNREFUSED", resident.port));
    run.finish().well();
}

#[test]
fn what_cannot_be_adopted_is_refused_in_a_line_that_says_why() {
    let mut resident = Resident::as_uid();
    let pid = resident.pid();
    let (cgroup, own) = (resident.home.path(), resident.port);
    let free = free_port();
    let elsewhere = resident.home.beside("elsewhere");
    let below = Path::new("/").join(cgroup.parent().unwrap()).join("elsewhere");
    let refused = |port: u16, known_by: &str| {
        let spec = format!("adopt:127.0.0.1:{port}@{known_by}");
        let finished = Ground::loopback().waylay().args(["--through", &spec]).watch(["true"]);
        finished.refused_in_a_line().to_owned()
    };
    let is = |line: String, words: &str| assert!(line.contains(words), "{line}");
    is(
        refused(own, "unit=netlab-none"),
        "no cgroup is called netlab-none.service: there is no such unit, or it is not running (yet)",
    );
    is(refused(own, "cgroup=/netlab-none"), "there is no cgroup /netlab-none");
    is(refused(own, "cgroup=/"), "is the root of all cgroups");
    is(refused(own, "exe=/usr/sbin/netlab-none"), "there is no file /usr/sbin/netlab-none");
    is(refused(free, &format!("uid={UID}")), &format!("nobody listens on 127.0.0.1:{free}"));
    let who = format!("python3[{}] (cgroup {}, uid {UID})", pid, cgroup.display());
    for other in [format!("cgroup={}", below.display()), "uid=1".into(), "exe=/bin/sh".into()] {
        is(refused(own, &other), &format!("{other} does not listen on 127.0.0.1:{own}, where {who} does"));
    }
    assert!(nothing_is_attached(&elsewhere) && nothing_is_attached(resident.home.directory()));
}

#[test]
fn a_second_run_cannot_adopt_what_one_has_adopted() {
    let (resident, server) = (Resident::new("proxy", "", ""), greeter());
    let known_by = format!("cgroup={}", resident.home.path().display());
    let mut run = resident.run(&known_by);
    assert_eq!(run.ask(&dial(&server)), "ok");
    let spec = format!("adopt:127.0.0.1:{}@{known_by}", resident.port);
    let second = Ground::loopback().waylay().args(["--through", &spec]).watch(["true"]);
    assert!(second.refused_in_a_line().contains("holds a service of waylay-"), "{second:?}");
    assert_eq!(run.ask(&dial(&server)), "ok");
    run.finish().well();
}
