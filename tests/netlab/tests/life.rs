//! The life of a run and its end, in order and out of order.

#![expect(clippy::unwrap_used, reason = "a failed set-up is a failed test")]

use std::{
    collections::BTreeSet,
    fs,
    io::{Read, Write},
    net::Ipv4Addr,
    process::Command,
    sync::{Arc, Mutex},
};

use rustix::process::Signal;
use waylay_netlab::{
    Fence, Ground, Instance, Running, TcpServer, Waylay, dialler_of, kill, patiently, python,
};

/// Whom the commands run as, unlike the services.
const ROOT: u32 = 0;

fn waylay() -> Waylay {
    Ground::loopback().waylay()
}

/// Greets, then sends back what it gets.
fn greeter() -> TcpServer {
    TcpServer::start(Ipv4Addr::LOCALHOST.into(), |mut stream| {
        stream.write_all(b"hello")?;
        let mut byte = [0];
        while stream.read(&mut byte)? > 0 {
            stream.write_all(&byte)?;
        }
        Ok(())
    })
}

/// Greets, and notes the users whose processes dial.
fn watchful_greeter() -> (TcpServer, Arc<Mutex<BTreeSet<u32>>>) {
    let users = Arc::new(Mutex::new(BTreeSet::new()));
    let noted = Arc::clone(&users);
    let server = TcpServer::start(Ipv4Addr::LOCALHOST.into(), move |mut stream| {
        noted.lock().unwrap().extend(dialler_of(&stream));
        stream.write_all(b"hello")
    });
    (server, users)
}

/// While something dies, a command that dials without a pause is refused from
/// some moment on, and at no moment does it get past the services.
fn storm(die: impl FnOnce(&mut Running)) {
    let (server, users) = watchful_greeter();
    let mut run = waylay().through_logs(2).spawn_dialler();
    run.tell(&format!("storm 127.0.0.1 {}", server.address().port()));
    patiently("some connections", || (server.accepted() > 20).then_some(()));
    die(&mut run);
    assert_eq!(run.answer(), "refused for good");
    let users = users.lock().unwrap();
    assert!(!users.is_empty() && !users.contains(&ROOT), "the command has dialled itself: {users:?}");
}

fn dial(server: &TcpServer) -> String {
    format!("dial 127.0.0.1 {}", server.address().port())
}

fn open(server: &TcpServer) -> String {
    format!("open 127.0.0.1 {}", server.address().port())
}

mod exit_status {
    use super::*;

    fn of(command: &[&str]) -> i32 {
        waylay().watch(command).code()
    }

    #[test]
    fn of_the_command() {
        assert_eq!(of(&["true"]), 0);
        assert_eq!(of(&["sh", "-c", "exit 3"]), 3);
    }

    #[test]
    fn of_a_command_that_a_signal_ended() {
        assert_eq!(of(&["sh", "-c", "kill -TERM $$"]), 128 + 15);
        assert_eq!(of(&["sh", "-c", "kill -KILL $$"]), 128 + 9);
    }

    #[test]
    fn of_a_command_that_is_not_there() {
        let finished = waylay().watch(["no-such-command"]);
        assert_eq!(finished.code(), 127);
        assert_eq!(finished.stderr, "waylay: no-such-command: command not found\n");
    }

    #[test]
    fn of_a_command_that_cannot_be_executed() {
        let finished = waylay().watch(["/proc/self/status"]);
        assert_eq!(finished.code(), 126);
        assert!(finished.stderr.contains("/proc/self/status: cannot be executed"), "{finished:?}");
    }

    const TRAP: &str = "\
import signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
print('ready', flush=True)
while True:
    signal.pause()
";

    #[test]
    fn of_a_command_that_gets_a_signal_through_waylay() {
        let run = waylay().spawn([python(), "-c", TRAP]);
        run.stdout().wait_for("ready");
        run.signal(Signal::TERM);
        let finished = run.finish();
        assert_eq!(finished.code(), 7, "{finished:?}");
    }

