//! Sandboxes of somebody else's: cgroups with programs that let their packets pass or not, as systemd's `IPAddressDeny=` makes them.
#![expect(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::{
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    path::Path,
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, Type};
use waylay_core::{
    Conditions, Event, FailurePolicy, Filter, FilterId, Layer, Mark, Policy, Reason, Sandboxes, Service,
    ServiceId,
};
use waylay_engine::{Endpoint, Engine, LocalName};
use waylay_engine_ebpf::Limits;
use waylay_netlab::{Foreign, Ground, Home, Lab, TcpServer, one_service};

const ECONNREFUSED: i32 = 111;
const EACCES: i32 = 13;
const APP: &str = "app/sandboxed";

/// A service for everything, and two cgroups of applications, of which one may become a sandbox.
struct Host {
    lab: Lab,
    four: TcpListener,
    six: TcpListener,
    server: TcpListener,
}

impl Host {
    fn new(name: &str) -> Self {
        Self::with(name, one_service(FailurePolicy::Closed))
    }

    fn with(name: &str, policy: Policy) -> Self {
        let mut lab = Lab::new(name, Limits::default());
        let (four, six) = lab.as_service(1, || {
            (TcpListener::bind((Ipv4Addr::LOCALHOST, 0)), TcpListener::bind((Ipv6Addr::LOCALHOST, 0)))
        });
        let (four, six) = (four.unwrap(), six.unwrap());
        lab.add_cgroup(APP);
        lab.install(&policy, vec![lab.endpoint(1, [&four, &six])]);
        let server = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).unwrap();
        Self { lab, four, six, server }
    }

    fn sandbox(&self) -> std::path::PathBuf {
        self.lab.cgroup(Some(APP))
    }

    fn destinations(&self) -> [SocketAddr; 3] {
        let port = self.server.local_addr().unwrap().port();
        let mapped = Ipv4Addr::LOCALHOST.to_ipv6_mapped();
        [(Ipv4Addr::LOCALHOST, port).into(), (mapped, port).into(), (Ipv6Addr::LOCALHOST, port).into()]
    }

    /// Who has the connections of a process in a cgroup: the service or the server.
    fn is_redirected(&self, cgroup: &str) -> [bool; 3] {
        self.destinations().map(|destination| {
            let _connection = self.lab.inside(cgroup, || TcpStream::connect(destination)).unwrap();
            let doors = [&self.four, &self.six, &self.server];
            doors.into_iter().for_each(|door| door.set_nonblocking(true).unwrap());
            let got = doors.map(|door| door.accept().is_ok());
            assert_eq!(got.iter().filter(|got| **got).count(), 1, "{got:?}");
            !got[2]
        })
    }

    /// Of which it has been told that they stay where they are.
    fn told(&mut self) -> usize {
        let events = self.lab.engine.events(Duration::from_millis(20)).unwrap();
        let of_sandboxes = |event: &&Event| matches!(event, Event::LeftAlone { reason: Reason::Sandbox, .. });
        events.iter().filter(of_sandboxes).count()
    }
}

const ALL: [bool; 3] = [true; 3];
const NONE: [bool; 3] = [false; 3];

#[test]
fn what_is_dialled_in_one_is_not_redirected_and_that_is_said_once_a_cgroup() {
    let mut host = Host::new("sandbox");
    assert_eq!(host.is_redirected(APP), ALL);
    Foreign::EGRESS.attach(&host.sandbox(), "sd_fw_egress");
    assert_eq!(host.is_redirected(APP), NONE, "from the next connection on");
    assert_eq!(host.told(), 1);
    host.lab.add_cgroup("app/sandboxed/below");
    assert_eq!(host.is_redirected("app/sandboxed/below"), NONE);
    assert_eq!(host.told(), 1);
    assert_eq!(host.is_redirected(APP), NONE);
    assert_eq!((host.is_redirected("app"), host.is_redirected("app-2")), (ALL, ALL), "others are");
    assert_eq!(host.told(), 0);
}

/// What would get out of it, if a service dialled for it.
#[test]
fn it_still_keeps_its_own_from_where_they_must_not_go() {
    let host = Host::new("sandbox-kept");
    let destination = host.destinations()[0];
    let port = destination.port().to_string();
    Foreign::EGRESS.attach_with(&host.sandbox(), "sandbox", &[&port]);
    let dial = || TcpStream::connect_timeout(&destination, Duration::from_millis(300));
    host.lab.inside(APP, dial).unwrap_err();
    host.lab.inside("app", dial).unwrap();
}

#[test]
fn a_program_for_what_comes_in_makes_one_too_and_one_for_connections_does_not() {
    let host = Host::new("sandbox-hooks");
    Foreign::CONNECT4.attach(&host.sandbox(), "steer");
    assert_eq!(host.is_redirected(APP), ALL);
    Foreign::INGRESS.attach(&host.sandbox(), "sd_fw_ingress");
    assert_eq!(host.is_redirected(APP), NONE);
}

#[test]
fn what_holds_for_services_too_is_none() {
    let host = Host::new("sandbox-around");
    Foreign::EGRESS.until_replaced().attach(&host.lab.cgroup(None), "around");
    assert_eq!(host.is_redirected(APP), ALL);
    // As many programs as before, but another.
    Foreign::EGRESS.until_replaced().attach(&host.sandbox(), "instead");
    assert_eq!((host.is_redirected(APP), host.is_redirected("app")), (NONE, ALL));
}

