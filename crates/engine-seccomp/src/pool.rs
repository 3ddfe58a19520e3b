//! The threads that answer the calls of one part of a process tree. One has the *turn*: it receives a call, answers it, and receives the next, which takes no
//! waking of anybody but the caller. Before it waits for something it gives the turn up to the one that stands by, and joins the line behind
//! it; so that a connection that takes long keeps nobody else waiting. If it was kept waiting where that was not to be expected (by memory that
//! does not come, say), the one that stands by takes the turn by itself.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use libc::seccomp_notif_resp;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::{
    call::{Call, errno},
    sys,
};

/// Threads that may wait for something at one time, of one part.
const MOST_THREADS: usize = 1024;
/// Threads that stand by.
const SPARE_THREADS: usize = 2;
/// A call that has been answered for as long as this, at the most twice, is waited for by nobody else.
const PATIENCE: Duration = Duration::from_millis(50);
/// What no call has for its name.
const NONE: u64 = 0;

/// What a thread does with a call that it has received.
pub(crate) type Reply = dyn Fn(&Call, &Turn<'_>) + Send + Sync;

/// The threads, and where their calls come from.
pub(crate) struct Pool {
    listener: OwnedFd,
    reply: Box<Reply>,
    /// Whether the listener is to be asked whether anybody is left before a call is waited for: before Linux 6.11 that wait has no end.
    is_polled: bool,
    /// Which turn it is.
    turn: AtomicU64,
    /// The call that is being answered in this turn.
    answering: AtomicU64,
    line: Mutex<Line>,
    vacant: Condvar,
}

#[derive(Debug, Default)]
struct Line {
    is_vacant: bool,
    is_over: bool,
    threads: usize,
    /// Those that stand by.
    idle: usize,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("line", &self.line).finish_non_exhaustive()
    }
}

impl Pool {
    pub(crate) fn start(listener: OwnedFd, reply: Box<Reply>) -> io::Result<Arc<Self>> {
        let _as_fast_as_it_goes = sys::answer_in_turn(listener.as_fd());
        let pool = Arc::new(Self {
            listener,
            reply,
            is_polled: !sys::receiving_ends(),
            turn: 0.into(),
            answering: NONE.into(),
            line: Mutex::new(Line { is_vacant: true, ..Line::default() }),
            vacant: Condvar::new(),
        });
        pool.grow(&mut pool.lock())?;
        Ok(pool)
    }

