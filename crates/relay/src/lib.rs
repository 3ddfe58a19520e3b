//! Moving bytes between the two sockets of an inspected connection, past an observer.
//! It never dials, never decides what may pass and never turns a failure into a clean end.
//! `waylay` completes it with an accepted and a dialled socket, `waylay-inspect` with observers.
//!
//! # A truncated stream never looks complete
//!
//! When a process is killed, the kernel closes its sockets, and an ordinary close sends a FIN: whoever reads
//! at the other end takes half a file for a whole one. So both sockets carry `SO_LINGER {1, 0}` ([`arm`]) for
//! as long as either direction is open: whatever closes them, a panic, a crash, an early return, is a reset
//! to both peers. They are disarmed only when both directions have ended in order, each by an end-of-file
//! that was read and passed on.
//!
//! A socket reports an error once, and later reads see an end-of-file. The relay therefore treats the first
//! error on either socket as the end of both, and takes a socket which is closed although the relay didn't
//! close it for reset.
//!
//! Linux copies the option from a listener to the sockets accepted from it, so a service that arms its
//! *listener* has no moment in which an accepted socket isn't armed. A dialled socket is armed before it is
//! connected.
//!
//! Everything here holds for the last descriptor of a socket: as long as a duplicate is open elsewhere,
//! dropping ours sends nothing. Keep none.
//!
//! # What it costs
//!
//! One thread, at most two buffers of [`BUFFER_BYTES`], each allocated when its direction carries its first
//! byte. A peer that reads slowly holds its direction back through TCP, not through memory.

mod connection;
mod error;
mod flow;
mod observer;
mod socket;

use std::io;
use std::os::fd::{AsFd, OwnedFd};

pub use error::{Direction, Operation, RelayError, Side, Transfer};
pub use flow::BUFFER_BYTES;
pub use observer::{Observer, Verdict};

/// Moves bytes between two connected TCP sockets until both directions have ended, and returns how many there
/// were.
///
/// Takes anything that gives up its descriptor, such as [`std::net::TcpStream`]. Neither socket may have been
/// shut down before. Both are switched to non-blocking and `TCP_NODELAY`, and are closed on return: in order
/// after `Ok`, by a reset to both peers after `Err`. An end-of-file of one peer is passed on to the other
/// once every byte before it has been; the opposite direction goes on. There is no idle timeout.
///
/// # Errors
///
/// [`RelayError::Socket`] names the side and the operation that failed (a reset by a peer is one of them),
/// [`RelayError::Wait`] is a failed `poll(2)`, [`RelayError::Stopped`] the observer's decision. Each carries
/// what had been transferred by then.
///
/// # Example
///
/// ```
/// use std::io::{Read, Write};
/// use std::net::{Shutdown, TcpListener, TcpStream};
///
/// let [front, back] = [TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?];
/// waylay_relay::arm(&front)?;
/// let mut client = TcpStream::connect(front.local_addr()?)?;
///
/// let application = front.accept()?.0;
/// let destination = TcpStream::connect(back.local_addr()?)?;
/// let relay = std::thread::spawn(|| waylay_relay::relay(application, destination, &mut ()));
///
/// client.write_all(b"hello")?;
/// client.shutdown(Shutdown::Write)?;
/// let mut received = String::new();
/// back.accept()?.0.read_to_string(&mut received)?;
/// assert_eq!(received, "hello");
/// assert_eq!(relay.join().expect("no panic")?.to_destination, 5);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn relay<O: Observer + ?Sized>(
    application: impl Into<OwnedFd>,
    destination: impl Into<OwnedFd>,
    observer: &mut O,
) -> Result<Transfer, RelayError> {
    connection::Connection::new(application.into(), destination.into()).run(observer)
}

/// Makes closing this socket a reset (`SO_LINGER {1, 0}`), whoever closes it, the death of the process
/// included.
///
/// [`relay`] does it by itself; a service does it earlier, on its listener and on a socket about to be
/// connected, to cover the time before. Sockets accepted from an armed listener are armed.
///
/// # Errors
///
/// `ENOTSOCK` if this isn't a socket.
///
/// # Example
///
/// ```
/// let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
/// waylay_relay::arm(&listener)?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn arm(socket: &impl AsFd) -> io::Result<()> {
    socket::arm(socket.as_fd())?;
    Ok(())
}

/// Makes closing this socket an orderly end again: what has been written is still sent, then a FIN.
///
/// For a service that answers the application itself instead of relaying, once its answer is complete.
///
/// # Errors
///
/// `ENOTSOCK` if this isn't a socket.
///
/// # Example
///
/// ```
/// use std::net::{TcpListener, TcpStream};
///
/// let listener = TcpListener::bind("127.0.0.1:0")?;
/// let socket = TcpStream::connect(listener.local_addr()?)?;
/// waylay_relay::arm(&socket)?;
/// // … write a complete answer …
/// waylay_relay::disarm(&socket)?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn disarm(socket: &impl AsFd) -> io::Result<()> {
    socket::disarm(socket.as_fd())?;
    Ok(())
}
