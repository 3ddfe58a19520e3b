//! Places without privileges: which engine is taken there, and what `waylay doctor` says of it.

#![expect(clippy::unwrap_used, reason = "a failed set-up is a failed test")]

use std::{collections::BTreeSet, io::Write, process::Command};

use serde_json::Value;
use waylay_netlab::{Finished, TcpServer, Waylay, forbidding, forbidding_as_containers_do, system_python};

const NOBODY: [&str; 6] = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"];
const NO_CAPABILITY: [&str; 5] = ["setpriv", "--bounding-set", "-all", "--inh-caps", "-all"];
const CONTAINER: [&str; 7] =
    ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount", "--mount-proc"];

/// As `docker run --cap-drop ALL` has it, for root or as `--user` says: with namespaces of its own, and the filter of system calls that comes with them.
fn docker(user: &[&str]) -> Vec<String> {
    let words = [
        "unshare --pid --fork --mount --mount-proc --net --uts --ipc --cgroup sh -c",
        "ip link set lo up && exec \"$@\"",
        "sh",
    ];
    let namespaces = words[0].split(' ').chain(words[1..].iter().copied());
    namespaces
        .chain(NO_CAPABILITY)
        .chain(user.iter().copied())
        .map(str::to_owned)
        .chain(forbidding_as_containers_do())
        .collect()
}

/// `waylay`, behind a command line.
fn behind<S: AsRef<str>>(line: &[S]) -> Waylay {
    let mut words = line.iter().map(AsRef::as_ref);
    let mut command = Command::new(words.next().unwrap());
    command.args(words).arg(Waylay::binary());
    Waylay::within(command)
}

fn greeting_through_log(waylay: Waylay) -> Finished {
    let server = TcpServer::with_backlog(16, |mut stream| stream.write_all(b"hello"));
    let dial = "
import socket, sys
print(socket.create_connection(('127.0.0.1', int(sys.argv[1]))).recv(5))";
    let port = server.address().port().to_string();
    let finished =
        waylay.args(["run", "-o", "json"]).args(["--", system_python(), "-c", dial, &port]).finish().well();
    assert_eq!(server.accepted(), 1, "{finished:?}");
    assert!(finished.stdout.contains("b'hello'"), "{finished:?}");
    assert!(finished.stdout.contains("\"chain\":[\"log\"]"), "{finished:?}");
    finished
}

#[test]
fn root_without_the_capabilities_has_the_other_engine_and_is_told_why() {
    for (dropped, why) in
        [("-all", "CAP_BPF"), ("-net_admin", "CAP_NET_ADMIN"), ("-perfmon,-sys_admin", "CAP_PERFMON")]
    {
        let finished = greeting_through_log(behind(&["setpriv", "--bounding-set", dropped]));
        let lines: Vec<&str> = finished.stderr.lines().filter(|line| line.contains("seccomp")).collect();
        assert_eq!(lines.len(), 1, "{finished:?}");
        assert!(lines[0].contains(why), "without {dropped}: {finished:?}");
    }
}

#[test]
fn root_of_a_container_without_capabilities_has_the_other_engine() {
    let finished = greeting_through_log(behind(&[&CONTAINER[..], &NO_CAPABILITY].concat()));
    assert!(finished.stderr.contains("seccomp"), "{finished:?}");
}

#[test]
fn root_with_everything_has_ebpf_and_no_line_about_it() {
    let finished = greeting_through_log(behind(&["env"]));
    assert!(!finished.stderr.contains("seccomp"), "{finished:?}");
}

fn findings(line: &[String]) -> (i32, Value) {
    let finished = behind(line).args(["doctor", "-o", "json"]).finish();
    let findings = serde_json::from_str(&finished.stdout);
    (finished.code(), findings.unwrap_or_else(|error| panic!("{error}: {finished:?}")))
}

fn missing(findings: &Value) -> BTreeSet<&str> {
    let needs = findings["without_root"]["needs"].as_array().unwrap().iter();
    needs.filter(|need| need["state"] != "fine").map(|need| need["name"].as_str().unwrap()).collect()
}

fn owned(line: &[&str]) -> Vec<String> {
    line.iter().map(|word| (*word).to_owned()).collect()
}

