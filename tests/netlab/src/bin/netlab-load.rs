//! An application that opens many connections at once and checks what the
//! service at the other end was told about each:
//! `netlab-load CONNECTIONS THREADS [behind-others]`; or one that tries what else can be done:
//! `netlab-load own-options`, `netlab-load dial ADDRESS…`,
//! `netlab-load children COUNT ADDRESS`.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test program: a failed step must show")]

use std::{
    env,
    io::Read,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    process,
    sync::OnceLock,
    thread,
};

use socket2::{Domain, Socket, Type};
use waylay::{RedirectRecords, query_redirect_records, set_redirect_records};

fn main() {
    let argument = |n| env::args().nth(n).unwrap();
    match argument(1).as_str() {
        "own-options" => return own_options(),
        "dial" => return dial(),
        "children" => return children(argument(2).parse().unwrap(), &argument(3)),
        "child" => return child(&argument(2)),
        _ => {}
    }
    let (connections, threads): (u32, u32) = (argument(1).parse().unwrap(), argument(2).parse().unwrap());
    let workers: Vec<_> =
        (0..threads).map(|worker| thread::spawn(move || work(worker, connections / threads))).collect();
    let mut total = Tally::default();
    for worker in workers {
        total.add(&worker.join().unwrap());
    }
    println!("right {} wrong {} missing {}", total.right, total.wrong, total.missing);
}

#[derive(Default)]
struct Tally {
    right: u32,
    wrong: u32,
    missing: u32,
}

impl Tally {
    fn add(&mut self, other: &Self) {
        self.right += other.right;
        self.wrong += other.wrong;
        self.missing += other.missing;
    }
}

fn work(worker: u32, count: u32) -> Tally {
    let mut tally = Tally::default();
    for n in 0..count {
        let destination = destination(worker, n);
        match ask(destination) {
            Ok(answer) if answer == expected(destination) => tally.right += 1,
            Ok(answer) if answer.is_empty() => tally.missing += 1,
            Ok(answer) => {
                println!("{destination}: {answer:?}");
                tally.wrong += 1;
            }
            Err(error) => {
                println!("{destination}: {error}");
                tally.missing += 1;
            }
        }
    }
    tally
}

/// A different one for each connection of a worker, where nothing listens; of IPv6, which has one address that leads
/// somewhere on every host, one of a few where nobody accepts.
fn destination(worker: u32, n: u32) -> SocketAddr {
    if n % 4 == 3 {
        return silent_listener(worker + n / 4);
    }
    let port = 1 + (n % 30_000) as u16;
    let ip4 = Ipv4Addr::new(127, 1 + worker as u8, (n >> 8) as u8, n as u8);
    let ip: IpAddr = match n % 4 {
        0 | 1 => ip4.into(),
        _ => ip4.to_ipv6_mapped().into(),
    };
    (ip, port).into()
}

fn silent_listener(number: u32) -> SocketAddr {
    const COUNT: usize = 16;
    static LISTENERS: OnceLock<Vec<TcpListener>> = OnceLock::new();
    let listeners = LISTENERS
        .get_or_init(|| (0..COUNT).map(|_| TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).unwrap()).collect());
    listeners[number as usize % COUNT].local_addr().unwrap()
}

fn ask(destination: SocketAddr) -> std::io::Result<String> {
    let mut socket = Socket::new(Domain::for_address(destination), Type::STREAM, None)?;
    socket.connect(&destination.into())?;
    assert_eq!(socket.peer_addr()?.as_socket(), Some(destination));
    let mut answer = String::new();
    socket.read_to_string(&mut answer)?;
    Ok(if is_behind_others() { without_pid(&answer) } else { answer })
}

fn expected(destination: SocketAddr) -> String {
    let shown = SocketAddr::new(destination.ip().to_canonical(), destination.port());
    let process = if is_behind_others() { "a process".to_owned() } else { process::id().to_string() };
    format!("{shown} {process} 1\n")
}

/// Whether the application that the service was told of is another run's service.
fn is_behind_others() -> bool {
    env::args().nth(3).is_some_and(|argument| argument == "behind-others")
}

fn without_pid(answer: &str) -> String {
    let mut words: Vec<&str> = answer.split(' ').collect();
    if let Some(pid) = words.get_mut(1) {
        assert_ne!(pid.parse(), Ok(process::id()));
        *pid = "a process";
    }
    words.join(" ")
}

/// What an application gets that tries a service's options on its own socket.
fn own_options() {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    println!("set {:?}", set_redirect_records(&socket, &RedirectRecords::from_bytes(&[0; 48])).unwrap_err());
    println!("query {:?}", query_redirect_records(&socket).unwrap_err());
}

/// Connects to each address, keeping all open; says what came of each.
fn dial() {
    let mut open = Vec::new();
    for address in env::args().skip(2) {
        let address: SocketAddr = address.parse().unwrap();
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
        match socket.connect(&address.into()) {
            Ok(()) => println!("{address} connected {}", socket.peer_addr().unwrap().as_socket().unwrap()),
            Err(error) => println!("{address} errno {}", error.raw_os_error().unwrap()),
        }
        open.push(socket);
    }
}

/// So many processes, all of which are there before the first connects.
fn children(count: usize, address: &str) {
    let (gate, opener) = std::io::pipe().unwrap();
    let spawn = |gate: &std::io::PipeReader| {
        let mut command = process::Command::new(env::current_exe().unwrap());
        command.args(["child", address]).stdin(gate.try_clone().unwrap()).spawn().unwrap()
    };
    let children: Vec<_> = (0..count).map(|_| spawn(&gate)).collect();
    drop(opener);
    let ends = children.into_iter().map(|mut child| child.wait().unwrap().success());
    println!("{} of {count} greeted", ends.filter(|greeted| *greeted).count());
}

/// Waits for the gate to be opened, then connects for a greeting of five bytes.
fn child(address: &str) {
    let mut rest = Vec::new();
    std::io::stdin().read_to_end(&mut rest).unwrap();
    let mut greeting = [0; 5];
    std::net::TcpStream::connect(address).unwrap().read_exact(&mut greeting).unwrap();
    assert_eq!(&greeting, b"hello");
}