    #[test]
    fn waits_for_a_process_in_the_background() {
        let mut run = waylay().spawn(["sh", "-c", "mkfifo gate; (read go < gate; echo late) & exit 3"]);
        run.stderr().wait_for("waiting for processes it started");
        assert!(run.is_running());
        fs::write(run.directory().join("gate"), "go\n").unwrap();
        let finished = run.finish();
        assert_eq!((finished.code(), finished.stdout.as_str()), (3, "late\n"));
    }

    #[test]
    fn stays_when_a_signal_ends_what_is_in_the_background() {
        let mut run = waylay().spawn(["sh", "-c", "sleep 1000 & exit 3"]);
        run.stderr().wait_for("waiting for processes it started");
        patiently("the end", || {
            let running = run.is_running();
            if running {
                run.signal(Signal::TERM);
            }
            (!running).then_some(())
        });
        assert_eq!(run.finish().code(), 3);
    }
}

mod who {
    use super::*;

    fn output(command: &mut Command) -> String {
        let output = command.output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    #[test]
    fn the_command_is_the_user_asked_for() {
        let finished = waylay()
            .args(["--user", "nobody"])
            .watch(["sh", "-c", "id -u; id -G; echo \"$HOME\"; echo $USER"])
            .well();
        let account = output(Command::new("getent").args(["passwd", "nobody"]));
        let home = account.split(':').nth(5).unwrap();
        let (uid, groups) = (
            output(Command::new("id").args(["-u", "nobody"])),
            output(Command::new("id").args(["-G", "nobody"])),
        );
        assert_eq!(finished.stdout, format!("{uid}\n{groups}\n{home}\nnobody\n"));
    }

    #[test]
    fn services_have_no_privilege_and_a_user_each() {
        let mut run = waylay().through_logs(2).spawn_dialler();
        let server = greeter();
        assert_eq!(run.ask(&dial(&server)), "ok");
        let first = unprivileged_user(run.service("log"));
        let second = unprivileged_user(run.service("log-2"));
        assert_ne!(first, second);
        run.finish().well();
    }

    fn unprivileged_user(pid: u32) -> String {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(&format!("{name}:")));
            line.unwrap_or_else(|| panic!("{name}: {status}"))
                .split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        let uids = field("Uid");
        assert!(uids.iter().all(|uid| uid == &uids[0] && uid != "0"), "{status}");
        assert!(field("Gid").iter().all(|gid| gid != "0"), "{status}");
        assert!(field("Groups").is_empty(), "{status}");
        for set in ["CapEff", "CapPrm", "CapInh", "CapAmb"] {
            assert_eq!(field(set), ["0000000000000000"]);
        }
        assert_eq!(field("NoNewPrivs"), ["1"]);
        uids[0].clone()
    }

    #[test]
    fn two_runs_see_their_own_connections_only() {
        let (server_a, server_b) = (greeter(), greeter());
        let (mut a, mut b) = (waylay().reporting().spawn_dialler(), waylay().reporting().spawn_dialler());
        for _ in 0..3 {
            assert_eq!((a.ask(&dial(&server_a)), b.ask(&dial(&server_b))), ("ok".into(), "ok".into()));
        }
        for (run, server) in [(a, server_a), (b, server_b)] {
            let reports = run.finish().well().reports();
            assert_eq!(reports.len(), 3, "{reports:#?}");
            assert!(
                reports.iter().all(|report| report.original_destination == server.address()),
                "{reports:#?}"
            );
        }
    }
}

#[test]
fn an_orderly_end_leaves_nothing() {
    let server = greeter();
    let port = server.address().port();
    let connect = format!("exec 3<>/dev/tcp/127.0.0.1/{port}; cat /proc/self/cgroup");
    let finished = waylay().through_logs(2).watch(["bash", "-c", &connect]).well();
    let instance = Instance::of_membership(&finished.stdout).unwrap();
    assert!(instance.is_gone(), "{:?} {}", instance.what_stays(), finished.stderr);
    assert_eq!(server.accepted(), 1);
}

