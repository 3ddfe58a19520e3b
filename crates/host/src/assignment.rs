//! What a station is asked for, and what it says of itself.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicI32, Ordering},
    },
    time::Duration,
};

use waylay_core::{FailurePolicy, Policy, ServiceId};

use crate::{cgroup::Cgroup, launch::Listening, spec::ServiceSpec};

/// Where a station stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ground {
    /// A cgroup of its own, below the caller's, with one in it for the applications.
    Own,
    /// A cgroup that is there already, with whatever runs in it; made neither nor removed. The services get cgroups in one of the
    /// station's own inside of it. The root of the hierarchy stands for the whole host.
    Existing(Cgroup),
}

/// What stays the same while a station lasts.
#[derive(Clone, Debug)]
pub struct StationSpec {
    /// Whose connections are redirected.
    pub ground: Ground,
    /// How long a service may leave connections waiting before it is ended as hung.
    pub patience: Duration,
    /// How long an adopted service may take until it listens.
    pub start_patience: Duration,
    /// Whether services may be adopted that run already; the programs for that are loaded only then.
    pub residents: bool,
    /// By what a change that waits for a service is broken off.
    pub interruption: Interruption,
}

/// What is to be in force: a policy, and how each of its services is had.
///
/// A [`ServiceId`] is for ever that of one service, had in one way: a service that is to be had in another way is another one, with
/// an id that was never used. What the policy says of a service (its order, its failure policy, its filters) may change.
#[derive(Clone, Debug)]
pub struct Assignment {
    /// What is redirected to whom, and what is refused.
    pub policy: Policy,
    /// Every service of the policy.
    pub services: BTreeMap<ServiceId, ServiceSpec>,
}

/// A signal that asks for the end of whatever is being waited for. Clones are one and the same.
#[derive(Clone, Debug, Default)]
pub struct Interruption(Arc<AtomicI32>);

impl Interruption {
    /// Asks for it; a later signal takes the place of one that nobody has taken yet.
    pub fn raise(&self, signal: i32) {
        self.0.store(signal, Ordering::Release);
    }

    /// The signal that was raised, which counts as obeyed from here on.
    #[must_use]
    pub fn take(&self) -> Option<i32> {
        Some(self.0.swap(0, Ordering::AcqRel)).filter(|&signal| signal != 0)
    }
}

/// How a service of a station gets on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceState {
    /// Which one it is.
    pub id: ServiceId,
    /// Its name.
    pub name: String,
    /// Whether it serves.
    pub condition: Condition,
    /// What becomes of connections while it is gone.
    pub on_failure: FailurePolicy,
    /// Directory of the cgroup by which it is known.
    pub cgroup: PathBuf,
    /// Its processes; of one that ran already all that are in its cgroup.
    pub processes: Vec<u32>,
    /// Where it takes what is redirected.
    pub listening: Listening,
}

/// Whether a service serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Condition {
    /// It takes connections.
    Serving,
    /// It has ended, or listens no longer: its failure policy answers.
    Gone,
    /// It is no longer in the policy, and finishes what it has.
    Leaving,
}
