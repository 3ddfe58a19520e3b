//! How long those may take who are told to end.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// A moment, or none for the time being. Clones are one and the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Deadline(Arc<Mutex<Option<Instant>>>);

impl Deadline {
    pub(crate) fn within(patience: Duration) -> Self {
        let deadline = Self::default();
        deadline.set_within(patience);
        deadline
    }

    pub(crate) fn set_within(&self, patience: Duration) {
        *self.lock() = Instant::now().checked_add(patience);
    }

    pub(crate) fn is_over(&self) -> bool {
        self.lock().is_some_and(|moment| Instant::now() >= moment)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
