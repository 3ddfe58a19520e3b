//! Tokens, at the engine itself: each flow of datagrams has its own, it is nobody else's, and there are so many.
#![expect(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket},
    time::Duration,
};

use waylay::{
    QueryError,
    datagrams::{self, DatagramBatch, DatagramSocket, FlowPath, Header, Outgoing},
};
use waylay_core::{Event, FailurePolicy, Refusal, Resource, ServiceId};
use waylay_engine::{Endpoint, Engine};
use waylay_engine_ebpf::Limits;
use waylay_netlab::{Lab, one_service, patiently};

const ENOBUFS: i32 = 105;
const ECONNREFUSED: i32 = 111;
const ESTALE: i32 = 116;

/// An address of the application's and one that it sends to: near and far, in both families. Nobody has to be there,
/// for it is the service that gets what is sent.
const CORNERS: [(&str, &str); 4] =
    [("127.0.0.1", "127.0.0.9"), ("::1", "[::1]"), ("127.0.0.1", "192.0.2.1"), ("::1", "[2001:db8::1]")];

/// One service behind UDP sockets of the test's own.
struct Desk {
    lab: Lab,
    four: DatagramSocket,
    bank: Vec<DatagramSocket>,
}

impl Desk {
    fn new(name: &str, on_failure: FailurePolicy, limits: Limits, bank: usize) -> Self {
        let mut lab = Lab::new(name, limits);
        let bind = |address: SocketAddr| DatagramSocket::new(UdpSocket::bind(address).unwrap()).unwrap();
        let (four, bank) = lab.as_service(1, || {
            let bank: Vec<_> = (0..bank).map(|_| bind((Ipv6Addr::LOCALHOST, 0).into())).collect();
            (bind((Ipv4Addr::UNSPECIFIED, 0).into()), bank)
        });
        let endpoint = Endpoint {
            udp4: Some(four.local_address().port()),
            udp6: bank.iter().map(|socket| socket.local_address().port()).collect(),
            ..lab.endpoint(1, std::iter::empty::<&TcpListener>())
        };
        lab.install(&one_service(on_failure), vec![endpoint]);
        Self { lab, four, bank }
    }

    fn closed(name: &str, limits: Limits) -> Self {
        Self::new(name, FailurePolicy::Closed, limits, 2)
    }

    /// A socket of the application's.
    fn socket(&self, ip: &str) -> UdpSocket {
        self.lab.as_application(|| UdpSocket::bind((ip, 0)).unwrap())
    }

    fn send(&self, socket: &UdpSocket, to: &str) -> io::Result<usize> {
        self.lab.as_application(|| socket.send_to(b"question", to))
    }

    /// What arrives next, and at which of the service's sockets.
    fn next(&self) -> (FlowPath, &DatagramSocket) {
        let mut batch = DatagramBatch::new();
        patiently("a datagram", || {
            let all = || std::iter::once(&self.four).chain(&self.bank);
            let socket = all().find(|socket| socket.receive(&mut batch).is_ok())?;
            batch.iter().next().map(|datagram| (datagram.path, socket))
        })
    }

    /// The socket at which a flow arrives.
    fn of(&self, path: FlowPath) -> (FlowPath, &DatagramSocket) {
        let at = |socket: &&DatagramSocket| socket.local_address().port() == path.local().port();
        (path, std::iter::once(&self.four).chain(&self.bank).find(at).unwrap())
    }

    /// Where a flow was going, as the service is told.
    fn destination(&self, (path, socket): (FlowPath, &DatagramSocket)) -> Result<SocketAddr, QueryError> {
        self.lab.as_service(1, || socket.destination(path))
    }

    fn answer(&self, (path, socket): (FlowPath, &DatagramSocket)) -> io::Result<()> {
        let mut outcome = Ok(());
        self.lab.as_service(1, || {
            socket.send(&[Outgoing::answer(path, b"answer")], |_, sent| outcome = sent);
        });
        outcome
    }

    fn dropped(&mut self) -> u64 {
        let events = self.lab.engine.events(Duration::from_millis(20)).unwrap();
        events.iter().map(|event| if let Event::Dropped { count } = event { *count } else { 0 }).sum()
    }
}

fn flows(of_cgroup: u64) -> Limits {
    Limits { datagram_flows_per_cgroup: of_cgroup, ..Limits::default() }
}

fn errno<T>(outcome: io::Result<T>) -> i32 {
    outcome.err().and_then(|error| error.raw_os_error()).unwrap_or_default()
}

