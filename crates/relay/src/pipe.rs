//! A pipe as the buffer of a direction: bytes go from socket to socket by splice(2), without being copied.
//!
//! It is filled only when it is empty, so that what it holds is always what comes next in the stream, and a
//! refusal to be filled is the socket's and not the pipe's.

use std::fs;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::io::{Errno, retry_on_intr};
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_getpipe_size, fcntl_setpipe_size, pipe_with, splice};

use crate::observer::BUFFER_BYTES;

/// Bytes of a pipe: 512 KiB. With it the thread that relays was measured to take 0.25 s of processor time for
/// a gigabyte over loopback, and 0.40 s when copying; with the kernel's 64 KiB there are eight times the calls.
const PIPE_BYTES: usize = 512 * 1024;
/// Pipes of one process at a time. `pipe-user-pages-soft` (64 MiB unless set) has room for so many of ours;
/// whoever goes beyond is given pipes of two pages.
const MOST_PIPES: usize = 128;

static PIPES: AtomicUsize = AtomicUsize::new(0);

pub(crate) struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    capacity: usize,
    held: usize,
    _place: Place,
}

impl Pipe {
    /// An empty one; `None` if the system has none to give that would be worth it.
    pub(crate) fn new() -> Option<Self> {
        let place = Place::take().filter(|_| sigpipe_is_harmless())?;
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).ok()?;
        // Refused above pipe-max-size or the user's budget; the size it was made with may still do.
        let capacity = fcntl_setpipe_size(&write, PIPE_BYTES).or_else(|_| fcntl_getpipe_size(&write)).ok()?;
        let pipe = Self { read, write, capacity, held: 0, _place: place };
        (capacity >= BUFFER_BYTES).then_some(pipe)
    }

    /// Bytes in it.
    pub(crate) fn held(&self) -> usize {
        self.held
    }

    /// Moves bytes in from a socket; 0 is an end-of-file, or a byte that can't be spliced.
    pub(crate) fn fill_from(&mut self, socket: BorrowedFd<'_>) -> Result<usize, Errno> {
        let count = retry_on_intr(|| {
            splice(socket, None, &self.write, None, self.capacity, SpliceFlags::NONBLOCK | SpliceFlags::MOVE)
        })?;
        self.held += count;
        Ok(count)
    }

    /// Moves bytes on to a socket.
    pub(crate) fn drain_to(&mut self, socket: BorrowedFd<'_>) -> Result<usize, Errno> {
        let count = retry_on_intr(|| {
            splice(&self.read, None, socket, None, self.held, SpliceFlags::NONBLOCK | SpliceFlags::MOVE)
        })?;
        if count == 0 {
            // It holds bytes and has a writer, so this can't be; going on would be to try for ever.
            return Err(Errno::IO);
        }
        self.held -= count;
        Ok(count)
    }
}

/// One of the [`MOST_PIPES`].
struct Place;

impl Place {
    fn take() -> Option<Self> {
        let one_more = |taken: usize| (taken < MOST_PIPES).then_some(taken + 1);
        PIPES.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok().map(|_| Self)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        PIPES.fetch_sub(1, Ordering::Relaxed);
    }
}

/// splice(2) has no `MSG_NOSIGNAL`: where SIGPIPE has its default action, a peer that left would kill the
/// process. Rust programs ignore the signal from their start, programs in C don't.
fn sigpipe_is_harmless() -> bool {
    static HARMLESS: OnceLock<bool> = OnceLock::new();
    let find_out = || fs::read_to_string("/proc/self/status").is_ok_and(|status| handles_sigpipe(&status));
    *HARMLESS.get_or_init(find_out)
}

/// Whether `/proc/PID/status` has SIGPIPE, which is number 13, among the signals ignored or caught.
fn handles_sigpipe(status: &str) -> bool {
    const SIGPIPE: u64 = 1 << (13 - 1);
    let mask = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        u64::from_str_radix(line.trim(), 16).ok()
    };
    ["SigIgn:", "SigCgt:"].into_iter().any(|name| mask(name).is_some_and(|mask| mask & SIGPIPE != 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sigpipe_is_harmless_if_it_is_ignored_or_caught() {
        assert!(handles_sigpipe(
            "SigBlk:\t0000000000000000\nSigIgn:\t0000000000001000\nSigCgt:\t0000000000000000\n"
        ));
        assert!(handles_sigpipe("SigIgn:\t0000000000000000\nSigCgt:\t0000000000001440\n"));
        assert!(!handles_sigpipe(
            "SigBlk:\t0000000000001000\nSigIgn:\t0000000000000800\nSigCgt:\t0000000000000000\n"
        ));
        assert!(!handles_sigpipe("no such lines"));
    }

    #[test]
    fn there_are_so_many_pipes_and_no_more() {
        let pipes: Vec<Pipe> = std::iter::from_fn(Pipe::new).take(2 * MOST_PIPES).collect();
        assert!((1..=MOST_PIPES).contains(&pipes.len()), "{}", pipes.len());
        assert!(pipes.iter().all(|pipe| pipe.capacity >= BUFFER_BYTES));
        drop(pipes);
        assert!(Pipe::new().is_some());
    }
}
