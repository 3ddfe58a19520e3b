//! `waylay run` as the client of a daemon, of root and of others.

#![expect(clippy::unwrap_used, reason = "a failed set-up is a failed test")]

use std::{
    fs,
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, TcpStream},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Output, Stdio},
};

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;
use waylay_netlab::{Home, Lines, Process, TcpServer, Waylay, kill, patiently};

/// Of the users `nobody` and `daemon`, who are on every host.
const NOBODY: u32 = 65534;
const OTHER: u32 = 1;
const ROOT: u32 = 0;

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

/// Dials, says what came, and does so again for each line that it is given.
const DIALS: &str = "\
import socket, sys
while True:
    try:
        peer = socket.create_connection(('127.0.0.1', int(sys.argv[1])), 10)
        print(peer.recv(5).decode(), flush=True)
        peer.close()
    except OSError as error:
        print('errno', error.errno, flush=True)
    if not sys.stdin.readline(): break
";

/// Asks to be moved into a run, and says what the daemon says.
const ENTERS: &str = "\
import socket, sys
daemon = socket.socket(socket.AF_UNIX)
daemon.connect(sys.argv[1])
daemon.sendall(b'{\"request\":\"enter\",\"run\":%s}\\n' % sys.argv[2].encode())
print(daemon.recv(4096).decode())
";

struct Scene {
    folder: TempDir,
    home: Home,
    server: TcpServer,
    daemon: Process,
    seen: Lines,
}

