//! Who has something in a cgroup, as those are told who come too late.

use std::fmt;

/// An engine that holds a cgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its instance.
    pub instance: u64,
    /// The process that loaded it.
    pub pid: u32,
    /// What it has there.
    pub held: Held,
}

/// What an engine has in a cgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// It watches everything in it.
    Scope,
    /// One of its services is in it.
    Service,
    /// One of its services is in it that runs by itself, outside of its scope.
    Resident,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { instance, pid, .. } = self;
        let held = match self.held {
            Held::Scope => "is the scope",
            Held::Service | Held::Resident => "holds a service",
        };
        write!(f, "{held} of waylay-{instance:016x} (process {pid})")
    }
}
