//! `WSAIoctl` and `WSPIoctl`: what is asked, whether the arguments make sense, and
//! when the program hears the answer.

use std::{
    os::fd::{AsRawFd, BorrowedFd, RawFd},
    sync::Arc,
    time::Duration,
};

use rustix::fs::{OFlags, fcntl_getfl};
use socket2::SockRef;
use waylay::control::Query;

use crate::{
    abi::{
        Guid, Overlapped, SIO_FLUSH, SIO_GET_EXTENSION_FUNCTION_POINTER,
        SIO_QUERY_WFP_CONNECTION_REDIRECT_CONTEXT, SIO_QUERY_WFP_CONNECTION_REDIRECT_RECORDS,
        SIO_SET_WFP_CONNECTION_REDIRECT_RECORDS, SIO_WAYLAY_FLOW_IDLE, ThreadId,
    },
    announced::Announced,
    code::{
        Code, FAULT, IN_PROGRESS, INSUFFICIENT_BUFFER, INVALID, NOT_A_SOCKET, NOT_SUPPORTED, PENDING,
        WOULD_BLOCK,
    },
    completion::Completion,
    outcome::Outcome,
    pending,
    question::{Failure, Question, bytes},
    socket, startup,
    sys::{
        caller::{Place, Region},
        descriptor,
        routine::Routine,
    },
    thread::{self, Thread},
};

/// A call, as the program made it.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) socket: RawFd,
    pub(crate) code: u32,
    pub(crate) input: Region,
    pub(crate) output: Region,
    pub(crate) returned: Place<u32>,
    pub(crate) overlapped: Place<Overlapped>,
    pub(crate) routine: Option<Routine>,
    pub(crate) runs_in: RoutineThread,
    /// Where the function of an extension is.
    pub(crate) extensions: fn(&Guid) -> Option<usize>,
}

/// Whose queue a completion routine goes to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum RoutineThread {
    /// The calling thread's: `WSAIoctl`.
    Calling,
    /// The one that a `WSATHREADID` names: `WSPIoctl`.
    Named(Place<ThreadId>),
}

impl RoutineThread {
    fn find(self) -> Result<Arc<Thread>, Code> {
        match self {
            Self::Calling => Thread::current(),
            Self::Named(place) => Thread::named(place.read().map_err(|_fault| FAULT)?.handle),
        }
    }
}

/// What a control code stands for.
#[derive(Clone, Copy, Debug)]
enum Control {
    Query(Query),
    SetRecords,
    FlowIdle,
    Flush,
    ExtensionFunction,
}

impl Control {
    /// By the whole code: its direction bits do not say where the data is.
    fn of(code: u32) -> Option<Self> {
        match code {
            SIO_QUERY_WFP_CONNECTION_REDIRECT_RECORDS => Some(Self::Query(Query::Records)),
            SIO_QUERY_WFP_CONNECTION_REDIRECT_CONTEXT => Some(Self::Query(Query::Context)),
            SIO_SET_WFP_CONNECTION_REDIRECT_RECORDS => Some(Self::SetRecords),
            SIO_WAYLAY_FLOW_IDLE => Some(Self::FlowIdle),
            SIO_FLUSH => Some(Self::Flush),
            SIO_GET_EXTENSION_FUNCTION_POINTER => Some(Self::ExtensionFunction),
            _ => None,
        }
    }

    /// Whether it does no harm if it was done and the program is not told the count.
    fn can_be_done_again(self) -> bool {
        match self {
            Self::Query(_) | Self::FlowIdle | Self::ExtensionFunction => true,
            Self::SetRecords | Self::Flush => false,
        }
    }
}

pub(crate) fn control(request: &Request) -> Result<(), Code> {
    startup::check()?;
    let socket = descriptor::named(request.socket).ok_or(NOT_A_SOCKET)?;
    let Some(control) = Control::of(request.code) else {
        socket::check(socket)?;
        return Err(NOT_SUPPORTED);
    };
    let arguments = request.arguments_of(control);
    arguments.or_else(|code| socket::check(socket).and(Err(code)))?;
    if request.is_overlapped(socket)? {
        request.overlapped(socket, control)
    } else {
        request.at_once(socket, control)
    }
}

impl Request {
    fn arguments_of(&self, control: Control) -> Result<(), Code> {
        let fine = match control {
            Control::Query(_) => self.input.is_none(),
            Control::SetRecords | Control::FlowIdle => self.output.is_none(),
            Control::Flush | Control::ExtensionFunction => true,
        };
        if fine { Ok(()) } else { Err(INVALID) }
    }