#[test]
fn each_destination_of_a_socket_has_its_own() {
    let desk = Desk::closed("tokens-own", Limits::default());
    for (ip, host) in CORNERS {
        let destinations = [format!("{host}:53"), format!("{host}:54")];
        let socket = desk.socket(ip);
        let arrived = destinations.each_ref().map(|destination| {
            desk.send(&socket, destination).unwrap();
            let arrived = desk.next();
            assert_eq!(desk.destination(arrived).unwrap(), destination.parse().unwrap());
            arrived
        });
        assert_ne!(arrived[0].0.local(), arrived[1].0.local());
        // And keeps it.
        desk.send(&socket, &destinations[0]).unwrap();
        assert_eq!(desk.next().0, arrived[0].0);
        for (arrived, destination) in arrived.into_iter().zip(destinations) {
            desk.answer(arrived).unwrap();
            let from = desk.lab.as_application(|| socket.recv_from(&mut [0; 9]).unwrap().1);
            assert_eq!(from, destination.parse().unwrap());
        }
    }
}

#[test]
fn an_answer_goes_to_the_flows_socket_and_to_no_other() {
    let desk = Desk::closed("tokens-peer", Limits::default());
    for (ip, host) in CORNERS {
        let (one, other) = (desk.socket(ip), desk.socket(ip));
        desk.send(&one, &format!("{host}:53")).unwrap();
        let (path, socket) = desk.next();
        desk.destination((path, socket)).unwrap();
        let astray = FlowPath::new(path.local(), other.local_addr().unwrap());
        assert_eq!(errno(desk.answer((astray, socket))), ESTALE);
        desk.answer((path, socket)).unwrap();
    }
}

#[test]
fn the_flow_that_has_been_idle_for_longest_makes_room_and_is_counted() {
    for (ip, host) in CORNERS {
        let mut desk = Desk::new("tokens-room", FailurePolicy::Closed, flows(2), 8);
        let socket = desk.socket(ip);
        let arrive_at = |desk: &Desk, port: u16| {
            desk.send(&socket, &format!("{host}:{port}")).unwrap();
            desk.next().0
        };
        let first = arrive_at(&desk, 1);
        let second = arrive_at(&desk, 2);
        assert_eq!(arrive_at(&desk, 1), first);
        let third = arrive_at(&desk, 3);
        assert_eq!(desk.destination(desk.of(first)).unwrap().port(), 1);
        assert_eq!(desk.destination(desk.of(third)).unwrap().port(), 3);
        desk.answer(desk.of(third)).unwrap();
        // Over IPv6 the port of the one that was dropped is free, and may be the next one's.
        if third != second {
            let lost = desk.destination(desk.of(second));
            assert!(matches!(lost, Err(QueryError::NotRedirected)), "{lost:?}");
            assert_eq!(errno(desk.answer(desk.of(second))), ESTALE);
        }
        assert_eq!(desk.lab.engine.flow_count().unwrap(), 2);
        assert_eq!(desk.dropped(), 1);
        // What comes back is another flow, and over IPv4 the token that was dropped stays nobody's.
        let back = arrive_at(&desk, 2);
        assert_eq!(desk.destination(desk.of(back)).unwrap().port(), 2);
        assert!(socket.local_addr().unwrap().is_ipv6() || back != second);
    }
}

#[test]
fn a_connected_sockets_flow_makes_no_room_as_long_as_the_socket_is_there() {
    for (ip, host) in CORNERS {
        let mut desk = Desk::closed("tokens-connected", flows(1));
        let destination = format!("{host}:53");
        let (one, other) = (desk.socket(ip), desk.socket(ip));
        desk.lab.as_application(|| one.connect(&destination)).unwrap();
        assert_eq!(errno(desk.send(&other, &destination)), ENOBUFS);
        let refusals = desk.lab.refusals();
        assert_eq!(refusals, [Refusal::Shortage(Resource::FlowsOfCgroup)]);
        drop(one);
        desk.send(&other, &destination).unwrap();
        assert_eq!(desk.dropped(), 1);
    }
}

/// With a message beside a datagram the kernel asks about a connected socket as well, and names no address.
#[test]
fn a_connected_sockets_datagram_with_a_header_of_its_own_makes_no_other_flow() {
    let desk = Desk::closed("tokens-header", Limits::default());
    let header = Header { hop_limit: Some(9), traffic_class: Some(3) };
    for (ip, destination, flows) in [("127.0.0.1", "192.0.2.1:53", 1), ("::1", "[2001:db8::1]:53", 2)] {
        let socket = desk.socket(ip);
        desk.lab.as_application(|| {
            socket.connect(destination).unwrap();
            let datagram = Outgoing { bytes: b"marked", to: None, from: None, header };
            datagrams::send(&socket, &[datagram], |_, sent| sent.unwrap());
        });
        assert_eq!(desk.lab.engine.flow_count().unwrap(), flows);
        assert_eq!(desk.destination(desk.next()).unwrap(), destination.parse().unwrap());
    }
}