/// In a container it may be.
#[test]
fn waylay_may_be_the_first_process() {
    let server = greeter();
    let connect = format!("read -n 5 word < /dev/tcp/127.0.0.1/{}; echo $word", server.address().port());
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--mount-proc"]).arg(Waylay::binary());
    command.args(["run", "--", "bash", "-c", &connect]);
    let finished = Waylay::within(command).finish().well();
    assert_eq!(finished.stdout, "hello\n");
    assert!(finished.stderr.contains("via log"), "{}", finished.stderr);
}

/// The programs take a while to load, in which people change their minds.
#[test]
fn a_signal_during_the_start_leaves_nothing() {
    for signal in [Signal::INT, Signal::TERM] {
        let fence = Fence::new();
        let enter =
            format!("echo $$ > {}/cgroup.procs && exec \"$0\" run -- sleep 1000", fence.path().display());
        let mut command = Command::new("sh");
        command.args(["-c", &enter]).arg(Waylay::binary());
        let run = Waylay::within(command).spawn_as_is();
        patiently("the run's cgroup", || (!fence.is_empty()).then_some(()));
        run.signal(signal);
        let finished = run.finish();
        assert_ne!(finished.code(), 0, "{finished:?}");
        assert!(fence.is_empty(), "{signal:?} leaves {:?}", fence.children());
    }
}

mod killed_waylay {
    use super::*;

    /// The services of a run go with it; its rules stay.
    fn kill_waylay(run: &mut Running) -> Instance {
        let instance = run.instance();
        run.kill();
        patiently("the end of the service", || instance.has_ended("svc-log").then_some(()));
        assert!(instance.is_in_force(), "{instance:?}");
        instance
    }

    /// Once the command has ended, another run removes what is left.
    fn next_run_cleans_up(mut run: Running, instance: &Instance) {
        run.close_input();
        patiently("the end of the command", || instance.has_ended("app").then_some(()));
        waylay().watch(["true"]).well();
        // It may be a run of another test that does so.
        patiently("the clean-up", || instance.is_gone().then_some(()));
    }

    #[test]
    fn leaves_rules_that_refuse() {
        let server = greeter();
        let mut run = waylay().reporting().spawn_dialler();
        assert_eq!(run.ask(&dial(&server)), "ok");
        let instance = kill_waylay(&mut run);
        for _ in 0..5 {
            assert_eq!(run.ask(&dial(&server)), "ECONNREFUSED");
        }
        waylay().watch(["true"]).well();
        assert!(instance.is_in_force(), "another run took the rules away");
        assert_eq!(run.ask(&dial(&server)), "ECONNREFUSED");
        assert_eq!(server.accepted(), 1);
        next_run_cleans_up(run, &instance);
    }

    #[test]
    fn leaves_rules_that_let_pass_if_open() {
        let (server, users) = watchful_greeter();
        let mut run = waylay().args(["--on-failure", "open"]).reporting().spawn_dialler();
        assert_eq!(run.ask(&dial(&server)), "ok");
        assert!(!users.lock().unwrap().contains(&ROOT));
        let instance = kill_waylay(&mut run);
        assert_eq!(run.ask(&dial(&server)), "ok");
        assert_eq!(server.accepted(), 2);
        assert!(users.lock().unwrap().contains(&ROOT), "the command dials itself now");
        assert!(run.reports().len() <= 1, "{:?}", run.reports());
        next_run_cleans_up(run, &instance);
    }

    #[test]
    fn at_no_moment_lets_a_connection_past() {
        storm(Running::kill);
    }

    #[test]
    fn ends_established_connections_with_an_error() {
        let server = greeter();
        let mut run = waylay().through_logs(2).spawn_dialler();
        assert_eq!(run.ask(&open(&server)), "ok");
        assert_eq!(run.ask("ping"), "pong");
        let instance = kill_waylay(&mut run);
        assert_eq!(run.ask("drain"), "ECONNRESET");
        next_run_cleans_up(run, &instance);
    }
}

