//! `waylayd` over a cgroup of the test's own, and `waylay` that asks it.

#![expect(clippy::unwrap_used, reason = "a failed set-up is a failed test")]

use std::{
    fs,
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, TcpStream, UdpSocket},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;
use waylay_netlab::{Dialler, Foreign, Home, Lines, Process, TcpServer, Waylay, kill, patiently};

/// Of the user `nobody`.
const NOBODY: &str = "65534";

/// Has as many connections as a user may have, says too much in one line, and reads no answers; prints what comes of each.
const BURDENS: &str = "\
import socket, sys, time
def connect():
    daemon = socket.socket(socket.AF_UNIX)
    daemon.connect(sys.argv[1])
    return daemon
def line(daemon): return daemon.makefile().readline()
STATUS = b'{\"request\":\"status\"}\\n'
many = [connect() for _ in range(16)]
for daemon in many:
    daemon.sendall(STATUS)
    assert 'answer' in line(daemon)
print(line(connect()), end='')
while many: many.pop().close()
daemon = connect()
while True:
    daemon.sendall(STATUS)
    if 'answer' in line(daemon): break
    time.sleep(0.01)
    daemon = connect()
try: daemon.sendall(b'x' * (1 << 20))
except OSError: pass
print(line(daemon), end='')
daemon = connect()
try:
    while True: daemon.sendall(STATUS)
except OSError: print('given up')
";

const POLICY: &str = r#"
[service.log]
run = "log"

[sublayer.mine]
weight = 10

[[filter]]
name = "all"
action = "redirect"
service = "log"
if.protocol = "tcp"
"#;

/// A daemon, its scope with somebody in it who dials, and a server outside.
struct Scene {
    folder: TempDir,
    home: Home,
    client: Dialler,
    server: TcpServer,
    daemon: Process,
    seen: Lines,
}

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

impl Scene {
    fn new(name: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(folder.path().join("policy.toml"), POLICY).unwrap();
        let home = Home::new(name);
        let client = home.start_dialler();
        let (daemon, seen) = start(folder.path(), &home.path());
        Self { folder, home, client, server: echo(), daemon, seen }
    }

    fn dial(&mut self) -> String {
        self.client.ask(&format!("dial {} {}", self.server.address().ip(), self.server.address().port()))
    }

    fn port(&self) -> u16 {
        self.server.address().port()
    }

    /// What `waylay` says of the daemon, as root.
    fn ask(&self, arguments: &[&str]) -> Output {
        self.asker(Command::new(Waylay::binary()), arguments).output().unwrap()
    }

    /// The same, as somebody else.
    fn ask_as_nobody(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"]).arg(Waylay::binary());
        self.asker(command, arguments).output().unwrap()
    }

    fn asker(&self, mut command: Command, arguments: &[&str]) -> Command {
        command.args(arguments).arg("--socket").arg(socket(self.folder.path())).stdin(Stdio::null());
        command
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let output = self.ask(&[arguments, &["-o", "json"]].concat());
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
    }

    /// A filter that refuses everything that goes to the server.
    fn block(&self) -> [String; 5] {
        let port = format!("if.port = {}", self.port());
        ["name = \"no\"", "action = \"block\"", "sublayer = \"mine\"", "errno = \"EPERM\"", &port]
            .map(str::to_owned)
    }

    /// Whether a command of the shell succeeds in this cgroup.
    fn succeeds_in(&self, cgroup: &Path, command: &str) -> bool {
        let enter = format!("echo $$ > {}/cgroup.procs && {command}", cgroup.display());
        let mut shell = Command::new("/bin/bash");
        shell.args(["-c", &enter]).stdin(Stdio::null()).stderr(Stdio::null());
        shell.status().unwrap().success()
    }

    fn filters(&self) -> usize {
        self.json(&["filter", "ls"])["filters"].as_array().unwrap().len()
    }

    fn end(mut self) {
        kill(self.daemon.child().id(), Signal::TERM);
        assert!(self.daemon.child().wait().unwrap().success(), "{}", self.seen.text());
        assert!(!socket(self.folder.path()).exists());
        assert_eq!(self.dial(), "ok");
        let left = fs::read_dir(self.home.directory()).unwrap().flatten();
        assert_eq!(left.filter(|entry| entry.path().is_dir()).count(), 0);
    }
}

fn socket(folder: &Path) -> PathBuf {
    folder.join("control.sock")
}

