//! Connections that are older than a policy, as `waylayd` judges them: as if they were made now, out of whichever sandbox and by whichever
//! names.

#![expect(clippy::unwrap_used, reason = "a failed set-up is a failed test")]

use std::{
    fs,
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::Command,
};

use serde_json::json;
use tempfile::TempDir;
use waylay_netlab::{
    Daemon, Dialler, Foreign, Home, Lines, Namespace, Process, TcpServer, patiently, python,
};

const RESOLVER: &str = include_str!("../scripts/resolver.py");
/// Of that script.
const RESOLVES: &str = "127.77.0.2";
const ADS: Ipv4Addr = Ipv4Addr::new(127, 77, 0, 3);
const OTHERS: Ipv4Addr = Ipv4Addr::new(127, 77, 0, 4);

/// Asks it for the name, and waits for the answer.
const ASK: &str = r"
import socket, sys
labels = b''.join(bytes([len(label)]) + label.encode() for label in sys.argv[2].split('.'))
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(20)
s.connect((sys.argv[1], 53))
s.send(b'\0\7\1\0\0\1\0\0\0\0\0\0' + labels + b'\0\0\1\0\1')
print('answered' if s.recv(4096)[7] else 'no such name', flush=True)
";

const LEAD: &str = r#"
existing = "reset"
[service.log]
run = "log"
[[filter]]
name = "all"
action = "redirect"
service = "log"
if.protocol = "tcp"
"#;

/// Nobody is refused anything yet, but names are asked for.
const NAMES: &str = r#"
existing = "reset"
resolvers = "127.77.0.2"
[sublayer.names]
[[filter]]
action = "continue"
sublayer = "names"
if.host = ["ads.example", "*.example"]
"#;

/// Nobody is refused anything, but whoever is in another network namespace, of which `{}` is the path.
const GUESTS: &str = r#"
existing = "reset"
[sublayer.guests]
[[filter]]
action = "block"
sublayer = "guests"
if.network_namespace = "{}"
"#;

/// A network namespace of their own for the test, and whom it starts.
struct Scene {
    folder: TempDir,
    home: Home,
    namespace: Namespace,
}

impl Scene {
    fn new(name: &str, policy: &str) -> Self {
        let namespace = Namespace::new();
        namespace.enter();
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(folder.path().join("policy.toml"), policy).unwrap();
        Self { folder, home: Home::new(name), namespace }
    }

    fn start(&self) -> Daemon {
        Daemon::start(self.folder.path(), &self.home.path())
    }

    /// A resolver, and servers at every address.
    fn resolver() -> (Process, Lines) {
        let names = json!({ "ads.example": [ADS], "x.example": [OTHERS] });
        let mut command = Command::new(python());
        command.args(["-u", "-c", RESOLVER, &json!([RESOLVES]).to_string(), &names.to_string()]);
        let (process, lines) = Process::spawn_read(&mut command);
        assert_eq!(lines.wait_for_line(0), "ready");
        (process, lines)
    }

    /// The application, which is what it is in whichever process, asks for a name.
    fn learn(&self, name: &str) {
        let script = self.folder.path().join("ask.py");
        fs::write(&script, ASK).unwrap();
        let (_process, lines) =
            self.home.start(&format!("{} {} {RESOLVES} {name}", python(), script.display()));
        assert_eq!(lines.wait_for_line(0), "answered");
    }
}

