//! The filters of tables as they were when the whole was compiled, and the numbers by which they stand in an order.
//!
//! Ranks leave gaps, so that filters that are added later have ranks between those of others.

use super::index::{Findings, Index, Placed, Sources};
use super::order::Order;
use super::tree::NO_RANK;
use super::{MAX_FILTERS, TableAuthFilter, TableFilter};
use crate::ids::{FilterId, SublayerId};
use crate::policy::LimitError;

/// From the rank of one filter to that of the next.
const GAP: u32 = 128;

/// The rank of the filter at a position.
pub(super) const fn rank_at(position: u32) -> u32 {
    position * GAP + GAP / 2
}

/// The position of the filter of a rank, if it has not been added later.
pub(super) const fn position_at(rank: u64) -> Option<u32> {
    let (gap, rank) = (GAP as u64, rank);
    if rank % gap == gap / 2 { Some((rank / gap) as u32) } else { None }
}

/// The rank from which on all come that are not before the filter at a position: where a group begins.
pub(super) const fn beginning_of(position: u32) -> u32 {
    position * GAP
}

/// Filters of both layers and the index of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Whole {
    pub(super) redirect: Vec<TableFilter>,
    pub(super) auth: Vec<TableAuthFilter>,
    pub(super) index: Index,
    pub(super) findings: Findings,
    /// By id.
    places: Vec<(FilterId, Place)>,
}

/// Where a filter is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    Redirect(u32),
    Auth(u32),
}

impl Whole {
    /// Of filters in their order.
    pub(super) fn new(redirect: Vec<TableFilter>, auth: Vec<TableAuthFilter>) -> Result<Self, LimitError> {
        let (index, findings) = Index::new(&sources(&redirect, &auth))?;
        let mut places: Vec<(FilterId, Place)> =
            (0..).zip(&redirect).map(|(at, filter)| (filter.id, Place::Redirect(at))).collect();
        places.extend((0..).zip(&auth).map(|(at, filter)| (filter.id, Place::Auth(at))));
        places.sort_unstable();
        Ok(Self { redirect, auth, index, findings, places })
    }

    pub(super) fn place_of(&self, id: FilterId) -> Option<Place> {
        let at = self.places.binary_search_by_key(&id, |(known, _)| *known).ok()?;
        Some(self.places[at].1)
    }

    /// The position after the last filter of a sublayer and of those heard before.
    pub(super) fn end_of(&self, sublayer: SublayerId, order: &Order<'_>) -> u32 {
        let turn = order.of_sublayer(sublayer);
        self.auth.partition_point(|filter| order.of_sublayer(filter.sublayer) <= turn) as u32
    }
}

fn sources<'s>(redirect: &'s [TableFilter], auth: &'s [TableAuthFilter]) -> Sources<'s> {
    let placed = |(position, filter): (u32, &'s TableFilter)| Placed {
        filter,
        rank: rank_at(position),
        group: filter.slot,
        next_group: 0,
    };
    Sources {
        redirect: (0..).zip(redirect).map(placed).collect(),
        auth: place_by_group(auth),
        covers: redirect.iter().map(|filter| &filter.conditions).collect(),
        ..Sources::default()
    }
}

fn place_by_group(auth: &[TableAuthFilter]) -> Vec<Placed<'_, TableAuthFilter>> {
    let mut placed = Vec::with_capacity(auth.len());
    let mut position = 0;
    for (group, filters) in (0..).zip(auth.chunk_by(|one, other| one.sublayer == other.sublayer)) {
        let next_group = beginning_of(position + filters.len() as u32);
        for filter in filters {
            placed.push(Placed { filter, rank: rank_at(position), group, next_group });
            position += 1;
        }
    }
    placed
}

const _: () = assert!((rank_at(MAX_FILTERS as u32 - 1) as u64) < NO_RANK);