fn greeter() -> TcpServer {
    TcpServer::start(IpAddr::V4(Ipv4Addr::LOCALHOST), |mut stream: TcpStream| {
        stream.write_all(b"hello")?;
        let mut bytes = [0; 64];
        while stream.read(&mut bytes)? > 0 {}
        Ok(())
    })
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

impl Scene {
    fn new(name: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(folder.path().join("policy.toml"), POLICY).unwrap();
        let home = Home::new(name);
        let (daemon, seen) = start(folder.path(), &home.path());
        Self { folder, home, server: greeter(), daemon, seen }
    }

    /// `waylay run` of a user in the scope, with these options.
    fn command(&self, uid: u32, options: &[&str], watched: &[&str]) -> Command {
        self.command_in(self.home.directory(), uid, options, watched)
    }

    fn command_in(&self, cgroup: &Path, uid: u32, options: &[&str], watched: &[&str]) -> Command {
        let enter = format!("echo $$ > {}/cgroup.procs && exec \"$@\"", cgroup.display());
        let mut command = Command::new("/bin/sh");
        command.args(["-c", &enter, "sh", "setpriv", "--clear-groups"]);
        command.arg(format!("--reuid={uid}")).arg(format!("--regid={uid}")).arg(Waylay::binary());
        command.args(["run", "--socket"]).arg(socket(self.folder.path())).args(options);
        command.arg("--").args(watched).current_dir("/");
        ["SUDO_UID", "SUDO_GID", "SUDO_USER"].iter().for_each(|name| {
            command.env_remove(name);
        });
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(&self, uid: u32, options: &[&str], watched: &[&str]) -> Output {
        self.command(uid, options, watched).output().unwrap()
    }

    /// One that dials when it is told to.
    fn dialler(&self, uid: u32, options: &[&str]) -> Guest {
        let port = self.server.address().port().to_string();
        let mut command = self.command(uid, options, &["/usr/bin/python3", "-u", "-c", DIALS, &port]);
        let mut process = Process::spawn(command.stdin(Stdio::piped()));
        let child = process.child();
        let input = child.stdin.take().unwrap();
        let (stdout, stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        Guest { process, input, stdout: Lines::read(stdout), stderr: Lines::read(stderr), dialled: 0 }
    }

    /// What becomes of a process outside of the scope that wants to be in a run.
    fn intrude(&self, uid: u32, run: u32) -> String {
        let mut command = Command::new("setpriv");
        command.arg(format!("--reuid={uid}")).arg(format!("--regid={uid}")).arg("--clear-groups");
        command.args(["/usr/bin/python3", "-c", ENTERS]).arg(socket(self.folder.path())).arg(run.to_string());
        text(&command.output().unwrap().stdout)
    }

    fn url(&self) -> String {
        format!("http://{}/", self.server.address())
    }

    fn json(&self, what: &[&str]) -> Value {
        let mut command = Command::new(Waylay::binary());
        command.args(what).args(["-o", "json", "--socket"]).arg(socket(self.folder.path()));
        let output = command.output().unwrap();
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
    }

    /// Nothing is left of any run: no service, no filter, no cgroup.
    fn is_clean(&self) -> bool {
        let order = self.json(&["status"])["order"].clone();
        order == serde_json::json!(["log"]) && self.enclosures().is_empty()
    }

    fn enclosures(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.home.directory()).unwrap().flatten();
        let directories = entries.filter(|entry| entry.path().is_dir()).map(|entry| entry.path());
        directories.filter(|path| path.to_string_lossy().contains("-run-")).collect()
    }

    fn end(mut self) {
        kill(self.daemon.child().id(), Signal::TERM);
        assert!(self.daemon.child().wait().unwrap().success(), "{}", self.seen.text());
        let left = fs::read_dir(self.home.directory()).unwrap().flatten();
        assert_eq!(left.filter(|entry| entry.path().is_dir()).count(), 0);
    }
}

struct Guest {
    process: Process,
    /// Not with its process: to wait for that would close it, and end what is to be ended by others.
    input: ChildStdin,
    stdout: Lines,
    stderr: Lines,
    dialled: usize,
}

impl Guest {
    fn child(&mut self) -> &mut Child {
        self.process.child()
    }

    /// What comes of the next connection.
    fn dial(&mut self) -> String {
        if self.dialled > 0 {
            self.input.write_all(b"\n").unwrap();
        }
        self.dialled += 1;
        self.stdout.wait_for_line(self.dialled - 1)
    }

    fn end(mut self) -> (Option<i32>, String) {
        drop(self.input);
        let status = self.process.child().wait().unwrap();
        (status.code(), self.stderr.finish())
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn whoever_is_not_root_runs_a_command_and_its_services_come_before_the_daemons() {
    let scene = Scene::new("guest");
    let mut guest = scene.dialler(NOBODY, &["--through", "log", "--through", "second=log"]);
    assert_eq!(guest.dial(), "hello");
    let seen = scene.seen.wait_for("via log of nobody's run 1 › second of nobody's run 1 › log");
    assert!(seen.contains("python3"), "{seen}");
    let enclosures = scene.enclosures();
    assert_eq!(enclosures.len(), 1);
    let (code, said) = guest.end();
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("through the daemon (process "), "{said}");
    assert!(said.lines().any(|line| line.starts_with("log ") && line.ends_with("via log")), "{said}");
    let second = said.lines().find(|line| line.starts_with("second "));
    assert!(second.is_some_and(|line| line.ends_with("via log › second")), "{said}");
    assert!(!said.contains("u65534"), "{said}");
    assert!(!scene.seen.text().contains("u65534."), "{}", scene.seen.text());
    assert!(scene.is_clean());
    scene.end();
}

#[test]
fn exit_codes_output_and_files_are_those_of_the_command() {
    let scene = Scene::new("codes");
    for uid in [ROOT, NOBODY] {
        let seven = scene.run(uid, &[], &["/bin/sh", "-c", "echo out; echo $PPID >&2; id -u; exit 7"]);
        assert_eq!(seven.status.code(), Some(7), "{seven:?}");
        assert_eq!(text(&seven.stdout), format!("out\n{uid}\n"));
        assert_eq!(scene.run(uid, &[], &["/no/such/program"]).status.code(), Some(127));
        let killed = scene.run(uid, &[], &["/bin/sh", "-c", "kill -TERM $$"]);
        assert_eq!(killed.status.code(), Some(128 + 15));
        // Services start where the client is.
        let place =
            scene.run(uid, &["--through", "exec:pwd", "--on-failure", "open"], &["/bin/sleep", "0.1"]);
        assert!(text(&place.stderr).contains("pwd: /\n"), "{place:?}");
        let json = scene.run(uid, &["-o", "json"], &["curl", "-sS", "-m", "10", &scene.url()]);
        let report: Value = serde_json::from_str(text(&json.stdout).lines().last().unwrap()).unwrap();
        assert_eq!((&report["service"], &report["chain"]), (&"log".into(), &serde_json::json!(["log"])));
    }
    assert!(scene.is_clean());
    scene.end();
}

#[test]
fn a_client_that_is_killed_takes_everything_with_it() {
    let scene = Scene::new("killed");
    for uid in [ROOT, NOBODY] {
        let mut guest = scene.dialler(uid, &[]);
        assert_eq!(guest.dial(), "hello");
        let processes = fs::read_to_string(scene.enclosures()[0].join("cgroup.procs")).unwrap();
        let command: u32 = processes.trim().parse().unwrap();
        guest.child().kill().unwrap();
        guest.child().wait().unwrap();
        patiently("nothing is left", || scene.is_clean().then_some(()));
        // Nobody may have waited for it yet.
        let status = fs::read_to_string(format!("/proc/{command}/status")).unwrap_or_default();
        assert!(status.is_empty() || status.contains("State:\tZ"), "{status}");
    }
    scene.end();
}

#[test]
fn runs_of_two_users_neither_see_nor_steer_each_other() {
    let scene = Scene::new("two");
    let mut one = scene.dialler(NOBODY, &["--through", "mine=log"]);
    assert_eq!(one.dial(), "hello");
    let mut other = scene.dialler(OTHER, &["--through", "theirs=log"]);
    assert_eq!(other.dial(), "hello");
    scene.seen.wait_for("via mine of nobody's run 1 › log");
    scene.seen.wait_for("via theirs of daemon's run 2 › log");
    // Nobody comes into the run of somebody else; nor into one's own from where other limits may hold.
    assert!(scene.intrude(NOBODY, 2).contains("there is no run 2 of yours"));
    assert!(scene.intrude(NOBODY, 1).contains("and whoever asked was in"));
    assert!(scene.intrude(ROOT, 1).contains("there is no run 1 of yours"));
    let (_, said) = one.end();
    assert!(said.contains("via mine") && !said.contains("theirs"), "{said}");
    let (_, said) = other.end();
    assert!(said.contains("via theirs") && !said.contains("mine"), "{said}");
    assert!(scene.is_clean());
    scene.end();
}

#[test]
fn what_the_daemon_refuses_is_said_and_the_command_is_not_run() {
    let scene = Scene::new("refused");
    let outside = scene.home.beside("outside");
    let open = tempfile::tempdir().unwrap();
    fs::set_permissions(open.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let mark = open.path().join("mark");
    let touch = ["/usr/bin/touch", mark.to_str().unwrap()];
    let refused = scene.command_in(&outside, NOBODY, &["--engine", "daemon"], &touch).output().unwrap();
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    assert!(text(&refused.stderr).contains("is outside of the scope"), "{refused:?}");
    for (options, words) in [
        (&["--unredirectable", "permit"][..], "--unredirectable is for the daemon to say"),
        (&["--patience", "3"], "--patience is for the daemon to say"),
        (&["--user", "root"], "--user needs root"),
        (&["--through", "adopt:127.0.0.1:5000@unit=x"], "the service x runs already"),
        (&["--through", "log"].repeat(5), "at most 4 services"),
    ] {
        let refused = scene.run(NOBODY, options, &touch);
        assert_eq!(refused.status.code(), Some(2), "{options:?}: {refused:?}");
        assert!(text(&refused.stderr).contains(words), "{options:?}: {refused:?}");
    }
    assert!(!mark.exists());
    assert_eq!(scene.run(NOBODY, &[], &touch).status.code(), Some(0));
    assert!(mark.exists());
    assert!(scene.is_clean());
    // Root goes on without a daemon that is not for them, and without one on request.
    let alone = scene.command_in(&outside, ROOT, &[], &["/bin/true"]).output().unwrap();
    assert_eq!(alone.status.code(), Some(0), "{alone:?}");
    assert!(text(&alone.stderr).contains("the daemon has no part in this"), "{alone:?}");
    let own = scene.run(ROOT, &["--engine", "ebpf"], &["/bin/true"]);
    assert_eq!(own.status.code(), Some(0), "{own:?}");
    assert!(text(&own.stderr).contains("has no part in this (--engine)"), "{own:?}");
    let none = scene.folder.path().join("nobody.sock");
    let none = scene.run(NOBODY, &["--engine", "daemon", "--socket", none.to_str().unwrap()], &["true"]);
    assert_eq!(none.status.code(), Some(2), "{none:?}");
    scene.end();
}

#[test]
fn a_policy_of_a_run_is_for_its_command_alone() {
    let scene = Scene::new("policy");
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let file = folder.path().join("run.toml");
    let port = scene.server.address().port();
    let policy = format!(
        "[service.log]\nrun = \"log\"\n[sublayer.mine]\nweight = 1\n\
         [[filter]]\naction = \"redirect\"\nservice = \"log\"\n\
         [[filter]]\nname = \"no\"\naction = \"block\"\nsublayer = \"mine\"\nif.port = {port}\n"
    );
    fs::write(&file, &policy).unwrap();
    let mut free = scene.dialler(NOBODY, &[]);
    let mut bound = scene.dialler(NOBODY, &["--policy", file.to_str().unwrap()]);
    assert_eq!(bound.dial(), format!("errno {}", rustix::io::Errno::ACCESS.raw_os_error()));
    assert_eq!(free.dial(), "hello");
    let (_, said) = bound.end();
    assert!(said.contains("refused with EACCES") && said.contains("filter \"no\""), "{said}");
    let (_, said) = free.end();
    assert!(!said.contains("refused"), "{said}");
    for (more, words) in [
        ("existing = \"reset\"\n", "with a daemon its own policy says this"),
        ("[[filter]]\naction = \"redirect\"\nservice = \"log\"\nif.cgroup = \"/\"\n", "is that of the run"),
        ("[[filter]]\naction = \"permit\"\nsublayer = \"mine\"\n", "only root may permit"),
        ("[[filter]]\naction = \"redirect\"\nservice = \"lgo\"\n", "did you mean"),
    ] {
        fs::write(&file, format!("{more}{policy}")).unwrap();
        let refused = scene.run(NOBODY, &["--policy", file.to_str().unwrap()], &["true"]);
        assert_eq!(refused.status.code(), Some(2), "{more}: {refused:?}");
        assert!(text(&refused.stderr).contains(words), "{more}: {refused:?}");
    }
    assert!(scene.is_clean());
    scene.end();
}

#[test]
fn without_its_daemon_a_run_goes_as_its_failure_policies_say_and_the_next_daemon_ends_it() {
    let mut scene = Scene::new("orphan");
    let mut closed = scene.dialler(NOBODY, &["--on-failure", "closed"]);
    assert_eq!(closed.dial(), "hello");
    scene.daemon.child().kill().unwrap();
    scene.daemon.child().wait().unwrap();
    closed.stderr.wait_for("the daemon has ended");
    let refused = format!("errno {}", rustix::io::Errno::CONNREFUSED.raw_os_error());
    patiently("it is refused", || (closed.dial() == refused).then_some(()));
    (scene.daemon, scene.seen) = start(scene.folder.path(), &scene.home.path());
    let status = closed.child().wait().unwrap();
    assert_eq!(status.code(), Some(128 + 9));
    assert!(scene.is_clean());
    // In order, the daemon ends what it has with it.
    let mut guest = scene.dialler(NOBODY, &["--on-failure", "open"]);
    assert_eq!(guest.dial(), "hello");
    kill(scene.daemon.child().id(), Signal::TERM);
    assert_eq!(guest.child().wait().unwrap().code(), Some(128 + 9));
    assert!(scene.daemon.child().wait().unwrap().success(), "{}", scene.seen.text());
    assert_eq!(scene.enclosures(), Vec::<PathBuf>::new());
}

/// What the daemon puts before their names is nobody's to read: their user sees what they typed, and others whose it is.
#[test]
fn what_a_run_declares_is_called_as_its_user_calls_it() {
    let scene = Scene::new("called");
    let policy = |text: &str| {
        let file = scene.folder.path().join("run.toml");
        fs::write(&file, text).unwrap();
        file.to_str().unwrap().to_owned()
    };
    let wrong =
        policy("[service.own]\nrun = \"log\"\n[[filter]]\naction = \"redirect\"\nservice = \"onw\"\n");
    let refused = text(&scene.run(NOBODY, &["--policy", &wrong], &["/bin/true"]).stderr);
    assert!(refused.contains("\"onw\"") && refused.contains("did you mean \"own\"?"), "{refused}");
    let absent = text(&scene.run(NOBODY, &["--through", "own=exec:/no/such/program"], &["/bin/true"]).stderr);
    assert!(absent.contains("own"), "{absent}");
    let port = scene.server.address().port();
    let blocks = policy(&format!(
        "[service.own]\nrun = \"log\"\n[sublayer.mine]\n[[filter]]\nname = \"no\"\naction = \"block\"\nsublayer = \"mine\"\n\
         if.port = {port}\n[[filter]]\naction = \"redirect\"\nservice = \"own\"\nif.protocol = \"tcp\"\n"
    ));
    let mut guest = scene.dialler(NOBODY, &["--policy", &blocks]);
    assert_eq!(guest.dial(), "errno 13");
    let place = "filter \"no\" (nobody's run 3: ";
    let seen = scene.seen.wait_for("refused with EACCES");
    assert!(seen.contains(place), "{seen}");
    let processes = fs::read_to_string(scene.enclosures()[0].join("cgroup.procs")).unwrap();
    let to = format!("127.0.0.1:{port}");
    let why = Command::new(Waylay::binary())
        .args(["why", "--pid", processes.trim(), "--to", &to, "--socket"])
        .arg(socket(scene.folder.path()))
        .output()
        .unwrap();
    let why = text(&why.stdout);
    assert!(why.contains(place) && why.contains("service \"own of nobody's run 3\": chosen"), "{why}");
    let (_, said) = guest.end();
    for said in [refused, absent, why, said, seen] {
        assert!(!said.contains("u65534."), "{said}");
    }
    scene.end();
}