mod killed_service {
    use super::*;

    fn kill_service(run: &mut Running, name: &str, policy: &str) {
        kill(run.service(name), Signal::KILL);
        let line = run.stderr().wait_for("ended with signal 9");
        assert!(line.contains(&format!("the service {name} ")) && line.contains(policy), "{line}");
    }

    #[test]
    fn is_refused_if_closed() {
        let server = greeter();
        let mut run = waylay().through_logs(2).spawn_dialler();
        assert_eq!(run.ask(&dial(&server)), "ok");
        kill_service(&mut run, "log", "refused (closed)");
        for _ in 0..5 {
            assert_eq!(run.ask(&dial(&server)), "ECONNREFUSED");
        }
        assert_eq!(server.accepted(), 1);
        let stderr = run.finish().well().stderr;
        assert!(stderr.contains("refused with ECONNREFUSED"), "{stderr}");
    }

    #[test]
    fn is_refused_in_the_middle_of_the_chain_too() {
        let server = greeter();
        let mut run = waylay().through_logs(2).reporting().spawn_dialler();
        assert_eq!(run.ask(&dial(&server)), "ok");
        kill_service(&mut run, "log-2", "refused (closed)");
        // connect() itself says so if the reset is faster than the application wakes.
        let answer = run.ask(&dial(&server));
        assert!(answer.ends_with("ECONNRESET"), "{answer}");
        assert_eq!(server.accepted(), 1);
        let reports = run.finish().well().reports_of("log");
        assert_eq!((reports.len(), reports[1].verdict.as_str()), (2, "unreachable"));
        assert!(
            reports[1].error.as_ref().is_some_and(|error| error.contains("ECONNREFUSED")),
            "{reports:#?}"
        );
    }

    #[test]
    fn at_no_moment_lets_a_connection_past() {
        storm(|run| kill(run.service("log"), Signal::KILL));
    }

    #[test]
    fn is_passed_by_if_open() {
        let server = greeter();
        let mut run = waylay().through_logs(2).args(["--on-failure", "open"]).reporting().spawn_dialler();
        assert_eq!(run.ask(&dial(&server)), "ok");
        kill_service(&mut run, "log", "without it (open)");
        assert_eq!(run.ask(&dial(&server)), "ok");
        let finished = run.finish().well();
        let chains: Vec<_> = finished.reports_of("log-2").into_iter().map(|report| report.chain).collect();
        assert_eq!(chains, [vec!["log".to_owned(), "log-2".to_owned()], vec!["log-2".to_owned()]]);
        assert_eq!(server.accepted(), 2);
    }

    #[test]
    fn ends_its_connections_with_an_error() {
        for name in ["log", "log-2"] {
            let server = greeter();
            let mut run = waylay().through_logs(2).spawn_dialler();
            assert_eq!((run.ask(&open(&server)), run.ask("ping")), ("ok".into(), "pong".into()));
            kill_service(&mut run, name, "closed");
            assert_eq!(run.ask("drain"), "ECONNRESET", "{name}");
            run.finish().well();
        }
    }

    #[test]
    fn does_not_touch_another_run() {
        let server = greeter();
        let (mut victim, mut other) = (waylay().spawn_dialler(), waylay().spawn_dialler());
        assert_eq!((victim.ask(&open(&server)), other.ask(&open(&server))), ("ok".into(), "ok".into()));
        kill_service(&mut victim, "log", "closed");
        assert_eq!(victim.ask("drain"), "ECONNRESET");
        assert_eq!((other.ask("ping"), other.ask(&dial(&server))), ("pong".into(), "ok".into()));
        victim.finish().well();
        assert_eq!(other.ask("ping"), "pong");
        let stderr = other.finish().well().stderr;
        assert!(!stderr.contains("ended with"), "{stderr}");
    }
}
