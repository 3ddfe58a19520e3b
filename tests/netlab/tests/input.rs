//! What is typed wrong, what is missing, and who tries to get past.

#![expect(clippy::unwrap_used, reason = "a failed set-up is a failed test")]

use std::{
    fs,
    io::Write,
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::Command,
};

use rustix::process::Signal;
use tempfile::TempDir;
use waylay_netlab::{
    Fence, Ground, Running, TcpServer, Waylay, cgroup_file_system, kill, patiently, waiting_for,
};

fn waylay() -> Waylay {
    Ground::loopback().waylay()
}

fn greeter() -> TcpServer {
    TcpServer::start(Ipv4Addr::LOCALHOST.into(), |mut stream| stream.write_all(b"hello"))
}

fn dial(server: &TcpServer) -> String {
    format!("dial 127.0.0.1 {}", server.address().port())
}

mod arguments {
    use super::*;

    #[test]
    fn an_unknown_service_lists_the_known_ones() {
        let finished = waylay().args(["--through", "lgo"]).watch(["true"]);
        assert_eq!(finished.code(), 2);
        let wanted = ["'lgo'", "is log meant?", "known services: log, scan, exec:COMMAND"];
        assert!(wanted.iter().all(|part| finished.stderr.contains(part)), "{finished:?}");
    }

    #[test]
    fn an_unknown_name_to_forget_lists_the_known_ones() {
        let finished = waylay().through_logs(2).args(["--forget", "log-3"]).watch(["true"]);
        let line = finished.refused_in_a_line();
        assert!(line.contains("--forget log-3") && line.contains("it has log, log-2"), "{line}");
    }

    #[test]
    fn an_unknown_user_is_named() {
        let finished = waylay().args(["--user", "no-such-user"]).watch(["true"]);
        assert!(finished.refused_in_a_line().contains("\"no-such-user\""), "{finished:?}");
    }

    #[test]
    fn a_log_that_cannot_be_written_is_named_and_nothing_runs() {
        let finished = waylay().args(["--log", "missing/connections.json"]).watch(["touch", "ran"]);
        let line = finished.refused_in_a_line();
        assert!(line.contains("missing/connections.json") && line.contains("No such file"), "{line}");
        assert!(!finished.directory().join("ran").exists());
    }

    #[test]
    fn patterns_that_cannot_be_looked_for_are_named_and_nothing_runs() {
        let long = format!("--pattern={}", "a".repeat(65_537));
        for (arguments, words) in [
            (&["--pattern", "x"][..], "add --through scan"),
            (&["--through", "scan", "--pattern", ""], "an empty pattern matches everything"),
            (
                &["--through", "scan", "--pattern", "@missing"],
                "--pattern @missing: cannot read it: No such file",
            ),
            (&["--through", "scan", &long], "at most 65536"),
        ] {
            let finished = waylay().args(arguments).watch(["touch", "ran"]);
            let line = finished.refused_in_a_line();
            assert!(line.contains(words), "{line}");
            assert!(!finished.directory().join("ran").exists());
        }
    }

    #[test]
    fn without_a_command_there_is_nothing_to_run() {
        let finished = waylay().finish();
        assert_eq!(finished.code(), 2);
        assert!(finished.stderr.contains("Usage: waylay run"), "{finished:?}");
    }
}

mod reports {
    use super::*;
    use waylay_netlab::Report;

    #[test]
    fn go_to_standard_output_as_json() {
        let server = greeter();
        let finished = waylay().through_logs(2).args(["-o", "json"]).watch(greet(&server)).well();
        let reports = Report::parse_all(&finished.stdout);
        assert_eq!(reports.len(), 2, "{finished:?}");
        assert!(reports.iter().all(|report| report.original_destination == server.address()), "{reports:#?}");
        assert_eq!(finished.stderr, "");
    }

