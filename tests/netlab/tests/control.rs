//! What a service asks the kernel about its sockets, and is told.
#![expect(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::{fd::AsFd, unix::net::UnixStream},
};

use socket2::{Domain, Socket, Type};
use waylay::{
    QueryError, RedirectState, SetError, query_redirect_chain, query_redirect_records, redirect_state,
    set_redirect_records,
};
use waylay_core::{Conditions, FailurePolicy, Filter, FilterId, Layer, Policy, Service, ServiceId};
use waylay_engine_ebpf::Limits;
use waylay_netlab::Lab;

fn listener() -> TcpListener {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()
}

fn anywhere() -> SocketAddr {
    (Ipv4Addr::new(192, 0, 2, 1), 80).into()
}

fn stream() -> Socket {
    Socket::new(Domain::IPV4, Type::STREAM, None).unwrap()
}

/// Two services, in this order, for every connection.
struct TwoServices {
    lab: Lab,
    listeners: [TcpListener; 2],
}

impl TwoServices {
    fn new(name: &str) -> Self {
        let mut lab = Lab::new(name, Limits::default());
        let listeners = [1, 2].map(|id| lab.as_service(id, listener));
        let service = |id: u32| Service {
            id: ServiceId(id),
            name: format!("s{id}"),
            before: Vec::new(),
            after: (1..id).map(|earlier| format!("s{earlier}")).collect(),
            on_failure: FailurePolicy::Closed,
        };
        let filter = |id: u32| Filter {
            id: FilterId(10 + id),
            weight: 0,
            conditions: Conditions::default(),
            layer: Layer::Redirect { service: ServiceId(id) },
        };
        let policy = Policy::new([1, 2].map(service).into(), Vec::new(), [1, 2].map(filter).into()).unwrap();
        let endpoints = [1, 2].map(|id| lab.endpoint(id, [&listeners[id as usize - 1]]));
        lab.install(&policy, endpoints.into());
        Self { lab, listeners }
    }

    /// The application's socket, and what the first service accepted.
    fn connection(&self) -> (TcpStream, TcpStream) {
        let client = self.lab.as_application(|| TcpStream::connect(anywhere()).unwrap());
        (client, self.listeners[0].accept().unwrap().0)
    }

    fn states(socket: &impl AsFd) -> [RedirectState; 2] {
        [1, 2].map(|service| redirect_state(socket, service).unwrap())
    }
}

#[test]
fn the_state_of_a_service_follows_the_chain_from_socket_to_socket() {
    use RedirectState::{NotRedirected, PreviouslyRedirectedBySelf, RedirectedByOther, RedirectedBySelf};
    let services = TwoServices::new("states");
    let (_client, first) = services.connection();
    assert_eq!(TwoServices::states(&first), [RedirectedBySelf, RedirectedByOther]);
    let second = services.lab.as_service(1, || {
        let outbound = stream();
        assert_eq!(TwoServices::states(&outbound), [NotRedirected, NotRedirected]);
        set_redirect_records(&outbound, &query_redirect_records(&first).unwrap()).unwrap();
        assert_eq!(TwoServices::states(&outbound), [RedirectedBySelf, RedirectedByOther]);
        outbound.connect(&anywhere().into()).unwrap();
        services.listeners[1].accept().unwrap().0
    });
    assert_eq!(TwoServices::states(&second), [PreviouslyRedirectedBySelf, RedirectedBySelf]);
    let names = query_redirect_chain(&second).unwrap().into_iter().map(|hop| hop.service);
    assert_eq!(names.collect::<Vec<_>>(), ["s1", "s2"]);
}

#[test]
fn a_socket_of_another_kind_carries_no_records() {
    let services = TwoServices::new("kinds");
    let (_client, accepted) = services.connection();
    let records = query_redirect_records(&accepted).unwrap();
    services.lab.as_service(1, || {
        let (local, _peer) = UnixStream::pair().unwrap();
        let refused = set_redirect_records(&local, &records);
        assert!(matches!(refused, Err(SetError::NotSupported)), "{refused:?}");
        let unknown = query_redirect_records(&local);
        assert!(matches!(unknown, Err(QueryError::NotSupported)), "{unknown:?}");
    });
}

#[test]
fn a_socket_without_a_record_says_what_it_is_instead() {
    let services = TwoServices::new("without");
    let ask = |socket: &dyn Fn() -> Socket| {
        services.lab.as_service(1, || query_redirect_records(&socket()).unwrap_err())
    };
    assert!(matches!(ask(&stream), QueryError::NotConnected));
    assert!(matches!(ask(&|| listener().into()), QueryError::Listening));
    // Who dials from outside is not redirected.
    let [listener, _] = &services.listeners;
    let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (accepted, _) = listener.accept().unwrap();
    assert!(matches!(query_redirect_records(&accepted), Err(QueryError::NotRedirected)));
}
