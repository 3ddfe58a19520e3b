//! A redirect service that tries things out, and says what came of it on
//! standard output: `netlab-probe tell|vouch|mutate|refusals|borrow`.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test program: a failed step must show")]

use std::{
    env,
    fmt::Debug,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use socket2::{Domain, SockRef, Socket, Type};
use tokio::{
    runtime::{Handle, Runtime},
    signal::unix::{SignalKind, signal},
    task::spawn_blocking,
};
use waylay::{
    Inbound, RedirectRecords, RedirectService, SetError, query_original_destination, query_redirect_chain,
    query_redirect_records, set_redirect_records,
};

fn main() {
    let handler: fn(Inbound) = match env::args().nth(1).as_deref() {
        Some("tell") => tell,
        Some("vouch") => vouch,
        Some("mutate") => mutate,
        Some("refusals") => refusals,
        Some("borrow") => borrow,
        other => panic!("no such probe: {other:?}"),
    };
    Runtime::new().unwrap().block_on(serve(handler));
}

/// The probes themselves wait as they like.
async fn serve(handler: fn(Inbound)) {
    let service = RedirectService::from_env().unwrap();
    let shutdown = service.shutdown();
    let mut terminate = signal(SignalKind::terminate()).unwrap();
    tokio::spawn(async move {
        terminate.recv().await;
        shutdown.trigger();
    });
    let handle = move |inbound| async move { spawn_blocking(move || handler(inbound)).await.unwrap() };
    service.serve(handle).await.unwrap();
}

/// A stream that waits for what it is asked to do.
fn blocking(stream: impl Into<tokio::net::TcpStream>) -> TcpStream {
    let stream = stream.into().into_std().unwrap();
    stream.set_nonblocking(false).unwrap();
    stream
}

/// Answers with what the kernel says of the connection, and ends it in order.
fn tell(inbound: Inbound) {
    assert_eq!(query_original_destination(&inbound).unwrap(), inbound.original_destination());
    assert_eq!(as_a_transparent_proxy_asks(&inbound), inbound.original_destination());
    let line = format!(
        "{} {} {}\n",
        inbound.original_destination(),
        inbound.context().application().pid,
        inbound.chain().len()
    );
    let mut stream = blocking(inbound);
    stream.write_all(line.as_bytes()).unwrap();
    SockRef::from(&stream).set_linger(None).unwrap();
}

/// Carries the answer of the destination back, if the kernel says the same on both sockets.
fn vouch(inbound: Inbound) {
    let destination = inbound.original_destination();
    assert_eq!(query_original_destination(&inbound).unwrap(), destination);
    assert_eq!(as_a_transparent_proxy_asks(&inbound), destination);
    let chain = inbound.chain().to_vec();
    let mut outbound = blocking(Handle::current().block_on(inbound.connect()).unwrap());
    assert_eq!(outbound.peer_addr().unwrap(), destination);
    assert_eq!(query_redirect_chain(&outbound).unwrap(), chain);
    let mut stream = blocking(inbound);
    std::io::copy(&mut outbound, &mut stream).unwrap();
    SockRef::from(&stream).set_linger(None).unwrap();
}

/// `SO_ORIGINAL_DST` and `IP6T_SO_ORIGINAL_DST`; an IPv4 destination has both.
fn as_a_transparent_proxy_asks(inbound: &Inbound) -> SocketAddr {
    let socket = SockRef::from(inbound);
    let six = socket.original_dst_v6().unwrap().as_socket().unwrap();
    let six = SocketAddr::new(six.ip().to_canonical(), six.port());
    match socket.original_dst_v4() {
        Ok(four) => assert_eq!(four.as_socket().unwrap(), six),
        Err(error) => assert!(six.is_ipv6() && error.kind() == std::io::ErrorKind::NotFound, "{error}"),
    }
    six
}

/// A million altered handles, each different from the one the kernel gave out.
fn mutate(inbound: Inbound) {
    const COUNT: u32 = 1_000_000;
    let genuine = query_redirect_records(&inbound).unwrap();
    let socket = tcp4();
    let mut random = Xorshift(0x9e37_79b9_7f4a_7c15);
    let mut counts = Counts::default();
    let mut tried = 0;
    while tried < COUNT {
        let bytes = altered(genuine.as_bytes(), &mut random);
        if bytes != genuine.as_bytes() {
            counts.add(&set_redirect_records(&socket, &RedirectRecords::from_bytes(&bytes)));
            tried += 1;
        }
    }
    let genuine_accepted = set_redirect_records(&socket, &genuine).is_ok();
    println!(
        "tried {tried} accepted {} malformed {} tampered {} expired {} other {} genuine {genuine_accepted}",
        counts.accepted, counts.malformed, counts.tampered, counts.expired, counts.other
    );
}

#[derive(Default)]
struct Counts {
    accepted: u32,
    malformed: u32,
    tampered: u32,
    expired: u32,
    other: u32,
}

impl Counts {
    fn add(&mut self, outcome: &Result<(), SetError>) {
        match outcome {
            Ok(()) => self.accepted += 1,
            Err(SetError::Malformed) => self.malformed += 1,
            Err(SetError::Tampered) => self.tampered += 1,
            Err(SetError::Expired) => self.expired += 1,
            Err(_) => self.other += 1,
        }
    }
}

fn altered(genuine: &[u8], random: &mut Xorshift) -> Vec<u8> {
    let mut bytes = genuine.to_vec();
    let at = random.below(bytes.len());
    match random.below(8) {
        0 => bytes[at] ^= 1 << random.below(8),
        1 => bytes[at] = random.byte(),
        2 => bytes.truncate(at),
        3 => bytes.extend((0..=at).map(|_| random.byte())),
        4 => bytes[32..].fill_with(|| random.byte()),
        5 => bytes[24..32].copy_from_slice(&(random.next() % 4096).to_ne_bytes()),
        6 => bytes.swap(at, random.below(genuine.len())),
        _ => bytes.fill_with(|| random.byte()),
    }
    bytes
}

struct Xorshift(u64);

impl Xorshift {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[0]
    }
}

