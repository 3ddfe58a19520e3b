//! Datagrams: a server that sends each back, and a client that counts those that come.

use std::{
    io::ErrorKind,
    net::{SocketAddr, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use socket2::SockRef;

const BYTES: usize = 64;
/// After so long without an answer what was sent is taken for lost, and sent again.
const PATIENCE: Duration = Duration::from_millis(200);
/// Flows that are opened before their answers are waited for.
const AT_ONCE: usize = 50;

/// Sends everything back, from as many ports as are asked for, the first being that of the address.
pub(crate) fn echo(address: SocketAddr, ports: u16) {
    for port in address.port()..address.port() + ports {
        let socket = UdpSocket::bind((address.ip(), port)).unwrap();
        // What comes while the server is busy waits.
        SockRef::from(&socket).set_recv_buffer_size(1 << 20).unwrap();
        thread::Builder::new().stack_size(64 << 10).spawn(move || send_back(&socket)).unwrap();
    }
}

fn send_back(socket: &UdpSocket) {
    let mut buffer = [0; 2048];
    loop {
        let (length, from) = socket.recv_from(&mut buffer).unwrap();
        // Whoever goes away shows in its own figures.
        let _gone = socket.send_to(&buffer[..length], from);
    }
}

/// So many there and back over one socket, `window` of them on their way at a time: nanoseconds, and how many were
/// lost.
pub(crate) fn volley(server: SocketAddr, count: u64, window: u64) -> (u128, u64) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(server).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut buffer = [b'.'; BYTES];
    // The flow is there before the clock runs.
    socket.send(&buffer).unwrap();
    socket.recv(&mut buffer).unwrap();
    let (start, mut back, mut lost) = (Instant::now(), 0, 0);
    (0..window).for_each(|_| assert_eq!(socket.send(&buffer).unwrap(), BYTES));
    while back < count {
        match socket.recv(&mut buffer) {
            Ok(length) => {
                assert_eq!(length, BYTES);
                back += 1;
                socket.send(&buffer).unwrap();
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                lost += window;
                (0..window).for_each(|_| assert_eq!(socket.send(&buffer).unwrap(), BYTES));
            }
            Err(error) => panic!("{error}"),
        }
    }
    (start.elapsed().as_nanos(), lost)
}

/// Opens so many flows, each of a socket of its own if there is one port, and sees to it that each has an answer.
pub(crate) fn open(server: SocketAddr, sockets: u64, ports: u16) -> Vec<UdpSocket> {
    let mut open = Vec::new();
    while (open.len() as u64) < sockets {
        let new: Vec<UdpSocket> = (0..AT_ONCE).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
        for port in 0..ports {
            let server = SocketAddr::new(server.ip(), server.port() + port);
            for socket in &new {
                socket.set_read_timeout(Some(PATIENCE)).unwrap();
                socket.send_to(&[b'.'; BYTES], server).unwrap();
            }
            new.iter().for_each(|socket| wait_for(socket, server));
        }
        open.extend(new);
    }
    open
}

fn wait_for(socket: &UdpSocket, server: SocketAddr) {
    for _ in 0..50 {
        match socket.recv_from(&mut [0; BYTES]) {
            Ok((_, from)) if from == server => return,
            Ok(_) => {}
            Err(_) => drop(socket.send_to(&[b'.'; BYTES], server)),
        }
    }
    panic!("no answer of {server}");
}
