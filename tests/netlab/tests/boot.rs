//! `waylayd --boot`: filters in force without a process, until a daemon takes over.

#![expect(clippy::unwrap_used, reason = "a failed set-up is a failed test")]

use std::{
    fs,
    io::Write,
    net::{IpAddr, Ipv4Addr, TcpStream},
    path::PathBuf,
    process::{Command, Output, Stdio},
};

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;
use waylay_netlab::{Dialler, Home, Lines, Process, TcpServer, Waylay, kill, python};

/// Boot filters that let one port through, and a daemon's policy that lets another one through.
const POLICY: &str = r#"
[sublayer.base]

[[filter]]
name = "early"
lifetime = "boot"
action = "permit"
sublayer = "base"
weight = 10
if.port = EARLY

[[filter]]
name = "nothing-yet"
lifetime = "boot"
action = "block"
errno = "EPERM"
sublayer = "base"

[[filter]]
name = "late"
action = "permit"
sublayer = "base"
weight = 10
if.port = LATE

[[filter]]
name = "nothing-else"
action = "block"
errno = "EACCES"
sublayer = "base"
"#;

/// Connects a thousand times a second at most, for each refusal is told, and tells each outcome that is another one than the last.
const LOOP: &str = "\
import errno, socket, sys, time
last = None
while True:
    with socket.socket() as s:
        try: s.connect(('127.0.0.1', int(sys.argv[1]))); now = 'ok'
        except OSError as error: now = errno.errorcode[error.errno]
    if now != last: print(now, flush=True)
    last = now
    time.sleep(0.001)
";

/// A cgroup with somebody in it who dials, servers outside, and no daemon yet.
struct Scene {
    folder: TempDir,
    home: Home,
    client: Dialler,
    early: TcpServer,
    late: TcpServer,
    other: TcpServer,
}

impl Scene {
    fn new(name: &str) -> Self {
        let home = Home::new(name);
        let client = home.start_dialler();
        let server = || {
            TcpServer::start(IpAddr::V4(Ipv4Addr::LOCALHOST), |mut stream: TcpStream| {
                stream.write_all(b"hello")
            })
        };
        let scene = Self {
            folder: tempfile::tempdir().unwrap(),
            home,
            client,
            early: server(),
            late: server(),
            other: server(),
        };
        let port = |server: &TcpServer| server.address().port().to_string();
        let policy = POLICY.replace("EARLY", &port(&scene.early)).replace("LATE", &port(&scene.late));
        scene.write(&policy);
        scene
    }

    fn write(&self, policy: &str) {
        fs::write(self.folder.path().join("policy.toml"), policy).unwrap();
    }

    /// What connect() says to the three.
    fn dial(&mut self) -> [String; 3] {
        let ports = [&self.early, &self.late, &self.other].map(|server| server.address().port());
        ports.map(|port| self.client.ask(&format!("dial 127.0.0.1 {port}")))
    }

    fn waylayd(&self) -> Command {
        let mut command = Command::new(Waylay::binary().with_file_name("waylayd"));
        command.args(["--policy", "policy.toml", "--state", "state", "--socket", "control.sock", "--scope"]);
        command.arg(self.home.path()).current_dir(self.folder.path()).stdin(Stdio::null());
        command
    }

    fn boot(&self) -> Output {
        self.waylayd().arg("--boot").output().unwrap()
    }

    fn start(&self) -> (Process, Lines) {
        let mut daemon = Process::spawn(self.waylayd().stdout(Stdio::null()).stderr(Stdio::piped()));
        let seen = Lines::read(daemon.child().stderr.take().unwrap());
        seen.wait_for("requests are answered");
        (daemon, seen)
    }

    fn ask(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(Waylay::binary());
        command.args(arguments).args(["--socket", "control.sock"]).current_dir(self.folder.path());
        command.output().unwrap()
    }

    /// Of each filter its name and lifetime.
    fn filters(&self) -> Vec<(String, String)> {
        let listed = self.ask(&["filter", "ls", "-o", "json"]);
        let listed: Value = serde_json::from_slice(&listed.stdout).unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let filters = listed["filters"].as_array().unwrap().iter();
        filters.map(|it| (text(&it["name"]), text(&it["source"]["lifetime"]))).collect()
    }

