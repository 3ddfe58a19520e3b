//! What a connect(2) costs an application: where no filter matches, where it is redirected, and through
//! chains of services; beside nftables REDIRECT, alone and with HAProxy behind it.
//!
//! `cargo bench -p waylay-benches --bench connect`, as root. It makes cgroups and network namespaces of its own.
#![expect(clippy::unwrap_used, reason = "a bench: a failed step must show")]

mod chains;
mod nftables;

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    thread,
};

use socket2::{Domain, Socket, Type};
use waylay_benches::{Column, Contest, Rival, Seat, drain, policy_for, rounds};
use waylay_engine_ebpf::Limits;
use waylay_netlab::Lab;

use nftables::Redirecting;

const BENCH: &str = "connect";
const DIALS: u32 = 400;
/// An address for documentation: nobody is there, and nothing is sent to it.
const NOWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 80);
const NANOSECONDS: Column = Column { unit: "connect(2), ns", digits: 0 };

fn main() {
    without_a_match(rounds(41));
    redirected(rounds(41));
    chains::compare(rounds(21));
}

/// Accepts and closes for as long as the bench runs.
fn accept_all(listener: TcpListener) -> SocketAddr {
    let address = listener.local_addr().unwrap();
    thread::spawn(move || drain(&listener));
    address
}

/// With room for a whole turn's dials.
fn listener() -> TcpListener {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
    socket.listen(4096).unwrap();
    socket.into()
}

/// An engine whose one service takes what `filters` filters match; the first is for [`NOWHERE`], the others never match.
fn lab(name: &str, filters: u16) -> (Lab, SocketAddr) {
    let mut lab = Lab::new(name, Limits::default());
    let own = lab.as_service(1, listener);
    lab.install(&policy_for(NOWHERE, filters), vec![lab.endpoint(1, [&own])]);
    (lab, accept_all(own))
}

fn without_a_match(rounds: usize) {
    let server = accept_all(listener());
    let labs = [lab("one", 1).0, lab("many", 64).0];
    let mut seats = [Seat::here(), Seat::inside(&labs[0].procs("app")), Seat::inside(&labs[1].procs("app"))];
    let names =
        ["without waylay", "in scope of one filter, which does not match", "of 64 filters, none matches"];
    let mut rivals: Vec<Rival<'_>> = seats
        .iter_mut()
        .zip(names)
        .map(|(seat, name)| Rival::single(name, || seat.dial(server, DIALS)).goal(1.05))
        .collect();
    rivals[0].goal = None;
    Contest { title: "A connect that no filter matches", columns: vec![NANOSECONDS], rivals }
        .run(BENCH, rounds);
}

fn redirected(rounds: usize) {
    let (lab, service) = lab("redirected", 1);
    let (mut plain, mut redirected) = (Seat::here(), Seat::inside(&lab.procs("app")));
    let (mut nothing, mut nftables) =
        (Redirecting::nothing("sink"), Redirecting::by_nftables("sink", NOWHERE));
    let rivals = vec![
        Rival::single("to the service's listener, directly", || plain.dial(service, DIALS)),
        Rival::single("redirected to it by waylay", || redirected.dial(NOWHERE, DIALS)).goal(1.35),
        Rival::single("to a listener in a network namespace", || nothing.dial(DIALS)),
        Rival::single("redirected to it by nftables", || nftables.dial(DIALS)).against(2),
    ];
    Contest { title: "A redirected connect", columns: vec![NANOSECONDS], rivals }.run(BENCH, rounds);
}
