//! In which order filters are asked.

use std::cmp::Reverse;

use super::{TableAuthFilter, TableFilter, TableService};
use crate::ids::{FilterId, SublayerId};
use crate::policy::MAX_SERVICES;

/// When a filter's turn is: its service's or sublayer's, then by weight from high to low, then by id.
pub(super) type Turn = (usize, Reverse<u64>, FilterId);

/// The turns of services, by slot, and of sublayers.
#[derive(Clone, Debug)]
pub(super) struct Order<'o> {
    slots: [usize; MAX_SERVICES],
    sublayers: &'o [SublayerId],
}

impl<'o> Order<'o> {
    pub(super) fn new(services: &[TableService], sublayers: &'o [SublayerId]) -> Self {
        let mut slots = [usize::MAX; MAX_SERVICES];
        services.iter().enumerate().for_each(|(turn, service)| slots[usize::from(service.slot)] = turn);
        Self { slots, sublayers }
    }

    pub(super) fn of_redirect(&self, filter: &TableFilter) -> Turn {
        (self.slots[usize::from(filter.slot)], Reverse(filter.weight), filter.id)
    }

    pub(super) fn of_auth(&self, filter: &TableAuthFilter) -> Turn {
        (self.of_sublayer(filter.sublayer), Reverse(filter.weight), filter.id)
    }

    pub(super) fn of_sublayer(&self, sublayer: SublayerId) -> usize {
        self.sublayers.iter().position(|known| *known == sublayer).unwrap_or(usize::MAX)
    }
}
