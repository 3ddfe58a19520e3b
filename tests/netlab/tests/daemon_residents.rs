//! Proxies that run in a daemon's scope already, and are adopted where they are.

#![expect(clippy::unwrap_used, reason = "a failed set-up is a failed test")]

use std::{
    fs,
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;
use waylay_engine_ebpf::hooked;
use waylay_netlab::{
    Daemon, Dialler, Home, Lines, Process, TcpServer, Waylay, free_port, kill, patiently, system_python,
};

const RESIDENT: &str = include_str!("../scripts/resident.py");

const ALL: &str = "[[filter]]\naction = \"redirect\"\nservice = \"NAME\"\nif.protocol = \"tcp\"\n";

/// What it reads it sends back, after a greeting.
fn echo() -> TcpServer {
    TcpServer::start(IpAddr::V4(Ipv4Addr::LOCALHOST), |mut stream: TcpStream| {
        stream.write_all(b"hello")?;
        let mut bytes = [0; 4096];
        loop {
            match stream.read(&mut bytes)? {
                0 => return Ok(()),
                read => stream.write_all(&bytes[..read])?,
            }
        }
    })
}

/// A scope with a client and a proxy in it, which leads to `direct` who has found it by himself.
struct Scene {
    folder: TempDir,
    home: Home,
    client: Dialler,
    server: TcpServer,
    cgroup: PathBuf,
    proxy: Process,
    port: u16,
    command: String,
    _lines: Lines,
    _direct: TcpServer,
}

fn start_proxy(cgroup: &Path, command: &str) -> (Process, Lines) {
    fs::create_dir(cgroup).unwrap();
    let (proxy, lines) = Home::start_in(cgroup, command);
    lines.wait_for("listening");
    (proxy, lines)
}

impl Scene {
    fn new(name: &str) -> Self {
        let (folder, home, direct, port) =
            (tempfile::tempdir().unwrap(), Home::new(name), echo(), free_port());
        let script = folder.path().join("resident.py");
        fs::write(&script, RESIDENT).unwrap();
        let cgroup = home.directory().join(format!("{name}.service"));
        let command = format!(
            "{} -u {} {port} 127.0.0.1 {}",
            system_python(),
            script.display(),
            direct.address().port()
        );
        let (proxy, lines) = start_proxy(&cgroup, &command);
        let client = home.start_dialler();
        let server = echo();
        Self { folder, client, server, cgroup, proxy, port, command, home, _lines: lines, _direct: direct }
    }

    /// Ends the proxy, and its cgroup with it, as systemd does.
    fn stop_proxy(&mut self) {
        kill(self.proxy.child().id(), Signal::TERM);
        self.proxy.child().wait().unwrap();
        patiently("its cgroup is gone", || fs::remove_dir(&self.cgroup).ok());
    }

    /// In another cgroup of the same name.
    fn start_proxy_anew(&mut self) {
        (self.proxy, self._lines) = start_proxy(&self.cgroup, &self.command);
    }

    /// A policy's services, in this order, each for all of TCP; `there` is the proxy, `unit` the same by its unit.
    fn services(&self, names: &[&str]) -> String {
        let unit = self.cgroup.file_name().unwrap().to_str().unwrap();
        let declared = |name: &&str| {
            let which = match *name {
                "there" => {
                    let cgroup = self.home.path().join(unit);
                    format!("adopt = \"127.0.0.1:{}\"\ncgroup = \"{}\"", self.port, cgroup.display())
                }
                "unit" => format!("adopt = \"127.0.0.1:{}\"\nunit = \"{unit}\"", self.port),
                _ => "run = \"log\"".to_owned(),
            };
            format!("[service.{name}]\n{which}\n{}", ALL.replace("NAME", name))
        };
        names.iter().map(declared).collect()
    }

    fn start(&self, policy: &str) -> Daemon {
        fs::write(self.folder.path().join("policy.toml"), policy).unwrap();
        Daemon::start(self.folder.path(), &self.home.path())
    }

    fn dial(&mut self) -> String {
        self.client.ask(&format!("dial 127.0.0.1 {}", self.server.address().port()))
    }

    /// Somebody outside of the scope who has found it by himself.
    fn visit(&self) -> TcpStream {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).unwrap();
        assert!(is_greeted(&mut stream));
        stream
    }

    fn nothing_is_attached(&self) -> bool {
        hooked(&self.cgroup).unwrap().iter().all(|hooked| hooked.programs.is_empty())
    }
}

fn is_greeted(stream: &mut TcpStream) -> bool {
    let mut greeting = [0; 5];
    stream.read_exact(&mut greeting).is_ok_and(|()| &greeting == b"hello")
}

fn goes_on(stream: &mut TcpStream) -> bool {
    let mut byte = [0];
    stream.write_all(b"x").is_ok() && stream.read_exact(&mut byte).is_ok()
}

fn condition(daemon: &Daemon, name: &str) -> Value {
    let services = daemon.json(&["service", "ls"]);
    let mut services = services["services"].as_array().unwrap().iter();
    services.find(|service| service["name"] == json!(name)).unwrap()["state"].clone()
}

