//! Socket options: what waylay's own cost beside the kernel's, and what every other costs while waylay runs.
//!
//! `cargo bench -p waylay-benches --bench options`, as root.
#![expect(clippy::unwrap_used, reason = "a bench: a failed step must show")]

use std::{
    cell::RefCell,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::fd::AsFd,
};

use socket2::{Domain, Socket, Type};
use waylay_abi as abi;
use waylay_benches::{Column, Contest, Rival, get_option, policy_for, rounds, set_option, timed};
use waylay_engine_ebpf::Limits;
use waylay_netlab::Lab;

const BENCH: &str = "options";
const TIMES: u32 = 20_000;
const NOWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 80);
const NANOSECONDS: Column = Column { unit: "a call, ns", digits: 0 };

fn main() {
    others(rounds(41), "getsockopt(SO_TYPE)", |socket| {
        get_option(socket.as_fd(), libc::SOL_SOCKET, libc::SO_TYPE, &mut [0; 4]).unwrap();
    });
    others(rounds(41), "setsockopt(TCP_NODELAY)", |socket| {
        set_option(socket.as_fd(), libc::IPPROTO_TCP, libc::TCP_NODELAY, &[1, 0, 0, 0]).unwrap();
    });
    let ground = Ground::new();
    ground.lab.as_service(1, || {
        queries(rounds(41), &ground);
        sets(rounds(41), &ground);
    });
}

fn socket() -> Socket {
    Socket::new(Domain::IPV4, Type::STREAM, None).unwrap()
}

/// A service with a connection, while waylay runs.
struct Ground {
    lab: Lab,
    unrelated: Socket,
    application: TcpStream,
    accepted: TcpStream,
    outbound: Socket,
}

impl Ground {
    fn new() -> Self {
        let mut lab = Lab::new("options", Limits::default());
        let listener = lab.as_service(1, || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
        lab.install(&policy_for(NOWHERE, 1), vec![lab.endpoint(1, [&listener])]);
        let application = lab.as_application(|| TcpStream::connect(NOWHERE).unwrap());
        let (accepted, _) = listener.accept().unwrap();
        let outbound = lab.as_service(1, socket);
        Self { lab, unrelated: socket(), application, accepted, outbound }
    }
}

/// The rivals without waylay take their turns while no program of it is attached.
fn others(rounds: usize, title: &'static str, call: impl Fn(&dyn AsFd)) {
    let ground = RefCell::new(None::<Ground>);
    let alone = socket();
    let without = || {
        ground.borrow_mut().take();
        timed(TIMES, || call(&alone))()
    };
    let with = |socket: fn(&Ground) -> &dyn AsFd| {
        let (ground, call) = (&ground, &call);
        move || {
            let mut ground = ground.borrow_mut();
            let socket = socket(ground.get_or_insert_with(Ground::new));
            timed(TIMES, || call(socket))()
        }
    };
    let rivals = vec![
        Rival::single("without waylay", without),
        Rival::single("while it runs, an unrelated socket", with(|ground| &ground.unrelated)).goal(1.0),
        Rival::single("an application's socket", with(|ground| &ground.application)).goal(1.0),
        Rival::single("a service's socket", with(|ground| &ground.accepted)),
    ];
    Contest { title, columns: vec![NANOSECONDS], rivals }.run(BENCH, rounds);
}

fn queries(rounds: usize, ground: &Ground) {
    let get = |level, option, size: usize| {
        let mut answer = vec![0; size];
        timed(TIMES, move || {
            get_option(ground.accepted.as_fd(), level, option, &mut answer).unwrap();
        })
    };
    let empty = || {
        get_option(ground.unrelated.as_fd(), libc::SOL_SOCKET, libc::SO_TYPE, &mut [0; 4]).unwrap();
    };
    let waylay = abi::SOL_WAYLAY;
    let rivals = vec![
        Rival::single("SO_TYPE of an unrelated socket", timed(TIMES, empty)),
        Rival::single("SO_TYPE of the service's", get(libc::SOL_SOCKET, libc::SO_TYPE, 4)),
        Rival::single("QUERY_RECORDS", get(waylay, abi::QUERY_RECORDS, size_of::<abi::Handle>())),
        Rival::single("QUERY_CONTEXT", get(waylay, abi::QUERY_CONTEXT, size_of::<abi::Context>())),
        Rival::single("SO_ORIGINAL_DST", get(libc::SOL_IP, libc::SO_ORIGINAL_DST, 16)),
    ];
    let title = "getsockopt(2) by a service";
    Contest { title, columns: vec![NANOSECONDS], rivals }.run(BENCH, rounds);
}

fn sets(rounds: usize, ground: &Ground) {
    let mut records = vec![0; size_of::<abi::Handle>()];
    get_option(ground.accepted.as_fd(), abi::SOL_WAYLAY, abi::QUERY_RECORDS, &mut records).unwrap();
    let no_delay = |socket: &Socket| {
        set_option(socket.as_fd(), libc::IPPROTO_TCP, libc::TCP_NODELAY, &[1, 0, 0, 0]).unwrap();
    };
    let set = || {
        set_option(ground.outbound.as_fd(), abi::SOL_WAYLAY, abi::SET_RECORDS, &records).unwrap();
    };
    let rivals = vec![
        Rival::single("TCP_NODELAY of an unrelated socket", timed(TIMES, || no_delay(&ground.unrelated))),
        Rival::single("TCP_NODELAY of the service's", timed(TIMES, || no_delay(&ground.outbound))),
        Rival::single("SET_RECORDS", timed(TIMES, set)),
    ];
    let title = "setsockopt(2) by a service";
    Contest { title, columns: vec![NANOSECONDS], rivals }.run(BENCH, rounds);
}
