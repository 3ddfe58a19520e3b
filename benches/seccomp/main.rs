//! What a connect(2) costs that a supervisor of system calls makes (`waylay run --engine seccomp`), and what a connection costs that was made so.
//!
//! `cargo bench -p waylay-benches --bench seccomp`, as root.
#![expect(clippy::unwrap_used, reason = "a bench: a failed step must show")]

mod alone;
mod sys;

use std::{
    fs,
    io::{BufRead, BufReader},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::Path,
    process::{Command, Stdio},
    thread,
};

use socket2::{Domain, Socket, Type};
use tempfile::TempDir;
use waylay_benches::{Column, Contest, Rival, Seat, drain, raise_descriptor_limit, rounds, seat_binary};
use waylay_netlab::{Process, Waylay};

const BENCH: &str = "seccomp";
const DIALS: u32 = 400;
const STORM: u32 = 4_000;
const THREADS: u32 = 8;
const PINGS: u32 = 2_000;
const ON_ONE: [&str; 3] = ["taskset", "-c", "0"];
/// Nothing that is dialled here is blocked by it, and there are no services.
const POLICY: &str = "[sublayer.base]\n[[filter]]\naction = \"block\"\nsublayer = \"base\"\nif.port = 9\n";
/// Behind it: datagrams are no concern of the run.
const OF_TCP: &str = "if.protocol = \"tcp\"\n";

fn main() {
    raise_descriptor_limit();
    let files = TempDir::new().unwrap();
    let policy = files.path().join("policy.toml");
    fs::write(&policy, POLICY).unwrap();
    let of_tcp = files.path().join("tcp.toml");
    fs::write(&of_tcp, format!("{POLICY}{OF_TCP}")).unwrap();
    let (_server, pinged) = server();
    // On one processor, where nothing depends on which one is woken.
    let on_one = |run: Option<Command>| {
        let mut command = run.unwrap_or_else(|| Command::new("env"));
        Seat::start(command.args(ON_ONE).arg(seat_binary()).arg("client"))
    };
    let drained = accept_all();
    let supervised_by = |policy: &Path| {
        let mut run = run();
        run.arg("--policy").arg(policy);
        Seat::start(run.arg("--").arg(seat_binary()).arg("client"))
    };
    let supervised = || supervised_by(&policy);
    let redirected = || {
        let mut run = run();
        run.args(["-o", "json", "--log"]).arg(files.path().join("log")).args(["--through", "log"]);
        Seat::start(run.arg("--").arg(seat_binary()).arg("client"))
    };
    alone::redirected();
    to_a_service(pinged, supervised(), redirected());
    messages(supervised(), supervised_by(&of_tcp));
    one_client(drained, supervised(), redirected());
    eight_threads(drained, supervised());
    let mut run = run();
    run.arg("--policy").arg(&policy).arg("--");
    afterwards(pinged, on_one(None), on_one(Some(run)));
}

fn run() -> Command {
    let mut command = Command::new(Waylay::binary());
    command.args(["run", "--engine", "seccomp", "--user", "root"]);
    command
}

fn one_client(server: SocketAddr, mut supervised: Seat, mut redirected: Seat) {
    let mut direct = Seat::here();
    let rivals = vec![
        Rival::single("without waylay", || direct.dial(server, DIALS)),
        Rival::single("supervised, no filter matches", || supervised.dial(server, DIALS)).goal(3.0),
        Rival::single("supervised, to one log", || redirected.dial(server, DIALS)).goal(3.0),
    ];
    let columns = vec![Column { unit: "connect(2), ns", digits: 0 }];
    Contest { title: "A connect that a supervisor makes, one client", columns, rivals }
        .run(BENCH, rounds(21));
}

/// With all that the service does meanwhile, of which the client has to wait for some: two processors are four's.
fn to_a_service(server: SocketAddr, mut supervised: Seat, mut redirected: Seat) {
    let mut direct = Seat::here();
    let rivals = vec![
        Rival::single("without waylay", || direct.reach(server, DIALS)),
        Rival::single("supervised, no filter matches", || supervised.reach(server, DIALS)),
        Rival::single("supervised, to one log", || redirected.reach(server, DIALS)),
    ];
    let columns = vec![Column { unit: "connect(2), ns", digits: 0 }];
    Contest { title: "A connect of a connection that is used before the next", columns, rivals }
        .run(BENCH, rounds(21));
}

fn messages(mut supervised: Seat, mut of_tcp: Seat) {
    let mut direct = Seat::here();
    let both = |(sent, received)| vec![Some(sent), Some(received)];
    let rivals = vec![
        Rival::new("without waylay", || both(direct.message(PINGS))),
        Rival::new("of a supervised client", || both(supervised.message(PINGS))),
        Rival::new("of a supervised client, no service takes datagrams", || both(of_tcp.message(PINGS))),
    ];
    let columns =
        vec![Column { unit: "sendmsg(2), ns", digits: 0 }, Column { unit: "recvmsg(2), ns", digits: 0 }];
    Contest { title: "A message of 64 bytes by a Unix socket", columns, rivals }.run(BENCH, rounds(21));
}

fn eight_threads(server: SocketAddr, mut supervised: Seat) {
    let mut direct = Seat::here();
    let rivals = vec![
        Rival::single("without waylay", || direct.storm(server, STORM, THREADS)),
        Rival::single("supervised, no filter matches", || supervised.storm(server, STORM, THREADS)),
    ];
    let columns = vec![Column { unit: "connects a second", digits: 0 }];
    Contest { title: "Connects of eight threads at once", columns, rivals }.run(BENCH, rounds(11));
}

fn afterwards(server: SocketAddr, mut direct: Seat, mut supervised: Seat) {
    let rivals = vec![
        Rival::single("without waylay", || direct.ping(server, PINGS)),
        Rival::single("of a supervised client", || supervised.ping(server, PINGS)).goal(1.05),
    ];
    let columns = vec![Column { unit: "64 bytes there and back, ns", digits: 0 }];
    Contest { title: "A connection that was made, not redirected", columns, rivals }.run(BENCH, rounds(21));
}

/// Accepts and closes for as long as the bench runs, with room for a whole turn's dials.
fn accept_all() -> SocketAddr {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
    socket.listen(4096).unwrap();
    let listener: TcpListener = socket.into();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || drain(&listener));
    address
}

fn server() -> (Process, SocketAddr) {
    let mut process = Process::spawn(
        Command::new(ON_ONE[0])
            .args(&ON_ONE[1..])
            .arg(seat_binary())
            .args(["server", "127.0.0.1:0"])
            .stdout(Stdio::piped()),
    );
    let mut line = String::new();
    BufReader::new(process.child().stdout.take().unwrap()).read_line(&mut line).unwrap();
    (process, line.trim().parse().unwrap())
}
