//! What this machine offers a run, who else is hooked in, and what runs have left: questions that change
//! nothing. Words for it are the command's.

mod checks;
mod facts;
mod others;
mod runs;
mod supervision;

use std::{io, path::PathBuf};

use waylay_engine::{Capabilities, Capability, CapabilityState};

pub use checks::{Check, Need, State};
pub use facts::{Facts, Guard, Jit};
pub use others::{Meaning, Other, Relation};
pub use runs::{ResidentSeen, Run, RunState};
#[cfg(any(test, fuzzing))]
pub(crate) use {
    facts::{hidepid, lockdown},
    runs::{holder, id_of_directory},
};

use crate::cgroup::Cgroup;

/// What was found.
#[derive(Debug)]
pub struct Diagnosis {
    /// The kernel's release, as uname(1) tells it.
    pub kernel: String,
    /// The cgroup below which a run of this process would be.
    pub place: Option<PathBuf>,
    /// What `waylay run` needs, and whether it is there.
    pub checks: Vec<Check>,
    /// What the engine can do here.
    pub capabilities: Capabilities,
    /// What a run without root needs, and whether it is there.
    pub without_root: Vec<Check>,
    /// What its engine can do; `None` if that could not be started.
    pub capabilities_without_root: Option<Capabilities>,
    /// Programs of others on the way from the root to a run, and on this process's own cgroup.
    pub others: io::Result<Vec<Other>>,
    /// Runs, alive and otherwise.
    pub runs: Vec<Run>,
    /// What is worth knowing.
    pub facts: Facts,
}

impl Diagnosis {
    /// Whether nothing that a run by the engine on eBPF needs is known to be missing.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        !self.checks.iter().any(|check| check.state == State::Missing)
    }

    /// Whether nothing that a run without root needs is known to be missing.
    #[must_use]
    pub fn is_ready_without_root(&self) -> bool {
        !self.without_root.iter().any(|check| check.state == State::Missing)
    }
}

/// What keeps the engine on eBPF from being chosen, if anything does; whether its programs load is not tried.
#[must_use]
pub fn lacking() -> Option<Need> {
    checks::lacking()
}

/// Looks at this machine with the eyes of this process.
#[must_use]
pub fn examine() -> Diagnosis {
    let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
    let line = Cgroup::line_of_the_caller();
    let others = match &line {
        Ok(line) => others::others(line),
        Err(_) => Ok(Vec::new()),
    };
    let checks = checks::checks(&kernel, &line);
    let capabilities = capabilities(&checks);
    let path = |cgroup: &Cgroup| cgroup.path().to_owned();
    let (place, root) = match &line {
        Ok(line) => (Some(path(line.place())), line.to_place().first().map(path)),
        Err(_) => (None, None),
    };
    let runs = runs::runs(root.as_deref());
    let facts = facts::facts(&kernel);
    let without_root = supervision::checks();
    let capabilities_without_root = supervision::capabilities();
    Diagnosis {
        kernel,
        place,
        checks,
        capabilities,
        without_root,
        capabilities_without_root,
        others,
        runs,
        facts,
    }
}

/// Where a run could not even start, the engine can do nothing.
fn capabilities(checks: &[Check]) -> Capabilities {
    let missing = checks.iter().find(|check| check.state == State::Missing);
    let as_it_is = |capability: &Capability| match (missing, &capability.state) {
        (None, _) | (_, CapabilityState::Missing { .. }) => capability.clone(),
        (Some(check), CapabilityState::Available) => Capability {
            feature: capability.feature,
            state: CapabilityState::Missing {
                needs: check.need.name().to_owned(),
                remedy: "see what waylay run needs".to_owned(),
            },
        },
    };
    waylay_engine_ebpf::capabilities().iter().map(as_it_is).collect()
}
