//! Datagrams through proxies that tell somebody else where these were going, and see it in the datagrams themselves.

use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};

use waylay_engine_ebpf::{HookedProgram, hooked_to_loopback};
use waylay_netlab::{
    Family, Finished, Ground, Namespace, Place, Process, Proxies, Waylay, free_port, patiently, system_python,
};

use crate::{
    datagrams,
    tproxy::{ASK, One, serve},
};

/// What the services around a proxy see: of the first, a flow for each socket and destination; of the last, the proxy's own.
fn judge(finished: &Finished, ground: &Ground, flows: usize, program: &str) {
    assert_eq!(finished.reports_of("log").len(), flows, "{finished:?}");
    let last = finished.reports_of("log-2");
    assert!(!last.is_empty(), "{finished:?}");
    for report in last {
        assert_eq!(report.chain, ["log-2"]);
        assert_eq!(report.original_destination.ip(), ground.server(), "no token: {report:?}");
        assert!(report.application.contains(program), "{report:?}");
    }
}

/// Each datagram arrives and each answer, on twelve flows, from whom the application has asked.
fn pass(spec: &str, ground: &Ground, program: &str) -> Finished {
    let (_server, _lines, ports) = serve(ground);
    let host = ground.server().to_string();
    let ask = [system_python(), "-c", ASK, &host, &ports[0], &ports[1]];
    let through = ["--through", "log", "--through", spec, "--through", "log"];
    let finished = ground.waylay().args(through).reporting().watch(ask).well();
    assert_eq!(finished.stdout, "all of them\n", "{finished:?}");
    judge(&finished, ground, 12, program);
    finished
}

/// A server that has to be told where datagrams are going, on the servers' host.
struct Remote {
    ground: Ground,
    proxies: Proxies,
    at: SocketAddrV4,
    _server: Process,
}

impl Remote {
    fn new() -> Self {
        let ground = Ground::new(Family::V4, Place::Veth);
        let proxies = Proxies::new(ground.client_namespace());
        let at = SocketAddrV4::new(of_ipv4(ground.server()), free_port());
        let server = proxies.ss_server(ground.server_namespace().unwrap(), at);
        Self { ground, proxies, at, _server: server }
    }
}

fn of_ipv4(address: IpAddr) -> Ipv4Addr {
    match address {
        IpAddr::V4(address) => address,
        IpAddr::V6(address) => panic!("{address}"),
    }
}

#[test]
fn ss_redir_tells_its_server_where_they_were_going() {
    let remote = Remote::new();
    pass(&remote.proxies.ss_redir(remote.at), &remote.ground, "ss-redir");
}

#[test]
fn sing_box_tells_a_server_where_they_were_going() {
    let remote = Remote::new();
    pass(&remote.proxies.sing_box_for_datagrams(remote.at), &remote.ground, "sing-box");
}

/// Two destinations of one socket, and a datagram without a byte.
#[test]
fn of_no_length_pass_ss_redir() {
    let remote = Remote::new();
    let (_server, lines) =
        Process::spawn_read(remote.ground.server_namespace().unwrap().command(system_python()).args([
            "-u",
            "-c",
            datagrams::ECHO,
            &remote.ground.server().to_string(),
        ]));
    let ports = lines.wait_for_line(0);
    let ports: Vec<&str> = ports.split(' ').collect();
    let host = remote.ground.server().to_string();
    let ask = [system_python(), "-c", datagrams::ASK, &host, ports[0], ports[1]];
    let spec = remote.proxies.ss_redir(remote.at);
    let through = ["--through", "log", "--through", &spec, "--through", "log"];
    let finished = remote.ground.waylay().args(through).reporting().watch(ask).well();
    let once = format!("{} 1000 True\n{} 1000 True\n", ports[0], ports[1]);
    let connected = format!("{0} 0 {0} 1400 True\n", ports[0]);
    assert_eq!(finished.stdout, format!("{once}{once}{connected}"), "{finished:?}");
    judge(&finished, &remote.ground, 3, "ss-redir");
}

#[test]
fn a_proxy_answers_from_where_it_was_told_they_were_going() {
    pass(&One::that("sends").told(), &Ground::new(Family::V4, Place::Veth), "python");
}

/// Unlike with tokens nothing is refused first.
#[test]
fn a_proxy_may_connect_what_it_answers_from() {
    let ground = Ground::new(Family::V4, Place::Veth);
    let finished = pass(&One::that("connects").told(), &ground, "python");
    assert_eq!(finished.stderr.matches("again").count(), 0, "{finished:?}");
}

/// The engine's programs on a namespace's loopback.
fn on_loopback(namespace: &Namespace) -> usize {
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| {
            namespace.enter();
            let is_ours = |program: &HookedProgram| program.name.as_deref() == Some("wl_packets");
            hooked_to_loopback().unwrap().iter().filter(|program| is_ours(program)).count()
        });
        asked.join().unwrap()
    })
}

fn said_by_doctor(namespace: &Namespace) -> usize {
    let told = namespace
        .command(Waylay::binary().to_str().unwrap())
        .args(["doctor", "-o", "json"])
        .output()
        .unwrap();
    let told: serde_json::Value = serde_json::from_slice(&told.stdout).unwrap();
    usize::try_from(told["facts"]["in_packets"].as_u64().unwrap()).unwrap()
}

/// On a kernel that lacks the hook the rest of waylay is as it is, and such a service is refused.
#[test]
fn a_kernel_without_the_hook_is_said_to_lack_it() {
    let (proxy, ground) = (One::that("sends"), Ground::new(Family::V4, Place::Veth));
    let finished = ground.waylay().args(["--through", &proxy.told()]).watch(["true"]);
    match hooked_to_loopback() {
        Ok(_) => assert!(finished.status.success(), "{finished:?}"),
        Err(_) => assert!(finished.stderr.contains("Linux 6.6 or later is needed"), "{finished:?}"),
    }
    let without = ground.waylay().args(["--through", &proxy.started()]).watch(["true"]);
    assert!(without.status.success(), "{without:?}");
}

/// Whatever ends the run, a kill included.
#[test]
fn the_program_on_the_loopback_is_there_for_such_services_only_and_goes_with_them() {
    let ground = Ground::new(Family::V4, Place::Veth);
    let namespace = ground.client_namespace().unwrap();
    let proxy = One::that("sends");
    for (spec, expected) in [(proxy.started(), 0), (proxy.told(), 1)] {
        let mut running = ground.waylay().args(["--through", &spec]).spawn_dialler();
        running.instance();
        running.service("proxy");
        patiently("the run", || (on_loopback(namespace) == expected).then_some(()));
        assert_eq!(said_by_doctor(namespace), expected);
        drop(running);
        patiently("its end", || (on_loopback(namespace) == 0).then_some(()));
    }
    let mut running = ground.waylay().args(["--through", &proxy.told()]).spawn_dialler();
    running.instance();
    patiently("the run", || (on_loopback(namespace) == 1).then_some(()));
    running.signal(rustix::process::Signal::KILL);
    patiently("its end", || (on_loopback(namespace) == 0).then_some(()));
}
