//! `waylay check` and `waylay filter test`, as somebody without a privilege types them; and `waylay run` by a policy's file.

#![expect(clippy::unwrap_used, reason = "a failed set-up is a failed test")]

use std::{fs, io::Write, net::Ipv4Addr, os::unix::fs::PermissionsExt, path::Path, process::Command};

use serde_json::Value;
use tempfile::TempDir;
use waylay_netlab::{Finished, Ground, TcpServer, Waylay, python};

/// Of the user `nobody`.
const NOBODY: &str = "65534";

const POLICY: &str = r#"
[service.log]
run = "log"
after = "scan"

[service.scan]
run = "scan"
on_failure = "open"

[sublayer.mine]
weight = 10

[sublayer.theirs]

[[filter]]
name = "web"
action = "redirect"
service = "scan"
if.port = [80, 443]
unless.exe = "/usr/bin/apt*"

[[filter]]
action = "redirect"
service = "log"
if.unit = "cron.service"

[[filter]]
name = "no-mail"
action = "block"
errno = "ECONNREFUSED"
sublayer = "theirs"
if.port = 25
unless.via.user = 4000000000

[[filter]]
action = "permit"
right = "hard"
sublayer = "mine"
if.group = "mail"
if.port = 25
"#;

/// A folder that anybody can read, with a policy in it.
fn folder(policy: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(folder.path().join("policy.toml"), policy).unwrap();
    folder
}

/// Without any privilege, in that folder.
fn waylay(folder: &Path, arguments: &[&str]) -> Finished {
    let mut command = Command::new("setpriv");
    command.args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups", "--bounding-set", "-all"]);
    command.args(["env", "--chdir"]).arg(folder).arg(Waylay::binary()).args(arguments);
    Waylay::within(command).finish()
}

fn test(arguments: &[&str]) -> Finished {
    let folder = folder(POLICY);
    waylay(folder.path(), &[&["filter", "test", "--policy", "policy.toml"], arguments].concat())
}

fn json(finished: &Finished) -> Value {
    serde_json::from_str(&finished.stdout).unwrap_or_else(|error| panic!("{error}: {finished:?}"))
}

#[test]
fn a_good_policy_is_summed_up_in_a_line() {
    let folder = folder(POLICY);
    let finished = waylay(folder.path(), &["check", "policy.toml"]);
    assert_eq!(finished.code(), 0, "{finished:?}");
    let last = finished.stdout.lines().last().unwrap();
    assert_eq!(last, "good policy.toml: services scan -> log; sublayers 2; filters 4");
}

#[test]
fn everything_that_is_wrong_is_said_at_once_with_its_place() {
    let folder = folder(POLICY);
    fs::create_dir(folder.path().join("conf.d")).unwrap();
    let added = "[[filter]]\naction = \"redirect\"\nservice = \"lgo\"\nif.port = 70000\n";
    fs::write(folder.path().join("conf.d/added.toml"), added).unwrap();
    let finished = waylay(folder.path(), &["check", "policy.toml", "-o", "json"]);
    assert_eq!(finished.code(), 1, "{finished:?}");
    let found = json(&finished);
    assert_eq!(found["errors"], 2);
    let errors: Vec<&Value> = found["diagnostics"].as_array().unwrap().iter().collect();
    assert_eq!(errors[0]["message"], "70000 is not from 0 to 65535");
    assert_eq!((&errors[0]["line"], &errors[0]["column"]), (&4.into(), &11.into()));
    assert_eq!(errors[1]["help"], "did you mean \"log\"?");
    assert!(
        errors
            .iter()
            .all(|error| error["file"] == "./conf.d/added.toml" || error["file"] == "conf.d/added.toml")
    );
}

#[test]
fn a_policy_that_is_not_there_is_named() {
    let folder = folder(POLICY);
    let finished = waylay(folder.path(), &["check", "other.toml"]);
    assert_eq!(finished.code(), 2);
    assert!(finished.stderr.contains("cannot read other.toml: No such file"), "{finished:?}");
}