#[test]
fn a_policy_overrides_it() {
    let policy = one_service(FailurePolicy::Closed).with_sandboxes(Sandboxes::Overridden);
    let mut host = Host::with("sandbox-over", policy);
    Foreign::EGRESS.attach(&host.sandbox(), "sd_fw_egress");
    assert_eq!(host.is_redirected(APP), ALL);
    assert_eq!(host.told(), 0);
    let raw = || Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4));
    assert_eq!(host.lab.inside(APP, raw).unwrap_err().raw_os_error(), Some(EACCES));
}

/// The service is away and would refuse them.
#[test]
fn datagrams_and_other_sockets_are_left_in_it_as_well() {
    let mut host = Host::new("sandbox-udp");
    let server = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let to = server.local_addr().unwrap();
    let send = || UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().send_to(b"word", to);
    let connect = || UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().connect(to);
    let raw = || Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4));
    let errno = |error: std::io::Error| error.raw_os_error();
    assert_eq!(host.lab.inside(APP, send).map_err(errno), Err(Some(ECONNREFUSED)));
    assert_eq!(host.lab.inside(APP, connect).map_err(errno), Err(Some(ECONNREFUSED)));
    assert_eq!(host.lab.inside(APP, raw).map(drop).map_err(errno), Err(Some(EACCES)));
    Foreign::EGRESS.attach(&host.sandbox(), "sd_fw_egress");
    host.lab.inside(APP, send).unwrap();
    host.lab.inside(APP, connect).unwrap();
    host.lab.inside(APP, raw).unwrap();
    assert_eq!(host.told(), 1);
}

/// The proxy itself is in one, outside of the scope, and is led a connection: what it dials for that stays in its sandbox.
#[test]
fn a_proxy_that_runs_already_does_not_get_out_of_its_own() {
    for is_sandboxed in [false, true] {
        let (mut lab, home) = (Lab::adopting("sandbox-proxy"), Home::new("proxy.service"));
        let proxy = Lab::inside_of(home.directory(), || TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).unwrap();
        let after = lab.as_service(2, || TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).unwrap();
        let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        if is_sandboxed {
            Foreign::EGRESS.attach(home.directory(), "sd_fw_egress");
        }
        lab.adopt(1, home.directory(), Mark::Cgroup).unwrap();
        let cgroup = cgroup_id(home.directory());
        let adopted = Endpoint { cgroup, local_name: LocalName::Listener, ..lab.endpoint(1, [&proxy]) };
        lab.install(&two_services(), vec![adopted, lab.endpoint(2, [&after])]);
        let to = server.local_addr().unwrap();
        let _application = lab.as_application(|| TcpStream::connect(to)).unwrap();
        let _accepted = proxy.accept().unwrap();
        let _dialled = Lab::inside_of(home.directory(), || TcpStream::connect(to)).unwrap();
        [&after, &server].into_iter().for_each(|listener| listener.set_nonblocking(true).unwrap());
        assert_eq!((after.accept().is_ok(), server.accept().is_ok()), (!is_sandboxed, is_sandboxed));
    }
}

/// Services in the scope are in it as well, and this one is not.
#[test]
fn a_proxy_that_runs_already_dials_for_nobody_out_of_one_around_the_scope() {
    let (mut lab, home) = (Lab::adopting("sandbox-scope"), Home::new("proxy.service"));
    let proxy = Lab::inside_of(home.directory(), || TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).unwrap();
    let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    lab.adopt(1, home.directory(), Mark::Cgroup).unwrap();
    let cgroup = cgroup_id(home.directory());
    lab.install(&one_service(FailurePolicy::Closed), vec![Endpoint { cgroup, ..lab.endpoint(1, [&proxy]) }]);
    let dial = || {
        let _stream = lab.as_application(|| TcpStream::connect(server.local_addr().unwrap())).unwrap();
        [&proxy, &server].map(|listener| {
            listener.set_nonblocking(true).unwrap();
            listener.accept().is_ok()
        })
    };
    assert_eq!(dial(), [true, false]);
    Foreign::EGRESS.attach(&lab.cgroup(None), "sd_fw_egress");
    assert_eq!(dial(), [false, true]);
}

fn cgroup_id(directory: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    fs::metadata(directory).unwrap().ino()
}

fn two_services() -> Policy {
    let service = |id| Service {
        id: ServiceId(id),
        name: format!("s{id}"),
        before: Vec::new(),
        after: Vec::new(),
        on_failure: FailurePolicy::Closed,
    };
    let filter = |id| Filter {
        id: FilterId(id),
        weight: 0,
        conditions: Conditions::default(),
        layer: Layer::Redirect { service: ServiceId(id) },
    };
    Policy::new(vec![service(1), service(2)], Vec::new(), vec![filter(1), filter(2)]).unwrap()
}

/// In a cgroup of the command's own making, as a container's is.
#[test]
fn a_run_says_what_stays_in_one_and_what_to_do_about_it() {
    let server = TcpServer::start(Ipv4Addr::LOCALHOST.into(), |mut stream| {
        stream.write_all(b"hello")?;
        while stream.read(&mut [0])? > 0 {}
        Ok(())
    });
    let dial = format!("dial 127.0.0.1 {}", server.address().port());
    let mut run = Ground::loopback().waylay().through_logs(1).reporting().spawn_dialler();
    Foreign::EGRESS.attach(&run.instance().cgroup().join("app"), "sd_fw_egress");
    assert_eq!((run.ask(&dial).as_str(), run.ask(&dial).as_str()), ("ok", "ok"));
    let finished = run.finish().well();
    let said: Vec<&str> = finished.stderr.lines().filter(|line| line.contains("left alone")).collect();
    assert_eq!(said.len(), 1, "{finished:?}");
    let words = "left alone: it is in somebody's sandbox, which a service would dial out of";
    assert!(said[0].contains(words) && said[0].contains("override_sandbox"), "{said:?}");
    assert!(finished.reports().is_empty(), "{finished:?}");
}
