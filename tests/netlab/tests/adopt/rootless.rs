//! Proxies of a user who has no privilege: the rest of this suite has what else holds for them (`SUBJECT=seccomp`).

use std::{io::Write, net::Ipv4Addr, path::Path};

use rustix::process::Signal;
use waylay_netlab::{Family, Place, Proxies, Proxy, TcpServer, Waylay, kill, patiently, system_python};

use super::{Stage, dials_for_itself, log, seen};

#[test]
fn each_takes_its_place_between_services_that_report() {
    for (family, place) in
        [(Family::V4, Place::Veth), (Family::V6, Place::Veth), (Family::V4, Place::Loopback)]
    {
        let stage = Stage::new(family, place);
        for proxy in Proxy::ALL.into_iter().filter(|proxy| family == Family::V4 || proxy.knows_ipv6()) {
            let waylay = Waylay::run_without_root(stage.ground.client_namespace());
            let finished = stage.fetch_by(waylay, &[log(), stage.proxies.spec(proxy), log()]);
            let web = stage.web.address();
            assert_eq!(seen(&finished, "log"), ("curl".to_owned(), web.ip(), web.port()));
            dials_for_itself(&[proxy], &finished, "log-2", &stage);
            assert_eq!(finished.reports().len(), 2, "{finished:?}");
        }
    }
}

/// It has a child, which would serve on without it.
#[test]
fn one_that_is_killed_is_ended_whole_and_nothing_gets_past_it() {
    let server = TcpServer::start(Ipv4Addr::LOCALHOST.into(), |mut stream| stream.write_all(b"hello"));
    let proxies = Proxies::new(None);
    let spec = proxies.spec(Proxy::Haproxy);
    let (name, adopted) = spec.split_once('=').unwrap();
    let (address, command) = adopted.split_once('=').unwrap();
    let spec = format!("{name}={address}=sh -c '{command} & wait'");
    let (waylay, port) = (Waylay::run_without_root(None), server.address().port().to_string());
    let dial = "
import socket, sys
for _ in sys.stdin:
    try:
        print(socket.create_connection(('127.0.0.1', int(sys.argv[1]))).recv(5), flush=True)
    except ConnectionRefusedError:
        print('refused', flush=True)";
    let mut run = waylay.args(["--through", &spec]).spawn([system_python(), "-u", "-c", dial, &port]);
    assert_eq!(run.ask("dial"), "b'hello'");
    let master = run.service("sh");
    let workers = || {
        let children = std::fs::read_to_string(format!("/proc/{master}/task/{master}/children"));
        children.unwrap_or_default().split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    let workers = patiently("a worker", || Some(workers()).filter(|workers| !workers.is_empty()));
    kill(master, Signal::KILL);
    run.stderr().wait_for("the service haproxy ended with signal 9");
    assert_eq!(run.ask("dial"), "refused");
    run.finish().well();
    let is_alive = |pid: &String| {
        // One that has ended may wait for somebody to ask how.
        let stat = std::fs::read_to_string(Path::new("/proc").join(pid).join("stat")).unwrap_or_default();
        stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
    };
    patiently("the end of its child", || (!workers.iter().any(is_alive)).then_some(()));
    assert_eq!(server.accepted(), 1);
}
