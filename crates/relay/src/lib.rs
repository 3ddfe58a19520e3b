//! Moving bytes between the two sockets of an inspected connection, past an observer.
//! It never dials, never decides what may pass and never turns a failure into a clean end.
//! `waylay` completes it with an accepted and a dialled socket, `waylay-inspect` with observers. For [`datagrams`] it
//! asks `waylay` of each flow whose it is.
//!
//! It is for Linux: it splices, and polls what tokio does not tell. A service for Windows uses
//! `tokio::io::copy_bidirectional`; `examples/portable.rs` shows how.
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
//! A connection is one future, on any runtime of tokio with I/O enabled, and its two sockets. At rest it holds
//! no buffer. A peer that reads slowly holds its direction back through TCP, not through memory: at most
//! [`BUFFER_BYTES`] of the direction wait in the process.
//!
//! A direction in which reads come back large, and at which no observer [looks](Observer::looks), is spliced:
//! its bytes go through a pipe of 512 KiB and are not copied. When it carries little it is copied again. At
//! most 128 directions of a process have a pipe at the same time; the others, and all where the system gives
//! no pipes or SIGPIPE has its default action (splice(2) can't be told not to raise it), are copied.

mod allowance;
mod connection;
pub mod datagrams;
mod error;
mod flow;
mod observer;
mod pace;
mod pipe;
mod socket;

use std::io;
use std::os::fd::AsFd;

pub use error::{Direction, Operation, RelayError, Side, Transfer};
pub use observer::{BUFFER_BYTES, Observer, Verdict};
use tokio::net::TcpStream;

/// Moves bytes between two connected TCP sockets until both directions have ended, and returns how many there
/// were.
///
/// Takes what gives up its stream, such as `waylay::Inbound` and `waylay::Outbound`. Neither socket may have
/// been shut down. Both are closed on return: in order after `Ok`, by a reset to both peers after `Err`, and
/// by a reset also if the future is dropped before its end. An end-of-file of one peer is passed on to the
/// other once every byte before it has been; the opposite direction goes on. There is no idle timeout.
///
/// # Errors
///
/// [`RelayError::Socket`] names the side and the operation that failed (a reset by a peer is one of them),
/// [`RelayError::Wait`] is a failed wait. Each carries what had been transferred by then.
///
/// # Example
///
/// ```
/// use std::io::{Read, Write};
/// use std::net::Shutdown;
/// use tokio::net::{TcpListener, TcpStream};
///
/// # let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
/// # runtime.block_on(async {
/// let [front, back] = [TcpListener::bind("127.0.0.1:0").await?, TcpListener::bind("127.0.0.1:0").await?];
/// waylay_relay::arm(&front)?;
/// let mut client = std::net::TcpStream::connect(front.local_addr()?)?;
///
/// let application = front.accept().await?.0;
/// let destination = TcpStream::connect(back.local_addr()?).await?;
/// let relay = tokio::spawn(waylay_relay::relay(application, destination));
///
/// client.write_all(b"hello")?;
/// client.shutdown(Shutdown::Write)?;
/// let server = back.accept().await?.0;
/// let received = tokio::task::spawn_blocking(move || {
///     let mut server = server.into_std()?;
///     server.set_nonblocking(false)?;
///     let mut received = String::new();
///     server.read_to_string(&mut received)?;
///     Ok::<_, std::io::Error>(received)
/// });
/// assert_eq!(received.await??, "hello");
/// assert_eq!(relay.await??.to_destination, 5);
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub async fn relay(
    application: impl Into<TcpStream>,
    destination: impl Into<TcpStream>,
) -> Result<Transfer, RelayError> {
    let transfer = relay_observed(application, destination, &mut ()).await?;
    Ok(transfer)
}

/// [`relay`], past an observer.
///
/// # Errors
///
/// Those of [`relay`], and [`RelayError::Stopped`]: the observer's decision.
///
/// # Example
///
/// ```
/// use tokio::net::TcpStream;
/// use waylay_relay::{Direction, RelayError, Transfer, Verdict};
///
/// async fn without_x(application: TcpStream, destination: TcpStream) -> Result<Transfer, RelayError> {
///     let mut observer = |_: Direction, bytes: &[u8]| {
///         if bytes.contains(&b'x') { Verdict::Stop } else { Verdict::Forward }
///     };
///     waylay_relay::relay_observed(application, destination, &mut observer).await
/// }
/// ```
pub async fn relay_observed<O: Observer + ?Sized>(
    application: impl Into<TcpStream>,
    destination: impl Into<TcpStream>,
    observer: &mut O,
) -> Result<Transfer, RelayError> {
    connection::Connection::new(application.into(), destination.into()).run(observer).await
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
