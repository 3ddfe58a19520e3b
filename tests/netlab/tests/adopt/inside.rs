//! Proxies that run already, inside of a scope that is around them, as that of a whole host is.

use std::{
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, TcpListener, TcpStream, UdpSocket},
    os::unix::fs::MetadataExt,
    path::PathBuf,
    process::Command,
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, Type};
use waylay::{query_redirect_chain, query_redirect_context};
use waylay_core::{
    Conditions, FailurePolicy, FileId, Filter, FilterId, Layer, Mark, Policy, Refusal, Service, ServiceId,
};
use waylay_engine::{Endpoint, LocalName};
use waylay_engine_ebpf::{EbpfError, Hook, Limits, hooked};
use waylay_netlab::{
    Dialled, Home, Lab, Lines, Process, Proxies, Proxy, free_port, listens, patiently, system_python,
};

use crate::datagrams::{ASK, ECHO};

const HOME: &str = "proxy.service";
const EACCES: i32 = 13;
const ECONNREFUSED: i32 = 111;

/// The loopback's listeners of a service of the test's own.
struct Listeners {
    four: TcpListener,
    six: TcpListener,
}

impl Listeners {
    fn of(lab: &Lab, service: u32) -> Self {
        lab.as_service(service, || Self {
            four: TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap(),
            six: TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).unwrap(),
        })
    }

    /// The next connection of this destination's family.
    fn take(&self, destination: SocketAddr) -> TcpStream {
        let listener = if destination.is_ipv4() { &self.four } else { &self.six };
        listener.set_nonblocking(true).unwrap();
        let stream = patiently("a connection", || listener.accept().ok()).0;
        stream.set_nonblocking(false).unwrap();
        stream
    }

    fn are_idle(&self) -> bool {
        [&self.four, &self.six].into_iter().all(|listener| {
            listener.set_nonblocking(true).unwrap();
            listener.accept().is_err()
        })
    }
}

/// A service before the proxy and one after it, in a scope around all of them.
struct Host {
    lab: Lab,
    first: Listeners,
    third: Listeners,
    home: PathBuf,
    port: u16,
    _process: Process,
    _lines: Lines,
    _proxies: Proxies,
}

impl Host {
    fn with(proxy: Proxy, mark: impl FnOnce(&Proxies) -> Mark) -> Self {
        let mut lab = Lab::adopting("inside");
        let home = lab.add_cgroup(HOME);
        let proxies = Proxies::new(None);
        let (configuration, port) = proxies.documented(proxy);
        let (process, lines) = Home::start_in(&home, &proxies.command(proxy, port, &configuration));
        patiently("the proxy", || listens(std::process::id(), port).then_some(()));
        let (first, third) = (Listeners::of(&lab, 1), Listeners::of(&lab, 3));
        lab.adopt(2, &home, mark(&proxies)).unwrap();
        let everywhere = proxy == Proxy::Nginx;
        let ip4 = if everywhere { Ipv4Addr::UNSPECIFIED } else { Ipv4Addr::LOCALHOST };
        let ip6 = if everywhere { Ipv6Addr::UNSPECIFIED } else { Ipv6Addr::LOCALHOST };
        let endpoint = Endpoint {
            service: ServiceId(2),
            cgroup: lab.cgroup_id(HOME),
            tcp4: vec![SocketAddrV4::new(ip4, port)],
            tcp6: vec![SocketAddrV6::new(ip6, port, 0, 0)],
            udp4: None,
            udp6: Vec::new(),
            behind6: None,
            local_name: LocalName::Destination,
        };
        let one = |service, listeners: &Listeners| lab.endpoint(service, [&listeners.four, &listeners.six]);
        let endpoints = vec![one(1, &first), endpoint, one(3, &third)];
        lab.install(&policy(&[1, 2, 3]), endpoints);
        Self { lab, first, third, home, port, _process: process, _lines: lines, _proxies: proxies }
    }

    fn new(proxy: Proxy) -> Self {
        Self::with(proxy, |_| Mark::Cgroup)
    }

