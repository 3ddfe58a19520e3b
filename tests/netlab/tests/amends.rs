//! A change of few filters at `waylayd`, which has many: it holds at once, and all of them are compiled anew behind it.

#![expect(clippy::unwrap_used, reason = "a failed set-up is a failed test")]

use std::{
    fmt::Write as _,
    fs,
    io::{Read, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    process::{Command, Output, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;
use waylay_netlab::{Dialler, Home, Lines, Process, TcpServer, Waylay, kill, patiently};

/// More than are gone through each time.
const MANY: u32 = 2_100;

/// A daemon with many filters, and two servers outside of its scope. Connections to the second are refused from the beginning.
struct Scene {
    folder: TempDir,
    home: Home,
    client: Dialler,
    servers: [TcpServer; 2],
    daemon: Process,
}

impl Scene {
    fn new(name: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::new(name);
        let client = home.start_dialler();
        let servers = [echo(), echo()];
        let mut policy = "[sublayer.mine]\nweight = 10\n".to_owned();
        for number in 0..MANY {
            let host = Ipv4Addr::from_bits(0xc612_0000 + number);
            writeln!(policy, "{}if.remote = \"{host}\"", block("")).unwrap();
        }
        writeln!(policy, "{}if.port = {}", block("weight = 2\n"), servers[1].address().port()).unwrap();
        fs::write(folder.path().join("policy.toml"), policy).unwrap();
        let mut command = Command::new(Waylay::binary().with_file_name("waylayd"));
        command.args(["--policy", "policy.toml", "--state", "state", "--socket", "control.sock", "--scope"]);
        command.arg(home.path()).current_dir(folder.path());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut daemon = Process::spawn(&mut command);
        Lines::read(daemon.child().stderr.take().unwrap()).wait_for("requests are answered");
        Self { folder, home, client, servers, daemon }
    }

    fn ask(&self, arguments: &[&str]) -> Output {
        let socket: PathBuf = self.folder.path().join("control.sock");
        let mut command = Command::new(Waylay::binary());
        command.args(arguments).arg("--socket").arg(socket).stdin(Stdio::null()).output().unwrap()
    }

    fn status(&self) -> Value {
        let output = self.ask(&["status", "-o", "json"]);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
    }

    fn is_amended(&self) -> bool {
        self.status()["amended"].as_bool().unwrap()
    }

    /// Refuses what goes to the first server, by a filter of this name and weight.
    fn shut(&self, name: &str, says: &str, weight: u32) -> Output {
        let port = format!("if.port = {}", self.servers[0].address().port());
        let name = format!("name = \"{name}\"");
        let errno = format!("errno = \"{says}\"");
        let weight = format!("weight = {weight}");
        let filter =
            ["filter", "add", &name, "action = \"block\"", "sublayer = \"mine\"", &errno, &weight, &port];
        self.ask(&filter)
    }

    fn dial(&mut self) -> String {
        dial(&mut self.client, self.servers[0].address())
    }

    /// Dials where it has always been refused, until the end; whether anything else ever came of it, and how often it was tried.
    fn never_gets_through(&self) -> impl FnOnce() -> usize + use<> {
        let mut client = self.home.start_dialler();
        let to = self.servers[1].address();
        let ends = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&ends);
        let dials = thread::spawn(move || {
            let mut dials = 0;
            while !seen.load(Ordering::Relaxed) {
                assert_eq!(dial(&mut client, to), "EACCES", "after {dials}");
                dials += 1;
            }
            dials
        });
        move || {
            ends.store(true, Ordering::Relaxed);
            dials.join().unwrap()
        }
    }

    fn end(mut self) {
        kill(self.daemon.child().id(), Signal::TERM);
        assert!(self.daemon.child().wait().unwrap().success());
        assert_eq!(self.dial(), "ok");
    }
}

fn echo() -> TcpServer {
    TcpServer::start(IpAddr::V4(Ipv4Addr::LOCALHOST), |mut stream| {
        stream.write_all(b"hello")?;
        let mut bytes = [0; 64];
        loop {
            match stream.read(&mut bytes)? {
                0 => return Ok(()),
                read => stream.write_all(&bytes[..read])?,
            }
        }
    })
}

fn block(more: &str) -> String {
    format!("[[filter]]\naction = \"block\"\nsublayer = \"mine\"\n{more}")
}

fn dial(client: &mut Dialler, to: SocketAddr) -> String {
    client.ask(&format!("dial {} {}", to.ip(), to.port()))
}

#[test]
fn a_change_holds_at_once_and_at_no_moment_nothing_does() {
    let mut scene = Scene::new("amends");
    let finished = scene.never_gets_through();
    assert_eq!((scene.dial(), scene.is_amended()), ("ok".to_owned(), false));
    for round in 0..2 {
        assert!(scene.shut("one", "EPERM", 5).status.success());
        assert_eq!(scene.dial(), "EPERM");
        assert!(scene.is_amended(), "round {round}: all filters were compiled for the change of one");
        // Compiled in behind it, and nothing is otherwise.
        patiently("all are compiled", || (!scene.is_amended()).then_some(()));
        assert_eq!(scene.dial(), "EPERM");
        assert_eq!(scene.ask(&["filter", "rm", "one"]).status.code(), Some(0));
        assert_eq!(scene.dial(), "ok");
        assert!(scene.is_amended());
    }
    assert!(finished() > 100);
    scene.end();
}

#[test]
fn changes_go_on_while_all_filters_are_compiled() {
    let mut scene = Scene::new("amends-on");
    let finished = scene.never_gets_through();
    for round in 0..40_u32 {
        let (name, says) = (format!("f{round}"), ["EPERM", "EHOSTUNREACH"][round as usize % 2]);
        assert!(scene.shut(&name, says, 10 + round).status.success());
        assert_eq!(scene.dial(), says, "round {round}");
        if let Some(former) = round.checked_sub(3) {
            assert_eq!(scene.ask(&["filter", "rm", &format!("f{former}")]).status.code(), Some(0));
            assert_eq!(scene.dial(), says, "round {round}");
        }
    }
    patiently("all are compiled", || (!scene.is_amended()).then_some(()));
    assert_eq!(scene.dial(), "EHOSTUNREACH");
    assert!(finished() > 100);
    scene.end();
}

#[test]
fn what_is_refused_leaves_what_was() {
    let mut scene = Scene::new("amends-not");
    let finished = scene.never_gets_through();
    assert!(scene.shut("one", "EPERM", 5).status.success());
    let again = scene.shut("one", "EHOSTUNREACH", 9);
    assert!(
        String::from_utf8_lossy(&again.stderr).contains("there is a filter \"one\" already"),
        "{again:?}"
    );
    let wrong = scene.ask(&["filter", "add", "action = \"block\"", "sublayer = \"yours\""]);
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("there is no sublayer"), "{wrong:?}");
    assert_eq!(scene.dial(), "EPERM");
    assert_eq!(scene.status()["filters"].as_u64(), Some(u64::from(MANY) + 2));
    assert!(finished() > 0);
    scene.end();
}