    /// The record of what is in force on the scope.
    fn records(&self) -> Vec<PathBuf> {
        let scope = self.home.directory().to_str().unwrap().to_owned();
        let entries = fs::read_dir("/run/waylay").into_iter().flatten().flatten().map(|entry| entry.path());
        entries.filter(|path| fs::read_to_string(path).is_ok_and(|text| text.contains(&scope))).collect()
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.write("");
        // A failure here must not hide that of the test.
        let _lifted = self.waylayd().args(["--state", "none", "--boot"]).output();
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn answers(expected: [&str; 3]) -> [String; 3] {
    expected.map(str::to_owned)
}

fn end(mut daemon: Process, signal: Signal) {
    kill(daemon.child().id(), signal);
    daemon.child().wait().unwrap();
}

#[test]
fn filters_hold_from_boot_on_and_are_taken_over_without_a_gap() {
    let mut scene = Scene::new("boot");
    assert_eq!(scene.dial(), answers(["ok", "ok", "ok"]));
    let boot = scene.boot();
    assert!(boot.status.success() && said(&boot).contains("2 filters are in force"), "{boot:?}");
    assert_eq!(scene.dial(), answers(["ok", "EPERM", "EPERM"]));
    let again = scene.boot();
    assert!(again.status.success() && scene.records().len() == 1, "{again:?}");
    assert_eq!(scene.dial(), answers(["ok", "EPERM", "EPERM"]));

    let port = scene.other.address().port();
    let (_dialling, outcomes) = scene.home.start(&format!("{} -c '{}' {port}", python(), quoted(LOOP)));
    outcomes.wait_for("EPERM");
    let (daemon, _seen) = scene.start();
    outcomes.wait_for("EACCES");
    assert_eq!(scene.dial(), answers(["EACCES", "ok", "EACCES"]));
    assert!(!outcomes.text().contains("ok"), "{}", outcomes.text());
    assert_eq!(outcomes.text().lines().last(), Some("EACCES"));
    assert_eq!(scene.records().len(), 1, "that of the daemon");
    let expected = [("early", "boot"), ("nothing-yet", "boot"), ("late", "persistent")];
    let expected = expected.map(|(name, lifetime)| (name.to_owned(), lifetime.to_owned()));
    assert_eq!(scene.filters()[..3], expected);
    // What is in force from boot on does not come again by itself.
    end(daemon, Signal::TERM);
    assert_eq!(scene.dial(), answers(["ok", "ok", "ok"]));
    assert!(scene.records().is_empty());
}

#[test]
fn a_daemon_that_does_not_start_leaves_them_in_force() {
    let mut scene = Scene::new("boot-stays");
    assert!(scene.boot().status.success());
    let good = fs::read_to_string(scene.folder.path().join("policy.toml")).unwrap();
    scene.write(&format!("{good}[service.gone]\nadopt = \"127.0.0.1:1\"\ncommand = \"exec false\"\n"));
    let failed = scene.waylayd().output().unwrap();
    assert_eq!(failed.status.code(), Some(2), "{failed:?}");
    assert_eq!(scene.dial(), answers(["ok", "EPERM", "EPERM"]));
    scene.write(&good);
    let (daemon, _seen) = scene.start();
    let refused = scene.boot();
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    assert!(said(&refused).contains("is the scope of waylay-"), "{refused:?}");
    // What is left of one that was killed holds until somebody takes over, who may be early.
    end(daemon, Signal::KILL);
    assert_eq!(scene.dial(), answers(["EACCES", "ok", "EACCES"]));
    let (daemon, _seen) = scene.start();
    end(daemon, Signal::TERM);
    assert_eq!(scene.dial(), answers(["ok", "ok", "ok"]));
}

#[test]
fn one_that_is_added_is_kept_for_the_next_boot() {
    let mut scene = Scene::new("boot-added");
    scene.write("[sublayer.base]\n");
    let (daemon, _seen) = scene.start();
    let block = ["name = \"no\"", "action = \"block\"", "errno = \"EPERM\"", "sublayer = \"base\""];
    let added = scene.ask(&[&["filter", "add", "--lifetime", "boot"][..], &block].concat());
    assert!(added.status.success(), "{added:?}");
    assert_eq!(scene.dial(), answers(["ok", "ok", "ok"]));
    assert_eq!(scene.filters(), [("no".to_owned(), "boot".to_owned())]);
    let redirect = ["action = \"redirect\"", "service = \"log\""];
    let refused = scene.ask(&[&["filter", "add", "--lifetime", "boot"][..], &redirect].concat());
    assert!(said(&refused).contains("cannot redirect: there are no services yet"), "{refused:?}");
    let short = [&["filter", "add", "lifetime = \"boot\""][..], &block].concat();
    assert!(said(&scene.ask(&short)).contains("add it with the lifetime \"boot\""));
    end(daemon, Signal::TERM);
    assert!(scene.boot().status.success());
    assert_eq!(scene.dial(), answers(["EPERM", "EPERM", "EPERM"]));
    let (daemon, _seen) = scene.start();
    assert_eq!(scene.dial(), answers(["ok", "ok", "ok"]));
    assert!(scene.ask(&["filter", "rm", "no"]).status.success());
    end(daemon, Signal::TERM);
    let none = scene.boot();
    assert!(none.status.success() && said(&none).contains("no filter has the lifetime boot"), "{none:?}");
    assert_eq!(scene.dial(), answers(["ok", "ok", "ok"]));
}

#[test]
fn what_cannot_hold_at_boot_is_refused_with_its_place() {
    let mut scene = Scene::new("boot-wrong");
    assert!(scene.boot().status.success());
    scene.write("[sublayer.base]\n\n[[filter]]\nlifetime = \"boot\"\naction = \"block\"\nsublayer = \"base\"\nif.host = \"a.example\"\n");
    let refused = scene.boot();
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    let words = said(&refused);
    assert!(words.contains("policy.toml:7:") && words.contains("nobody learns them yet"), "{words}");
    assert_eq!(scene.dial(), answers(["ok", "EPERM", "EPERM"]), "what was in force is");
    scene.write("[sublayer.base]\n");
    let lifted = scene.boot();
    assert!(lifted.status.success() && said(&lifted).contains("are lifted"), "{lifted:?}");
    assert_eq!(scene.dial(), answers(["ok", "ok", "ok"]));
}

/// For the shell, between single quotes.
fn quoted(script: &str) -> String {
    script.replace('\'', "'\\''")
}
