//! How a program hears that an operation is done: in its `WSAOVERLAPPED`, and by
//! an event or a completion routine.

use std::{mem::offset_of, sync::Arc};

use crate::{
    abi::{Overlapped, STATUS_PENDING},
    code::{Code, FAULT, INVALID},
    event::{self, Event},
    outcome::Outcome,
    sys::{caller::Place, memory::Fault, routine::Routine},
    thread::{Due, Thread},
};

/// Where the outcome goes.
#[derive(Debug)]
pub(crate) struct Completion {
    operation: Place<Overlapped>,
    indication: Indication,
}

#[derive(Debug)]
enum Indication {
    None,
    Event(Arc<Event>),
    Routine(Routine, Arc<Thread>),
}

impl Completion {
    /// Looks at the structure, and changes nothing.
    pub(crate) fn new(
        operation: Place<Overlapped>,
        routine: Option<(Routine, Arc<Thread>)>,
    ) -> Result<Self, Code> {
        if !operation.is_aligned() {
            return Err(FAULT);
        }
        let event = operation.part::<usize>(offset_of!(Overlapped, event));
        let internals = operation.part::<[usize; 2]>(offset_of!(Overlapped, internal));
        internals.check().map_err(|_fault| FAULT)?;
        let handle = event.read().map_err(|_fault| FAULT)?;
        let indication = match routine {
            // The event is the program's own to use then.
            Some((routine, thread)) => Indication::Routine(routine, thread),
            None => match event::of_overlapped(handle).map_err(|_closed| INVALID)? {
                Some(event) => Indication::Event(event),
                None => Indication::None,
            },
        };
        Ok(Self { operation, indication })
    }

    pub(crate) fn operation(&self) -> Place<Overlapped> {
        self.operation
    }

    pub(crate) fn has_routine(&self) -> bool {
        matches!(self.indication, Indication::Routine(..))
    }

    pub(crate) fn begin(&self) -> Result<(), Code> {
        if let Indication::Event(event) = &self.indication {
            event.reset();
        }
        self.store(STATUS_PENDING, 0).map_err(|_fault| FAULT)
    }

    /// The last that is done with the structure: from here on it is the program's.
    pub(crate) fn finish(self, outcome: Outcome) {
        let status = outcome.code.map_or(0, |code| u32::from(code) as usize);
        // If the program has taken the structure away there is nobody left to tell but by the indication.
        let _gone = self.store(status, outcome.bytes);
        match self.indication {
            Indication::None => {}
            Indication::Event(event) => event.set(),
            Indication::Routine(routine, thread) => {
                thread.queue(Due { routine, outcome, operation: self.operation });
            }
        }
    }

    /// The status last: a program that polls it finds the rest in place.
    fn store(&self, status: usize, bytes: u32) -> Result<(), Fault> {
        self.operation.part(offset_of!(Overlapped, internal_high)).write(&(bytes as usize))?;
        self.operation.part(offset_of!(Overlapped, internal)).write(&status)
    }
}
