//! A relay process that is killed is an error to both peers, never a clean end of a short stream.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{scope, spawn, yield_now};
use std::{env, fs};

use rustix::fs::{Mode, OFlags, open};
use rustix::pipe::fcntl_getpipe_size;
use socket2::{Domain, Socket, Type};
use waylay_relay::{arm, relay};

use crate::link::{ours, reset, runtime};
use crate::pattern;

/// Set for the child only: where the relay connects to.
const DESTINATION: &str = "WAYLAY_RELAY_TEST_DESTINATION";
/// Set for the child only: which relay it is.
const KIND: &str = "WAYLAY_RELAY_TEST_KIND";

/// Sent by the receiver of a stream once it has all of it, so that the sender, too, can tell complete from
/// short.
const RECEIPT: &[u8] = b"complete";
/// A few chunks, and enough to be spliced for most of the way.
const STREAM_BYTES: [u64; 2] = [4 * 1024 * 1024, 64 * 1024 * 1024];
const ROUNDS: u64 = 100;

#[derive(Clone, Copy)]
enum Kind {
    Armed,
    /// The control: a relay as one would write it without thinking of its own death.
    Naive,
}

/// The child: relays every connection of the listener that is its standard input.
#[test]
fn relay_process() {
    let Ok(destination) = env::var(DESTINATION) else { return };
    let destination: SocketAddr = destination.parse().unwrap();
    let naive = env::var(KIND).unwrap() == "naive";
    let listener = TcpListener::from(io::stdin().as_fd().try_clone_to_owned().unwrap());
    for accepted in listener.incoming() {
        let accepted = accepted.unwrap();
        spawn(
            move || {
                if naive { relay_naively(accepted, destination) } else { relay_armed(accepted, destination) }
            },
        );
    }
}

fn relay_armed(accepted: TcpStream, destination: SocketAddr) {
    let dialled = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    arm(&dialled).unwrap();
    dialled.connect(&destination.into()).unwrap();
    runtime().block_on(relay(ours(accepted), ours(dialled))).unwrap();
}

fn relay_naively(accepted: TcpStream, destination: SocketAddr) {
    let dialled = TcpStream::connect(destination).unwrap();
    scope(|scope| {
        for (mut from, mut to) in [(&accepted, &dialled), (&dialled, &accepted)] {
            scope.spawn(move || {
                io::copy(&mut from, &mut to).unwrap();
                to.shutdown(Shutdown::Write).unwrap();
            });
        }
    });
}

struct Process {
    child: Child,
    address: SocketAddr,
    destination: TcpListener,
}

impl Process {
    fn start(kind: Kind) -> Self {
        let loopback = (Ipv4Addr::LOCALHOST, 0);
        let (listener, destination) =
            (TcpListener::bind(loopback).unwrap(), TcpListener::bind(loopback).unwrap());
        let name = match kind {
            Kind::Armed => {
                // Sockets accepted from an armed listener are armed from birth.
                arm(&listener).unwrap();
                "armed"
            }
            Kind::Naive => "naive",
        };
        let address = listener.local_addr().unwrap();
        let child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "killed::relay_process", "--nocapture"])
            .env(DESTINATION, destination.local_addr().unwrap().to_string())
            .env(KIND, name)
            .stdin(OwnedFd::from(listener))
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, address, destination }
    }

    /// Whether a direction is being spliced. What the process was born with is of another size.
    fn has_a_pipe(&self) -> bool {
        let descriptors = fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap();
        descriptors.filter_map(Result::ok).any(|entry| {
            let target = fs::read_link(entry.path());
            let is_pipe = target.is_ok_and(|target| target.to_string_lossy().starts_with("pipe:"));
            is_pipe && size_of_pipe(&entry.path()).is_some_and(|size| size > 64 * 1024)
        })
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        // Whoever still waits for the relay to connect is given a connection that was reset.
        reset(TcpStream::connect(self.destination.local_addr().unwrap()).unwrap());
    }
}

/// `None` if it has gone meanwhile.
fn size_of_pipe(path: &Path) -> Option<usize> {
    let pipe = open(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty()).ok()?;
    fcntl_getpipe_size(pipe).ok()
}