#[test]
fn doctor_says_what_goes_without_root() {
    for line in [&NOBODY[..], &NO_CAPABILITY] {
        let (code, findings) = findings(&owned(line));
        assert_eq!((code, &findings["ready"]), (1, &false.into()), "{findings:#}");
        assert_eq!(findings["without_root"]["ready"], true, "{findings:#}");
        let capabilities = findings["without_root"]["capabilities"].as_array().unwrap();
        let available = |name: &str| {
            let found = capabilities.iter().find(|capability| capability["name"] == name);
            found.unwrap()["available"].as_bool().unwrap()
        };
        assert!(available("redirect-tcp4") && available("records") && !available("host-scope"));
    }
    let text = behind(&NOBODY).args(["doctor"]).finish().stdout;
    assert!(text.starts_with("waylay run can start here without root only"), "{text}");
}

#[test]
fn doctor_says_what_a_container_forbids() {
    let where_forbidden = |call| findings(&[owned(&NOBODY), forbidding(&[call])].concat()).1;
    let without_memory = where_forbidden(libc::SYS_process_vm_readv);
    assert_eq!(missing(&without_memory), ["process-vm-readv"].into(), "{without_memory:#}");
    assert_eq!(without_memory["without_root"]["ready"], false);
    // That there is something else for.
    let without_copies = where_forbidden(libc::SYS_pidfd_getfd);
    assert_eq!(missing(&without_copies), [].into(), "{without_copies:#}");
    let needs = without_copies["without_root"]["needs"].as_array().unwrap();
    let sockets = needs.iter().find(|need| need["name"] == "pidfd-getfd").unwrap();
    assert!(sockets["found"].as_str().unwrap().contains("made in its place"), "{sockets:#}");
    let (_code, in_docker) = findings(&docker(&[]));
    assert_eq!(
        (missing(&in_docker), &in_docker["without_root"]["ready"]),
        ([].into(), &true.into()),
        "{in_docker:#}"
    );
    let (_code, findings) = findings(&[owned(&NOBODY), forbidding(&[libc::SYS_seccomp])].concat());
    assert_eq!(missing(&findings), ["seccomp-notifications", "sole-supervisor"].into());
}

#[test]
fn doctor_says_that_there_is_a_supervisor_already() {
    let binary = Waylay::binary();
    let doctor = ["--log", "/dev/null", "--", binary.to_str().unwrap(), "doctor", "-o", "json"];
    let finished = behind(&NOBODY).args(["run", "-o", "json"]).args(doctor).finish();
    let findings: Value = serde_json::from_str(&finished.stdout).unwrap();
    assert_eq!(missing(&findings), ["sole-supervisor"].into());
    assert!(finished.stdout.contains("outside of the other supervisor"), "{finished:?}");
    let text =
        behind(&NOBODY).args(["run", "--log", "/dev/null", "--"]).args([&binary]).args(["doctor"]).finish();
    assert!(text.stdout.starts_with("waylay run cannot start here"), "{text:?}");
}

#[test]
fn the_demo_runs_as_a_user_and_in_a_container() {
    let place = tempfile::tempdir().unwrap();
    let anybody = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(place.path(), anybody).unwrap();
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    let binaries = Waylay::binary().parent().unwrap().to_owned();
    let copied = Command::new("sh")
        .args(["-ec", "cp \"$2/waylay\" \"$2/forward\" \"$3\"; cp -r \"$1/scripts\" \"$1/examples\" \"$3\"; chmod -R a+rX \"$3\""])
        .args(["sh", source, binaries.to_str().unwrap(), place.path().to_str().unwrap()])
        .status();
    assert!(copied.unwrap().success());
    let in_a_user_namespace = owned(&[&CONTAINER[..], &NO_CAPABILITY].concat());
    for line in [owned(&NOBODY), in_a_user_namespace, docker(&[]), docker(&NOBODY[1..])] {
        let mut demo = Command::new(&line[0]);
        // A sudo that asks nothing would make it root's.
        demo.args(&line[1..]).arg(place.path().join("scripts/demo")).arg(place.path());
        let finished = demo.env("TMPDIR", place.path()).env("HOME", place.path()).output().unwrap();
        let text = String::from_utf8_lossy(&finished.stdout);
        assert!(finished.status.success() && text.contains("nobody has won a tablet"), "{finished:?}");
        assert!(text.contains("(seccomp)"), "{text}");
    }
}
