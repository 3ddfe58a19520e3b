//! A client that does what it is told, line by line, and answers with numbers. The commands are the methods
//! of `Seat` in the benches' library.

use std::{
    io::{IoSlice, IoSliceMut, Read, Write, stdin},
    net::{SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    thread,
    time::{Duration, Instant},
};

use rustix::net::{RecvAncillaryBuffer, RecvFlags, SendAncillaryBuffer, SendFlags, recvmsg, sendmsg};
use socket2::{Domain, Socket, Type};

use crate::{
    datagrams,
    server::{ANSWER, BLOCK, REQUEST},
};

const BUFFER: usize = 256 << 10;

pub(crate) fn obey() {
    let (mut idle, mut open) = (Vec::new(), Vec::new());
    waylay_benches::raise_descriptor_limit();
    println!("ready");
    for line in stdin().lines() {
        let line = line.unwrap();
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["dial", server, count] => println!("{}", dial(address(server), number(count))),
            ["storm", server, count, threads] => storm(address(server), number(count), number(threads)),
            ["greet", server, count, threads] => greet(address(server), number(count), number(threads)),
            ["reach", server, count] => println!("{}", reach(address(server), number(count))),
            ["message", count] => {
                let (sent, received) = message(number(count));
                println!("{sent} {received}");
            }
            ["ping", server, count] => println!("{}", ping(address(server), number(count))),
            ["down", server, bytes, streams] => {
                streaming(number(streams), || down(address(server), number(bytes)));
            }
            ["up", server, bytes, streams] => {
                streaming(number(streams), || up(address(server), number(bytes)));
            }
            ["idle", server, count] => {
                idle.extend((0..number(count)).map(|_| opened(address(server))));
                println!("0");
            }
            ["volley", server, count, window] => {
                let (took, lost) = datagrams::volley(address(server), number(count), number(window));
                println!("{took} {lost}");
            }
            ["open", server, sockets, ports] => {
                open.extend(datagrams::open(address(server), number(sockets), number(ports) as u16));
                println!("0");
            }
            ["hang-up"] => {
                idle.clear();
                open.clear();
                println!("0");
            }
            _ => panic!("{line:?}"),
        }
    }
}

fn address(word: &str) -> SocketAddr {
    word.parse().unwrap()
}

fn number(word: &str) -> u64 {
    word.parse().unwrap()
}

fn median(mut times: Vec<Duration>) -> u128 {
    times.sort_unstable();
    times[times.len() / 2].as_nanos()
}

fn dial(server: SocketAddr, count: u64) -> u128 {
    let one = || {
        let socket = Socket::new(Domain::for_address(server), Type::STREAM, None).unwrap();
        // No port is held in TIME_WAIT: there are many connects in a run.
        socket.set_linger(Some(Duration::ZERO)).unwrap();
        let server = server.into();
        let start = Instant::now();
        socket.connect(&server).unwrap();
        start.elapsed()
    };
    median((0..count).map(|_| one()).collect())
}

/// How many connects a second so many threads make.
fn storm(server: SocketAddr, count: u64, threads: u64) {
    let start = Instant::now();
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| dial(server, count / threads));
        }
    });
    println!("{}", count as f64 / start.elapsed().as_secs_f64());
}

fn greet(server: SocketAddr, count: u64, threads: u64) {
    let start = Instant::now();
    let times = thread::scope(|scope| {
        let work = || (0..count / threads).map(|_| greeting(server)).collect::<Vec<_>>();
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect::<Vec<_>>()
    });
    let rate = times.len() as f64 / start.elapsed().as_secs_f64();
    println!("{} {rate}", median(times));
}

/// Of connections that are used, each before the next, how long the call takes that makes one.
fn reach(server: SocketAddr, count: u64) -> u128 {
    let one = || {
        let start = Instant::now();
        let stream = TcpStream::connect(server).unwrap();
        let took = start.elapsed();
        greet_over(stream);
        took
    };
    median((0..count).map(|_| one()).collect())
}

fn greeting(server: SocketAddr) -> Duration {
    let start = Instant::now();
    greet_over(TcpStream::connect(server).unwrap());
    start.elapsed()
}

/// The server ends it first, so that no port of a client's is held in TIME_WAIT.
fn greet_over(mut stream: TcpStream) {
    let mut request = [b'.'; REQUEST];
    request[0] = b'g';
    stream.write_all(&request).unwrap();
    let mut answer = Vec::with_capacity(ANSWER + 1);
    stream.read_to_end(&mut answer).unwrap();
    assert_eq!(answer.len(), ANSWER);
}

/// sendmsg(2) and recvmsg(2) of a block that is there, by a pair of sockets that no policy is about.
fn message(count: u64) -> (u128, u128) {
    let (here, there) = UnixStream::pair().unwrap();
    let mut block = [b'.'; BLOCK];
    let timed = |act: &mut dyn FnMut() -> usize| {
        let start = Instant::now();
        assert_eq!(act(), BLOCK);
        start.elapsed()
    };
    let one = |_| {
        let sent = timed(&mut || {
            let no_control = &mut SendAncillaryBuffer::default();
            sendmsg(&here, &[IoSlice::new(&[b'.'; BLOCK])], no_control, SendFlags::empty()).unwrap()
        });
        let received = timed(&mut || {
            let no_control = &mut RecvAncillaryBuffer::default();
            recvmsg(&there, &mut [IoSliceMut::new(&mut block)], no_control, RecvFlags::empty()).unwrap().bytes
        });
        (sent, received)
    };
    let (sent, received) = (0..count).map(one).unzip();
    (median(sent), median(received))
}

fn ping(server: SocketAddr, count: u64) -> u128 {
    let mut stream = opened(server);
    let exchange = |_| {
        let start = Instant::now();
        exchange(&mut stream);
        start.elapsed()
    };
    median((0..count).map(exchange).collect())
}

/// A connection over which a block has been there and back.
fn opened(server: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(server).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.write_all(b"p").unwrap();
    exchange(&mut stream);
    stream
}

fn exchange(stream: &mut TcpStream) {
    let mut block = [b'.'; BLOCK];
    stream.write_all(&block).unwrap();
    stream.read_exact(&mut block).unwrap();
}

/// Does it in so many threads at once, and says how long all took.
fn streaming(streams: u64, act: impl Fn() + Sync) {
    let start = Instant::now();
    thread::scope(|scope| {
        for _ in 0..streams {
            scope.spawn(&act);
        }
    });
    println!("{}", start.elapsed().as_nanos());
}

fn down(server: SocketAddr, bytes: u64) {
    let mut stream = TcpStream::connect(server).unwrap();
    stream.write_all(&[&b"d"[..], &bytes.to_le_bytes()].concat()).unwrap();
    let (mut buffer, mut count) = (vec![0; BUFFER], 0);
    loop {
        match stream.read(&mut buffer).unwrap() {
            0 => break,
            read => count += read as u64,
        }
    }
    assert_eq!(count, bytes);
}

fn up(server: SocketAddr, bytes: u64) {
    let mut stream = TcpStream::connect(server).unwrap();
    stream.write_all(&[&b"u"[..], &bytes.to_le_bytes()].concat()).unwrap();
    let buffer = vec![b'.'; BUFFER];
    let mut left = bytes;
    while left > 0 {
        let size = left.min(BUFFER as u64);
        stream.write_all(&buffer[..size as usize]).unwrap();
        left -= size;
    }
    // The server has it all.
    stream.read_exact(&mut [0]).unwrap();
}
