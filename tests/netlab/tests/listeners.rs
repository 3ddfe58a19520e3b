//! What listeners a service may have besides one that is TCP's own: several at one port, and multipath ones. Whichever
//! takes a connection, the kernel says on what it has accepted where that was going.
#![expect(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
};

use rustix::event::{PollFd, PollFlags, poll};
use socket2::{Domain, Protocol, Socket, Type};
use waylay::query_original_destination;
use waylay_core::{Conditions, FailurePolicy, Filter, FilterId, Layer, Policy, Service, ServiceId};
use waylay_engine_ebpf::Limits;
use waylay_netlab::{Dialled, Lab};

const LOOPBACK: Ipv4Addr = Ipv4Addr::LOCALHOST;

fn one_service() -> Policy {
    let service = Service {
        id: ServiceId(1),
        name: "s1".into(),
        before: Vec::new(),
        after: Vec::new(),
        on_failure: FailurePolicy::Closed,
    };
    let layer = Layer::Redirect { service: service.id };
    let filter = Filter { id: FilterId(1), weight: 0, conditions: Conditions::default(), layer };
    Policy::new(vec![service], Vec::new(), vec![filter]).unwrap()
}

fn listen(protocol: Protocol, port: u16) -> TcpListener {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(protocol)).unwrap();
    socket.set_reuse_port(true).unwrap();
    socket.bind(&SocketAddr::from((LOOPBACK, port)).into()).unwrap();
    socket.listen(64).unwrap();
    socket.into()
}

/// The next connection at any of them, and at which.
fn accept(listeners: &[&TcpListener]) -> (usize, TcpStream) {
    let mut waiting: Vec<_> =
        listeners.iter().map(|listener| PollFd::new(*listener, PollFlags::IN)).collect();
    poll(&mut waiting, None).unwrap();
    let at = waiting.iter().position(|one| one.revents().contains(PollFlags::IN)).unwrap();
    (at, listeners[at].accept().unwrap().0)
}

/// Addresses that only a service can answer for.
fn destinations(count: u8) -> Vec<SocketAddr> {
    (1..=count).map(|number| SocketAddr::from(([192, 0, 2, number], 80))).collect()
}

#[test]
fn that_share_a_port_take_connections_each_and_know_where_they_were_going() {
    let mut lab = Lab::new("reuseport", Limits::default());
    let (first, second) = lab.as_service(1, || {
        let first = listen(Protocol::TCP, 0);
        let port = first.local_addr().unwrap().port();
        (first, listen(Protocol::TCP, port))
    });
    lab.install(&one_service(), vec![lab.endpoint(1, [&first])]);
    let destinations = destinations(64);
    let connected: Vec<_> = destinations.iter().copied().map(Dialled::Connected).collect();
    assert_eq!(lab.dial("app", &destinations), connected);
    let (mut takers, mut told) = (BTreeSet::new(), BTreeSet::new());
    for _ in &destinations {
        let (at, stream) = accept(&[&first, &second]);
        takers.insert(at);
        told.insert(lab.as_service(1, || query_original_destination(&stream)).unwrap());
    }
    assert_eq!(told, destinations.into_iter().collect());
    assert_eq!(takers, [0, 1].into());
}

/// Each end may speak it or not.
#[test]
fn that_speak_multipath_tcp_know_where_connections_were_going() {
    let enabled = std::fs::read_to_string("/proc/sys/net/mptcp/enabled").unwrap_or_default();
    if enabled.trim() != "1" {
        return;
    }
    let mut lab = Lab::new("multipath", Limits::default());
    let listener = lab.as_service(1, || listen(Protocol::MPTCP, 0));
    lab.install(&one_service(), vec![lab.endpoint(1, [&listener])]);
    for (number, protocol) in
        [(1, Protocol::TCP), (2, Protocol::MPTCP), (3, Protocol::TCP), (4, Protocol::MPTCP)]
    {
        let destination = SocketAddr::from(([192, 0, 2, number], 80));
        let client = lab.as_application(|| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(protocol)).unwrap();
            socket.connect(&destination.into()).unwrap();
            socket
        });
        assert_eq!(client.peer_addr().unwrap().as_socket(), Some(destination));
        let (_, stream) = accept(&[&listener]);
        let told = lab.as_service(1, || query_original_destination(&stream));
        assert_eq!(told.unwrap(), destination, "{protocol:?}");
    }
}
