//! What is in force before there is a daemon: the filters of its policy that say so.

use std::path::Path;

use waylay_config::Names;
use waylay_core::Policy;

use crate::{
    draft::{Draft, Finding, findings},
    files::{self, Store},
    protocol::Failure,
};

/// Filters that are in force from boot on.
pub struct BootFilters {
    /// The policy that consists of them.
    pub policy: Policy,
    /// What is allowed and probably not meant.
    pub warnings: Vec<Finding>,
}

impl BootFilters {
    /// Those of a policy's files and of what was added for good.
    ///
    /// # Errors
    /// [`Failure`] if the whole does not hold together.
    pub fn read(policy: &Path, store: &Store, names: &dyn Names) -> Result<Self, Failure> {
        let ledger = files::ledger(policy, store)?;
        let draft = Draft::of_boot(&ledger, names)?;
        let warnings = findings(&draft.warnings_at_boot(names), &draft.sources);
        Ok(Self { policy: draft.lowered.policy, warnings })
    }
}
