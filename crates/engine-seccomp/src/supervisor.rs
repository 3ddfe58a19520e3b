//! What is answered to whom. Each part of a process tree that has a filter of its own has its own threads that do so.

use std::{io, os::fd::OwnedFd, sync::Arc};

use libc::seccomp_notif_resp;
use waylay_core::ServiceId;

use crate::{
    call::Call,
    connect::{self, Decided, Plan},
    making, names, options,
    pool::{Pool, Turn},
    shared::Shared,
    udp,
};

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
        let shared = Arc::clone(shared);
        let reply = move |call: &Call, turn: &Turn<'_>| Desk { shared: &shared, dialler, turn }.answer(call);
        Ok(Self { pool: Pool::start(listener, Box::new(reply))? })
    }

    /// Waits until no process is left that has the filter.
    pub fn wait(&self) {
        self.pool.wait();
    }

    /// Whether no process is left that has the filter.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.pool.is_over()
    }
}

/// Where a call is answered.
struct Desk<'t> {
    shared: &'t Shared,
    dialler: Dialler,
    turn: &'t Turn<'t>,
}

impl Desk<'_> {
    fn answer(&self, call: &Call) {
        let Self { shared, dialler, turn } = *self;
        let answer = match call.number {
            libc::SYS_connect => return self.connect(call, (1, 2)),
            libc::SYS_sendto if connect::begins(shared, call) => return self.connect(call, (4, 5)),
            libc::SYS_sendto | libc::SYS_sendmsg | libc::SYS_sendmmsg => {
                udp::send(shared, dialler, call, turn)
            }
            libc::SYS_recvfrom | libc::SYS_recvmsg | libc::SYS_recvmmsg => {
                udp::receive(shared, dialler, call, turn)
            }
            libc::SYS_getpeername => names::peer(shared, call),
            libc::SYS_getsockname => names::local(shared, dialler, call),
            libc::SYS_getsockopt => options::ask(shared, dialler, call),
            libc::SYS_setsockopt => match dialler {
                Dialler::Service(service) => options::tell(shared, service, call),
                Dialler::Command => Ok(Answer::Continue),
            },
            libc::SYS_socket => match making::socket(shared, call, turn) {
                Ok(None) => return,
                Ok(Some(answer)) => Ok(answer),
                Err(error) => Err(error),
            },
            libc::SYS_bind => making::bind(shared),
            libc::SYS_listen => making::listen(shared, call),
            _ => Ok(Answer::Error(libc::ENOSYS)),
        };
        // If it no longer waits, it has nothing of the answer.
        let _gone = self.send(call, answer.unwrap_or_else(Answer::from));
    }

    /// connect(2), and sendto(2) that begins a connection.
    fn connect(&self, call: &Call, address: (usize, usize)) {
        match connect::decide(self.shared, self.dialler, call, address, self.turn) {
            Decided::Answered(answer) => {
                let _gone = self.send(call, answer);
            }
            Decided::Dial(plan) => self.dial(call, plan),
        }
    }

    fn dial(&self, call: &Call, plan: Plan<'_>) {
        let mut answer = plan.carry_out(self.shared, call.tid, self.turn);
        if answer == Answer::Value(0) && call.number == libc::SYS_sendto {
            let _at_the_worst_others_wait = self.turn.give_up();
            answer = plan.send(call).unwrap_or_else(Answer::from);
        }
        let is_begun = match answer {
            Answer::Value(_) => true,
            // Nor is it to be connected by somebody who is gone.
            Answer::Error(libc::EINTR) => !self.turn.is_waited_for(),
            Answer::Error(number) => [libc::EINPROGRESS, libc::EALREADY, libc::EISCONN].contains(&number),
            Answer::Continue => false,
        };
        plan.answer(self.shared, is_begun, || self.send(call, answer));
    }

    fn send(&self, call: &Call, answer: Answer) -> io::Result<()> {
        let mut response = seccomp_notif_resp { id: call.id, val: 0, error: 0, flags: 0 };
        match answer {
            Answer::Value(value) => response.val = value,
            Answer::Error(number) => response.error = -number,
            Answer::Continue => response.flags = libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32,
        }
        self.turn.answer(response)
    }
}