    fn dial(&self, cgroup: &str, to: SocketAddr) -> TcpStream {
        let stream = self.lab.inside(cgroup, || TcpStream::connect(to)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream
    }

    fn own_listener(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }
}

/// Each of them is led everything.
fn policy(services: &[u32]) -> Policy {
    let service = |&id: &u32| Service {
        id: ServiceId(id),
        name: format!("s{id}"),
        before: Vec::new(),
        after: Vec::new(),
        on_failure: FailurePolicy::Closed,
    };
    let filter = |&id: &u32| Filter {
        id: FilterId(id),
        weight: 0,
        conditions: Conditions::default(),
        layer: Layer::Redirect { service: ServiceId(id) },
    };
    let (services, filters) = services.iter().map(|id| (service(id), filter(id))).unzip();
    Policy::new(services, Vec::new(), filters).unwrap()
}

fn anywhere() -> [SocketAddr; 2] {
    let documentation = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
    [(Ipv4Addr::new(192, 0, 2, 1), 80).into(), (documentation, 80).into()]
}

fn file_of(path: &str) -> FileId {
    let file = fs::metadata(path).unwrap();
    let (major, minor) = (rustix::fs::major(file.dev()), rustix::fs::minor(file.dev()));
    FileId { device: u64::from(major) << 20 | u64::from(minor), inode: file.ino() }
}

/// The application's way is that through the first service, which sets no records either; then the proxy, then the third.
fn takes_its_place(proxy: Proxy) {
    let host = Host::new(proxy);
    for destination in anywhere() {
        let mut application = host.dial("app", destination);
        let mut first = host.first.take(destination);
        assert_eq!(query_redirect_context(&first).unwrap().original_destination(), destination);
        let mut onward = host.dial("svc-1", destination);
        let mut third = host.third.take(destination);
        let context = query_redirect_context(&third).unwrap();
        assert_eq!(context.original_destination(), destination);
        let program = context.application().path.clone();
        assert!(program.ends_with(proxy.name()), "{program:?}");
        let chain = query_redirect_chain(&third).unwrap();
        assert_eq!(chain.iter().map(|hop| hop.service_id).collect::<Vec<_>>(), [3]);
        // What goes in at one end comes out at the other.
        let mut word = [0; 4];
        application.write_all(b"word").unwrap();
        first.read_exact(&mut word).unwrap();
        onward.write_all(&word).unwrap();
        third.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        third.read_exact(&mut word).unwrap();
        assert_eq!(&word, b"word");
    }
    assert!(host.first.are_idle() && host.third.are_idle());
}

#[test]
fn haproxy_takes_its_place_inside_of_the_scope() {
    takes_its_place(Proxy::Haproxy);
}

#[test]
fn nginx_takes_its_place_inside_of_the_scope() {
    takes_its_place(Proxy::Nginx);
}

#[test]
fn what_a_proxy_dials_by_itself_inside_of_the_scope_goes_to_those_after_it_and_never_to_itself() {
    let host = Host::new(Proxy::Haproxy);
    for destination in anywhere() {
        let dialled = [(); 3].map(|()| host.dial(HOME, destination));
        for _ in &dialled {
            host.third.take(destination);
        }
    }
    assert!(host.first.are_idle() && host.third.are_idle());
}

#[test]
fn a_bystander_inside_of_the_scope_is_an_application() {
    let haproxy = |proxies: &Proxies| Mark::Exe(file_of(&proxies.executable(Proxy::Haproxy)));
    let mut host = Host::with(Proxy::Haproxy, haproxy);
    for destination in anywhere() {
        let _bystander = host.dial(HOME, destination);
        host.first.take(destination);
        let _onward = host.dial("svc-1", destination);
        host.third.take(destination);
    }
    let raw = || Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4));
    let refused = host.lab.inside(HOME, raw).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(EACCES));
    assert_eq!(host.lab.refusals(), [Refusal::Unredirectable]);
}

#[test]
fn a_proxy_inside_of_the_scope_may_make_the_sockets_that_services_may() {
    let host = Host::new(Proxy::Haproxy);
    let raw = || Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4));
    host.lab.inside(HOME, raw).unwrap();
}

#[test]
fn its_listener_is_reached_through_the_engine_only_inside_of_the_scope_too() {
    let mut host = Host::new(Proxy::Haproxy);
    let own = host.own_listener();
    for cgroup in ["app", HOME] {
        assert_eq!(host.lab.dial(cgroup, &[own]), [Dialled::Refused(ECONNREFUSED)]);
        assert_eq!(host.lab.refusals(), [Refusal::ListenerDialled { service: ServiceId(2) }]);
    }
    // From outside of the scope it serves as before.
    TcpStream::connect(own).unwrap();
}

#[test]
fn inside_of_the_scope_nothing_is_attached_that_would_judge_twice() {
    let host = Host::new(Proxy::Haproxy);
    let attached: Vec<Hook> = hooked(&host.home).unwrap().iter().map(|hooked| hooked.hook).collect();
    let of_answers = [
        Hook::Inet4Bind,
        Hook::Inet6Bind,
        Hook::Inet4Connect,
        Hook::Inet6Connect,
        Hook::Udp4Sendmsg,
        Hook::Udp6Sendmsg,
    ];
    assert_eq!(attached, [&of_answers[..], &[Hook::Getsockopt]].concat());
    let connects = hooked(&host.home).unwrap().into_iter().find(|hooked| hooked.hook == Hook::Inet4Connect);
    assert_eq!(connects.unwrap().programs[0].name.as_deref(), Some("wl_connect_answ"));
    host.lab.engine.remove().unwrap();
    assert!(hooked(&host.home).unwrap().is_empty());
}

#[test]
fn a_proxy_that_is_removed_dials_as_an_application_and_nothing_stays_attached() {
    let mut host = Host::new(Proxy::Haproxy);
    let destination = anywhere()[0];
    let one = |service, listeners: &Listeners| host.lab.endpoint(service, [&listeners.four, &listeners.six]);
    let endpoints = vec![one(1, &host.first), one(3, &host.third)];
    host.lab.reload(&policy(&[1, 3]), endpoints.clone()).unwrap();
    let _dialled = host.dial(HOME, destination);
    host.first.take(destination);
    // What has no flow any more is let go by the next reload.
    host.lab.reload(&policy(&[1, 3]), endpoints).unwrap();
    assert!(hooked(&host.home).unwrap().is_empty());
}