#[test]
fn a_socket_has_as_many_destinations_over_ipv6_as_the_service_has_ports() {
    let mut desk = Desk::closed("tokens-bank", Limits::default());
    let socket = desk.socket("::1");
    let to = |desk: &Desk, port: u16| {
        desk.send(&socket, &format!("[2001:db8::1]:{port}")).unwrap();
        desk.next().0
    };
    let (first, second) = (to(&desk, 1), to(&desk, 2));
    let third = to(&desk, 3);
    assert_eq!(third, first);
    assert_ne!(second, first);
    assert_eq!(desk.destination(desk.of(third)).unwrap().port(), 3);
    assert_eq!(desk.destination(desk.of(second)).unwrap().port(), 2);
    assert_eq!(desk.lab.engine.flow_count().unwrap(), 2);
    // Others' ports are none of its.
    let another = desk.socket("::1");
    desk.send(&another, "[2001:db8::1]:1").unwrap();
    desk.next();
    assert_eq!(desk.lab.engine.flow_count().unwrap(), 3);
    assert_eq!(desk.dropped(), 1);
}

#[test]
fn a_services_socket_is_reached_through_the_engine_only() {
    let mut desk = Desk::closed("tokens-dialled", Limits::default());
    let (four, six) = (desk.socket("127.0.0.1"), desk.socket("::1"));
    desk.send(&four, "192.0.2.1:53").unwrap();
    let (path, _) = desk.next();
    let port = desk.four.local_address().port();
    // The last is the token of another's flow.
    let stranger = desk.socket("127.0.0.1");
    for to in [format!("127.0.0.1:{port}"), format!("127.9.9.9:{port}"), path.local().to_string()] {
        assert_eq!(errno(desk.send(&stranger, &to)), ECONNREFUSED, "{to}");
    }
    assert_eq!(errno(desk.send(&six, &desk.bank[0].local_address().to_string())), ECONNREFUSED);
    assert_eq!(desk.lab.refusals(), [Refusal::ListenerDialled { service: ServiceId(1) }; 4]);
    assert_eq!(desk.lab.engine.flow_count().unwrap(), 1);
}

#[test]
fn a_flow_ends_when_it_is_idle_and_that_of_a_connected_socket_not_before_the_socket() {
    for (ip, host) in CORNERS {
        let limits = Limits { datagram_idle: Duration::ZERO, ..Limits::default() };
        let mut desk = Desk::closed("tokens-idle", limits);
        let destination = format!("{host}:53");
        let sweeper = desk.lab.engine.flow_sweeper().unwrap();
        let (one, other) = (desk.socket(ip), desk.socket(ip));
        desk.lab.as_application(|| one.connect(&destination)).unwrap();
        desk.send(&other, &destination).unwrap();
        let early = desk.next();
        assert_eq!(desk.lab.engine.flow_count().unwrap(), 2);
        sweeper.sweep().unwrap();
        assert_eq!(desk.lab.engine.flow_count().unwrap(), 1);
        desk.lab.as_application(|| one.send(b"still there")).unwrap();
        // What had been sent before is nobody's any more.
        assert!(matches!(desk.destination(early), Err(QueryError::NotRedirected)));
        desk.destination(desk.next()).unwrap();
        drop(one);
        sweeper.sweep().unwrap();
        assert_eq!(desk.lab.engine.flow_count().unwrap(), 0);
    }
}

/// Near only: where it passes, somebody has to be there.
#[test]
fn a_service_that_has_closed_its_socket_is_absent() {
    for ip in [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
        for (on_failure, expected) in [(FailurePolicy::Closed, ECONNREFUSED), (FailurePolicy::Open, 0)] {
            let Desk { lab, four, bank } = Desk::new("tokens-gone", on_failure, Limits::default(), 1);
            let server = UdpSocket::bind((ip, 0)).unwrap();
            let socket = lab.as_application(|| UdpSocket::bind((ip, 0)).unwrap());
            drop((four, bank));
            let sent = lab.as_application(|| socket.send_to(b"question", server.local_addr().unwrap()));
            assert_eq!(errno(sent), expected, "{on_failure:?}");
            if expected == 0 {
                // Past the service, as the policy says.
                assert_eq!(server.recv_from(&mut [0; 9]).unwrap().1, socket.local_addr().unwrap());
            }
        }
    }
}

#[test]
fn whoever_takes_a_dead_services_port_is_not_the_service() {
    let Desk { lab, four, bank } = Desk::new("tokens-taken", FailurePolicy::Closed, Limits::default(), 1);
    let (four_was, six_was) = (four.local_address().port(), bank[0].local_address().port());
    drop((four, bank));
    let strangers = [
        UdpSocket::bind((Ipv4Addr::UNSPECIFIED, four_was)).unwrap(),
        UdpSocket::bind((Ipv6Addr::LOCALHOST, six_was)).unwrap(),
    ];
    for (ip, host) in CORNERS {
        let socket = lab.as_application(|| UdpSocket::bind((ip, 0)).unwrap());
        let sent = lab.as_application(|| socket.send_to(b"question", format!("{host}:53")));
        assert_eq!(errno(sent), ECONNREFUSED);
    }
    for stranger in strangers {
        stranger.set_nonblocking(true).unwrap();
        assert_eq!(stranger.recv_from(&mut [0; 9]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
}