/// Every errno a service can meet, by name.
fn refusals(inbound: Inbound) {
    let genuine = query_redirect_records(&inbound).unwrap();
    let with = |change: fn(&mut Vec<u8>)| {
        let mut bytes = genuine.as_bytes().to_vec();
        change(&mut bytes);
        set_redirect_records(&tcp4(), &RedirectRecords::from_bytes(&bytes))
    };
    report("empty", with(Vec::clear));
    report("truncated", with(|bytes| bytes.truncate(47)));
    report("extended", with(|bytes| bytes.resize(4096, 0)));
    report("version", with(|bytes| bytes[0] ^= 1));
    report("boot", with(|bytes| bytes[8] ^= 1));
    report("instance", with(|bytes| bytes[16] ^= 1));
    report("flow", with(|bytes| bytes[24] ^= 1));
    report("tag", with(|bytes| bytes[47] ^= 1));
    report("genuine", set_redirect_records(&tcp4(), &genuine));
    report("ipv6", set_redirect_records(&Socket::new(Domain::IPV6, Type::STREAM, None).unwrap(), &genuine));
    let (connection, _target) = connected(&genuine);
    report("connected", set_redirect_records(&connection, &genuine));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    println!("query-listener {:?}", query_redirect_records(&listener).unwrap_err());
    report("bind", RedirectService::bind((Ipv4Addr::LOCALHOST, 0).into()).map(drop));
    report("taken", RedirectService::from_env().map(drop));
    drop(inbound);
    report("ended", set_redirect_records(&tcp4(), &genuine));
}

fn report(name: &str, outcome: Result<(), impl Debug>) {
    match outcome {
        Ok(()) => println!("{name} Ok"),
        Err(error) => println!("{name} {error:?}"),
    }
}

/// A service's own connection to itself, made with records so that it is not
/// redirected: chains name this service already.
fn connected(records: &RedirectRecords) -> (Socket, TcpListener) {
    let target = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let socket = tcp4();
    set_redirect_records(&socket, records).unwrap();
    socket.connect(&target.local_addr().unwrap().into()).unwrap();
    (socket, target)
}

/// The first service of a chain sends its handle on as data; the second tries
/// to use it.
fn borrow(inbound: Inbound) {
    let own = query_redirect_records(&inbound).unwrap();
    if inbound.chain().len() == 1 {
        let mut next = blocking(Handle::current().block_on(inbound.connect()).unwrap());
        next.write_all(own.as_bytes()).unwrap();
        // Both ends stay open until the borrower has answered.
        let mut answer = Vec::new();
        let _reset_by_the_borrower = next.read_to_end(&mut answer);
        return;
    }
    let mut stream = blocking(inbound);
    let mut borrowed = [0; 48];
    stream.read_exact(&mut borrowed).unwrap();
    report("borrowed", set_redirect_records(&tcp4(), &RedirectRecords::from_bytes(&borrowed)));
    report("own", set_redirect_records(&tcp4(), &own));
    thread::sleep(Duration::from_millis(10));
}

fn tcp4() -> Socket {
    let address: SocketAddr = (Ipv4Addr::LOCALHOST, 0).into();
    Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap()
}
