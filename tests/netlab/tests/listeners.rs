//! What listeners a service may have besides one that is TCP's own: several at one port, and multipath ones. Whichever
//! takes a connection, the kernel says on what it has accepted where that was going: near and far, over both families.
#![expect(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
};

use rustix::event::{PollFd, PollFlags, poll};
use socket2::{Domain, Protocol, Socket, Type};
use waylay::query_original_destination;
use waylay_core::FailurePolicy;
use waylay_engine_ebpf::Limits;
use waylay_netlab::{Corner, Corners, Dialled, Family, Lab, Place, one_service};

/// Servers in each corner, and an engine on the clients' host.
struct Stage {
    corners: Corners,
    lab: Lab,
}

impl Stage {
    fn new(name: &str) -> Self {
        let corners = Corners::new();
        corners.ground.client_namespace().unwrap().enter();
        Self { corners, lab: Lab::new(name, Limits::default()) }
    }

    /// So many of them, at ports of their own.
    fn servers(&self, corner: Corner, count: usize) -> Vec<TcpListener> {
        let bind = || (0..count).map(|_| TcpListener::bind((corner.server(), 0)).unwrap()).collect();
        match corner.place {
            Place::Loopback => bind(),
            Place::Veth => {
                let namespace = self.corners.ground.server_namespace().unwrap();
                let there = || {
                    namespace.enter();
                    bind()
                };
                std::thread::scope(|scope| scope.spawn(there).join().unwrap())
            }
        }
    }

    /// What the service does: it asks where to, and dials that.
    fn lead_on(&self, accepted: &TcpStream) -> SocketAddr {
        self.lab.as_service(1, || {
            let destination = query_original_destination(accepted).unwrap();
            TcpStream::connect(destination).unwrap();
            destination
        })
    }
}

fn addresses(servers: &[TcpListener]) -> Vec<SocketAddr> {
    servers.iter().map(|server| server.local_addr().unwrap()).collect()
}

/// At the loopback's address.
fn listen(family: Family, protocol: Protocol, port: u16) -> TcpListener {
    let own: IpAddr = Corner { family, place: Place::Loopback }.server();
    let socket = Socket::new(Domain::for_address((own, 0).into()), Type::STREAM, Some(protocol)).unwrap();
    socket.set_reuse_port(true).unwrap();
    socket.bind(&SocketAddr::from((own, port)).into()).unwrap();
    socket.listen(64).unwrap();
    socket.into()
}

/// The next connection at any of them, and at which.
fn accept(listeners: &[TcpListener]) -> (usize, TcpStream) {
    let mut waiting: Vec<_> = listeners.iter().map(|listener| PollFd::new(listener, PollFlags::IN)).collect();
    poll(&mut waiting, None).unwrap();
    let at = waiting.iter().position(|one| one.revents().contains(PollFlags::IN)).unwrap();
    (at, listeners[at].accept().unwrap().0)
}

#[test]
fn that_share_a_port_take_connections_each_and_know_where_they_were_going() {
    let mut stage = Stage::new("reuseport");
    let pair = |family| {
        let first = listen(family, Protocol::TCP, 0);
        let port = first.local_addr().unwrap().port();
        [first, listen(family, Protocol::TCP, port)]
    };
    let (four, six) = stage.lab.as_service(1, || (pair(Family::V4), pair(Family::V6)));
    let endpoint = stage.lab.endpoint(1, [&four[0], &six[0]]);
    stage.lab.install(&one_service(FailurePolicy::Closed), vec![endpoint]);
    for corner in Corner::ALL {
        let listeners = if corner.family == Family::V4 { &four } else { &six };
        let servers = stage.servers(corner, 32);
        let destinations = addresses(&servers);
        let connected: Vec<_> = destinations.iter().copied().map(Dialled::Connected).collect();
        assert_eq!(stage.lab.dial("app", &destinations), connected);
        let (mut takers, mut told) = (BTreeSet::new(), BTreeSet::new());
        for _ in &destinations {
            let (at, stream) = accept(listeners);
            takers.insert(at);
            told.insert(stage.lead_on(&stream));
        }
        assert_eq!(told, destinations.into_iter().collect());
        assert_eq!(takers, [0, 1].into());
        servers.iter().for_each(|server| drop(server.accept().unwrap()));
    }
}

/// Each end may speak it or not.
#[test]
fn that_speak_multipath_tcp_know_where_connections_were_going() {
    let mut stage = Stage::new("multipath");
    let enabled = std::fs::read_to_string("/proc/sys/net/mptcp/enabled").unwrap_or_default();
    if enabled.trim() != "1" {
        return;
    }
    let one = |family| [listen(family, Protocol::MPTCP, 0)];
    let (four, six) = stage.lab.as_service(1, || (one(Family::V4), one(Family::V6)));
    let endpoint = stage.lab.endpoint(1, [&four[0], &six[0]]);
    stage.lab.install(&one_service(FailurePolicy::Closed), vec![endpoint]);
    for corner in Corner::ALL {
        let listeners = if corner.family == Family::V4 { &four } else { &six };
        for (server, protocol) in
            stage.servers(corner, 4).iter().zip([Protocol::TCP, Protocol::MPTCP].repeat(2))
        {
            let destination = server.local_addr().unwrap();
            let client = stage.lab.as_application(|| {
                let domain = Domain::for_address(destination);
                let socket = Socket::new(domain, Type::STREAM, Some(protocol)).unwrap();
                socket.connect(&destination.into()).unwrap();
                socket
            });
            assert_eq!(client.peer_addr().unwrap().as_socket(), Some(destination));
            let (_, stream) = accept(listeners);
            assert_eq!(stage.lead_on(&stream), destination, "{protocol:?}");
            server.accept().unwrap();
        }
    }
}
