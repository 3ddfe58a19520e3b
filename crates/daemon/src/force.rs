//! What carries a policy out, as far as this crate is concerned.

use std::{collections::BTreeSet, net::SocketAddr};

use waylay_core::{Change, Policy, ServiceId};
use waylay_host::{Assignment, Caller, Enclosure, LiveFlow, RunError, ServiceState, Station, Surroundings};

/// A place where policies are in force.
pub trait Force: Send {
    /// Puts a policy into force in the place of the one before. All or nothing: on an error what was in force still is.
    ///
    /// # Errors
    /// Why it is not in force.
    fn apply(&mut self, assignment: &Assignment) -> Result<(), RunError>;

    /// Puts a change of filters into force, of the policy in force, whose services stay; `policy` is what it leads to. All or
    /// nothing.
    ///
    /// # Errors
    /// Why it is not in force.
    fn amend(&mut self, change: Change, policy: &Policy) -> Result<(), RunError>;

    /// Whether filters have changed since all of them were compiled.
    fn is_amended(&self) -> bool {
        false
    }

    /// How its services get on.
    fn services(&self) -> Vec<ServiceState>;

    /// Services that run by themselves and are not where they were; those have to have other numbers.
    fn moved(&self) -> BTreeSet<ServiceId> {
        BTreeSet::new()
    }

    /// What is redirected now.
    ///
    /// # Errors
    /// If nobody can say.
    fn flows(&self) -> Result<Vec<LiveFlow>, RunError>;

    /// Makes a cgroup for a command of a user, near a process of theirs.
    ///
    /// # Errors
    /// Why there cannot be one.
    fn enclose(&mut self, pid: u32, uid: u32) -> Result<Enclosure, RunError>;

    /// Moves a process into one.
    ///
    /// # Errors
    /// Why it may not be there.
    fn admit(&self, enclosure: &Enclosure, pid: u32) -> Result<(), RunError>;

    /// Ends all who are in one and removes it.
    fn dissolve(&mut self, enclosure: &Enclosure);

    /// What a connection of a process would meet on its way, by a policy; nothing in particular where nobody can say.
    fn surroundings(&self, caller: &Caller, to: SocketAddr, policy: &Policy) -> Surroundings {
        let (_, _, _) = (caller, to, policy);
        Surroundings::default()
    }
}

impl Force for Station {
    fn apply(&mut self, assignment: &Assignment) -> Result<(), RunError> {
        Self::apply(self, assignment)
    }

    fn amend(&mut self, change: Change, policy: &Policy) -> Result<(), RunError> {
        Self::amend(self, change, policy)
    }

    fn is_amended(&self) -> bool {
        Self::is_amended(self)
    }

    fn services(&self) -> Vec<ServiceState> {
        Self::services(self)
    }

    fn moved(&self) -> BTreeSet<ServiceId> {
        Self::moved(self)
    }

    fn flows(&self) -> Result<Vec<LiveFlow>, RunError> {
        Self::flows(self)
    }

    fn enclose(&mut self, pid: u32, uid: u32) -> Result<Enclosure, RunError> {
        Self::enclose(self, pid, uid)
    }

    fn admit(&self, enclosure: &Enclosure, pid: u32) -> Result<(), RunError> {
        Self::admit(self, enclosure, pid)
    }

    fn dissolve(&mut self, enclosure: &Enclosure) {
        Self::dissolve(self, enclosure);
    }

    fn surroundings(&self, caller: &Caller, to: SocketAddr, policy: &Policy) -> Surroundings {
        Self::surroundings(self, caller, to, policy)
    }
}
