//! Adopted services that die, hang, fork, and outlive who started them.

use std::{
    io::{Read, Write},
    net::Ipv4Addr,
    path::Path,
    process::Command,
    time::Duration,
};

use rustix::process::Signal;
use waylay_netlab::{Ground, Proxies, Proxy, Running, TcpServer, Waylay, kill, patiently, stop};

fn greeter() -> TcpServer {
    TcpServer::start(Ipv4Addr::LOCALHOST.into(), |mut stream| stream.write_all(b"hello"))
}

fn dial(server: &TcpServer) -> String {
    format!("dial 127.0.0.1 {}", server.address().port())
}

fn through(spec: &str, rest: &[&str]) -> Running {
    Ground::loopback().waylay().args(["--through", spec]).args(rest).spawn_dialler()
}

#[test]
fn one_that_dies_is_gone_to_the_failure_policy() {
    let proxies = Proxies::new(None);
    for (policy, answer) in [("closed", "ECONNREFUSED"), ("open", "ok")] {
        let server = greeter();
        let mut run = through(&proxies.spec(Proxy::Haproxy), &["--on-failure", policy]);
        assert_eq!(run.ask(&dial(&server)), "ok");
        kill(run.service("haproxy"), Signal::KILL);
        let line = run.stderr().wait_for("the service haproxy ended with signal 9");
        assert!(line.contains(policy), "{line}");
        assert_eq!(run.ask(&dial(&server)), answer);
        run.finish().well();
    }
}

/// Its first process ends, and another serves on: what counts is its cgroup.
#[test]
fn one_that_goes_into_the_background_serves_until_its_last_process_has_ended() {
    let (server, proxies) = (greeter(), Proxies::new(None));
    let spec = proxies.spec(Proxy::Haproxy).replace(" -db ", " -D ");
    let mut run = through(&spec, &[]);
    assert_eq!(run.ask(&dial(&server)), "ok");
    kill(run.service("haproxy"), Signal::KILL);
    run.stderr()
        .wait_for("all processes of the service haproxy have ended; new connections are refused (closed)");
    assert_eq!(run.ask(&dial(&server)), "ECONNREFUSED");
    run.finish().well();
}

#[test]
fn one_in_the_background_is_ended_with_the_run() {
    let (server, proxies) = (greeter(), Proxies::new(None));
    let mut run = through(&proxies.spec(Proxy::Haproxy).replace(" -db ", " -D "), &[]);
    assert_eq!(run.ask(&dial(&server)), "ok");
    let instance = run.instance();
    let finished = run.finish().well();
    assert!(instance.is_gone());
    assert_eq!(finished.stderr, "");
}

/// With waylay gone nobody would end what has no parent.
#[test]
fn one_in_the_background_is_ended_by_the_next_run_after_waylay_was_killed() {
    let (server, proxies) = (greeter(), Proxies::new(None));
    let mut run = through(&proxies.spec(Proxy::Haproxy).replace(" -db ", " -D "), &[]);
    assert_eq!(run.ask(&dial(&server)), "ok");
    let instance = run.instance();
    run.kill();
    run.close_input();
    patiently("the end of the command", || instance.pids("app").is_empty().then_some(()));
    let next = Command::new(Waylay::binary()).args(["run", "--", "true"]).output().unwrap();
    assert!(next.status.success(), "{next:?}");
    assert!(instance.is_gone());
}

#[test]
fn one_that_hangs_is_ended() {
    let (server, proxies) = (greeter(), Proxies::new(None));
    let mut run = through(&proxies.spec(Proxy::Haproxy), &["--patience", "1"]);
    assert_eq!(run.ask(&dial(&server)), "ok");
    stop(run.service("haproxy"));
    let answer = run.ask(&dial(&server));
    assert!(answer.ends_with("ECONNRESET"), "{answer}");
    run.stderr().wait_for("haproxy has taken no connection for 1 s while some waited; ending it");
    assert_eq!(run.ask(&dial(&server)), "ECONNREFUSED");
    run.finish().well();
}

/// The proxy would drop what it has when it is told to end, and the server reads nothing before the command has ended.
#[test]
fn what_the_command_sends_last_still_arrives() {
    const SEND: &str = "
import os, socket, sys
s = socket.create_connection(('127.0.0.1', int(sys.argv[1])))
s.sendall(b'%08d' % os.getpid())
for _ in range(32): s.sendall(b'x' * 65536)
";
    let (told, heard) = std::sync::mpsc::channel();
    let server = TcpServer::start(Ipv4Addr::LOCALHOST.into(), move |mut stream| {
        let mut pid = [0; 8];
        stream.read_exact(&mut pid)?;
        let process = format!("/proc/{}", String::from_utf8_lossy(&pid).trim_start_matches('0'));
        patiently("the end of the command", || (!Path::new(&process).exists()).then_some(()));
        let bytes = std::io::copy(&mut stream, &mut std::io::sink());
        told.send(bytes.ok()).map_err(std::io::Error::other)
    });
    let proxies = Proxies::new(None);
    for proxy in Proxy::ALL {
        let port = server.address().port().to_string();
        let spec = proxies.spec(proxy);
        Ground::loopback()
            .waylay()
            .args(["--through", &spec])
            .watch(["/usr/bin/python3", "-c", SEND, &port])
            .well();
        assert_eq!(heard.recv_timeout(Duration::from_secs(60)).unwrap(), Some(32 * 65536), "{proxy:?}");
    }
}

#[test]
fn one_has_no_privilege_and_a_user_of_its_own() {
    let (server, proxies) = (greeter(), Proxies::new(None));
    let mut run = through(&proxies.spec(Proxy::Haproxy), &[]);
    assert_eq!(run.ask(&dial(&server)), "ok");
    let status = std::fs::read_to_string(format!("/proc/{}/status", run.service("haproxy"))).unwrap();
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim();
    assert_eq!(field("NoNewPrivs:"), "1");
    assert!(["CapEff:", "CapPrm:"].iter().all(|set| field(set) == "0000000000000000"));
    let uid: u32 = field("Uid:").split_whitespace().next().unwrap().parse().unwrap();
    assert!(uid >= 1_900_000_000, "{uid}");
    run.finish().well();
}