    #[test]
    fn go_to_standard_error_in_words() {
        let server = greeter();
        let finished = waylay().watch(greet(&server)).well();
        assert_eq!((finished.stdout.as_str(), finished.stderr.lines().count()), ("", 1), "{finished:?}");
        let line = finished.stderr.trim();
        let wanted = ["log  bash[", &format!("→ {}  server-first", server.address()), "↓ 5 B", "via log"];
        assert!(wanted.iter().all(|part| line.contains(part)), "{line}");
    }

    #[test]
    fn go_to_a_file_for_its_owner_alone_that_is_appended_to() {
        let (server, directory) = (greeter(), TempDir::new().unwrap());
        let log = directory.path().join("connections.json");
        for runs in 1..=2 {
            let args = ["-o", "json", "--log", log.to_str().unwrap()];
            let finished = waylay().args(args).watch(greet(&server)).well();
            assert_eq!((finished.stdout, finished.stderr), (String::new(), String::new()));
            assert_eq!(fs::metadata(&log).unwrap().permissions().mode() & 0o777, 0o600);
            assert_eq!(Report::parse_all(&fs::read_to_string(&log).unwrap()).len(), runs);
        }
    }

    fn greet(server: &TcpServer) -> [String; 3] {
        let port = server.address().port();
        let greet = format!("exec 3<>/dev/tcp/127.0.0.1/{port}; read -n 5 <&3; test $REPLY = hello");
        ["bash".into(), "-c".into(), greet]
    }
}

mod missing {
    use super::*;

    /// Runs a shell script, `$0` being the waylay binary, in a mount namespace and a cgroup of its own.
    fn in_a_private_place(fence: &Fence, script: &str) -> Waylay {
        let mut command = Command::new("unshare");
        let enter = format!("echo 0 > {}/cgroup.procs && mount -t tmpfs none /run", fence.path().display());
        command.args(["--mount", "sh", "-c", &format!("{enter} && {script}")]).arg(Waylay::binary());
        Waylay::within(command)
    }

    #[test]
    fn root_is_asked_for() {
        let directory = TempDir::new().unwrap();
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).unwrap();
        let binary = directory.path().join("waylay");
        fs::copy(Waylay::binary(), &binary).unwrap();
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid", "65534", "--regid", "65534", "--clear-groups"])
            .arg(binary)
            .args(["run", "--engine", "ebpf", "--", "true"]);
        let finished = Waylay::within(command).finish();
        assert!(finished.refused_in_a_line().contains("sudo waylay run"), "{finished:?}");
    }

    #[test]
    fn cgroup2_is_asked_for() {
        let fence = Fence::new();
        let script =
            format!("umount {} && exec \"$0\" run --engine ebpf -- true", cgroup_file_system().display());
        let finished = in_a_private_place(&fence, &script).finish();
        assert!(finished.refused_in_a_line().contains("mount -t cgroup2"), "{finished:?}");
        assert!(fence.is_empty());
    }

    #[test]
    fn capabilities_are_asked_for_and_nothing_stays() {
        // It mounts the BPF file system where nobody has yet, which those without a privilege cannot.
        waylay().watch(["true"]).well();
        for missing in ["-bpf,-sys_admin", "-net_admin,-sys_admin", "-perfmon,-sys_admin"] {
            let fence = Fence::new();
            let script = format!(
                "setpriv --bounding-set {missing} \"$0\" run --engine ebpf -- true; code=$?; ls /run/waylay; exit $code"
            );
            let finished = in_a_private_place(&fence, &script).finish();
            assert!(finished.refused_in_a_line().contains("CAP_BPF"), "without {missing}: {finished:?}");
            assert_eq!(finished.stdout, "", "without {missing}, a record stays");
            assert!(fence.is_empty(), "without {missing}, a cgroup stays");
        }
    }
}

mod programs {
    use super::*;

    fn through(service: &str) -> Running {
        waylay().args(["--through", service]).reporting().spawn_dialler()
    }

