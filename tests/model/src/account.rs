//! What has happened to a connection, counted without asking `waylay_core`.

use crate::chains::{Dial, End, Habit};
use crate::declaration::{Declaration, Set, contains, only};

/// What has happened to a connection so far. Nothing that happens next depends on it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Account {
    /// Redirects.
    pub hops: u16,
    /// n(n+1)/2, added up over every policy that was in force.
    pub bound: u16,
    /// n, added up over every policy that was in force.
    pub lengths: u16,
    /// n(n+1)/2 of the first policy.
    pub first_bound: u16,
    /// Every service there was.
    pub known: Set,
    /// The services that it was redirected to since its records were left out last.
    pub met: Set,
    /// One of them was met again.
    pub met_twice: bool,
    /// Records were left out.
    pub forgotten: bool,
    /// A service dialled another destination than it was asked for.
    pub went_elsewhere: bool,
    /// A service came or went between two dials.
    pub wavered: bool,
    /// A closed service that looks at the destination, and that the chain does not exclude, was left out.
    pub skipped_closed: bool,
    /// The services that were there at the last dial.
    pub present: Option<Set>,
}

/// One dial and what came of it.
pub(crate) struct Step<'a> {
    pub(crate) declaration: &'a Declaration,
    pub(crate) dialled_by: Option<u32>,
    pub(crate) dial: &'a Dial,
    /// What the chain that the leg brought along excluded.
    pub(crate) excluded: Set,
    pub(crate) outcome: Result<u32, End>,
}

impl Account {
    /// A policy is in force from here on.
    pub(crate) fn under(mut self, declaration: &Declaration) -> Self {
        let n = declaration.services();
        self.bound += n * (n + 1) / 2;
        self.lengths += n;
        self.known |= declaration.all();
        if self.first_bound == 0 {
            self.first_bound = self.bound;
        }
        self
    }

    pub(crate) fn after(mut self, step: &Step<'_>, destination: Set, varies: Set) -> Self {
        self.went_elsewhere |= step.dialled_by.is_some() && step.dial.destination != destination;
        let present = step.dial.present & varies;
        self.wavered |= self.present.is_some_and(|before| before != present);
        // What no dial depends on later is not kept: it would only multiply states.
        self.present = (varies != 0 && !self.wavered).then_some(present);
        if step.dialled_by.is_some() && step.dial.habit == Habit::Forgets {
            self.forgotten = true;
            self.met = 0;
        }
        self.skipped_closed |= step.skips_closed();
        if let Ok(service) = step.outcome {
            self.hops += 1;
            self.met_twice |= contains(self.met, service);
            self.met |= only(service);
        }
        self
    }
}

impl Step<'_> {
    /// Whether a closed service stands in front of where the leg went, and should have had it.
    fn skips_closed(&self) -> bool {
        let passed = match self.outcome {
            Ok(service) => self.declaration.order.iter().position(|&id| id == service),
            Err(End::Direct) => Some(self.declaration.order.len()),
            Err(End::Refused | End::RefusedAtTheLimit) => Some(0),
        };
        let passed = &self.declaration.order[..passed.expect("a service of the policy")];
        passed.iter().any(|&id| contains(self.declaration.closed, id) && self.should_have(id))
    }

    fn should_have(&self, service: u32) -> bool {
        let looks = self.declaration.looks(service, self.dial.destination, self.dialled_by);
        looks && !contains(self.excluded, service) && self.dialled_by != Some(service)
    }
}