/// What it reads it sends back, after a greeting.
fn echo(ip: Ipv4Addr) -> TcpServer {
    TcpServer::start(IpAddr::V4(ip), |mut stream: TcpStream| {
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

fn open(client: &mut Dialler, to: SocketAddr) {
    assert_eq!(client.ask(&format!("open {} {}", to.ip(), to.port())), "ok");
}

fn remove(cgroup: &Path) {
    patiently("the cgroup's end", || fs::remove_dir(cgroup).ok());
}

#[test]
fn what_comes_out_of_a_sandbox_goes_on_as_a_new_one_would_unless_the_policy_overrides_it() {
    let scene = Scene::new("existing", LEAD);
    let server = echo(Ipv4Addr::LOCALHOST);
    let boxed = scene.home.directory().join("boxed");
    fs::create_dir(&boxed).unwrap();
    Foreign::EGRESS.attach(&boxed, "theirs");
    let (mut free, mut sandboxed) = (scene.home.start_dialler(), Home::start_dialler_in(&boxed));
    open(&mut free, server.address());
    open(&mut sandboxed, server.address());
    let daemon = scene.start();
    assert_eq!(free.ask("ping"), "ECONNABORTED", "{}", daemon.seen().text());
    assert_eq!(sandboxed.ask("ping"), "pong", "{}", daemon.seen().text());
    fs::write(scene.folder.path().join("policy.toml"), format!("override_sandbox = true\n{LEAD}")).unwrap();
    daemon.change(&["reload"]);
    assert_eq!(sandboxed.ask("ping"), "ECONNABORTED", "{}", daemon.seen().text());
    daemon.end();
    drop(sandboxed);
    remove(&boxed);
}

#[test]
fn what_was_made_in_another_network_namespace_is_reset_if_a_new_one_would_be_refused() {
    let scene = Scene::new("existing-guests", "existing = \"reset\"\n");
    let dial = |cgroup: &Path| {
        let server = echo(Ipv4Addr::LOCALHOST);
        let mut client = Home::start_dialler_in(cgroup);
        open(&mut client, server.address());
        (client, server)
    };
    let outside = scene.home.beside("outside");
    let (mut host, _server) = dial(scene.home.directory());
    let guests = Namespace::new();
    guests.enter();
    let ((mut guest, server), (mut outsider, _other)) = (dial(scene.home.directory()), dial(&outside));
    scene.namespace.enter();
    let daemon = scene.start();
    assert_eq!(guest.ask("ping"), "pong", "{}", daemon.seen().text());
    let path = guests.path();
    let policies = [
        GUESTS.replace("{}", path.to_str().unwrap()),
        "existing = \"reset\"\nother_namespaces = \"block\"\n".into(),
    ];
    for policy in policies {
        fs::write(scene.folder.path().join("policy.toml"), policy).unwrap();
        daemon.change(&["reload"]);
        assert_eq!(guest.ask("ping"), "ECONNABORTED", "{}", daemon.seen().text());
        assert_eq!([host.ask("ping"), outsider.ask("ping")], ["pong", "pong"], "{}", daemon.seen().text());
        fs::write(scene.folder.path().join("policy.toml"), "existing = \"reset\"\n").unwrap();
        daemon.change(&["reload"]);
        open(&mut guest, server.address());
    }
    daemon.end();
}

#[test]
fn what_its_application_has_asked_for_by_a_name_is_reset_when_that_is_blocked() {
    let scene = Scene::new("existing-names", NAMES);
    let (ads, others) = (echo(ADS), echo(OTHERS));
    let _resolver = Scene::resolver();
    let daemon = scene.start();
    let mut clients = [ads.address(), others.address()].map(|to| {
        let mut client = scene.home.start_dialler();
        open(&mut client, to);
        client
    });
    let block = |host: &str| {
        let host = format!("if.host = \"{host}\"");
        daemon.change(&["filter", "add", "action = \"block\"", "sublayer = \"names\"", &host]);
    };
    // Nobody has asked for it yet.
    block("ads.example");
    assert_eq!(clients.each_mut().map(|client| client.ask("ping")), ["pong"; 2], "{}", daemon.seen().text());
    scene.learn("ads.example");
    scene.learn("x.example");
    block("ads.example");
    let pings = clients.each_mut().map(|client| client.ask("ping"));
    assert_eq!(pings, ["ECONNABORTED", "pong"], "{}", daemon.seen().text());
    // Of this one only the pattern is known, which was asked for when the answer came.
    block("*.example");
    assert_eq!(clients[1].ask("ping"), "ECONNABORTED", "{}", daemon.seen().text());
    daemon.end();
}

#[test]
fn why_knows_by_which_names_a_process_has_asked_for_a_destination() {
    let policy = NAMES.replace("continue", "block").replace("existing = \"reset\"", "");
    let scene = Scene::new("why-names", &policy);
    let _resolver = Scene::resolver();
    let daemon = scene.start();
    let mut client = scene.home.start_dialler();
    let pid = client.ask("pid");
    let why = |to: Ipv4Addr| {
        let answer = daemon.ask(&["why", "--pid", &pid, "--to", &format!("{to}:80")]);
        (answer.status.code(), String::from_utf8(answer.stdout).unwrap())
    };
    assert_eq!(why(ADS).0, Some(0), "{}", why(ADS).1);
    assert_eq!(client.ask(&format!("dial {ADS} 80")), "ok");
    scene.learn("ads.example");
    assert_eq!(client.ask(&format!("dial {ADS} 80")), "EACCES");
    let (status, said) = why(ADS);
    assert!(status == Some(1) && said.contains("policy.toml:5"), "{said}");
    assert_eq!(why(OTHERS).0, Some(0));
    scene.learn("x.example");
    assert_eq!(why(OTHERS).0, Some(1));
    daemon.end();
}