#[test]
fn one_takes_its_place_in_the_chain_and_what_it_dials_for_itself_goes_to_those_after_it() {
    let mut scene = Scene::new("resident-chain");
    let daemon = scene.start(&scene.services(&["first", "there", "last"]));
    assert_eq!(scene.dial(), "ok");
    let proxy = scene.proxy.child().id();
    // Its legs carry no records, so it is the application to those after it.
    daemon.seen().wait_for("via first");
    daemon.seen().wait_for(&format!("[{proxy}]"));
    daemon.seen().wait_for("via last");
    let before = daemon.seen().text().matches("via last").count();
    drop(scene.visit());
    patiently("its own leg", || (daemon.seen().text().matches("via last").count() > before).then_some(()));
    assert!(!daemon.seen().text().contains("via first › last"), "{}", daemon.seen().text());
    let why = daemon.ask(&["why", "--pid", &proxy.to_string(), "--to", &scene.server.address().to_string()]);
    let why = String::from_utf8(why.stdout).unwrap();
    assert!(why.contains("service \"last\": chosen") && !why.contains("service \"first\": chosen"), "{why}");
    daemon.end();
    assert!(scene.nothing_is_attached());
    drop(scene.visit());
    assert_eq!(scene.dial(), "ok");
}

#[test]
fn one_comes_and_goes_while_the_daemon_runs_and_is_left_as_it_was() {
    let mut scene = Scene::new("resident-comes");
    let daemon = scene.start(&scene.services(&["first"]));
    let file = scene.folder.path().join("there.toml");
    fs::write(&file, scene.services(&["there"])).unwrap();
    daemon.change(&["service", "add", "--file", file.to_str().unwrap()]);
    assert_eq!(condition(&daemon, "there"), json!("serving"));
    assert_eq!(scene.dial(), "ok");
    daemon.change(&["filter", "rm", "1"]);
    patiently("nothing is attached", || scene.nothing_is_attached().then_some(()));
    drop(scene.visit());
    assert_eq!(scene.dial(), "ok");
    daemon.end();
}

#[test]
fn one_that_has_died_is_gone_to_the_failure_policy() {
    let mut scene = Scene::new("resident-dies");
    let daemon = scene.start(&scene.services(&["there"]));
    assert_eq!(scene.dial(), "ok");
    kill(scene.proxy.child().id(), Signal::KILL);
    patiently("it is gone", || (condition(&daemon, "there") == json!("gone")).then_some(()));
    assert_eq!(scene.dial(), "ECONNREFUSED");
    daemon.end();
    assert_eq!(scene.dial(), "ok");
}

#[test]
fn what_one_has_dialled_before_is_reset_only_if_a_service_comes_after_it() {
    let scene = Scene::new("resident-existing");
    let mut visit = scene.visit();
    let reset = |names: &[&str]| format!("existing = \"reset\"\n{}", scene.services(names));
    let daemon = scene.start(&reset(&["first", "there"]));
    assert!(goes_on(&mut visit), "{}", daemon.seen().text());
    fs::write(scene.folder.path().join("policy.toml"), reset(&["first", "there", "last"])).unwrap();
    daemon.change(&["reload"]);
    assert!(!goes_on(&mut visit), "{}", daemon.seen().text());
    daemon.end();
}

#[test]
fn one_that_is_not_there_yet_is_taken_in_when_it_appears() {
    let mut scene = Scene::new("resident-later");
    scene.stop_proxy();
    let daemon = scene.start(&scene.services(&["first", "unit", "last"]));
    daemon.seen().wait_for("the service unit is not there yet");
    assert_eq!(condition(&daemon, "unit"), json!("gone"));
    assert_ne!(scene.dial(), "ok");
    scene.start_proxy_anew();
    patiently("it is taken in", || (scene.dial() == "ok").then_some(()));
    assert_eq!(condition(&daemon, "unit"), json!("serving"));
    daemon.seen().wait_for(&format!("[{}]", scene.proxy.child().id()));
    assert!(!daemon.seen().text().contains("via first › last"), "{}", daemon.seen().text());
    daemon.end();
    assert!(scene.nothing_is_attached());
    assert_eq!(scene.dial(), "ok");
}

#[test]
fn one_that_is_started_anew_is_adopted_anew() {
    let mut scene = Scene::new("resident-anew");
    let daemon = scene.start(&scene.services(&["first", "unit", "last"]));
    assert_eq!(scene.dial(), "ok");
    for _ in 0..3 {
        scene.stop_proxy();
        assert_ne!(scene.dial(), "ok");
        scene.start_proxy_anew();
        patiently("it is adopted anew", || (scene.dial() == "ok").then_some(()));
        daemon.seen().wait_for(&format!("[{}]", scene.proxy.child().id()));
    }
    assert!(!daemon.seen().text().contains("via first › last"), "{}", daemon.seen().text());
    // Nobody else can have what it is in.
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("policy.toml"), "").unwrap();
    let mut other = Command::new(Waylay::binary().with_file_name("waylayd"));
    other.args(["--policy", "policy.toml", "--state", "state", "--socket", "control.sock", "--scope"]);
    other.arg(scene.home.path().join("resident-anew.service")).current_dir(folder.path());
    let mut other = Process::spawn(other.stderr(Stdio::piped()));
    let said = Lines::read(other.child().stderr.take().unwrap());
    said.wait_for("resident-anew.service holds a service of waylay-");
    daemon.end();
    assert!(scene.nothing_is_attached());
}
