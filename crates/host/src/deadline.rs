//! How long those may take who are told to end.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// A moment, or none for the time being. Clones are one and the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Deadline {
    moment: Arc<Mutex<Option<Instant>>>,
    /// Of one alone who has no longer than this, whatever becomes of the others'.
    latest: Option<Instant>,
}

impl Deadline {
    pub(crate) fn within(patience: Duration) -> Self {
        let deadline = Self::default();
        deadline.set_within(patience);
        deadline
    }

    pub(crate) fn set_within(&self, patience: Duration) {
        *self.lock() = Instant::now().checked_add(patience);
    }

    /// The same moment, or one so long from now, whichever comes first.
    pub(crate) fn or_within(&self, patience: Duration) -> Self {
        Self { moment: Arc::clone(&self.moment), latest: Instant::now().checked_add(patience) }
    }

    pub(crate) fn is_over(&self) -> bool {
        let moments = [*self.lock(), self.latest];
        moments.into_iter().flatten().any(|moment| Instant::now() >= moment)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Instant>> {
        self.moment.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
