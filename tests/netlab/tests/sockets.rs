//! Sockets that no service can stand in for: each kind is tried for real, by the programs that people have, and is
//! refused with a line that says so, or permitted.

#![expect(clippy::unwrap_used, reason = "a failed set-up is a failed test")]

use std::{fs, process::Command};

use waylay_netlab::{Fence, Finished, Ground, Waylay, system_python};

/// Makes a socket of each kind that is named `FAMILY,TYPE,PROTOCOL`, and says what came of it.
const MAKE: &str = "
import errno, socket, sys
for kind in sys.argv[1:]:
    family, type, protocol = map(int, kind.split(','))
    try:
        socket.socket(family, type, protocol).close()
        print(kind, 'made')
    except OSError as error:
        print(kind, errno.errorcode[error.errno])
";

const UDP_LITE: &str = "2,2,136";
const UDP_LITE_6: &str = "10,2,136";
const PING: &str = "2,2,1";
const PING_6: &str = "10,2,58";
const RAW_TCP: &str = "2,3,6";
const RAW_IP: &str = "2,3,255";
const RAW_ICMP_6: &str = "10,3,58";
const SCTP: &str = "2,1,132";
const DCCP: &str = "2,6,33";
const PACKET: &str = "17,3,768";
const OLD_PACKET: &str = "2,10,768";
const VSOCK: &str = "40,1,0";
const XDP: &str = "44,3,0";
/// Of no kernel, or not of every one.
const OTHERS: [&str; 5] = ["21,5,0", "29,3,1", "30,5,0", "41,5,0", "43,1,0"];
const LOCAL: [&str; 3] = ["1,1,0", "16,3,0", "38,5,0"];
const REDIRECTABLE: [&str; 5] = ["2,1,0", "10,1,6", "2,1,262", "2,2,0", "10,2,17"];

/// What is said of each that is refused.
const REFUSED: &str =
    "refused with EACCES: it cannot be redirected (--unredirectable permit lets it pass, uninspected)";

