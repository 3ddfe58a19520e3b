//! Proxies of a user who has no privilege: the rest of this suite has what else holds for them (`SUBJECT=seccomp`).

use std::{io::Write, net::Ipv4Addr, path::Path};

use rustix::process::Signal;
use waylay_netlab::{Family, Place, Proxies, Proxy, TcpServer, Waylay, kill, patiently};

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
    let mut run = Waylay::run_without_root(None).args(["--through", &spec]).spawn_dialler();
    let dial = format!("dial 127.0.0.1 {}", server.address().port());
    assert_eq!(run.ask(&dial), "ok");
    let master = run.service("sh");
    let workers = || {
        let children = std::fs::read_to_string(format!("/proc/{master}/task/{master}/children"));
        children.unwrap_or_default().split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    let workers = patiently("a worker", || Some(workers()).filter(|workers| !workers.is_empty()));
    kill(master, Signal::KILL);
    run.stderr().wait_for("the service haproxy ended with signal 9");
    assert!(run.ask(&dial).ends_with("ECONNREFUSED"));
    run.finish().well();
    assert!(workers.iter().all(|pid| !Path::new("/proc").join(pid).exists()), "{workers:?}");
    assert_eq!(server.accepted(), 1);
}