#[test]
fn names_and_network_namespaces_are_taken_from_the_command_line() {
    let policy = "[sublayer.base]\n[[filter]]\naction = \"block\"\nsublayer = \"base\"\nif.host = \"*.ads.example\"\n\
                  [[filter]]\naction = \"block\"\nerrno = \"EPERM\"\nsublayer = \"base\"\n\
                  if.network_namespace = \"/run/netns/guests\"\n";
    let folder = folder(policy);
    let test = |arguments: &[&str]| {
        let whole =
            [&["filter", "test", "--policy", "policy.toml", "--to", "192.0.2.1:443"], arguments].concat();
        waylay(folder.path(), &whole)
    };
    for (arguments, code) in [
        (&[][..], 0),
        (&["--host", "www.ads.example"], 1),
        (&["--host", "a.example,ads.example"], 0),
        (&["--network-namespace", "/run/netns/guests"], 1),
        (&["--network-namespace", "/run/netns/others"], 0),
        (&["--network-namespace", "host"], 0),
    ] {
        let finished = test(arguments);
        assert_eq!(finished.code(), code, "{arguments:?} {finished:?}");
    }
    let wrong = test(&["--host", "a b"]);
    assert_eq!(wrong.code(), 2, "{wrong:?}");
    let checked = waylay(folder.path(), &["check", "policy.toml"]);
    assert_eq!(checked.code(), 0, "{checked:?}");
    assert!(
        checked.stderr.contains("network namespace \"/run/netns/guests\"")
            || checked.stdout.contains("network namespace \"/run/netns/guests\""),
        "{checked:?}"
    );
}

#[test]
fn a_connection_is_followed_through_every_service() {
    let finished = test(&[
        "--exe",
        "/usr/bin/curl",
        "--cgroup",
        "/system.slice/cron.service/job",
        "--to",
        "192.0.2.1:443",
    ]);
    assert_eq!(finished.code(), 0, "{finished:?}");
    let wanted = "\
/usr/bin/curl -> 192.0.2.1:443 (tcp)
    service \"scan\": chosen by filter \"web\" (policy.toml:15)
  goes to service \"scan\"
scan -> 192.0.2.1:443 (tcp)
    service \"scan\": skipped, it redirected this connection last
    service \"log\": chosen by the filter at policy.toml:22
  goes to service \"log\"
log -> 192.0.2.1:443 (tcp)
    service \"scan\": skipped, it has redirected this connection before
    service \"log\": skipped, it redirected this connection last
  goes to the destination
permitted, through scan, log
";
    assert_eq!(finished.stdout, wanted);
}

#[test]
fn patterns_units_and_exceptions_count_as_they_are_written() {
    let services = |arguments: &[&str]| {
        let finished = test(&[arguments, &["--to", "192.0.2.1:80", "-o", "json"]].concat());
        json(&finished)["services"].to_string()
    };
    assert_eq!(services(&["--exe", "/usr/bin/apt-get"]), "[]");
    assert_eq!(services(&["--exe", "/usr/bin/sub/apt"]), "[\"scan\"]");
    assert_eq!(services(&["--cgroup", "/user.slice"]), "[\"scan\"]");
    assert_eq!(services(&["--chain", "scan", "--cgroup", "/cron.service"]), "[\"log\"]");
    assert_eq!(services(&["--absent", "scan", "--cgroup", "/a/cron.service"]), "[\"log\"]");
}

#[test]
fn out_of_a_sandbox_it_goes_to_services_if_the_policy_says_so() {
    let finished = test(&["--exe", "/usr/bin/curl", "--to", "192.0.2.1:443", "--sandboxed"]);
    assert_eq!(finished.code(), 0, "{finished:?}");
    let wanted = "\
/usr/bin/curl -> 192.0.2.1:443 (tcp)
    service \"scan\": chosen by filter \"web\" (policy.toml:15)
    in somebody's sandbox: not redirected
  goes to the destination
";
    assert!(finished.stdout.starts_with(wanted), "{finished:?}");
    let folder = folder(&format!("override_sandbox = true\n{POLICY}"));
    let arguments = ["filter", "test", "--policy", "policy.toml", "--exe", "/usr/bin/curl", "--sandboxed"];
    let overridden = waylay(folder.path(), &[&arguments[..], &["--to", "192.0.2.1:443"]].concat());
    assert!(overridden.stdout.contains("  goes to service \"scan\"\n"), "{overridden:?}");
}

#[test]
fn a_refusal_names_the_filter_and_its_place() {
    let finished = test(&["--to", "192.0.2.1:25"]);
    assert_eq!(finished.code(), 1, "{finished:?}");
    let last = finished.stdout.lines().last().unwrap();
    assert_eq!(last, "refused: blocked by filter \"no-mail\" (policy.toml:27) with ECONNREFUSED");

    let finished = test(&["--to", "192.0.2.1:25", "--group", "mail"]);
    assert_eq!(finished.code(), 0, "{finished:?}");
    assert!(finished.stdout.contains("overruled by a harder decision above"), "{finished:?}");
}

#[test]
fn a_closed_service_that_is_gone_refuses() {
    let finished =
        test(&["--to", "192.0.2.1:80", "--cgroup", "/cron.service", "--absent", "log", "-o", "json"]);
    assert_eq!(finished.code(), 1, "{finished:?}");
    let outcome = json(&finished);
    assert_eq!(outcome["errno"], "ECONNREFUSED");
    assert_eq!(outcome["stages"][1]["reason"], "service \"log\" is absent and fails closed");
}

