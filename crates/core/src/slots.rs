//! Mask slots: which bit of an excluded set, as engines keep it, stands for which service.
//!
//! Sockets and flows keep masks across a reload, so a slot stays its service's until nothing carries it any more.

use std::collections::BTreeMap;

use crate::model::ServiceId;
use crate::policy::{Limit, LimitError, MAX_SERVICES};

/// The slots that are taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slots {
    taken: BTreeMap<ServiceId, u8>,
}

impl Slots {
    /// The slots as they were handed out before.
    #[must_use]
    pub fn restore(taken: impl IntoIterator<Item = (ServiceId, u8)>) -> Self {
        Self { taken: taken.into_iter().collect() }
    }

    /// The slot of a service.
    #[must_use]
    pub fn of(&self, service: ServiceId) -> Option<u8> {
        self.taken.get(&service).copied()
    }

    /// The taken slots with their services, by service id.
    pub fn iter(&self) -> impl Iterator<Item = (ServiceId, u8)> + '_ {
        self.taken.iter().map(|(&service, &slot)| (service, slot))
    }

    /// The slot of a service, the lowest free one if it has none yet.
    pub fn assign(&mut self, service: ServiceId) -> Result<u8, LimitError> {
        if let Some(slot) = self.of(service) {
            return Ok(slot);
        }
        let free = (0u8..).take(MAX_SERVICES).find(|slot| !self.taken.values().any(|taken| taken == slot));
        let error = LimitError { limit: Limit::Slots, need: self.taken.len() + 1, allowed: MAX_SERVICES };
        let slot = free.ok_or(error)?;
        self.taken.insert(service, slot);
        Ok(slot)
    }

    /// Frees the slot of a service, which is right only when no flow and no socket carries it.
    pub fn release(&mut self, service: ServiceId) {
        self.taken.remove(&service);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_stays_until_it_is_released() {
        let mut slots = Slots::default();
        assert_eq!(slots.assign(ServiceId(7)), Ok(0));
        assert_eq!(slots.assign(ServiceId(3)), Ok(1));
        assert_eq!(slots.assign(ServiceId(7)), Ok(0));
        slots.release(ServiceId(7));
        assert_eq!(slots.assign(ServiceId(9)), Ok(0));
        assert_eq!(slots.of(ServiceId(7)), None);
    }

    #[test]
    fn slots_run_out_by_name() {
        let mut slots = Slots::default();
        for id in 0..64 {
            slots.assign(ServiceId(id)).unwrap();
        }
        assert_eq!(
            slots.assign(ServiceId(64)),
            Err(LimitError { limit: Limit::Slots, need: 65, allowed: 64 })
        );
        assert_eq!(slots.assign(ServiceId(63)), Ok(63));
    }
}