    /// Whether the program wants to hear of the outcome later.
    fn is_overlapped(&self, socket: BorrowedFd<'_>) -> Result<bool, Code> {
        if self.overlapped.is_null() && self.routine.is_none() {
            return Ok(false);
        }
        socket::check(socket)?;
        if !socket::is_overlapped(socket)? {
            return Ok(false);
        }
        // A routine would be given the structure.
        if self.overlapped.is_null() { Err(INVALID) } else { Ok(true) }
    }

    fn at_once(&self, socket: BorrowedFd<'_>, control: Control) -> Result<(), Code> {
        if !control.can_be_done_again() {
            self.returned.check().map_err(|_fault| FAULT)?;
        }
        loop {
            match self.act(socket, control) {
                Ok(bytes) => return self.returned.write(&bytes).map_err(|_fault| FAULT),
                Err(failure) if failure.connecting => wait(socket)?,
                Err(failure) => return self.fail(failure),
            }
        }
    }

    fn overlapped(&self, socket: BorrowedFd<'_>, control: Control) -> Result<(), Code> {
        let routine = match self.routine {
            Some(routine) => Some((routine, self.runs_in.find()?)),
            None => None,
        };
        let completion = Completion::new(self.overlapped, routine)?;
        if pending::is_pending(self.overlapped) {
            return Err(INVALID);
        }
        if !self.returned.is_null() {
            self.returned.check().map_err(|_fault| FAULT)?;
        }
        match (self.act(socket, control), control) {
            (Ok(bytes), _) => {
                if !self.returned.is_null() {
                    self.returned.write(&bytes).map_err(|_fault| FAULT)?;
                }
                completion.finish(Outcome { code: None, bytes });
                Ok(())
            }
            (Err(failure), Control::Query(query)) if failure.connecting => {
                pending::leave(socket, Question { query, output: self.output }, completion)?;
                Err(PENDING)
            }
            (Err(failure), _) => self.fail(failure),
        }
    }

    fn act(&self, socket: BorrowedFd<'_>, control: Control) -> Result<u32, Failure> {
        match control {
            Control::Query(query) => Question { query, output: self.output }.ask(socket),
            Control::SetRecords => {
                self.input.set_as_records(socket).map_err(Code::from)?;
                Ok(0)
            }
            Control::FlowIdle => {
                socket::check(socket)?;
                Ok(self.set_flow_idle(socket)?)
            }
            Control::Flush => {
                socket::check(socket)?;
                pending::abort(|operation| operation.socket() == socket.as_raw_fd());
                Ok(0)
            }
            Control::ExtensionFunction => {
                socket::check(socket)?;
                Ok(self.extension_function()?)
            }
        }
    }

    fn set_flow_idle(&self, socket: BorrowedFd<'_>) -> Result<u32, Code> {
        if self.input.len() < size_of::<u32>() {
            return Err(FAULT);
        }
        let milliseconds = self.input.start::<u32>().read().map_err(|_fault| FAULT)?;
        let cookie = SockRef::from(&socket).cookie()?;
        Announced::again_after(cookie, Duration::from_millis(milliseconds.into()));
        Ok(0)
    }

    fn extension_function(&self) -> Result<u32, Code> {
        if self.input.len() < size_of::<Guid>() || self.output.len() < size_of::<usize>() {
            return Err(FAULT);
        }
        let id = self.input.start::<Guid>().read().map_err(|_fault| FAULT)?;
        let function = (self.extensions)(&id).ok_or(INVALID)?;
        self.output.start().write(&function).map_err(|_fault| FAULT)?;
        Ok(bytes(size_of::<usize>()))
    }

    /// The size that is needed is told by the failure as well.
    fn fail(&self, failure: Failure) -> Result<(), Code> {
        match failure.needed {
            Some(needed) if failure.code == INSUFFICIENT_BUFFER && !self.returned.is_null() => {
                self.returned.write(&needed).map_err(|_fault| FAULT)?;
            }
            Some(_) | None => {}
        }
        Err(failure.code)
    }
}

/// Until the connection is there, if the program may be held up.
fn wait(socket: BorrowedFd<'_>) -> Result<(), Code> {
    if fcntl_getfl(socket)?.contains(OFlags::NONBLOCK) {
        return Err(WOULD_BLOCK);
    }
    if thread::in_routine() {
        return Err(IN_PROGRESS);
    }
    pending::wait_for_connection(socket)
}
