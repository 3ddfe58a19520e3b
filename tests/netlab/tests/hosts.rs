//! Connections that are judged by the names by which applications have asked resolvers for their destinations.

#![expect(clippy::unwrap_used, reason = "a failed set-up is a failed test")]

use std::{fs, os::unix::fs::PermissionsExt};

use serde_json::json;
use tempfile::TempDir;
use waylay_core::{
    Action, AuthRule, Conditions, Filter, FilterId, FlagConditions, HostName, HostPattern, Layer, Policy,
    PortRange, Sublayer, SublayerId,
};
use waylay_engine_ebpf::{Hook, Limits, hooked};
use waylay_netlab::{Family, Finished, Ground, Lab, Lines, Place, Process, Waylay, python, system_python};

const RESOLVER: &str = include_str!("../scripts/resolver.py");

/// Asks resolvers, as `ask(resolver, name)`; `dial(address)` says what comes of a connection.
const PRELUDE: &str = r#"
import errno, ipaddress, os, socket, struct, subprocess, sys
def towards(host, kind):
    s = socket.socket(socket.AF_INET6 if ':' in host else socket.AF_INET, kind)
    s.settimeout(20)
    return s
def ask(resolver, name, kind=1, connected=True, s=None):
    s = s or towards(resolver, socket.SOCK_DGRAM)
    labels = b''.join(bytes([len(label)]) + label.encode() for label in name.split('.'))
    query = struct.pack('!6H', 7, 0x100, 1, 0, 0, 0) + labels + b'\0' + struct.pack('!HH', kind, 1)
    if connected:
        s.connect((resolver, 53))
        s.send(query)
        answer = s.recv(4096)
    else:
        s.sendto(query, (resolver, 53))
        answer, peer = s.recvfrom(4096)
        assert peer[0] == resolver, peer
    assert answer[2] & 0x80 and answer[7], answer
def dial(address):
    try:
        with towards(address, socket.SOCK_STREAM) as s:
            s.connect((address, 80))
            assert s.recv(4) == b'HTTP'
            print('open', flush=True)
    except OSError as error:
        print(errno.errorcode[error.errno], flush=True)
"#;