/// A flow is known by its token, so that nobody takes the proxy for the application.
#[test]
fn nginx_passes_datagrams_inside_of_the_scope() {
    let (mut lab, proxies) = (Lab::adopting("inside-udp"), Proxies::new(None));
    let home = lab.add_cgroup(HOME);
    let spec = proxies.spec_for_datagrams();
    let mut parts = spec.splitn(3, '=').skip(1);
    let port: u16 = parts.next().unwrap().rsplit(':').next().unwrap().parse().unwrap();
    let (_process, _lines) = Home::start_in(&home, parts.next().unwrap());
    patiently("the proxy", || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).is_err().then_some(()));
    lab.adopt(2, &home, Mark::Cgroup).unwrap();
    lab.install(&policy(&[2]), vec![of_datagrams(&lab, port)]);

    let (_server, lines) =
        Process::spawn_read(Command::new(system_python()).args(["-u", "-c", ECHO, "127.0.0.1"]));
    let ports = lines.wait_for_line(0);
    let (one, other) = ports.split_once(' ').unwrap();
    let mut ask = Command::new("sh");
    ask.args(["-c", "echo $$ > \"$0\"; exec \"$@\""]).arg(lab.procs("app"));
    let answers = ask.args([system_python(), "-c", ASK, "127.0.0.1", one, other]).output().unwrap();
    let once = format!("{one} 1000 True\n{other} 1000 True\n");
    let connected = format!("{one} 0 {one} 1400 True\n");
    assert_eq!(String::from_utf8(answers.stdout).unwrap(), format!("{once}{once}{connected}"));
    assert_eq!(lab.engine.flow_count().unwrap(), 3, "they have gone through the proxy");
}

/// There is a service after it, which is away: whatever is judged as a new flow is refused.
#[test]
fn what_a_proxy_answers_its_own_clients_inside_of_the_scope_is_no_flow() {
    let (mut lab, port) = (Lab::adopting("inside-answers"), free_port());
    lab.add_cgroup(HOME);
    let server = lab.inside(HOME, || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port))).unwrap();
    let home = lab.cgroup(Some(HOME));
    lab.adopt(2, &home, Mark::Cgroup).unwrap();
    lab.install(&policy(&[2, 3]), vec![of_datagrams(&lab, port)]);

    let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    client.send_to(b"ask", (Ipv4Addr::LOCALHOST, port)).unwrap();
    let mut buffer = [0; 8];
    let from = server.recv_from(&mut buffer).unwrap().1;
    assert_eq!(from, client.local_addr().unwrap());
    lab.inside(HOME, || server.send_to(b"answer", from)).unwrap();
    assert_eq!(client.recv_from(&mut buffer).unwrap().0, 6);
    // What it begins itself is judged.
    let begun = lab.inside(HOME, || server.send_to(b"ask", anywhere()[0])).unwrap_err();
    assert_eq!(begun.raw_os_error(), Some(ECONNREFUSED));
    assert_eq!(lab.refusals(), [Refusal::ServiceAbsent { service: ServiceId(3) }]);
}

fn of_datagrams(lab: &Lab, port: u16) -> Endpoint {
    Endpoint {
        service: ServiceId(2),
        cgroup: lab.cgroup_id(HOME),
        tcp4: Vec::new(),
        tcp6: Vec::new(),
        udp4: Some(port),
        udp6: Vec::new(),
        behind6: None,
        local_name: LocalName::Destination,
    }
}

#[test]
fn whoever_would_watch_or_lead_a_proxys_legs_as_well_is_refused() {
    let (mut lab, mut other) = (Lab::adopting("inside-claims"), Lab::adopting("inside-claims-2"));
    let overlaps = |refused: Result<(), EbpfError>| {
        let error = refused.unwrap_err();
        assert!(matches!(error, EbpfError::Overlap { .. }), "{error}");
    };
    let around = lab.adopt(2, &lab.cgroup(None), Mark::Uid(1)).unwrap_err();
    assert!(matches!(around, EbpfError::ResidentAround { .. }), "{around}");
    let inside = lab.add_cgroup(HOME);
    lab.adopt(2, &inside, Mark::Cgroup).unwrap();
    overlaps(other.adopt(2, &inside, Mark::Cgroup));
    overlaps(lab.second_engine_on(Some(HOME)).map(drop));
    // Of one that was first the same holds.
    let within = lab.below("app", "inside-claims-3", Limits::default());
    overlaps(lab.adopt(3, &within.add_cgroup(HOME), Mark::Cgroup));
    overlaps(lab.adopt(3, &lab.cgroup(Some("app")), Mark::Cgroup));
    // And nobody begins to watch what somebody has adopted from outside.
    let elsewhere = Home::new(HOME);
    lab.adopt(4, elsewhere.directory(), Mark::Cgroup).unwrap();
    overlaps(lab.second_engine_at(elsewhere.directory().parent().unwrap()).map(drop));
}
