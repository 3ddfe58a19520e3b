//! The threads that answer. Each part of a process tree that has a filter of its own has its own pool of them: one that waits
//! for a connection keeps nobody else waiting.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use libc::seccomp_notif_resp;
use rustix::event::{PollFd, PollFlags, poll};
use waylay_core::ServiceId;

use crate::{
    call::Call,
    connect::{self, Decided, Plan},
    names, options,
    shared::Shared,
    sys, udp,
};

/// Threads that may wait for connections at one time, of one part; one more waits until another has its answer.
const MOST_THREADS: usize = 1024;
/// Threads that stay when they have nothing to do.
const SPARE_THREADS: usize = 4;

/// Who dials: known by which filter has asked, and by nothing that a process could say of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialler {
    /// The command that is watched, or a process it has started.
    Command,
    /// This service.
    Service(ServiceId),
}

impl Dialler {
    pub(crate) fn service(self) -> Option<ServiceId> {
        match self {
            Self::Command => None,
            Self::Service(service) => Some(service),
        }
    }
}

/// What a call is answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It returns this.
    Value(i64),
    /// It fails so.
    Error(i32),
    /// The kernel carries it out, with the arguments as they are by then.
    Continue,
}

impl From<io::Error> for Answer {
    fn from(error: io::Error) -> Self {
        match error.raw_os_error() {
            // Of the copy of its descriptor, or of /proc: it is not to be looked at.
            Some(libc::EPERM) => Self::Error(libc::EACCES),
            Some(number) => Self::Error(number),
            None => Self::Error(libc::EIO),
        }
    }
}

/// A part of a process tree that is watched.
#[derive(Debug)]
pub struct Watch {
    pool: Arc<Pool>,
}

impl Watch {
    pub(crate) fn start(shared: &Arc<Shared>, listener: OwnedFd, dialler: Dialler) -> io::Result<Self> {
        let _as_fast_as_it_goes = sys::answer_in_turn(listener.as_fd());
        let pool = Arc::new(Pool {
            shared: Arc::clone(shared),
            listener,
            dialler,
            threads: 0.into(),
            idle: 0.into(),
        });
        pool.grow()?;
        Ok(Self { pool })
    }

    /// Waits until no process is left that has the filter.
    pub fn wait(&self) {
        while !self.pool.is_over() {
            let mut listener = [PollFd::new(&self.pool.listener, PollFlags::empty())];
            // Only a hangup or a signal ends it.
            let _woken = poll(&mut listener, None);
        }
    }

    /// Whether no process is left that has the filter.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.pool.is_over()
    }
}

struct Pool {
    shared: Arc<Shared>,
    listener: OwnedFd,
    dialler: Dialler,
    threads: AtomicUsize,
    /// Those that wait for a call.
    idle: AtomicUsize,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("dialler", &self.dialler).finish_non_exhaustive()
    }
}

impl Pool {
    fn is_over(&self) -> bool {
        let mut listener = [PollFd::new(&self.listener, PollFlags::empty())];
        let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut listener, Some(&now)).is_ok() && listener[0].revents().contains(PollFlags::HUP)
    }

    fn grow(self: &Arc<Self>) -> io::Result<()> {
        let pool = Arc::clone(self);
        self.threads.fetch_add(1, Ordering::AcqRel);
        self.idle.fetch_add(1, Ordering::AcqRel);
        let started = thread::Builder::new().name("supervisor".into()).stack_size(256 * 1024);
        started.spawn(move || pool.serve()).map(drop)
    }

    fn serve(self: &Arc<Self>) {
        loop {
            let Some(call) = self.next() else { return };
            if self.idle.fetch_sub(1, Ordering::AcqRel) == 1
                && self.threads.load(Ordering::Acquire) < MOST_THREADS
            {
                // Without another thread this one answers all, one after the other.
                let _as_many_as_there_are = self.grow();
            }
            self.answer(&call);
            if self.idle.load(Ordering::Acquire) >= SPARE_THREADS {
                self.threads.fetch_sub(1, Ordering::AcqRel);
                return;
            }
            self.idle.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// The next call; `None` once nobody is left who could make one.
    fn next(&self) -> Option<Call> {
        loop {
            let mut listener = [PollFd::new(&self.listener, PollFlags::IN)];
            let _woken = poll(&mut listener, None);
            let events = listener[0].revents();
            if events.contains(PollFlags::IN) {
                // ENOENT: whoever made it is gone, or another thread has it.
                if let Ok(call) = Call::receive(self.listener.as_fd()) {
                    return Some(call);
                }
            } else if events.intersects(PollFlags::HUP | PollFlags::ERR) {
                return None;
            }
        }
    }

    fn answer(&self, call: &Call) {
        let shared = &*self.shared;
        let answer = match call.number {
            libc::SYS_connect => return self.connect(call, (1, 2)),
            libc::SYS_sendto if connect::begins(call) => return self.connect(call, (4, 5)),
            libc::SYS_sendto | libc::SYS_sendmsg | libc::SYS_sendmmsg => {
                udp::send(shared, self.dialler, call, || sys::is_waiting(self.listener.as_fd(), call.id))
            }
            libc::SYS_recvfrom | libc::SYS_recvmsg | libc::SYS_recvmmsg => {
                udp::receive(shared, self.dialler, call, || sys::is_waiting(self.listener.as_fd(), call.id))
            }
            libc::SYS_getpeername => names::peer(shared, call),
            libc::SYS_getsockname => names::local(shared, call),
            libc::SYS_getsockopt => options::ask(shared, call),
            libc::SYS_setsockopt => match self.dialler {
                Dialler::Service(service) => options::tell(shared, service, call),
                Dialler::Command => Ok(Answer::Continue),
            },
            _ => Ok(Answer::Error(libc::ENOSYS)),
        };
        // If it no longer waits, it has nothing of the answer.
        let _gone = send(self.listener.as_fd(), call, answer.unwrap_or_else(Answer::from));
    }

    /// connect(2), and sendto(2) that begins a connection.
    fn connect(&self, call: &Call, address: (usize, usize)) {
        let is_waiting = || sys::is_waiting(self.listener.as_fd(), call.id);
        match connect::decide(&self.shared, self.dialler, call, address, is_waiting) {
            Decided::Answered(answer) => {
                let _gone = send(self.listener.as_fd(), call, answer);
            }
            Decided::Dial(plan) => self.dial(call, &plan),
        }
    }

    fn dial(&self, call: &Call, plan: &Plan<'_>) {
        let mut answer = plan.carry_out(&self.shared, call.tid);
        if answer == Answer::Value(0) && call.number == libc::SYS_sendto {
            answer = plan.send(call).unwrap_or_else(Answer::from);
        }
        plan.answer(&self.shared, || send(self.listener.as_fd(), call, answer));
    }
}

fn send(listener: BorrowedFd<'_>, call: &Call, answer: Answer) -> io::Result<()> {
    let mut response = seccomp_notif_resp { id: call.id, val: 0, error: 0, flags: 0 };
    match answer {
        Answer::Value(value) => response.val = value,
        Answer::Error(number) => response.error = -number,
        Answer::Continue => response.flags = libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32,
    }
    sys::answer(listener, response)
}