const BLOCK: &str = "
resolvers = [\"10.77.0.2\", \"fd00:77::2\"]
[sublayer.base]
[[filter]]
action = \"block\"
sublayer = \"base\"
if.host = [\"ads.example\", \"*.ads.example\"]
";

const LEAD_TCP: &str = "
[service.log]
run = \"log\"
[[filter]]
action = \"redirect\"
service = \"log\"
if.protocol = \"tcp\"
";

/// A resolver, another one that no policy names (10.77.0.9), and a server at several addresses.
struct Town {
    ground: Ground,
    folder: TempDir,
    _servers: (Process, Lines),
}

impl Town {
    fn new() -> Self {
        let ground = Ground::new(Family::V4, Place::Veth);
        let namespace = ground.server_namespace().unwrap();
        for last in 3..=9 {
            namespace.ip(&["addr", "add", &format!("10.77.0.{last}/24"), "dev", "wire"]);
            namespace.ip(&["addr", "add", &format!("fd00:77::{last}/64"), "dev", "wire", "nodad"]);
        }
        let names = json!({
            "ads.example": ["10.77.0.3", "fd00:77::3"],
            "www.ads.example": ["10.77.0.4"],
            "x.y.ads.example": ["cdn.example", "10.77.0.5"],
            "loads.example": ["10.77.0.6"],
            "example": ["10.77.0.6", "fd00:77::6"],
            "both.example": ["10.77.0.4", "10.77.0.6"],
        });
        let resolvers = json!(["10.77.0.2", "10.77.0.9", "fd00:77::2"]);
        let mut command = namespace.command(python());
        command.args(["-u", "-c", RESOLVER, &resolvers.to_string(), &names.to_string()]);
        let (process, lines) = Process::spawn_read(&mut command);
        assert_eq!(lines.wait_for_line(0), "ready");
        let folder = TempDir::new().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        Self { ground, folder, _servers: (process, lines) }
    }

    /// What a command comes to by a policy.
    fn watch(&self, policy: &str, command: &[&str]) -> Finished {
        let file = self.folder.path().join("policy.toml");
        fs::write(&file, policy).unwrap();
        self.ground.waylay().args(["--policy", file.to_str().unwrap()]).reporting().watch(command).well()
    }

    /// What a client in Python prints.
    fn run(&self, policy: &str, client: &str) -> String {
        let client = format!("{PRELUDE}{client}");
        self.watch(policy, &[system_python(), "-c", &client]).stdout.replace('\n', " ").trim().to_owned()
    }
}

#[test]
fn a_destination_is_blocked_by_the_name_that_was_asked_for() {
    let town = Town::new();
    let client = "
dial('10.77.0.3')
ask('10.77.0.2', 'ads.example')
ask('10.77.0.2', 'WWW.Ads.Example', connected=False)
ask('10.77.0.2', 'x.y.ads.example')
ask('10.77.0.2', 'loads.example')
ask('10.77.0.2', 'example')
for last in 3, 4, 5, 6: dial(f'10.77.0.{last}')
";
    assert_eq!(town.run(BLOCK, client), "open EACCES EACCES EACCES open");
    let client = "
ask('10.77.0.2', 'example', kind=28)
ask('fd00:77::2', 'ads.example', kind=28, connected=False)
for last in 3, 6: dial(f'fd00:77::{last}')
dial('10.77.0.3')
";
    assert_eq!(town.run(BLOCK, client), "EACCES open open");
}

/// An IPv6 socket that asks a resolver for IPv4, and one that was connected to somebody else before.
#[test]
fn it_does_not_matter_how_the_socket_asks() {
    let town = Town::new();
    let client = "
s = towards('::', socket.SOCK_DGRAM)
ask('::ffff:10.77.0.2', 'ads.example', s=s)
s = towards('', socket.SOCK_DGRAM)
s.connect(('10.77.0.8', 9))
s.connect(('10.77.0.2', 53))
ask('10.77.0.2', 'www.ads.example', s=s)
for last in 3, 4: dial(f'10.77.0.{last}')
";
    assert_eq!(town.run(BLOCK, client), "EACCES EACCES");
}

#[test]
fn who_has_not_asked_is_not_affected_and_children_are() {
    let town = Town::new();
    let client = "
ask('10.77.0.2', 'ads.example')
sys.stdout.flush()
if os.fork() == 0:
    dial('10.77.0.3')
    os._exit(0)
os.wait()
subprocess.run(['bash', '-c', 'exec 3<>/dev/tcp/10.77.0.3/80 && echo open'])
os.setuid(65534)
dial('10.77.0.3')
";
    assert_eq!(town.run(BLOCK, client), "EACCES open open");
}

#[test]
fn what_somebody_else_says_is_not_believed() {
    let town = Town::new();
    let client = "
ask('10.77.0.9', 'ads.example')
ask('10.77.0.9', 'www.ads.example', connected=False)
for last in 3, 4: dial(f'10.77.0.{last}')
";
    assert_eq!(town.run(BLOCK, client), "open open");
}

/// The address is both names', and one of them is blocked.
#[test]
fn of_several_names_each_counts() {
    let town = Town::new();
    let client = "
ask('10.77.0.2', 'both.example')
dial('10.77.0.4')
ask('10.77.0.2', 'www.ads.example')
ask('10.77.0.2', 'both.example')
for last in 4, 6: dial(f'10.77.0.{last}')
";
    assert_eq!(town.run(BLOCK, client), "open EACCES open");
}

#[test]
fn a_permission_is_taken_away_by_a_name() {
    let policy = "
resolvers = \"10.77.0.2\"
[sublayer.base]
[[filter]]
action = \"permit\"
sublayer = \"base\"
weight = 1
if.port = [53, 80]
unless.host = \"ads.example\"
[[filter]]
action = \"block\"
sublayer = \"base\"
";
    let client = "
for last in 3, 6: dial(f'10.77.0.{last}')
ask('10.77.0.2', 'ads.example')
for last in 3, 6: dial(f'10.77.0.{last}')
";
    assert_eq!(Town::new().run(policy, client), "open open EACCES open");
}

/// What the service asks for the application is asked by the application.
#[test]
fn names_are_learned_from_answers_that_a_service_carries() {
    let services = format!(
        "{BLOCK}[service.log]\nrun = \"log\"\n[[filter]]\naction = \"redirect\"\nservice = \"log\"\n"
    );
    let town = Town::new();
    let client = "
ask('10.77.0.2', 'ads.example')
ask('10.77.0.2', 'www.ads.example', connected=False)
ask('fd00:77::2', 'ads.example', kind=28)
ask('10.77.0.9', 'x.y.ads.example')
for address in '10.77.0.3', '10.77.0.4', '10.77.0.5', '10.77.0.6', 'fd00:77::3', 'fd00:77::6': dial(address)
";
    let file = town.folder.path().join("policy.toml");
    fs::write(&file, services).unwrap();
    let client = format!("{PRELUDE}{client}");
    let run = town.ground.waylay().args(["--policy", file.to_str().unwrap()]).reporting();
    let finished = run.watch([system_python(), "-c", &client]).well();
    assert_eq!(finished.stdout, "EACCES\nEACCES\nopen\nopen\nEACCES\nopen\n", "{finished:?}");
    // Four questions and three connections have been through the service.
    assert_eq!(finished.reports().len(), 7, "{finished:?}");
}

#[test]
fn a_service_is_chosen_by_a_name() {
    let policy = "
resolvers = \"10.77.0.2\"
[service.log]
run = \"log\"
[[filter]]
action = \"redirect\"
service = \"log\"
if.host = \"*.ads.example\"
";
    let client = "
ask('10.77.0.2', 'example')
ask('10.77.0.2', 'www.ads.example')
for last in 4, 6: dial(f'10.77.0.{last}')
";
    let town = Town::new();
    let client = format!("{PRELUDE}{client}");
    let finished = town.watch(policy, &[system_python(), "-c", &client]);
    assert_eq!(finished.stdout, "open\nopen\n", "{finished:?}");
    let to: Vec<String> =
        finished.reports().iter().map(|report| report.original_destination.to_string()).collect();
    assert_eq!(to, ["10.77.0.4:80"], "{finished:?}");
}

/// An inner run listens to resolvers at its own cgroup, in which the outer run sees no sandbox.
#[test]
fn who_listens_to_resolvers_is_no_sandbox_to_others() {
    let town = Town::new();
    let file = town.folder.path().join("policy.toml");
    fs::write(&file, BLOCK).unwrap();
    let client = format!(
        "{PRELUDE}
ask('10.77.0.2', 'ads.example')
for last in 3, 6: dial(f'10.77.0.{{last}}')
"
    );
    let lead = town.folder.path().join("outer.toml");
    fs::write(&lead, LEAD_TCP).unwrap();
    let outer = town.ground.waylay().reporting().args(["--policy", lead.to_str().unwrap()]);
    let inner = outer.around_another("inner.json").args(["--policy", file.to_str().unwrap()]);
    let finished = inner.watch([system_python(), "-c", &client]).well();
    assert_eq!(finished.stdout, "EACCES\nopen\n", "{finished:?}");
    let to: Vec<String> =
        finished.reports().iter().map(|report| report.original_destination.to_string()).collect();
    assert!(to.contains(&"10.77.0.6:80".to_owned()), "{finished:?}");
}

#[test]
fn nobody_listens_to_resolvers_for_a_policy_that_asks_for_no_names() {
    let mut lab = Lab::new("hosts", Limits::default());
    let listening = |lab: &Lab| {
        let hooks = hooked(&lab.cgroup(None)).unwrap();
        hooks.iter().filter(|hooked| hooked.hook == Hook::InetIngress).count()
    };
    let filter = |host: Option<&str>| {
        let host = host.map(|name| HostPattern::Name(HostName::new(name).unwrap()).into());
        let flags = FlagConditions::default();
        let rule = AuthRule { sublayer: SublayerId(1), flags, action: Action::BLOCK };
        let conditions =
            Conditions { host, remote_ports: Some(PortRange::single(9).into()), ..Conditions::default() };
        let filter = Filter { id: FilterId(1), weight: 0, conditions, layer: Layer::Auth(rule) };
        let sublayer = Sublayer { id: SublayerId(1), name: "base".into(), weight: 0 };
        Policy::new(vec![], vec![sublayer], vec![filter]).unwrap()
    };
    lab.install(&filter(None), vec![]);
    assert_eq!(listening(&lab), 0);
    lab.reload(&filter(Some("a.example")), vec![]).unwrap();
    assert_eq!(listening(&lab), 1);
    lab.reload(&filter(Some("b.example")), vec![]).unwrap();
    assert_eq!(listening(&lab), 1);
    lab.reload(&filter(None), vec![]).unwrap();
    assert_eq!(listening(&lab), 0);
}

/// The C library and a client as they are, by the resolver that the system names.
#[test]
fn clients_are_judged_by_the_names_that_their_users_typed() {
    let town = Town::new();
    let configuration = town.folder.path().join("resolv.conf");
    fs::write(&configuration, "nameserver 10.77.0.2\noptions timeout:5\n").unwrap();
    let policy = BLOCK.replace("resolvers = [\"10.77.0.2\", \"fd00:77::2\"]\n", "");
    let fetch = "for name in www.ads.example loads.example; do
        curl -sS --max-time 20 --ipv4 \"http://$name/\" 2>&1 | tail -n 1 || true
    done";
    let bound = format!("mount --bind {} /etc/resolv.conf && exec \"$0\" \"$@\"", configuration.display());
    let file = town.folder.path().join("policy.toml");
    fs::write(&file, policy).unwrap();
    let namespace = town.ground.client_namespace().unwrap();
    let mut command = namespace.command("unshare");
    command.args(["--mount", "sh", "-c", &bound]).arg(Waylay::binary());
    command.args(["run", "--policy", file.to_str().unwrap(), "--", "sh", "-c", fetch]);
    let finished = Waylay::within(command).finish();
    let lines: Vec<&str> = finished.stdout.lines().collect();
    assert!(lines.len() == 2 && lines[0].starts_with("curl: (7)") && lines[1] == "hi", "{finished:?}");
    assert!(finished.stderr.contains("10.77.0.4:80: refused with EACCES"), "{finished:?}");
}