#[test]
fn what_makes_no_sense_is_refused_with_a_hint() {
    let finished = test(&["--to", "192.0.2.1:80", "--chain", "scna"]);
    assert_eq!(finished.code(), 2);
    assert!(finished.stderr.contains("no service \"scna\"; did you mean \"scan\"?"), "{finished:?}");
    let finished = test(&["--to", "192.0.2.1:80", "--user", "no-such-user"]);
    assert!(finished.stderr.contains("there is no user \"no-such-user\" on this host"), "{finished:?}");
    assert_eq!(test(&["--to", "example.test:80"]).code(), 2);
}

mod run {
    use super::*;

    /// Dials each port that is named, and says what came of it.
    const DIAL: &str = "
import errno, socket, sys
for port in map(int, sys.argv[1:]):
    try:
        with socket.create_connection(('127.0.0.1', port)) as connection:
            print(port, connection.makefile().read())
    except OSError as error:
        print(port, errno.errorcode[error.errno])
";

    fn greeter() -> TcpServer {
        TcpServer::start(Ipv4Addr::LOCALHOST.into(), |mut stream| stream.write_all(b"hello"))
    }

    fn run(policy: &str, watched: &[&str]) -> Finished {
        let folder = folder(policy);
        let file = folder.path().join("policy.toml");
        let waylay = Ground::loopback().waylay().reporting();
        waylay.args(["--policy".as_ref(), file.as_os_str()]).watch(watched)
    }

    #[test]
    fn leads_each_connection_as_the_filters_say_and_in_the_solved_order() {
        let [both, one, none, refused] = [greeter(), greeter(), greeter(), greeter()];
        let [both, one, none, refused] =
            [both, one, none, refused].map(|server| (server.address().port(), server));
        let policy = format!(
            r#"
[service.late]
run = "log"

[service.early]
run = "log"
before = "late"

[sublayer.mine]

[[filter]]
action = "redirect"
service = "late"
if.port = [{both}, {one}]

[[filter]]
action = "redirect"
service = "early"
if.protocol = "tcp"
if.port = {both}

[[filter]]
name = "shut"
action = "block"
errno = "EHOSTUNREACH"
sublayer = "mine"
if.port = {refused}
"#,
            both = both.0,
            one = one.0,
            refused = refused.0
        );
        let ports = [both.0, one.0, none.0, refused.0].map(|port| port.to_string());
        let dial = [&[python(), "-c", DIAL][..], &ports.each_ref().map(String::as_str)].concat();
        let finished = run(&policy, &dial).well();
        let wanted =
            format!("{} hello\n{} hello\n{} hello\n{} EHOSTUNREACH\n", both.0, one.0, none.0, refused.0);
        assert_eq!(finished.stdout, wanted, "{finished:?}");
        let chain = |port, service: &str| {
            let reports = finished.reports_of(service);
            let report = reports.into_iter().find(|report| report.original_destination.port() == port);
            report.map(|report| report.chain)
        };
        assert_eq!(chain(both.0, "early"), Some(vec!["early".into()]));
        assert_eq!(chain(both.0, "late"), Some(vec!["early".into(), "late".into()]));
        assert_eq!(chain(one.0, "late"), Some(vec!["late".into()]));
        assert_eq!(finished.reports().len(), 3, "{finished:?}");
        assert!(finished.stderr.contains("filter \"shut\" ("), "{finished:?}");
    }

    #[test]
    fn begins_nothing_by_a_policy_that_is_wrong() {
        let finished = run("[service.log]\nrun = \"lag\"\n", &["touch", "ran"]);
        assert_eq!(finished.code(), 2);
        assert!(finished.stderr.contains("error: \"lag\" is none of log, scan"), "{finished:?}");
        assert!(finished.stderr.contains("did you mean \"log\"?"), "{finished:?}");
        assert!(!finished.directory().join("ran").exists());
    }

    #[test]
    fn says_in_the_words_of_the_policy_what_would_let_pass() {
        let policy = "[service.log]\nrun = \"log\"\n\n[[filter]]\naction = \"redirect\"\nservice = \"log\"\n";
        let udp_lite =
            "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_UDPLITE)";
        let finished = run(policy, &[python(), "-c", udp_lite]);
        assert_ne!(finished.code(), 0);
        assert!(finished.stderr.contains("(unredirectable = \"permit\" in the policy"), "{finished:?}");
        let finished = run(&format!("unredirectable = \"permit\"\n{policy}"), &[python(), "-c", udp_lite]);
        assert!(!finished.stderr.contains("EACCES"), "{finished:?}");
    }
}