impl Drop for Process {
    fn drop(&mut self) {
        // A test that failed must not leave its process behind; one that passed has reaped it already.
        let _gone = self.child.kill().and_then(|()| self.child.wait());
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Complete,
    Error,
    /// What must never happen: an orderly end-of-file before the end.
    Short(u64),
}

impl Ending {
    fn of(received: io::Result<u64>, whole: u64) -> Self {
        match received {
            Ok(count) if count == whole => Self::Complete,
            Ok(count) => Self::Short(count),
            Err(_) => Self::Error,
        }
    }
}

/// Each peer uses its socket from one thread only: an error is reported once, to whoever comes first.
fn send_stream(socket: &TcpStream, seed: u64, total: u64) -> Ending {
    let sent = pattern::send(socket, seed, total, |_| ()).and_then(|()| socket.shutdown(Shutdown::Write));
    match sent {
        Ok(()) => Ending::of(read_to_end(socket), RECEIPT.len() as u64),
        Err(_) => Ending::Error,
    }
}

fn receive_stream(mut socket: &TcpStream, seed: u64, total: u64, progress: &AtomicU64) -> Ending {
    let received = pattern::receive(socket, seed, |count| progress.store(count, Ordering::Relaxed));
    progress.store(u64::MAX, Ordering::Relaxed);
    let ending = Ending::of(received, total);
    match ending {
        // The relay may be killed before it takes the receipt, after the stream was complete: an error to the
        // sender alone.
        Ending::Complete => drop(socket.write_all(RECEIPT)),
        Ending::Error => {}
        Ending::Short(_) => {}
    }
    ending
}

fn read_to_end(mut socket: &TcpStream) -> io::Result<u64> {
    socket.read_to_end(&mut Vec::new()).map(|count| count as u64)
}

/// How one stream through a killed relay process ended.
struct Round {
    endings: [Ending; 2],
    /// Whether it was under way in a pipe at the end.
    spliced: bool,
}

/// Kills the relay process when `mark` bytes have come out, or none are left to come.
fn round(seed: u64, upwards: bool, total: u64, mark: u64) -> Round {
    let mut process = Process::start(Kind::Armed);
    let destination = process.destination.try_clone().unwrap();
    let client = TcpStream::connect(process.address).unwrap();
    let progress = AtomicU64::new(0);
    scope(|scope| {
        let play = |socket: &TcpStream, sends: bool| {
            if sends {
                send_stream(socket, seed, total)
            } else {
                receive_stream(socket, seed, total, &progress)
            }
        };
        let client = scope.spawn(move || play(&client, upwards));
        let server = scope.spawn(move || play(&destination.accept().unwrap().0, !upwards));
        while progress.load(Ordering::Relaxed) < mark {
            yield_now();
        }
        let spliced = process.has_a_pipe();
        process.kill();
        Round { endings: [client.join().unwrap(), server.join().unwrap()], spliced }
    })
}

#[test]
fn at_any_moment_it_is_an_error_to_both_peers() {
    let (mut interrupted, mut while_spliced) = (0, 0);
    for number in 0..ROUNDS {
        let total = STREAM_BYTES[number as usize / 2 % 2];
        // The first rounds end before the relay has connected, the last byte is out in some of the others.
        let mark = if number < 4 { 0 } else { pattern::mix(number) % (total + total / 8) };
        let Round { endings, spliced } = round(number, number.is_multiple_of(2), total, mark);
        let short = endings.iter().any(|ending| matches!(ending, Ending::Short(_)));
        assert!(!short, "round {number}, killed after {mark} of {total} bytes: {endings:?}");
        let failed = endings.contains(&Ending::Error);
        interrupted += usize::from(failed);
        while_spliced += usize::from(failed && spliced);
    }
    assert!(interrupted > while_spliced, "no round was interrupted while it was copied");
    assert!(while_spliced > 0, "no round was interrupted while it was spliced");
}

/// Half a stream has passed and every queue is empty: the moment in which a kernel closes most politely.
fn endings_after_half_a_stream(kind: Kind) -> [Ending; 2] {
    let mut process = Process::start(kind);
    let mut client = TcpStream::connect(process.address).unwrap();
    let (mut server, _) = process.destination.accept().unwrap();
    client.write_all(&[1; 1000]).unwrap();
    server.read_exact(&mut [0; 1000]).unwrap();
    server.write_all(&[1; 1000]).unwrap();
    client.read_exact(&mut [0; 1000]).unwrap();
    process.kill();
    [client, server].map(|socket| Ending::of(read_to_end(&socket), 1000))
}

#[test]
fn with_every_queue_empty_it_is_an_error_to_both_peers() {
    assert_eq!(endings_after_half_a_stream(Kind::Armed), [Ending::Error; 2]);
}

#[test]
fn without_arming_it_would_look_complete() {
    assert_eq!(endings_after_half_a_stream(Kind::Naive), [Ending::Short(0); 2]);
}
