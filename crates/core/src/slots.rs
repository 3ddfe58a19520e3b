//! Mask slots: which bit of an excluded set, as engines keep it, stands for which service.
//!
//! Sockets and flows keep masks across a reload, so a slot stays its service's until nothing carries it any more.

use std::collections::BTreeMap;

use crate::ids::ServiceId;
use crate::policy::{Limit, LimitError, MAX_SERVICES};

/// The slots that are taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slots {
    taken: BTreeMap<ServiceId, u8>,
}

/// Why slots cannot have been handed out so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SlotError {
    /// There is no such slot.
    #[error("slot {slot} of {service} does not exist")]
    OutOfRange {
        /// The service.
        service: ServiceId,
        /// The slot it is said to have.
        slot: u8,
    },
    /// The slot has an owner already.
    #[error("slot {slot} of {service} is taken")]
    TakenTwice {
        /// The later service.
        service: ServiceId,
        /// The slot.
        slot: u8,
    },
}

/// A slot is given to one service while another has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("slot {slot} is given to {given_to} while flows or sockets carry it for {carried_for}")]
pub struct SlotInUse {
    /// The slot.
    pub slot: u8,
    /// Who has it.
    pub carried_for: ServiceId,
    /// Who is to have it.
    pub given_to: ServiceId,
}

impl Slots {
    /// The slots as they were handed out before.
    pub fn restore(handed_out: impl IntoIterator<Item = (ServiceId, u8)>) -> Result<Self, SlotError> {
        let mut slots = Self::default();
        for (service, slot) in handed_out {
            if usize::from(slot) >= MAX_SERVICES {
                return Err(SlotError::OutOfRange { service, slot });
            }
            if slots.taken.values().any(|&taken| taken == slot) {
                return Err(SlotError::TakenTwice { service, slot });
            }
            slots.taken.insert(service, slot);
        }
        Ok(slots)
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

    /// Takes what `next` takes besides. If that gives a slot to another service than these do, nothing is changed.
    pub fn take_over(&mut self, next: &Self) -> Result<(), SlotInUse> {
        for (given_to, slot) in next.iter() {
            let clashes = |&(service, taken): &(ServiceId, u8)| (service == given_to) != (taken == slot);
            if let Some((carried_for, slot)) = self.iter().find(clashes) {
                return Err(SlotInUse { slot, carried_for, given_to });
            }
        }
        self.taken.extend(next.iter());
        Ok(())
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
    fn slots_are_restored_only_if_they_can_have_been() {
        let of = |taken: &[(u32, u8)]| Slots::restore(taken.iter().map(|&(id, slot)| (ServiceId(id), slot)));
        assert_eq!(of(&[(1, 63), (2, 0)]).unwrap().of(ServiceId(1)), Some(63));
        assert_eq!(of(&[(1, 64)]), Err(SlotError::OutOfRange { service: ServiceId(1), slot: 64 }));
        assert_eq!(of(&[(1, 5), (2, 5)]), Err(SlotError::TakenTwice { service: ServiceId(2), slot: 5 }));
    }

    #[test]
    fn a_slot_is_not_given_to_another_service() {
        let of = |taken: &[(u32, u8)]| Slots::restore(taken.iter().map(|&(id, slot)| (ServiceId(id), slot)));
        let mut slots = of(&[(1, 0), (2, 1)]).unwrap();
        let (carried_for, given_to) = (ServiceId(1), ServiceId(3));
        let clash = slots.take_over(&of(&[(4, 2), (3, 0)]).unwrap());
        assert_eq!(clash, Err(SlotInUse { slot: 0, carried_for, given_to }));
        assert_eq!(slots, of(&[(1, 0), (2, 1)]).unwrap());
        // Nor is another given to who has one.
        assert!(slots.take_over(&of(&[(1, 5)]).unwrap()).is_err());
        slots.take_over(&of(&[(2, 1), (3, 2)]).unwrap()).unwrap();
        assert_eq!(slots, of(&[(1, 0), (2, 1), (3, 2)]).unwrap());
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
