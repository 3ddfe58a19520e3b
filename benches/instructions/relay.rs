//! The relay as a whole, in a process of its own between two sockets.

use std::{
    io::{BufRead, BufReader, Read},
    net::SocketAddr,
    process::{Command, Stdio},
};

use rustix::process::Signal;
use waylay_benches::{Seat, seat_binary};
use waylay_netlab::{Process, kill, patiently};

use crate::{collected, valgrind};

pub(crate) const NAME: &str = "relaying 64 bytes there and back, with its runtime";

/// The difference between many exchanges and few; the least of some, because how often the relay is woken for one is a
/// matter of how the machine's processors take turns.
pub(crate) fn count() -> f64 {
    const FEW: u32 = 200;
    const MANY: u32 = 1200;
    const TIMES: usize = 5;
    let once = |_| (exchanging(MANY) - exchanging(FEW)) / f64::from(MANY - FEW);
    (0..TIMES).map(once).fold(f64::INFINITY, f64::min)
}

fn exchanging(count: u32) -> f64 {
    let mut server =
        Process::spawn(Command::new(seat_binary()).args(["server", "127.0.0.1:0"]).stdout(Stdio::piped()));
    let mut line = String::new();
    BufReader::new(server.child().stdout.take().unwrap()).read_line(&mut line).unwrap();
    let address = free_address();
    let mut command = valgrind();
    command.arg(seat_binary()).args(["proxy", "waylay", &address.to_string(), line.trim()]);
    let mut proxy = Process::spawn(command.stderr(Stdio::piped()));
    patiently("the relay", || std::net::TcpStream::connect(address).ok());
    Seat::here().ping(address, count);
    kill(proxy.child().id(), Signal::TERM);
    let mut text = String::new();
    proxy.child().stderr.take().unwrap().read_to_string(&mut text).unwrap();
    collected(&text)
}

fn free_address() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}
