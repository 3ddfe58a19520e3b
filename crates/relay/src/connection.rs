//! Two sockets, two flows and the loop that drives them.
//!
//! tokio says that something has changed, poll(2) what there is. tokio's own notes would not do: they are of
//! edges, don't tell an error from room to write, and keep an end-of-file for ever.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::retry_on_intr;
use tokio::net::TcpStream;
use tokio::task::yield_now;

use crate::error::{Direction, Halt, RelayError, Side, Transfer};
use crate::flow::Flow;
use crate::observer::Observer;
use crate::socket::Socket;

/// Chunks of a connection after which the others of the thread have their turn: half a megabyte if copied,
/// well below a millisecond.
const CHUNKS_IN_A_ROW: u32 = 8;

const AT_ONCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

pub(crate) struct Connection {
    application: Socket,
    destination: Socket,
    to_destination: Flow,
    to_application: Flow,
}

impl Connection {
    pub(crate) fn new(application: TcpStream, destination: TcpStream) -> Self {
        Self {
            application: Socket::new(application, Side::Application),
            destination: Socket::new(destination, Side::Destination),
            to_destination: Flow::new(Direction::ToDestination),
            to_application: Flow::new(Direction::ToApplication),
        }
    }

    /// Relays to the end. The sockets are closed with `self`, by a reset unless they were disarmed.
    pub(crate) async fn run<O: Observer + ?Sized>(
        mut self,
        observer: &mut O,
    ) -> Result<Transfer, RelayError> {
        let outcome = self.relay(observer).await;
        let transfer = self.transfer();
        match outcome {
            Ok(()) => Ok(transfer),
            Err(halt) => Err(halt.after(transfer)),
        }
    }

    async fn relay<O: Observer + ?Sized>(&mut self, observer: &mut O) -> Result<(), Halt> {
        self.prepare()?;
        let mut in_a_row = 0;
        while !self.ended() {
            in_a_row = if self.wait().await? { 0 } else { in_a_row + 1 };
            self.advance(observer)?;
            if in_a_row == CHUNKS_IN_A_ROW {
                yield_now().await;
                in_a_row = 0;
            }
        }
        self.application.disarm()?;
        self.destination.disarm()?;
        Ok(())
    }

    fn prepare(&self) -> Result<(), Halt> {
        // Both are armed before either failure is returned, else the healthy peer would see a clean end.
        let armed = [self.application.arm(), self.destination.arm()];
        armed.into_iter().collect::<Result<(), Halt>>()?;
        self.application.configure()?;
        self.destination.configure()?;
        Ok(())
    }

    fn ended(&self) -> bool {
        self.to_destination.ended() && self.to_application.ended()
    }

    fn transfer(&self) -> Transfer {
        Transfer {
            to_destination: self.to_destination.forwarded(),
            to_application: self.to_application.forwarded(),
        }
    }

    /// Waits until a socket is ready and notes for what; whether that took time.
    async fn wait(&mut self) -> Result<bool, Halt> {
        let mut waited = false;
        poll_fn(|context| {
            let found = self.poll_ready(context);
            waited |= found.is_pending();
            found
        })
        .await?;
        Ok(waited)
    }

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Halt>> {
        loop {
            // In this order, or a change between the two would go unnoticed.
            self.application.forget_wakeups();
            self.destination.forget_wakeups();
            if self.look()? > 0 {
                return Poll::Ready(Ok(()));
            }
            match self.poll_wakeup(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(Halt::Wait(error))),
            }
        }
    }

    fn poll_wakeup(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let [to_application, to_destination] = self.interests();
        let mut woken = Poll::Pending;
        for (socket, events) in [(&self.application, to_application), (&self.destination, to_destination)] {
            if woken.is_pending() && !mute(socket, events) {
                woken = socket.poll_wakeup(context, events.contains(PollFlags::IN));
            }
        }
        woken
    }

    /// Looks which sockets are ready and notes for what. Returns how many are.
    fn look(&mut self) -> Result<usize, Halt> {
        let [to_application, to_destination] = self.interests();
        let mut fds = [
            PollFd::from_borrowed_fd(self.application.as_fd(), to_application),
            PollFd::from_borrowed_fd(self.destination.as_fd(), to_destination),
        ];
        // Only a socket of which nothing is wanted is left out, and then the other one has work to wait for.
        let watched = match (mute(&self.application, to_application), mute(&self.destination, to_destination))
        {
            (true, _) => &mut fds[1..],
            (false, true) => &mut fds[..1],
            (false, false) => &mut fds[..],
        };
        let count = retry_on_intr(|| poll(watched, Some(&AT_ONCE)))
            .map_err(|errno| Halt::Wait(io::Error::from(errno)))?;
        let [application, destination] = fds.map(|fd| fd.revents());
        self.application.note(application)?;
        self.destination.note(destination)?;
        Ok(count)
    }

    fn interests(&self) -> [PollFlags; 2] {
        [
            interest(&self.to_destination, &self.to_application),
            interest(&self.to_application, &self.to_destination),
        ]
    }

    fn advance<O: Observer + ?Sized>(&mut self, observer: &mut O) -> Result<(), Halt> {
        let Self { application, destination, to_destination, to_application } = self;
        give_up_if_broken(application, to_destination, destination)?;
        give_up_if_broken(destination, to_application, application)?;
        to_destination.advance(application, destination, observer)?;
        to_application.advance(destination, application, observer)?;
        Ok(())
    }
}

