//! Connections that a command makes in another network namespace than that of its run: left alone or refused, and named
//! either way.

#![expect(clippy::unwrap_used, reason = "a failed set-up is a failed test")]

use std::fs;

use tempfile::TempDir;
use waylay_netlab::{Family, Finished, Ground, Place, WebServer, system_python};

/// Connects so many times from each of so many processes, and says what came of it.
const CONNECT: &str = "
import errno, os, socket, sys
host, port, processes, times = sys.argv[1], *map(int, sys.argv[2:])
for _ in range(processes):
    if os.fork() == 0:
        for _ in range(times):
            try:
                with socket.create_connection((host, port)) as stream:
                    stream.sendall(b'GET / HTTP/1.0\\r\\n\\r\\n')
                    print(stream.recv(5, socket.MSG_WAITALL).decode(), flush=True)
            except OSError as error:
                print(errno.errorcode[error.errno], flush=True)
        os._exit(0)
    os.wait()
";

/// A command that is in the server's namespace, while the run is in the client's.
fn from_the_servers_namespace(arguments: &[&str], processes: u32, times: u32) -> (Finished, usize) {
    let ground = Ground::new(Family::V4, Place::Veth);
    dial_from_the_servers_namespace(&ground, arguments, processes, times)
}

fn dial_from_the_servers_namespace(
    ground: &Ground,
    arguments: &[&str],
    processes: u32,
    times: u32,
) -> (Finished, usize) {
    let directory = TempDir::new().unwrap();
    let web = WebServer::start(ground, directory.path());
    let (host, port) = (ground.server().to_string(), web.address().port().to_string());
    let numbers = [processes, times].map(|number| number.to_string());
    let dial = [&["-c", CONNECT, &host, &port][..], &[&numbers[0], &numbers[1]]].concat();
    let mut inside = ground.server_namespace().unwrap().command(system_python());
    inside.args(dial);
    let command = std::iter::once(inside.get_program()).chain(inside.get_args());
    let finished = ground.waylay().args(arguments).reporting().watch(command).well();
    (finished, web.requests().len())
}

#[test]
fn of_others_connections_are_left_alone_and_each_process_is_named_once() {
    let (finished, requests) = from_the_servers_namespace(&[], 3, 5);
    assert_eq!(finished.stdout, "HTTP/\n".repeat(15), "{finished:?}");
    assert_eq!(requests, 15);
    assert_eq!(finished.reports(), []);
    let named = "10.77.0.2:";
    let lines: Vec<_> = finished.stderr.lines().filter(|line| line.contains(named)).collect();
    assert_eq!(lines.len(), 3, "{finished:?}");
    for line in lines {
        assert!(line.contains("left alone: another network namespace (--other-namespaces block"), "{line}");
    }
}

#[test]
fn of_others_connections_are_refused_if_that_is_asked_for() {
    let (finished, requests) = from_the_servers_namespace(&["--other-namespaces", "block"], 2, 3);
    assert_eq!(finished.stdout, "EACCES\n".repeat(6), "{finished:?}");
    assert_eq!(requests, 0);
    let told = "refused with EACCES: another network namespace (--other-namespaces permit";
    assert_eq!(finished.stderr.matches(told).count(), 6, "{finished:?}");
}

/// What has no destination yet: sockets of IP are of the namespace they are made in.
#[test]
fn of_others_sockets_are_what_the_same_switch_says() {
    let make = "
import errno, socket
try:
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM, 136)
    print('made')
except OSError as error:
    print(errno.errorcode[error.errno])
";
    let command = ["unshare", "--net", system_python(), "-c", make];
    let ground = Ground::loopback();
    let permitted = ground.waylay().reporting().watch(command).well();
    assert_eq!(permitted.stdout, "made\n", "{permitted:?}");
    let arguments = ["--other-namespaces", "block", "--unredirectable", "permit"];
    let refused = ground.waylay().args(arguments).reporting().watch(command).well();
    assert_eq!(refused.stdout, "EACCES\n", "{refused:?}");
    assert!(
        refused.stderr.contains("(UDP-Lite): refused with EACCES: another network namespace"),
        "{refused:?}"
    );
}

/// Where there is nobody but a service of the run by that address, in the run's own namespace.
#[test]
fn of_others_loopbacks_are_not_taken_for_the_runs_own() {
    let command =
        ["unshare", "--net", "sh", "-c", "ip link set lo up && exec \"$0\" \"$@\"", system_python()];
    let command = [&command[..], &["-c", CONNECT, "127.0.0.1", "9", "1", "1"]].concat();
    let finished = Ground::loopback().waylay().through_logs(2).reporting().watch(command).well();
    assert_eq!(finished.stdout, "ECONNREFUSED\n", "{finished:?}");
    assert_eq!(finished.reports(), []);
}

/// What comes of connections that are made in the server's namespace, by a policy in which `{}` is where that is found.
fn by_policy(policy: &str) -> (Finished, usize) {
    let ground = Ground::new(Family::V4, Place::Veth);
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("policy.toml");
    let namespace = ground.server_namespace().unwrap().path();
    fs::write(&file, policy.replace("{}", namespace.to_str().unwrap())).unwrap();
    dial_from_the_servers_namespace(&ground, &["--policy", file.to_str().unwrap()], 2, 2)
}

const BLOCK_OTHERS: &str = "other_namespaces = \"block\"\n[sublayer.base]\n";

#[test]
fn a_filter_blocks_what_is_made_in_the_namespace_that_it_names() {
    let block = "[sublayer.base]\n[[filter]]\naction = \"block\"\nerrno = \"EPERM\"\nsublayer = \"base\"\n";
    let (finished, requests) = by_policy(&format!("{block}if.network_namespace = \"{{}}\"\n"));
    assert_eq!((finished.stdout.as_str(), requests), ("EPERM\nEPERM\nEPERM\nEPERM\n", 0), "{finished:?}");
    assert!(finished.stderr.contains("refused with EPERM: blocked"), "{finished:?}");
    let (finished, requests) = by_policy(&format!("{block}unless.network_namespace = \"own\"\n"));
    assert_eq!((finished.stdout.as_str(), requests), ("EPERM\nEPERM\nEPERM\nEPERM\n", 0), "{finished:?}");
}

#[test]
fn a_filter_that_names_none_or_another_one_leaves_that_be() {
    let block = "[sublayer.base]\n[[filter]]\naction = \"block\"\nsublayer = \"base\"\n";
    for other in ["", "if.network_namespace = \"own\"\n", "unless.network_namespace = \"{}\"\n"] {
        let (finished, requests) = by_policy(&format!("{block}{other}"));
        assert_eq!(
            (finished.stdout.as_str(), requests),
            ("HTTP/\nHTTP/\nHTTP/\nHTTP/\n", 4),
            "{other} {finished:?}"
        );
    }
}

#[test]
fn a_filter_permits_what_the_policys_one_answer_would_refuse() {
    let permit = "[[filter]]\naction = \"permit\"\nsublayer = \"base\"\n";
    let (finished, requests) =
        by_policy(&format!("{BLOCK_OTHERS}{permit}if.network_namespace = [\"/run/netns/none\", \"{{}}\"]\n"));
    assert_eq!((finished.stdout.as_str(), requests), ("HTTP/\nHTTP/\nHTTP/\nHTTP/\n", 4), "{finished:?}");
    let (finished, requests) =
        by_policy(&format!("{BLOCK_OTHERS}{permit}if.network_namespace = \"/run/netns/none\"\n"));
    assert_eq!((finished.stdout.as_str(), requests), ("EACCES\nEACCES\nEACCES\nEACCES\n", 0), "{finished:?}");
}