/// What comes of each kind without waylay.
fn plainly(kinds: &[&str]) -> String {
    let output = Command::new(system_python()).args(["-c", MAKE]).args(kinds).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

fn waylay() -> Waylay {
    Ground::loopback().waylay().reporting()
}

fn make(waylay: Waylay, kinds: &[&str]) -> Finished {
    waylay.watch([&[system_python(), "-c", MAKE], kinds].concat()).well()
}

fn answers(finished: &Finished, answer: &str) -> Vec<String> {
    let lines = finished.stdout.lines();
    lines.filter_map(|line| line.strip_suffix(answer)).map(|kind| kind.trim_end().to_owned()).collect()
}

/// The kernel's program sees no kind that the kernel itself has not.
fn there_are(kinds: &[&'static str]) -> Vec<&'static str> {
    let plain = plainly(kinds);
    kinds.iter().copied().filter(|kind| plain.contains(&format!("{kind} made"))).collect()
}

#[test]
fn of_ip_that_cannot_be_redirected_are_refused_and_named() {
    let kinds = there_are(&[UDP_LITE, UDP_LITE_6, PING, PING_6, RAW_TCP, RAW_IP, RAW_ICMP_6, SCTP, DCCP]);
    assert!(kinds.len() >= 5, "this machine has only {kinds:?}");
    let finished = make(waylay(), &kinds);
    assert_eq!(answers(&finished, "EACCES"), kinds, "{finished:?}");
    for name in
        ["an AF_INET socket (UDP-Lite)", "an AF_INET6 socket (UDP-Lite)", "an AF_INET6 socket (raw ICMP)"]
    {
        assert!(finished.stderr.contains(name), "{name}: {finished:?}");
    }
    assert_eq!(finished.stderr.matches(REFUSED).count(), kinds.len(), "{finished:?}");
}

#[test]
fn of_other_families_are_refused_and_named() {
    let kinds = [&[PACKET, OLD_PACKET, VSOCK, XDP][..], &OTHERS].concat();
    let finished = make(waylay(), &kinds);
    assert_eq!(answers(&finished, "EACCES"), kinds, "{finished:?}");
}

#[test]
fn that_stay_on_this_host_or_are_redirected_are_made() {
    let kinds = [&LOCAL[..], &REDIRECTABLE].concat();
    let finished = make(waylay(), &kinds);
    assert_eq!(finished.stdout, plainly(&kinds), "{finished:?}");
    assert!(answers(&finished, "made").len() >= 6, "{finished:?}");
}

#[test]
fn are_all_made_if_that_is_asked_for() {
    let kinds = [&[UDP_LITE, PING, RAW_IP, PACKET, VSOCK, XDP][..], &OTHERS, &LOCAL].concat();
    let finished = make(waylay().args(["--unredirectable", "permit"]), &kinds);
    assert_eq!(finished.stdout, plainly(&kinds), "{finished:?}");
    assert!(!finished.stderr.contains("cannot be redirected"), "{finished:?}");
}

/// A service is no application: it decides what becomes of a connection anyway.
#[test]
fn are_made_by_services() {
    let script = waylay_netlab::world_readable_file(
        "maker",
        &format!("#!/bin/sh\n{} - {UDP_LITE} {VSOCK} <<'END'{MAKE}END\nexec sleep 60\n", system_python()),
    );
    let through = format!("maker=exec:{}", script.path().display());
    let mut run = Ground::loopback().waylay().args(["--through", &through]).spawn_dialler();
    let expected = plainly(&[UDP_LITE, VSOCK]);
    for line in expected.lines() {
        run.stderr().wait_for(&format!("maker: {line}"));
    }
    run.kill();
}

/// The address family of a service's user is one thing, that of a command inside of an inner run another.
#[test]
fn are_refused_to_the_command_of_a_run_inside_of_another() {
    let outer = Ground::loopback().waylay().around_another("inner.json");
    let finished = outer
        .args(["--unredirectable", "permit"])
        .watch([system_python(), "-c", MAKE, UDP_LITE, PACKET])
        .well();
    // The outer run blocks, whatever the inner one permits.
    assert_eq!(answers(&finished, "EACCES"), [UDP_LITE, PACKET], "{finished:?}");
}

/// What holds where it does, such as on Debian's kernels.
mod a_kernel_that_asks_about_every_family {
    use super::*;

    /// Says so where it does not: the kernel is what it is.
    fn is_here() -> bool {
        let here = doctor_knows("refuse-families");
        if !here {
            eprintln!(
                "left out: this kernel asks no program about sockets of every family (waylay doctor says why)"
            );
        }
        here
    }

    #[test]
    fn names_each_that_is_refused() {
        let kinds = [PACKET, OLD_PACKET, VSOCK, XDP];
        if is_here() {
            let finished = make(waylay(), &kinds);
            assert_eq!(answers(&finished, "EACCES"), kinds, "{finished:?}");
            assert_eq!(finished.stderr.matches(REFUSED).count(), kinds.len(), "{finished:?}");
            for name in ["an AF_PACKET socket", "an AF_VSOCK socket", "an AF_XDP socket"] {
                assert!(finished.stderr.contains(name), "{name}: {finished:?}");
            }
        }
    }

    /// A socket that it makes is refused and named as any other, and what is redirected goes through.
    #[test]
    fn takes_no_io_uring_away() {
        if is_here() {
            let probe = Waylay::binary().with_file_name("netlab-uring");
            let probe = probe.to_str().unwrap();
            let refused = waylay().watch([probe, "socket", "40", "1"]).well();
            assert_eq!(refused.stdout, "EACCES\n", "{refused:?}");
            assert!(refused.stderr.contains("an AF_VSOCK socket"), "{refused:?}");
            let server =
                waylay_netlab::TcpServer::start(std::net::Ipv4Addr::LOCALHOST.into(), |mut stream| {
                    std::io::Write::write_all(&mut stream, b"hello")
                });
            let to = server.address();
            let connected =
                waylay().through_logs(1).watch([probe, "connect", "plain", &to.to_string()]).well();
            assert_eq!(
                connected.stdout,
                format!("hello {} {} 127.0.0.1\n", to.ip(), to.port()),
                "{connected:?}"
            );
            assert_eq!(connected.report_of("log").original_destination, to);
        }
    }
}

/// What io_uring makes is asked about like all else.
#[test]
fn that_io_uring_makes_are_refused_too() {
    let probe = Waylay::binary().with_file_name("netlab-uring");
    let finished = waylay().watch([probe.to_str().unwrap(), "socket", "40", "1"]);
    assert!(finished.stdout.contains("EACCES") || finished.stdout.contains("ENOSYS"), "{finished:?}");
}

mod programs {
    use super::*;

    /// As any user: the kernel permits it here, in a namespace of the test's own.
    #[test]
    fn such_as_ping_are_refused() {
        let ground = Ground::new(waylay_netlab::Family::V4, waylay_netlab::Place::Veth);
        ground.client_namespace().unwrap().sysctl("net/ipv4/ping_group_range", "0 2147483647");
        let ping = ["ping", "-c", "1", "-W", "5", "10.77.0.2"];
        let permitted = ground.waylay().args(["--unredirectable", "permit"]).watch(ping).well();
        assert!(permitted.stdout.contains("1 received"), "{permitted:?}");
        let refused = ground.waylay().watch(ping);
        assert_ne!(refused.code(), 0, "{refused:?}");
        assert!(refused.stderr.contains("(ICMP): refused with EACCES"), "{refused:?}");
    }

    /// Without Debian's tcpdump, what it does: a packet socket, and reading from it.
    #[test]
    fn that_are_static_are_refused_too() {
        let finished =
            waylay().watch(["busybox", "udhcpc", "-f", "-n", "-q", "-t", "1", "-T", "1", "-i", "lo"]);
        assert_ne!(finished.code(), 0, "{finished:?}");
        assert!(finished.stderr.to_lowercase().contains("denied"), "{finished:?}");
    }
}

/// What holds where the kernel does not ask programs about every family.
mod a_seccomp_filter {
    use super::*;

    /// The launcher's stage by itself, as `waylay run` starts it on such a kernel.
    fn launched(program: &[&str]) -> (String, String) {
        let fence = Fence::new();
        let launch = serde_json::json!({
            "cgroup": fence.path(),
            "identity": null,
            "role": "Command",
            "own_binary": false,
            "families": "Filtered",
        });
        let output = Command::new(Waylay::binary())
            .args(["__launch", &launch.to_string(), "--"])
            .args(program)
            .output()
            .unwrap();
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    }

    #[test]
    fn refuses_other_families_and_nothing_else() {
        let refused = [&[PACKET, OLD_PACKET, VSOCK, XDP][..], &OTHERS].concat();
        let kinds = [&refused[..], &LOCAL, &REDIRECTABLE, &[UDP_LITE, RAW_IP]].concat();
        let (stdout, stderr) = launched(&[&[system_python(), "-c", MAKE], &kinds[..]].concat());
        let passed = plainly(&kinds[refused.len()..]);
        let refused: String = refused.iter().map(|kind| format!("{kind} EACCES\n")).collect();
        assert_eq!(stdout, refused + &passed, "{stderr}");
    }

    #[test]
    fn leaves_a_program_without_io_uring() {
        let probe = Waylay::binary().with_file_name("netlab-uring");
        let (stdout, stderr) = launched(&[probe.to_str().unwrap(), "socket", "40", "1"]);
        assert_eq!(stdout, "setup ENOSYS\n", "{stderr}");
    }
}

fn doctor_knows(feature: &str) -> bool {
    let output = Command::new(Waylay::binary()).args(["doctor", "-o", "json"]).output().unwrap();
    let diagnosis: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let capabilities = diagnosis["capabilities"].as_array().unwrap();
    let found = capabilities.iter().find(|capability| capability["name"] == feature).unwrap();
    found["available"].as_bool().unwrap()
}

/// A machine of CI has it on; what this guards is that nobody takes the test for more than it is.
#[test]
fn of_every_family_are_asked_about_where_the_kernel_says_so() {
    let modules = fs::read_to_string("/sys/kernel/security/lsm");
    if let Ok(modules) = modules {
        let listed = modules.split(',').any(|module| module.trim() == "bpf");
        assert_eq!(doctor_knows("refuse-families"), listed, "{modules}");
    }
}

/// Datagrams to several hosts at once, which no service can stand in for.
mod datagrams_to_a_group {
    use waylay_netlab::{Family, Place};

    use super::*;

    const SEND: &str = "
import errno, socket, sys
for group in sys.argv[1:]:
    family = socket.AF_INET6 if ':' in group else socket.AF_INET
    for connected in False, True:
        s = socket.socket(family, socket.SOCK_DGRAM)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        to = (group, 5353, 0, socket.if_nametoindex('wire')) if ':' in group else (group, 5353)
        try:
            if connected:
                s.connect(to)
                s.send(b'x')
            else:
                s.sendto(b'x', to)
            print('sent')
        except OSError as error:
            print(errno.errorcode[error.errno])
";
    const GROUPS: [&str; 4] = ["224.0.0.251", "255.255.255.255", "10.77.0.255", "ff02::fb"];

    fn send(arguments: &[&str]) -> Finished {
        let ground = Ground::new(Family::V4, Place::Veth);
        ground.client_namespace().unwrap().ip(&["route", "add", "default", "via", "10.77.0.2"]);
        let command = [&[system_python(), "-c", SEND][..], &GROUPS].concat();
        ground.waylay().args(arguments).reporting().watch(command).well()
    }

    #[test]
    fn are_refused_and_named() {
        let finished = send(&[]);
        assert_eq!(finished.stdout, "EACCES\n".repeat(8), "{finished:?}");
        for group in ["224.0.0.251:5353", "255.255.255.255:5353", "10.77.0.255:5353", "[ff02::fb]:5353"] {
            assert!(finished.stderr.contains(group), "{group}: {finished:?}");
        }
        assert_eq!(finished.stderr.matches("it cannot be redirected").count(), 8, "{finished:?}");
    }

    #[test]
    fn are_sent_if_that_is_asked_for() {
        let finished = send(&["--unredirectable", "permit"]);
        assert_eq!(finished.stdout, "sent\n".repeat(8), "{finished:?}");
        assert_eq!(finished.reports(), []);
    }
}

/// What stays open: the hooks are those of the cgroup in which socket() was called.
#[test]
fn that_a_process_outside_makes_and_hands_over_are_not_inspected() {
    const OUTSIDE: &str = "
import array, socket, sys
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
print('ready', flush=True)
peer, _ = listener.accept()
made = socket.socket()
peer.sendmsg([b'x'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [made.fileno()]))])
peer.recv(1)
";
    const INSIDE: &str = "
import array, socket, sys
here = socket.socket(socket.AF_UNIX)
here.connect(sys.argv[1])
_, rights, _, _ = here.recvmsg(1, 64)
stream = socket.socket(fileno=array.array('i', rights[0][2][:4])[0])
stream.connect(('127.0.0.1', int(sys.argv[2])))
print(stream.recv(5, socket.MSG_WAITALL).decode())
";
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path().join("socket").display().to_string();
    let (_outside, lines) =
        waylay_netlab::Process::spawn_read(Command::new(system_python()).args(["-c", OUTSIDE, &at]));
    lines.wait_for("ready");
    let server = waylay_netlab::TcpServer::start(std::net::Ipv4Addr::LOCALHOST.into(), |mut stream| {
        std::io::Write::write_all(&mut stream, b"hello")
    });
    let port = server.address().port().to_string();
    let finished = waylay().watch([system_python(), "-c", INSIDE, &at, &port]).well();
    assert_eq!(finished.stdout, "hello\n");
    assert_eq!(finished.reports(), []);
}
