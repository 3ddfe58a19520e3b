//! The supervisor by itself, in the bench's own process: its one service is a listener that is drained between the turns and wakes nobody, so
//! that what is measured is what the engine takes, as with the engine on eBPF.

use std::{
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    os::fd::AsFd,
    thread,
    time::Duration,
};

use waylay_benches::{Column, Contest, Rival, Seat, policy_for, rounds};
use waylay_core::{ServiceId, Tables};
use waylay_engine::{Endpoint, Engine, Installation, Liveness, LocalName};
use waylay_engine_seccomp::{Dialler, home_of};
use waylay_netlab::{Ward, submit};

use crate::{BENCH, DIALS, accept_all, sys};

/// An address for documentation: nobody is there, and nothing is sent to it.
const NOWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 80);
const SERVICE: ServiceId = ServiceId(1);

/// A client whose calls an engine answers, and the engine.
struct Supervised {
    seat: Seat,
    ward: Ward,
}

impl Supervised {
    /// One whose service takes what goes to an address.
    fn start(taken: SocketAddr, service: SocketAddr) -> Self {
        let mut ward = Ward::of_threads();
        ward.begin();
        let tables = Tables::compile(&policy_for(taken, 1)).unwrap();
        ward.engine().install(&Installation { tables, endpoints: vec![endpoint(service)] }).unwrap();
        ward.engine().set_liveness(SERVICE, Liveness::Alive).unwrap();
        let seat = ward.acting_as(Dialler::Command, Seat::here);
        Self { seat, ward }
    }

    fn dial(&mut self, server: SocketAddr) -> f64 {
        let took = self.seat.dial(server, DIALS);
        // The turn's connections are closed by now.
        self.ward.sweep();
        self.ward.engine().events(Duration::ZERO).unwrap();
        took
    }
}

fn endpoint(service: SocketAddr) -> Endpoint {
    let SocketAddr::V4(listener) = service else { panic!("{service} is none of IPv4") };
    Endpoint {
        service: SERVICE,
        cgroup: home_of(SERVICE),
        tcp4: vec![SocketAddrV4::new(*listener.ip(), listener.port())],
        tcp6: Vec::new(),
        udp4: None,
        udp6: Vec::new(),
        behind6: None,
        local_name: LocalName::Listener,
    }
}

/// A client whose connections are all made to `to`.
fn connected_to(to: SocketAddr) -> Seat {
    let (calls, seat) = thread::spawn(|| (submit(false), Seat::here())).join().unwrap();
    let to = libc::sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: to.port().to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from(Ipv4Addr::LOCALHOST).to_be() },
        sin_zero: [0; 8],
    };
    thread::spawn(move || sys::connect_all(calls.as_fd(), &to));
    seat
}

/// A connect that goes its own way, and one that is led to a service, from elsewhere and from the loopback, where it is looked who listens.
pub(crate) fn redirected() {
    let (service, server) = (accept_all(), accept_all());
    let mut direct = Seat::here();
    let mut from_elsewhere = Supervised::start(NOWHERE, service);
    let mut from_here = Supervised::start(server, service);
    let mut unmatched = Supervised::start(NOWHERE, service);
    let mut bare = connected_to(service);
    let rivals = vec![
        Rival::single("to the service's listener, directly", || direct.dial(service, DIALS)),
        Rival::single("by a supervisor that decides nothing", || bare.dial(NOWHERE, DIALS)),
        Rival::single("supervised, no filter matches", || unmatched.dial(server)).goal(3.0),
        Rival::single("supervised, led to it from another address", || from_elsewhere.dial(NOWHERE))
            .goal(3.0),
        Rival::single("supervised, led to it from 127.0.0.1", || from_here.dial(server)).goal(3.0),
    ];
    let columns = vec![Column { unit: "connect(2), ns", digits: 0 }];
    Contest { title: "A connect that a supervisor redirects", columns, rivals }.run(BENCH, rounds(41));
}
