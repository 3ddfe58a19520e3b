//! Waiting: for events, for time to pass, for operations, and, alertably, for
//! completion routines.

use std::{
    os::fd::RawFd,
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};

use crate::{
    abi::{INFINITE, MAXIMUM_WAIT_EVENTS, Overlapped, STATUS_PENDING, WAIT_IO_COMPLETION, WAIT_TIMEOUT},
    code::{Code, FAULT, INCOMPLETE, INVALID_HANDLE, INVALID_PARAMETER, NOT_A_SOCKET},
    event::{self, Event},
    pending, socket, startup,
    sys::{caller::Place, descriptor},
    thread::Thread,
};

/// When a wait is over, whatever happens.
#[derive(Clone, Copy, Debug)]
struct Deadline(Option<Instant>);

impl Deadline {
    fn after(milliseconds: u32) -> Self {
        let limit = (milliseconds != INFINITE).then(|| Duration::from_millis(milliseconds.into()));
        Self(limit.and_then(|limit| Instant::now().checked_add(limit)))
    }

    fn left(self) -> Option<Timespec> {
        let left = self.0?.saturating_duration_since(Instant::now());
        Timespec::try_from(left).ok()
    }
}

/// Which of the events are set, waiting for one at most until the deadline.
fn look(events: &[&Event], deadline: Deadline) -> Result<Vec<bool>, Code> {
    let mut polled: Vec<_> = events.iter().map(|event| PollFd::new(event, PollFlags::IN)).collect();
    loop {
        match poll(&mut polled, deadline.left().as_ref()) {
            // Windows has no signals: they do not end a wait.
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
            Ok(_) => return Ok(polled.iter().map(|fd| !fd.revents().is_empty()).collect()),
        }
    }
}

/// `SleepEx`.
pub(crate) fn sleep(milliseconds: u32, alertable: bool) -> u32 {
    let deadline = Deadline::after(milliseconds);
    let thread = if alertable { Thread::current().ok() } else { None };
    if thread.as_ref().is_some_and(|thread| thread.run_due()) {
        return WAIT_IO_COMPLETION;
    }
    let signal: Vec<&Event> = thread.iter().map(|thread| thread.signal()).collect();
    // Without memory for the wait it is over at once.
    let _out_of_memory = look(&signal, deadline);
    if thread.as_ref().is_some_and(|thread| thread.run_due()) { WAIT_IO_COMPLETION } else { 0 }
}

/// What `WSAWaitForMultipleEvents` waits for.
#[derive(Debug)]
pub(crate) struct Wait {
    events: Vec<Arc<Event>>,
    all: bool,
    deadline: Deadline,
    thread: Option<Arc<Thread>>,
}

impl Wait {
    pub(crate) fn new(
        count: u32,
        handles: Place<usize>,
        all: bool,
        milliseconds: u32,
        alertable: bool,
    ) -> Result<Self, Code> {
        startup::check()?;
        if count == 0 || count > MAXIMUM_WAIT_EVENTS {
            return Err(INVALID_PARAMETER);
        }
        let handle = |index| handles.part::<usize>(index as usize * size_of::<usize>()).read();
        let event = |index| event::find(handle(index).map_err(|_fault| FAULT)?);
        let events = (0..count).map(event).collect::<Result<_, Code>>()?;
        let thread = if alertable { Some(Thread::current()?) } else { None };
        Ok(Self { events, all, deadline: Deadline::after(milliseconds), thread })
    }

    /// The index of the first event that is set, or what else ended the wait.
    pub(crate) fn wait(&self) -> Result<u32, Code> {
        loop {
            if let Some(index) = self.satisfied()? {
                return Ok(index);
            }
            if self.thread.as_ref().is_some_and(|thread| thread.run_due()) {
                return Ok(WAIT_IO_COMPLETION);
            }
            if self.deadline.0.is_some_and(|deadline| deadline <= Instant::now()) {
                return Ok(WAIT_TIMEOUT);
            }
            self.wait_for_a_change()?;
        }
    }

    /// All at the same moment, or any.
    fn satisfied(&self) -> Result<Option<u32>, Code> {
        let set = look(&self.all_events(), Deadline(Some(Instant::now())))?;
        let first = set.iter().position(|set| *set).map(|index| index as u32);
        Ok(if self.all { set.iter().all(|set| *set).then_some(0) } else { first })
    }

    /// Until another event is set than those that are, a routine is due, or time is up.
    fn wait_for_a_change(&self) -> Result<(), Code> {
        let events = self.all_events();
        let set = look(&events, Deadline(Some(Instant::now())))?;
        let missing = events.into_iter().zip(set).filter(|(_, set)| !set).map(|(event, _)| event);
        let signal = self.thread.iter().map(|thread| thread.signal());
        look(&missing.chain(signal).collect::<Vec<_>>(), self.deadline)?;
        Ok(())
    }

    fn all_events(&self) -> Vec<&Event> {
        self.events.iter().map(|event| &**event).collect()
    }
}

/// `WSAGetOverlappedResult`.
pub(crate) fn result(
    number: RawFd,
    overlapped: Place<Overlapped>,
    transferred: Place<u32>,
    wait: bool,
    flags: Place<u32>,
) -> Result<(), Code> {
    startup::check()?;
    socket::check(descriptor::named(number).ok_or(NOT_A_SOCKET)?)?;
    transferred.check().and_then(|()| flags.check()).map_err(|_fault| FAULT)?;
    let mut now = overlapped.read().map_err(|_fault| FAULT)?;
    if now.internal == STATUS_PENDING && wait {
        if event::of_overlapped(now.event).map_err(|_closed| INVALID_HANDLE)?.is_none() {
            return Err(INVALID_HANDLE);
        }
        pending::wait_until_done(overlapped).map_err(|_has_routine| INVALID_PARAMETER)?;
        now = overlapped.read().map_err(|_fault| FAULT)?;
    }
    match now.internal {
        0 => {
            let bytes = u32::try_from(now.internal_high).unwrap_or(u32::MAX);
            transferred.write(&bytes).and_then(|()| flags.write(&0)).map_err(|_fault| FAULT)
        }
        STATUS_PENDING => Err(INCOMPLETE),
        code => Err(Code((code as u32).cast_signed())),
    }
}
