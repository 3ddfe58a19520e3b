//! The slots that are taken, known to the engine and to those who work for it on other threads.

use std::sync::{Arc, PoisonError, RwLock};

use waylay_core::{ServiceId, Slots};

#[derive(Clone, Debug, Default)]
pub(crate) struct SharedSlots(Arc<RwLock<Slots>>);

impl SharedSlots {
    pub(crate) fn get(&self) -> Slots {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Does something with the slot of a service, which is its own until that is done.
    pub(crate) fn with<T>(&self, service: ServiceId, act: impl FnOnce(u8) -> T) -> Option<T> {
        let slots = self.0.read().unwrap_or_else(PoisonError::into_inner);
        slots.of(service).map(act)
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut Slots)) {
        change(&mut self.0.write().unwrap_or_else(PoisonError::into_inner));
    }
}
