//! A connection with a request and an answer through chains of services.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    process::{Command, Stdio},
};

use tempfile::TempDir;
use waylay_benches::{Column, Contest, Rival, Seat, seat_binary};
use waylay_netlab::{Process, Waylay};

use crate::{BENCH, nftables::Redirecting};

const GREETINGS: u32 = 60;
const LENGTHS: [usize; 4] = [1, 2, 3, 5];

pub(crate) fn compare(rounds: usize) {
    let (_server, address) = server();
    let reports = TempDir::new().unwrap();
    let mut direct = Seat::here();
    let mut chains = LENGTHS.map(|length| through(length, &reports));
    let (mut nothing, mut haproxy) = (Redirecting::nothing("server"), Redirecting::to_haproxy("server"));
    let mut rivals = vec![Rival::single("directly", || greet(&mut direct, address))];
    for (seat, length) in chains.iter_mut().zip(LENGTHS) {
        rivals.push(Rival::single(format!("waylay run, {length} x log"), move || greet(seat, address)));
    }
    let other = rivals.len();
    rivals.push(Rival::single("directly, in a network namespace", || nothing.greet(GREETINGS)));
    rivals.push(
        Rival::single("nftables REDIRECT and HAProxy there", || haproxy.greet(GREETINGS)).against(other),
    );
    let columns = vec![Column { unit: "connection, ns", digits: 0 }];
    Contest { title: "A connection with 80 bytes there and 64 back", columns, rivals }.run(BENCH, rounds);
}

fn greet(seat: &mut Seat, address: SocketAddr) -> f64 {
    seat.greet(address, GREETINGS, 1).0
}

fn server() -> (Process, SocketAddr) {
    let mut process =
        Process::spawn(Command::new(seat_binary()).args(["server", "127.0.0.1:0"]).stdout(Stdio::piped()));
    let mut line = String::new();
    BufReader::new(process.child().stdout.take().unwrap()).read_line(&mut line).unwrap();
    (process, line.trim().parse().unwrap())
}

/// A client behind so many services; what they report goes to a file.
fn through(length: usize, reports: &TempDir) -> Seat {
    let mut command = Command::new(Waylay::binary());
    command
        .args(["run", "--user", "root", "-o", "json", "--log"])
        .arg(reports.path().join(length.to_string()));
    command.args(["--through", "log"].repeat(length));
    Seat::start(command.arg("--").arg(seat_binary()).arg("client"))
}