    /// Such a service serves nobody, and the command is told so.
    fn is_absent(service: &str, name: &str, how: &str) {
        let server = greeter();
        let mut run = through(service);
        let line = run.stderr().wait_for(" ended with ");
        assert!(line.contains(&format!("the service {name} ended with {how}")), "{line}");
        assert_eq!(run.ask(&dial(&server)), "ECONNREFUSED");
        assert_eq!(server.accepted(), 0);
        run.finish().well();
    }

    #[test]
    fn that_do_not_exist_serve_nobody() {
        is_absent("exec:/no/such/program --option", "program", "exit status 127");
    }

    #[test]
    fn that_end_at_once_serve_nobody() {
        is_absent("exec:sh -c 'exit 5'", "sh", "exit status 5");
    }

    #[test]
    fn may_have_names_of_any_characters() {
        for name in ["my.service", "mein Dienst", "ä-1_(2)"] {
            let directory = tempfile::Builder::new().permissions(everyone()).tempdir().unwrap();
            let program = directory.path().join(name);
            std::fs::write(&program, "#!/bin/sh\nexec sleep 1000\n").unwrap();
            std::fs::set_permissions(&program, everyone()).unwrap();
            let spec = format!("exec:\"{}\"", program.display());
            waylay().args(["--through", &spec]).watch(["true"]).well();
        }
    }

    fn everyone() -> std::fs::Permissions {
        std::os::unix::fs::PermissionsExt::from_mode(0o755)
    }

    const SILENT: &str = "exec:sh -c 'echo listening on $WAYLAY_LISTEN; exec sleep 1000'";

    /// Where a service listens that says so.
    fn listeners(run: &Running) -> Vec<SocketAddr> {
        let line = run.stderr().wait_for("listening on ");
        let (_, addresses) = line.split_once("listening on ").unwrap();
        addresses.split(',').map(|address| address.parse().unwrap()).collect()
    }

    #[test]
    fn that_do_not_accept_hold_connections_up_but_let_none_past() {
        let server = greeter();
        let mut run = through(SILENT);
        let listeners = listeners(&run);
        run.tell(&dial(&server));
        patiently("a connection in the backlog", || {
            listeners.iter().any(|&listener| waiting_for(listener) > 0).then_some(())
        });
        assert_eq!(server.accepted(), 0);
        kill(run.service("sh"), Signal::KILL);
        // connect() itself says so if the reset is faster than the application wakes.
        let answer = run.answer();
        assert!(answer.ends_with("ECONNRESET"), "{answer}");
        assert_eq!(server.accepted(), 0);
        run.finish().well();
    }

    #[test]
    fn cannot_be_dialled_past_the_engine() {
        let mut run = through(SILENT);
        for listener in one_a_family(&listeners(&run)) {
            refused(&mut run, &listener.ip().to_string(), listener.port());
            if listener.is_ipv4() {
                refused(&mut run, &format!("::ffff:{}", listener.ip()), listener.port());
            }
        }
        let finished = run.finish().well();
        assert_eq!(finished.stderr.matches("was dialled past the engine").count(), 3, "{finished:?}");
    }

    fn one_a_family(listeners: &[SocketAddr]) -> [SocketAddr; 2] {
        let of = |family: fn(&SocketAddr) -> bool| *listeners.iter().find(|address| family(address)).unwrap();
        [of(SocketAddr::is_ipv4), of(SocketAddr::is_ipv6)]
    }

    fn refused(run: &mut Running, host: &str, port: u16) {
        assert_eq!(run.ask(&format!("dial {host} {port}")), "ECONNREFUSED", "{host}");
    }
}

#[test]
fn the_binary_can_be_replaced_while_it_runs() {
    let directory = TempDir::new().unwrap();
    let binary: PathBuf = directory.path().join("waylay");
    fs::copy(Waylay::binary(), &binary).unwrap();
    let mut command = Command::new(&binary);
    command.args(["run"]);
    let server = greeter();
    let mut run = Waylay::within(command).spawn_dialler();
    assert_eq!(run.ask(&dial(&server)), "ok");
    fs::remove_file(&binary).unwrap();
    assert_eq!(run.ask(&dial(&server)), "ok");
    run.finish().well();
}