    /// Whether no process is left that has the filter.
    pub(crate) fn is_over(&self) -> bool {
        let mut listener = [PollFd::new(&self.listener, PollFlags::empty())];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut listener, Some(&now)).is_ok() && listener[0].revents().contains(PollFlags::HUP)
    }

    /// Waits for that.
    pub(crate) fn wait(&self) {
        while !self.is_over() {
            let mut listener = [PollFd::new(&self.listener, PollFlags::empty())];
            // Only a hangup or a signal ends it.
            let _woken = poll(&mut listener, None);
        }
    }

    fn grow(self: &Arc<Self>, line: &mut Line) -> io::Result<()> {
        if line.threads >= MOST_THREADS {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let pool = Arc::clone(self);
        let started = thread::Builder::new().name("supervisor".into()).stack_size(256 * 1024);
        started.spawn(move || pool.serve())?;
        line.threads += 1;
        Ok(())
    }

    fn serve(self: &Arc<Self>) {
        while let Some(number) = self.stand_by() {
            while self.turn.load(Ordering::Acquire) == number {
                let Some(call) = self.next() else {
                    self.lock().is_over = true;
                    return self.vacant.notify_all();
                };
                self.answering.store(call.id, Ordering::Release);
                (self.reply)(&call, &Turn { pool: self, number, call: call.id });
                if self.turn.load(Ordering::Acquire) == number {
                    self.answering.store(NONE, Ordering::Release);
                }
            }
        }
    }

    /// Waits for the turn; `None` if there are enough others that do, or there is nothing left to be answered.
    fn stand_by(self: &Arc<Self>) -> Option<u64> {
        let mut line = self.lock();
        if line.idle >= SPARE_THREADS {
            line.threads -= 1;
            return None;
        }
        line.idle += 1;
        let mut seen = NONE;
        while !line.is_vacant && !line.is_over {
            let woken = self.vacant.wait_timeout(line, PATIENCE).unwrap_or_else(PoisonError::into_inner);
            line = woken.0;
            if woken.1.timed_out() {
                let answering = self.answering.load(Ordering::Acquire);
                if answering != NONE && answering == seen {
                    self.vacate(&mut line);
                }
                seen = answering;
            }
        }
        line.idle -= 1;
        if line.is_over {
            line.threads -= 1;
            return None;
        }
        line.is_vacant = false;
        if line.idle == 0 {
            // Without another thread this one answers all, one after the other.
            let _as_many_as_there_are = self.grow(&mut line);
        }
        Some(self.turn.load(Ordering::Acquire))
    }

    fn vacate(&self, line: &mut Line) {
        self.turn.fetch_add(1, Ordering::AcqRel);
        self.answering.store(NONE, Ordering::Release);
        line.is_vacant = true;
    }

    /// The next call; `None` once nobody is left who could make one.
    fn next(&self) -> Option<Call> {
        loop {
            if self.is_polled {
                let mut listener = [PollFd::new(&self.listener, PollFlags::IN)];
                let _woken = poll(&mut listener, None);
                if !listener[0].revents().contains(PollFlags::IN) && self.is_over() {
                    return None;
                }
            }
            match Call::receive(self.listener.as_fd()) {
                Ok(call) => return Some(call),
                // ENOENT: whoever made it is gone, or nobody is left.
                Err(_none) if self.is_over() => return None,
                Err(_none) => {}
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Line> {
        // Every change is whole before anything can panic.
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A thread's turn, with the call that it answers.
pub(crate) struct Turn<'p> {
    pool: &'p Arc<Pool>,
    number: u64,
    call: u64,
}

impl Turn<'_> {
    /// Whether whoever made the call still waits for its answer. If not, its number may have been another's when something was looked at by it.
    pub(crate) fn is_waited_for(&self) -> bool {
        sys::is_waiting(self.pool.listener.as_fd(), self.call)
    }

    pub(crate) fn answer(&self, answer: seccomp_notif_resp) -> io::Result<()> {
        sys::answer(self.pool.listener.as_fd(), answer)
    }

    /// Answers with a descriptor.
    pub(crate) fn give(&self, given: BorrowedFd<'_>, is_closed_at_exec: bool) -> io::Result<i64> {
        sys::give(self.pool.listener.as_fd(), self.call, given, is_closed_at_exec)
    }

    /// Puts a descriptor in the place of another.
    pub(crate) fn replace(
        &self,
        given: BorrowedFd<'_>,
        number: i32,
        is_closed_at_exec: bool,
    ) -> io::Result<()> {
        sys::replace(self.pool.listener.as_fd(), self.call, given, number, is_closed_at_exec)
    }

    /// Before this thread waits for something: another one answers those who call meanwhile. ENOBUFS where as many wait as may, as this one would keep all
    /// others waiting.
    pub(crate) fn give_up(&self) -> io::Result<()> {
        if self.pool.turn.load(Ordering::Acquire) != self.number {
            return Ok(());
        }
        let mut line = self.pool.lock();
        if self.pool.turn.load(Ordering::Acquire) != self.number {
            return Ok(());
        }
        if line.idle == 0 && line.threads >= MOST_THREADS {
            return Err(errno(libc::ENOBUFS));
        }
        if line.idle > 0 || self.pool.grow(&mut line).is_ok() {
            self.pool.vacate(&mut line);
            self.pool.vacant.notify_one();
        }
        Ok(())
    }
}
