//! What carries a policy out, as far as this crate is concerned.

use waylay_core::{Change, Policy};
use waylay_host::{Assignment, LiveFlow, RunError, ServiceState, Station};

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

    /// What is redirected now.
    ///
    /// # Errors
    /// If nobody can say.
    fn flows(&self) -> Result<Vec<LiveFlow>, RunError>;
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

    fn flows(&self) -> Result<Vec<LiveFlow>, RunError> {
        Self::flows(self)
    }
}