fn start(folder: &Path, scope: &Path) -> (Process, Lines) {
    let mut command = Command::new(Waylay::binary().with_file_name("waylayd"));
    command.args(["--policy", "policy.toml", "--state", "state", "--socket"]).arg(socket(folder));
    command.arg("--scope").arg(scope).current_dir(folder);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut daemon = Process::spawn(&mut command);
    let seen = Lines::read(daemon.child().stderr.take().unwrap());
    seen.wait_for("requests are answered");
    (daemon, seen)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn strs(lines: &[String]) -> Vec<&str> {
    lines.iter().map(String::as_str).collect()
}

#[test]
fn filters_come_and_go_while_processes_that_were_there_dial() {
    let mut scene = Scene::new("filters");
    assert_eq!(scene.dial(), "ok");
    scene.seen.wait_for("via log");
    let block = scene.block();
    let added = scene.ask(&[&["filter", "add"], &strs(&block)[..]].concat());
    assert_eq!(text(&added.stdout), "added as number 1\n", "{added:?}");
    assert_eq!(scene.dial(), "EPERM");
    scene.seen.wait_for("filter \"no\" (added by root (1):1)");
    assert_eq!(scene.filters(), 2);
    assert_eq!(scene.ask(&["filter", "rm", "no"]).status.code(), Some(0));
    assert_eq!(scene.dial(), "ok");
    let missing = scene.ask(&["filter", "rm", "no"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(text(&missing.stderr).contains("there is no filter \"no\""), "{missing:?}");
    scene.end();
}

#[test]
fn what_does_not_hold_together_changes_nothing() {
    let mut scene = Scene::new("whole");
    let wrong = scene.folder.path().join("wrong.toml");
    let both = format!(
        "[[filter]]\n{}\n[[filter]]\naction = \"redirect\"\nservice = \"lgo\"\n",
        scene.block().join("\n")
    );
    fs::write(&wrong, both).unwrap();
    let refused = scene.ask(&["filter", "add", "--file", wrong.to_str().unwrap()]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("did you mean \"log\"?"), "{refused:?}");
    let mixed = scene.ask(&["filter", "rm", "all"]);
    assert!(text(&mixed.stderr).contains("is declared in policy.toml; change that and reload"), "{mixed:?}");
    assert_eq!((scene.filters(), scene.dial()), (1, "ok".to_owned()));
    fs::write(scene.folder.path().join("policy.toml"), "no toml").unwrap();
    assert_eq!(scene.ask(&["reload"]).status.code(), Some(1));
    assert_eq!((scene.filters(), scene.dial()), (1, "ok".to_owned()));
    let none = POLICY.split("[[filter]]").next().unwrap();
    fs::write(scene.folder.path().join("policy.toml"), none).unwrap();
    assert_eq!(scene.ask(&["reload"]).status.code(), Some(0));
    assert_eq!((scene.filters(), scene.dial()), (0, "ok".to_owned()));
    scene.end();
}

#[test]
fn a_session_ends_with_its_connection_and_what_is_kept_for_good_comes_again() {
    let mut scene = Scene::new("lifetimes");
    let block = scene.block();
    let mut command = scene.asker(
        Command::new(Waylay::binary()),
        &[&["filter", "add", "--lifetime", "session"], &strs(&block)[..]].concat(),
    );
    let mut session = Process::spawn(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
    Lines::read(session.child().stderr.take().unwrap()).wait_for("as long as this command runs");
    assert_eq!(scene.dial(), "EPERM");
    session.child().kill().unwrap();
    session.child().wait().unwrap();
    patiently("the filter is gone", || (scene.dial() == "ok").then_some(()));
    let kept = scene.ask(&[&["filter", "add", "--lifetime", "persistent"], &strs(&block)[..]].concat());
    assert_eq!(kept.status.code(), Some(0), "{kept:?}");
    assert_eq!(scene.dial(), "EPERM");
    kill(scene.daemon.child().id(), Signal::TERM);
    assert!(scene.daemon.child().wait().unwrap().success());
    assert_eq!(scene.dial(), "ok");
    (scene.daemon, scene.seen) = start(scene.folder.path(), &scene.home.path());
    assert_eq!(scene.dial(), "EPERM");
    assert_eq!(scene.ask(&["filter", "rm", "no"]).status.code(), Some(0));
    scene.end();
}

#[test]
fn somebody_who_is_not_root_changes_nothing_for_others() {
    let mut scene = Scene::new("nobody");
    let block = scene.block();
    let lasting =
        scene.ask_as_nobody(&[&["filter", "add", "--lifetime", "daemon"], &strs(&block)[..]].concat());
    assert_eq!(lasting.status.code(), Some(1), "{lasting:?}");
    assert!(text(&lasting.stderr).contains("only root may add what outlasts the connection"), "{lasting:?}");
    let theirs = scene.ask_as_nobody(&[&["filter", "add"], &strs(&block)[..]].concat());
    assert_eq!(theirs.status.code(), Some(1), "{theirs:?}");
    for request in [&["reload"][..], &["filter", "rm", "all"], &["service", "rm", "log"]] {
        assert_eq!(scene.ask_as_nobody(request).status.code(), Some(1), "{request:?}");
    }
    let seen = scene.ask_as_nobody(&["filter", "ls", "-o", "json"]);
    assert_eq!(serde_json::from_slice::<Value>(&seen.stdout).unwrap()["filters"], serde_json::json!([]));
    assert_eq!(scene.ask(&[&["filter", "add"], &strs(&block)[..]].concat()).status.code(), Some(0));
    assert_eq!(scene.ask_as_nobody(&["filter", "rm", "no"]).status.code(), Some(1));
    assert_eq!(scene.dial(), "EPERM");
    let own = std::process::id().to_string();
    let why = scene.ask_as_nobody(&["why", "--pid", &own, "--to", "192.0.2.1:1"]);
    assert!(text(&why.stderr).contains("is somebody else's"), "{why:?}");
    scene.end();
}

#[test]
fn services_are_added_ordered_and_removed() {
    let mut scene = Scene::new("services");
    let second = "[service.second]\nrun = \"log\"\n[[filter]]\nname = \"too\"\naction = \"redirect\"\nservice = \"second\"\n";
    let file = scene.folder.path().join("second.toml");
    fs::write(&file, second).unwrap();
    assert_eq!(scene.ask(&["service", "add", "--file", file.to_str().unwrap()]).status.code(), Some(0));
    let order = |scene: &Scene| scene.json(&["status"])["order"].clone();
    assert_eq!(order(&scene), serde_json::json!(["log", "second"]));
    assert_eq!(scene.dial(), "ok");
    scene.seen.wait_for("via log › second");
    assert_eq!(scene.ask(&["service", "order", "second", "log"]).status.code(), Some(0));
    assert_eq!(order(&scene), serde_json::json!(["second", "log"]));
    assert_eq!(scene.dial(), "ok");
    scene.seen.wait_for("via second › log");
    let cycle = scene.ask(&["service", "order", "log", "second"]);
    assert_eq!(cycle.status.code(), Some(1), "{cycle:?}");
    assert_eq!(scene.ask(&["service", "rm", "1"]).status.code(), Some(1));
    assert_eq!(scene.ask(&["filter", "rm", "2", "1"]).status.code(), Some(0));
    assert_eq!(order(&scene), serde_json::json!(["log"]));
    assert_eq!(scene.dial(), "ok");
    scene.end();
}

#[test]
fn why_tells_the_way_a_connection_has_taken_and_what_would_become_of_it_now() {
    let mut scene = Scene::new("why");
    let address = scene.server.address();
    assert_eq!(scene.client.ask(&format!("open {} {}", address.ip(), address.port())), "ok");
    let flows = scene.json(&["flows"]);
    let [flow] = &flows["flows"].as_array().unwrap()[..] else { panic!("{flows}") };
    assert_eq!(flow["to"], serde_json::json!(address.to_string()));
    let block = scene.block();
    assert_eq!(scene.ask(&[&["filter", "add"], &strs(&block)[..]].concat()).status.code(), Some(0));
    assert_eq!(scene.dial(), "EPERM");
    let from = flow["from"].as_str().unwrap();
    let why = scene.ask(&["why", "--from", from]);
    assert_eq!(why.status.code(), Some(1), "{why:?}");
    let said = text(&why.stdout);
    for part in [
        "log by filter \"all\" (policy.toml:8), after 0.000 ms",
        "service \"log\": chosen by filter \"all\" (policy.toml:8)",
        "filter \"no\" (added by root (1):1): block (hard, EPERM)",
        "what has been refused to it lately:",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let pid = flow["pid"].to_string();
    let permitted = scene.ask(&["why", "--pid", &pid, "--to", "127.0.0.1:9", "-o", "json"]);
    assert_eq!(permitted.status.code(), Some(0), "{permitted:?}");
    let nobody = scene.ask(&["why", "--flow", "999999"]);
    assert_eq!(nobody.status.code(), Some(1), "{nobody:?}");
    scene.end();
}

#[test]
fn why_remembers_connections_that_have_ended_as_they_were() {
    let mut scene = Scene::new("why-past");
    let second = "[service.second]\nrun = \"log\"\n[[filter]]\nname = \"too\"\naction = \"redirect\"\nservice = \"second\"\n";
    let file = scene.folder.path().join("second.toml");
    fs::write(&file, second).unwrap();
    assert!(scene.ask(&["service", "add", "--file", file.to_str().unwrap()]).status.success());
    let address = scene.server.address();
    let from = scene.client.ask(&format!("name {} {}", address.ip(), address.port()));
    let past = |scene: &Scene, which: &[&str]| {
        let answer = scene.ask(&[&["why"], which, &["-o", "json"]].concat());
        let why: Value = serde_json::from_slice(&answer.stdout).ok()?;
        let legs = why["past"][0]["taken"].as_array()?.len();
        (legs == 2).then_some(why)
    };
    let why = patiently("both legs have ended", || past(&scene, &["--from", &from]));
    let (ended, steps) = (&why["past"][0], why["past"][0]["taken"].as_array().unwrap());
    assert_eq!(
        (&why["to"], &ended["from"]),
        (&Value::from(address.to_string()), &Value::from(from.as_str()))
    );
    let told: Vec<_> = steps.iter().map(|step| [&step["service"], &step["filter"]]).collect();
    let filters = ["filter \"all\" (policy.toml:8)", "filter \"too\" (added by root (1):3)"].map(Value::from);
    assert_eq!(told, [[&Value::from("log"), &filters[0]], [&Value::from("second"), &filters[1]]]);
    let us = |value: &Value| value.as_u64().unwrap();
    assert_eq!(us(&steps[0]["after_us"]), 0);
    assert!(us(&steps[1]["after_us"]) > 0 && us(&ended["lasted_us"]) >= us(&steps[1]["after_us"]), "{why}");

    // Filters are what they were called then; those who may not ask about it are not told.
    fs::write(scene.folder.path().join("policy.toml"), format!("\n\n{POLICY}")).unwrap();
    assert!(scene.ask(&["reload"]).status.success());
    let flow = steps[1]["flow"].to_string();
    let again = text(&scene.ask(&["why", "--flow", &flow]).stdout);
    for part in ["was led to", "log by filter \"all\" (policy.toml:8), after 0.000 ms", "and ended after"] {
        assert!(again.contains(part), "{part}: {again}");
    }
    let nobody = scene.ask_as_nobody(&["why", "--from", &from]);
    assert!(text(&nobody.stderr).contains("is somebody else's"), "{nobody:?}");
    let pid = scene.client.ask("pid");
    let of_the_process = past(&scene, &["--pid", &pid, "--to", &address.to_string()]).unwrap();
    assert_eq!(of_the_process["past"][0]["taken"], ended["taken"]);
    let elsewhere = scene.ask(&["why", "--pid", &pid, "--to", "127.0.0.1:9", "-o", "json"]);
    let elsewhere: Value = serde_json::from_slice(&elsewhere.stdout).unwrap();
    assert_eq!(elsewhere["past"], serde_json::json!([]));
    scene.client = scene.home.start_dialler();
    let over = text(&scene.ask(&["why", "--from", &from]).stdout);
    assert!(over.contains("second by filter") && over.contains("its process has ended"), "{over}");
    scene.end();
}

#[test]
fn why_looks_at_routes_sandboxes_and_network_namespaces() {
    let scene = Scene::new("why-around");
    let to = scene.server.address().to_string();
    let why = |process: &mut Process, to: &str| {
        text(&scene.ask(&["why", "--pid", &process.child().id().to_string(), "--to", to]).stdout).to_owned()
    };
    let (mut free, _lines) = scene.home.start("sleep 60");
    let led = why(&mut free, &to);
    assert!(led.contains("chosen by filter \"all\""), "{led}");
    // Whether there is a route is for the host to say; most have none to one of these.
    for far in ["[2001:db8::1]:9", "192.0.2.1:9"] {
        let any = if far.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" };
        let has_route = UdpSocket::bind(any).unwrap().connect(far).is_ok();
        let said = why(&mut free, far);
        assert_eq!(said.contains("the destination has no route"), !has_route, "{said}");
    }
    let (mut visitor, lines) = scene.home.start("unshare --net sh -c 'echo there; exec sleep 60'");
    lines.wait_for_line(0);
    let visiting = why(&mut visitor, &to);
    assert!(visiting.contains("another network namespace: the policy permits"), "{visiting}");
    let boxed = scene.home.directory().join("boxed");
    fs::create_dir(&boxed).unwrap();
    Foreign::EGRESS.attach(&boxed, "theirs");
    let (mut sandboxed, lines) = Home::start_in(&boxed, "sh -c 'echo there; exec sleep 60'");
    lines.wait_for_line(0);
    let stays = why(&mut sandboxed, &to);
    assert!(stays.contains("in somebody's sandbox: not redirected"), "{stays}");
    drop(sandboxed);
    patiently("the sandbox's end", || fs::remove_dir(&boxed).ok());
    scene.end();
}

#[test]
fn without_a_daemon_that_is_said_and_a_second_one_is_refused() {
    let scene = Scene::new("second");
    let mut second = Command::new(Waylay::binary().with_file_name("waylayd"));
    second.args(["--policy", "policy.toml", "--socket"]).arg(socket(scene.folder.path()));
    let second =
        second.arg("--scope").arg(scene.home.path()).current_dir(scene.folder.path()).output().unwrap();
    assert_eq!(second.status.code(), Some(2));
    assert!(text(&second.stderr).contains("a daemon runs already"), "{second:?}");
    let nobody =
        Command::new(Waylay::binary()).args(["status", "--socket", "/nobody/here"]).output().unwrap();
    assert_eq!(nobody.status.code(), Some(2));
    assert!(text(&nobody.stderr).contains("no daemon listens on /nobody/here"), "{nobody:?}");
    scene.end();
}

#[test]
fn a_unit_that_starts_later_is_taken_in() {
    let mut scene = Scene::new("unit");
    let mut block = scene.block();
    block[4] = "if.unit = \"late.service\"".to_owned();
    assert_eq!(scene.ask(&[&["filter", "add"], &strs(&block)[..]].concat()).status.code(), Some(0));
    let unit = scene.home.directory().join("late.service");
    fs::create_dir(&unit).unwrap();
    let dial = format!("exec 3<>/dev/tcp/127.0.0.1/{}", scene.port());
    patiently("the unit is known", || (!scene.succeeds_in(&unit, &dial)).then_some(()));
    assert!(scene.succeeds_in(scene.home.directory(), &dial));
    assert_eq!(scene.dial(), "ok");
    patiently("the unit is gone", || fs::remove_dir(&unit).ok());
    scene.end();
}

#[test]
fn a_program_that_is_replaced_is_covered_again() {
    let scene = Scene::new("upgrade");
    let [program, next] = ["program", "next"].map(|name| scene.folder.path().join(name));
    fs::copy("/bin/bash", &program).unwrap();
    let mut block = scene.block();
    block[4] = format!("if.exe = {program:?}");
    assert_eq!(scene.ask(&[&["filter", "add"], &strs(&block)[..]].concat()).status.code(), Some(0));
    let dial = |program: &Path| {
        format!("exec {} -c 'exec 3<>/dev/tcp/127.0.0.1/{}'", program.display(), scene.port())
    };
    assert!(!scene.succeeds_in(scene.home.directory(), &dial(&program)));
    fs::copy("/bin/bash", &next).unwrap();
    assert!(scene.succeeds_in(scene.home.directory(), &dial(&next)));
    fs::rename(&next, &program).unwrap();
    patiently("the new one is known", || {
        (!scene.succeeds_in(scene.home.directory(), &dial(&program))).then_some(())
    });
    scene.end();
}

#[test]
fn nobody_takes_more_of_the_daemon_than_their_share() {
    let scene = Scene::new("share");
    let mut command = Command::new("setpriv");
    command.args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups", "/usr/bin/python3", "-c", BURDENS]);
    let mut burden = Process::spawn(command.arg(socket(scene.folder.path())).stdout(Stdio::piped()));
    let said = Lines::read(burden.child().stdout.take().unwrap());
    assert!(said.wait_for_line(0).contains("there are too many connections"));
    assert!(said.wait_for_line(1).contains("a request is one line of at most 262144 bytes"));
    // Meanwhile others are answered.
    assert_eq!(scene.ask(&["status"]).status.code(), Some(0));
    assert_eq!(said.wait_for_line(2), "given up");
    assert!(burden.child().wait().unwrap().success());
    scene.end();
}