/// What to wait for on a socket, given the flow it feeds and the flow it is fed by.
///
/// Errors are reported without being asked for, so a reset is noticed even while both flows are held back.
fn interest(outgoing: &Flow, incoming: &Flow) -> PollFlags {
    let mut events = PollFlags::empty();
    events.set(PollFlags::IN, outgoing.wants_read());
    events.set(PollFlags::OUT, incoming.wants_write());
    events
}

/// Whether to leave a socket out of the wait: it hung up in order and its last bytes are held back by the
/// other peer, so poll(2) would return at once, again and again.
fn mute(socket: &Socket, events: PollFlags) -> bool {
    events.is_empty() && socket.hung_up()
}

/// A broken socket is given up, unless it is about to be read to its error for a peer that can still take the
/// bytes.
fn give_up_if_broken(socket: &Socket, outgoing: &Flow, peer: &Socket) -> Result<(), Halt> {
    let worth_reading = outgoing.wants_read() && !peer.broken();
    if socket.broken() && !worth_reading { Err(socket.breakage()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{self, Shutdown, TcpListener};
    use std::os::fd::OwnedFd;
    use std::time::Duration;

    use socket2::SockRef;

    use super::*;
    use crate::error::Operation;

    /// A socket for the relay and the peer's end of it.
    fn pair() -> (net::TcpStream, net::TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let ours = net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (ours, listener.accept().unwrap().0)
    }

    fn ours(socket: impl Into<OwnedFd>) -> TcpStream {
        let socket = net::TcpStream::from(socket.into());
        socket.set_nonblocking(true).unwrap();
        TcpStream::from_std(socket).unwrap()
    }

    fn connection(application: impl Into<OwnedFd>, destination: impl Into<OwnedFd>) -> Connection {
        Connection::new(ours(application), ours(destination))
    }

    fn on_a_runtime<T>(test: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test)
    }

    fn turn_until(connection: &mut Connection, reached: impl Fn(&Connection) -> bool) {
        while !reached(connection) {
            connection.look().unwrap();
            connection.advance(&mut ()).unwrap();
        }
    }

    /// How often a connection for which there is nothing to do is woken nevertheless.
    async fn vain_wakeups(connection: &mut Connection) -> usize {
        let mut polls = 0;
        let wait = poll_fn(|context| {
            polls += 1;
            connection.poll_ready(context)
        });
        tokio::time::timeout(Duration::from_millis(50), wait).await.expect_err("nothing to do");
        // The first poll isn't a wake-up, and the last is the timeout's.
        polls - 2
    }

    #[test]
    fn a_hung_up_application_whose_bytes_are_held_back_does_not_wake_the_relay() {
        on_a_runtime(async {
            let (application, mut client) = pair();
            let (destination, mut server) = pair();
            let mut connection = connection(application, destination);
            connection.prepare().unwrap();

            server.shutdown(Shutdown::Write).unwrap();
            turn_until(&mut connection, |connection| connection.to_application.ended());
            let mut sent = 0;
            while !connection.to_destination.wants_write() {
                sent += client.write(&[7; 4096]).unwrap();
                connection.look().unwrap();
                connection.advance(&mut ()).unwrap();
            }
            client.shutdown(Shutdown::Write).unwrap();
            turn_until(&mut connection, |connection| connection.application.hung_up());

            assert_eq!(connection.look().unwrap(), 0);
            assert_eq!(connection.look().unwrap(), 0);
            assert!(vain_wakeups(&mut connection).await <= 2);

            let reader = std::thread::spawn(move || {
                let mut received = Vec::new();
                server.read_to_end(&mut received).map(|count| (count, received))
            });
            connection.relay(&mut ()).await.unwrap();
            drop(connection);
            let (count, received) = reader.join().unwrap().unwrap();
            assert_eq!(count, sent);
            assert!(received.iter().all(|byte| *byte == 7));
        });
    }

    #[test]
    fn a_half_closed_application_whose_bytes_are_held_back_does_not_wake_the_relay() {
        on_a_runtime(async {
            let (application, mut client) = pair();
            let (destination, server) = pair();
            let mut connection = connection(application, destination);
            connection.prepare().unwrap();

            client.set_nonblocking(true).unwrap();
            while !connection.to_destination.wants_write() {
                let _full = client.write(&[7; 4096]);
                connection.look().unwrap();
                connection.advance(&mut ()).unwrap();
            }
            client.shutdown(Shutdown::Write).unwrap();
            assert!(vain_wakeups(&mut connection).await <= 4);
            drop(server);
        });
    }

    #[test]
    fn a_connection_at_rest_does_not_wake_the_relay() {
        on_a_runtime(async {
            let (application, _client) = pair();
            let (destination, server) = pair();
            let mut connection = connection(application, destination);
            connection.prepare().unwrap();
            assert!(vain_wakeups(&mut connection).await <= 4);
            server.shutdown(Shutdown::Write).unwrap();
            turn_until(&mut connection, |connection| connection.to_application.ended());
            assert!(vain_wakeups(&mut connection).await <= 4);
        });
    }

    /// Relays so many bytes; what the server has received of them, and whether any of them were spliced.
    fn relay_bytes<O: Observer>(
        connection: &mut Connection,
        observer: &mut O,
        [client, server]: [&mut net::TcpStream; 2],
        count: usize,
    ) -> (Vec<u8>, bool) {
        let (mut received, mut spliced) = (vec![0; count], false);
        std::thread::scope(|scope| {
            scope.spawn(|| client.write_all(&vec![7; count]).unwrap());
            let reader = scope.spawn(|| server.read_exact(&mut received).unwrap());
            while !reader.is_finished() {
                connection.look().unwrap();
                connection.advance(observer).unwrap();
                spliced |= connection.to_destination.is_spliced();
            }
        });
        (received, spliced)
    }

    /// Whether large transfers are spliced. Not each is: where the relay keeps up with the sender, what it reads
    /// is small.
    fn is_spliced_in_time(connection: &mut Connection, ends: [&mut net::TcpStream; 2]) -> bool {
        let [client, server] = ends;
        (0..200).any(|_| {
            let (received, spliced) = relay_bytes(connection, &mut (), [&mut *client, &mut *server], 4 << 20);
            assert!(received.iter().all(|byte| *byte == 7));
            spliced
        })
    }

    #[test]
    fn a_large_direction_is_spliced_and_copied_again_when_it_becomes_small() {
        on_a_runtime(async {
            let (application, mut client) = pair();
            let (destination, mut server) = pair();
            let mut connection = connection(application, destination);
            connection.prepare().unwrap();

            assert!(is_spliced_in_time(&mut connection, [&mut client, &mut server]));
            assert!(!connection.to_application.is_spliced());

            for _ in 0..100 {
                relay_bytes(&mut connection, &mut (), [&mut client, &mut server], 1);
            }
            assert!(!connection.to_destination.is_spliced());
        });
    }

    /// The system's own limit is what a socket has of which nobody has said anything.
    #[test]
    fn few_bytes_wait_to_be_sent_until_a_transfer_is_large() {
        on_a_runtime(async {
            let (application, mut client) = pair();
            let (destination, mut server) = pair();
            let mut connection = connection(application, destination);
            connection.prepare().unwrap();
            let limit = |socket: &Socket| SockRef::from(&socket.as_fd()).tcp_notsent_lowat().unwrap();
            let own = limit(&connection.destination);

            let mut seen = Vec::new();
            for bytes in [1000, 200 * 1024, 17 << 20] {
                relay_bytes(&mut connection, &mut (), [&mut client, &mut server], bytes);
                // What has been sent is accounted for when there is more.
                relay_bytes(&mut connection, &mut (), [&mut client, &mut server], 1);
                seen.push(limit(&connection.destination));
            }
            assert_eq!(seen, [own, 64 * 1024, own]);
            assert_eq!(limit(&connection.application), own);
        });
    }

    #[test]
    fn a_direction_is_not_spliced_while_an_observer_looks() {
        on_a_runtime(async {
            let (application, mut client) = pair();
            let (destination, mut server) = pair();
            let mut connection = connection(application, destination);
            connection.prepare().unwrap();

            let mut seen = 0;
            let mut count = |_: Direction, bytes: &[u8]| {
                seen += bytes.len();
                crate::Verdict::Forward
            };
            let ends = [&mut client, &mut server];
            let (_, spliced) = relay_bytes(&mut connection, &mut count, ends, 64 << 20);
            assert!(!spliced);
            assert_eq!(seen, 64 << 20);

            // It looks away, and at what comes later again.
            assert!(is_spliced_in_time(&mut connection, [&mut client, &mut server]));
            let mut latest = Vec::new();
            let mut keep = |_: Direction, bytes: &[u8]| {
                latest.extend_from_slice(bytes);
                crate::Verdict::Forward
            };
            relay_bytes(&mut connection, &mut keep, [&mut client, &mut server], 1000);
            assert_eq!(latest, [7; 1000]);
        });
    }

    #[test]
    fn a_reset_whose_error_was_taken_elsewhere_is_still_a_reset() {
        on_a_runtime(async {
            let (application, client) = pair();
            let (destination, _server) = pair();
            crate::arm(&client).unwrap();
            drop(client);
            assert_eq!(application.take_error().unwrap().unwrap().kind(), io::ErrorKind::ConnectionReset);

            let error = connection(application, destination).run(&mut ()).await.unwrap_err();
            assert_eq!(error.side(), Some(Side::Application));
            assert_eq!(error.io_error().unwrap().kind(), io::ErrorKind::ConnectionReset);
        });
    }

    #[test]
    fn what_stands_before_a_reset_is_read_although_the_other_direction_has_bytes_for_it() {
        on_a_runtime(async {
            let (application, mut client) = pair();
            let (destination, mut server) = pair();
            let mut connection = connection(application, destination);
            connection.prepare().unwrap();

            client.write_all(b"more of the request").unwrap();
            server.write_all(b"an early answer").unwrap();
            crate::arm(&server).unwrap();
            drop(server);
            while !connection.destination.broken() {
                connection.look().unwrap();
            }
            connection.advance(&mut ()).unwrap();
            assert_eq!(connection.transfer(), Transfer { to_destination: 0, to_application: 15 });
            let end = connection.relay(&mut ()).await;
            assert!(matches!(end, Err(Halt::Socket { side: Side::Destination, .. })));
        });
    }

    #[test]
    fn a_connection_at_rest_is_small() {
        on_a_runtime(async {
            let ((application, _client), (destination, _server)) = (pair(), pair());
            let mut observer = ();
            let relaying = crate::relay_observed(ours(application), ours(destination), &mut observer);
            assert!(size_of_val(&relaying) <= 1024, "{} bytes", size_of_val(&relaying));
        });
    }

    #[test]
    fn an_end_that_cannot_be_passed_on_is_a_failure() {
        on_a_runtime(async {
            let (destination, server) = pair();
            crate::arm(&server).unwrap();
            drop(server);
            let mut socket = Socket::new(ours(destination), Side::Destination);
            let Err(Halt::Socket { operation, source, .. }) = socket.finish() else {
                panic!("shut down in order")
            };
            assert_eq!((operation, source.kind()), (Operation::ShutDown, io::ErrorKind::ConnectionReset));
        });
    }

    #[test]
    fn both_sockets_are_armed_even_if_one_cannot_be() {
        on_a_runtime(async {
            let (application, _client) = pair();
            let (not_a_socket, _end) = io::pipe().unwrap();
            let watched = application.try_clone().unwrap();
            let connection = connection(not_a_socket, application);

            assert!(matches!(connection.prepare(), Err(Halt::Socket { side: Side::Application, .. })));
            let linger = rustix::net::sockopt::socket_linger(&watched).unwrap();
            assert_eq!(linger, Some(Duration::ZERO));
        });
    }
}
