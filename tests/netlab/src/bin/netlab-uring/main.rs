//! What a program may do by io_uring instead of system calls, each in one way; says what came of it on standard output:
//! `netlab-uring socket FAMILY TYPE`, `netlab-uring connect plain|async|sqpoll ADDRESS`.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test program: a failed step must show")]

mod sys;

use std::{
    env,
    io::{self, Read},
    net::{SocketAddr, TcpStream},
};

use io_uring::{
    IoUring, opcode,
    squeue::{Entry, Flags},
    types::Fd,
};
use rustix::io::Errno;
use socket2::{Domain, SockAddr, Socket, Type};
use std::os::fd::AsRawFd;

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let said = match arguments[..] {
        ["socket", family, kind] => make_socket(family.parse().unwrap(), kind.parse().unwrap()),
        ["connect", way, address] => connect(way, address.parse().unwrap()),
        _ => panic!("no such way: {arguments:?}"),
    };
    println!("{said}");
}

fn ring(polled: bool) -> io::Result<IoUring> {
    let mut builder = IoUring::builder();
    if polled {
        builder.setup_sqpoll(1000);
    }
    builder.build(8)
}

fn make_socket(family: i32, kind: i32) -> String {
    match ring(false) {
        Ok(mut ring) => match run(&mut ring, &opcode::Socket::new(family, kind, 0).build()) {
            Ok(_) => "made".into(),
            Err(error) => name(&error),
        },
        Err(error) => format!("setup {}", name(&error)),
    }
}

/// The greeting of the server, if the connection is there.
fn connect(way: &str, address: SocketAddr) -> String {
    let mut ring = ring(way == "sqpoll").unwrap();
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
    let to = SockAddr::from(address);
    let entry = opcode::Connect::new(Fd(socket.as_raw_fd()), to.as_ptr().cast(), to.len()).build();
    let flags = if way == "async" { Flags::ASYNC } else { Flags::empty() };
    match run(&mut ring, &entry.flags(flags)) {
        Ok(_) => greeting(socket.into()),
        Err(error) => name(&error),
    }
}

fn greeting(mut stream: TcpStream) -> String {
    let (peer, own) = (stream.peer_addr().unwrap(), stream.local_addr().unwrap().ip());
    let (ip, port) = (peer.ip(), peer.port());
    let mut greeting = [0; 5];
    stream.read_exact(&mut greeting).unwrap();
    format!("{} {ip} {port} {own}", String::from_utf8_lossy(&greeting))
}

fn run(ring: &mut IoUring, entry: &Entry) -> io::Result<i32> {
    sys::push(ring, entry);
    ring.submit_and_wait(1)?;
    let done = ring.completion().next().unwrap().result();
    if done < 0 { Err(io::Error::from_raw_os_error(-done)) } else { Ok(done) }
}

fn name(error: &io::Error) -> String {
    match Errno::from_io_error(error) {
        Some(Errno::ACCESS) => "EACCES".into(),
        Some(Errno::NOSYS) => "ENOSYS".into(),
        Some(Errno::CONNREFUSED) => "ECONNREFUSED".into(),
        Some(_) | None => error.to_string(),
    }
}
