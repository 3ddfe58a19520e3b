//! Whatever way a program uses its socket, it works through a relay as it does without.

use std::fs::File;
use std::io::{ErrorKind, Read, Seek, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::thread::{scope, sleep, spawn, yield_now};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, epoll, poll};
use rustix::fs::sendfile;
use rustix::io::{Errno, ioctl_fionread};
use rustix::net::{RecvFlags, recv};
use rustix::pipe::{PipeFlags, SpliceFlags, pipe_with, splice};

use crate::link::{Link, outcome};
use crate::pattern;

const MIB: usize = 1024 * 1024;
const TOTAL: usize = 50 * MIB;

/// A client whose socket does not block, with what epoll_wait(2) tells it.
struct NonBlocking {
    socket: TcpStream,
    epoll: OwnedFd,
    would_block: usize,
}

impl NonBlocking {
    fn new(socket: TcpStream, trigger: epoll::EventFlags) -> Self {
        socket.set_nonblocking(true).unwrap();
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
        let events = epoll::EventFlags::IN | epoll::EventFlags::OUT | trigger;
        epoll::add(&epoll, &socket, epoll::EventData::new_u64(0), events).unwrap();
        Self { socket, epoll, would_block: 0 }
    }

    fn wait(&self) {
        let mut events =
            [epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) }];
        let timeout = rustix::event::Timespec { tv_sec: 20, tv_nsec: 0 };
        let count = epoll::wait(&self.epoll, &mut events[..], Some(&timeout)).unwrap();
        assert_eq!(count, 1, "no event comes, so it hangs");
    }

    /// Sends a stream and reads what comes back until the end, both as far as the socket lets it.
    fn exchange(&mut self, stream: &[u8]) -> Vec<u8> {
        let (mut sent, mut received, mut chunk) = (0, Vec::new(), vec![0; MIB]);
        loop {
            self.wait();
            while sent < stream.len() {
                match self.socket.write(&stream[sent..]) {
                    Ok(count) => sent += count,
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::WouldBlock);
                        self.would_block += 1;
                        break;
                    }
                }
                if sent == stream.len() {
                    self.socket.shutdown(Shutdown::Write).unwrap();
                }
            }
            loop {
                match self.socket.read(&mut chunk) {
                    Ok(0) => return received,
                    Ok(count) => received.extend_from_slice(&chunk[..count]),
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::WouldBlock);
                        break;
                    }
                }
            }
        }
    }
}

fn non_blocking_client(trigger: epoll::EventFlags) -> usize {
    let Link { client, server, relay } = Link::new();
    let origin = spawn(move || {
        // Stalls: the client meets a full socket first.
        sleep(Duration::from_millis(300));
        let mut received = Vec::new();
        (&server).read_to_end(&mut received).unwrap();
        (&server).write_all(&received).unwrap();
    });
    let stream = pattern::stream(1, TOTAL);
    let mut client = NonBlocking::new(client, trigger);
    assert!(client.exchange(&stream) == stream);
    origin.join().unwrap();
    outcome(relay).unwrap();
    client.would_block
}

#[test]
fn edge_triggered_events_reach_a_client_whose_origin_stalls() {
    non_blocking_client(epoll::EventFlags::ET);
}

#[test]
fn a_level_triggered_client_whose_origin_stalls_does_not_spin() {
    // A socket that is always writable to epoll and never to send(2) made it some 100,000.
    let would_block = non_blocking_client(epoll::EventFlags::empty());
    assert!(would_block < 10_000, "{would_block} times there was no room after all");
}

#[test]
fn a_client_may_use_sendfile() {
    let Link { client, server, relay } = Link::new();
    let stream = pattern::stream(1, TOTAL);
    let path = std::env::temp_dir().join(format!("waylay-relay-sendfile-{}", std::process::id()));
    let mut file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
    std::fs::remove_file(path).unwrap();
    file.write_all(&stream).unwrap();
    file.rewind().unwrap();
    let reader = spawn(move || {
        let mut received = Vec::new();
        (&server).read_to_end(&mut received).map(|_| received)
    });
    let mut rest = TOTAL;
    while rest > 0 {
        rest -= sendfile(&client, &file, None, rest).unwrap();
    }
    client.shutdown(Shutdown::Write).unwrap();
    assert!(reader.join().unwrap().unwrap() == stream);
    outcome(relay).unwrap();
}

#[test]
fn a_client_may_use_splice() {
    let Link { client, server, relay } = Link::new();
    let stream = pattern::stream(1, TOTAL);
    let received = scope(|scope| {
        scope.spawn(|| {
            (&server).write_all(&stream).unwrap();
            server.shutdown(Shutdown::Write).unwrap();
        });
        scope.spawn(|| read_by_splice(client.as_fd())).join().unwrap()
    });
    assert!(received == stream);
    drop((client, server));
    outcome(relay).unwrap();
}

fn read_by_splice(socket: std::os::fd::BorrowedFd<'_>) -> Vec<u8> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    let (mut read, mut received) = (File::from(read), Vec::new());
    loop {
        match splice(socket, None, &write, None, 64 * 1024, SpliceFlags::empty()) {
            Ok(0) => return received,
            Ok(count) => {
                (&mut read).take(count as u64).read_to_end(&mut received).unwrap();
            }
            Err(errno) => assert_eq!(errno, Errno::INTR),
        }
    }
}

#[test]
fn a_client_may_look_before_it_reads() {
    let Link { mut client, mut server, relay } = Link::new();
    let mut fds = [PollFd::new(&client, PollFlags::IN | PollFlags::OUT)];
    poll(&mut fds, None).unwrap();
    assert_eq!(fds[0].revents(), PollFlags::OUT);

    let stream = pattern::stream(1, 1000);
    server.write_all(&stream).unwrap();
    let mut fds = [PollFd::new(&client, PollFlags::IN)];
    poll(&mut fds, None).unwrap();
    while ioctl_fionread(&client).unwrap() < 1000 {
        yield_now();
    }
    assert_eq!(ioctl_fionread(&client).unwrap(), 1000);
    let mut peeked = vec![0; 2000];
    let (count, _) = recv(&client, &mut peeked[..], RecvFlags::PEEK).unwrap();
    assert!(peeked[..count] == stream);
    let mut read = vec![0; 1000];
    client.read_exact(&mut read).unwrap();
    assert!(read == stream);
    assert_eq!(ioctl_fionread(&client).unwrap(), 0);
    let nothing = recv(&client, &mut peeked[..], RecvFlags::PEEK | RecvFlags::DONTWAIT);
    assert_eq!(nothing.unwrap_err(), Errno::AGAIN);

    drop(server);
    let mut fds = [PollFd::new(&client, PollFlags::IN | PollFlags::RDHUP)];
    poll(&mut fds, None).unwrap();
    assert!(fds[0].revents().contains(PollFlags::RDHUP));
    assert_eq!(client.read(&mut read).unwrap(), 0);
    drop(client);
    outcome(relay).unwrap();
}
