//! One socket of a relay: every system call on it, with the failure named.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::event::PollFlags;
use rustix::io::{Errno, ioctl_fionbio, retry_on_intr};
use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown, sockopt};
use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::TcpStream;

use crate::allowance::Allowance;
use crate::error::{Halt, Operation, Side};
use crate::pipe::Pipe;

/// Bytes that may wait to be sent.
const UNSENT: u32 = 64 * 1024;
/// To `TCP_NOTSENT_LOWAT` the system's own limit, which nearly everywhere is none.
const AS_THE_SYSTEM_SAYS: u32 = 0;

/// `None` where the socket would have blocked.
pub(crate) type Progress = Option<usize>;

pub(crate) struct Socket {
    stream: TcpStream,
    side: Side,
    /// Whether the relay has shut its writing half down.
    finished: bool,
    /// What the last look reported.
    ready: PollFlags,
    hung_up: bool,
}

impl Socket {
    pub(crate) fn new(stream: TcpStream, side: Side) -> Self {
        Self { stream, side, finished: false, ready: PollFlags::empty(), hung_up: false }
    }

    pub(crate) fn arm(&self) -> Result<(), Halt> {
        arm(self.as_fd()).map_err(|errno| self.halt(Operation::Arm, errno))
    }

    pub(crate) fn disarm(&self) -> Result<(), Halt> {
        disarm(self.as_fd()).map_err(|errno| self.halt(Operation::Disarm, errno))
    }

    pub(crate) fn configure(&self) -> Result<(), Halt> {
        ioctl_fionbio(&self.stream, true)
            .and_then(|()| sockopt::set_tcp_nodelay(&self.stream, true))
            .map_err(|errno| self.halt(Operation::Configure, errno))
    }

    /// Bounds what waits here to be sent, or no longer. What is on its way already does not count.
    pub(crate) fn allow_unsent(&self, allowance: Allowance) {
        let bytes = match allowance {
            Allowance::Bounded => UNSENT,
            Allowance::Unsaid | Allowance::Lifted => AS_THE_SYSTEM_SAYS,
        };
        // Without it there is more room than there need be.
        let _roomier = SockRef::from(&self.stream).set_tcp_notsent_lowat(bytes);
    }

    /// Reads; `Some(0)` is the end-of-file.
    pub(crate) fn read(&self, buffer: &mut [u8]) -> Result<Progress, Halt> {
        let outcome = retry_on_intr(|| recv(&self.stream, &mut *buffer, RecvFlags::empty()));
        self.progress(Operation::Read, outcome.map(|(count, _)| count))
    }

    pub(crate) fn write(&self, bytes: &[u8]) -> Result<Progress, Halt> {
        // A service in a language with SIGPIPE's default action must not be killed by a peer that left.
        let outcome = retry_on_intr(|| send(&self.stream, bytes, SendFlags::NOSIGNAL));
        self.progress(Operation::Write, outcome)
    }

    /// Moves what is there into an empty pipe. `None` proves nothing: not every byte a socket holds can be
    /// spliced (one sent as urgent can't), and an end-of-file looks the same, so the next read is by
    /// [`read`](Self::read).
    pub(crate) fn read_into(&self, pipe: &mut Pipe) -> Result<Progress, Halt> {
        match pipe.fill_from(self.as_fd()) {
            Ok(count) => Ok((count > 0).then_some(count)),
            Err(Errno::AGAIN | Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS) => Ok(None),
            Err(errno) => Err(self.halt(Operation::Read, errno)),
        }
    }

    pub(crate) fn write_from(&self, pipe: &mut Pipe) -> Result<Progress, Halt> {
        self.progress(Operation::Write, pipe.drain_to(self.as_fd()))
    }

    /// Sends the end-of-file. A socket which was reset answers ENOTCONN, and that is a failure like any
    /// other.
    pub(crate) fn finish(&mut self) -> Result<(), Halt> {
        self.finished = true;
        shutdown(&self.stream, Shutdown::Write)
            .map_err(|errno| self.halt(Operation::ShutDown, self.pending_error().unwrap_or(errno)))
    }

    /// Notes what a look reported; fails if the connection is gone without the relay having closed it.
    ///
    /// Hung up without an error means that both directions are closed. If ours isn't, then the socket was
    /// reset and somebody else has taken its error: reading on would show a clean end-of-file.
    pub(crate) fn note(&mut self, ready: PollFlags) -> Result<(), Halt> {
        self.ready = ready;
        self.hung_up |= ready.contains(PollFlags::HUP) && !self.broken();
        if self.hung_up && !self.finished {
            Err(self.halt(Operation::Watch, Errno::CONNRESET))
        } else {
            Ok(())
        }
    }

    /// Whether reading is worth trying. A broken socket is read to its error, for bytes may stand before it.
    pub(crate) fn readable(&self) -> bool {
        self.ready.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR)
    }

    pub(crate) fn writable(&self) -> bool {
        self.ready.contains(PollFlags::OUT) && !self.broken()
    }

    pub(crate) fn broken(&self) -> bool {
        self.ready.intersects(PollFlags::ERR | PollFlags::NVAL)
    }

    /// Both directions closed, no error: nothing will ever happen here again, while poll(2) reports it for
    /// ever.
    pub(crate) fn hung_up(&self) -> bool {
        self.hung_up
    }

    /// The failure of a socket that poll(2) calls broken.
    pub(crate) fn breakage(&self) -> Halt {
        self.halt(Operation::Watch, self.pending_error().unwrap_or(Errno::IO))
    }

    /// Forgets the wake-ups so far. A look that follows sees all they were for; what comes later wakes again.
    pub(crate) fn forget_wakeups(&self) {
        // One by one: tokio forgets nothing of a union.
        for interest in [Interest::READABLE, Interest::WRITABLE] {
            let would_block = || Err::<(), _>(io::ErrorKind::WouldBlock.into());
            // By its contract this is how to say that there was nothing to do, and it is what comes back.
            let _would_block = self.stream.try_io(interest, would_block);
        }
    }

    /// Arranges for a wake-up at the next change; ready if there was one already.
    ///
    /// Errors come as writability. Readability is waited for only where bytes are wanted: after an
    /// end-of-file it is reported for ever.
    pub(crate) fn poll_wakeup(&self, context: &mut Context<'_>, reading: bool) -> Poll<io::Result<()>> {
        let writable = self.stream.poll_write_ready(context);
        if writable.is_ready() || !reading { writable } else { self.stream.poll_read_ready(context) }
    }

    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    /// Takes the socket's error, which the kernel hands out once: only for a connection that is being given
    /// up.
    fn pending_error(&self) -> Option<Errno> {
        match sockopt::socket_error(&self.stream) {
            Ok(Ok(())) => None,
            Ok(Err(errno)) => Some(errno),
            Err(errno) => Some(errno),
        }
    }

    fn progress(&self, operation: Operation, outcome: Result<usize, Errno>) -> Result<Progress, Halt> {
        match outcome {
            Ok(count) => Ok(Some(count)),
            Err(Errno::AGAIN) => Ok(None),
            Err(errno) => Err(self.halt(operation, errno)),
        }
    }

    fn halt(&self, operation: Operation, errno: Errno) -> Halt {
        Halt::Socket { side: self.side, operation, source: io::Error::from(errno) }
    }
}

pub(crate) fn arm(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    sockopt::set_socket_linger(fd, Some(Duration::ZERO))
}

pub(crate) fn disarm(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    sockopt::set_socket_linger(fd, None)
}
