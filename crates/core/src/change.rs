//! A change of a policy's filters.

use std::cmp::{Ordering, Reverse};

use crate::ids::FilterId;
use crate::model::Filter;
use crate::policy::Policy;

/// Filters that go, and filters that come. One that is to become another goes and comes, by the same id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Those that go.
    pub removed: Vec<FilterId>,
    /// Those that come.
    pub added: Vec<Filter>,
}

impl Change {
    /// One filter comes.
    #[must_use]
    pub fn add(filter: Filter) -> Self {
        Self { removed: Vec::new(), added: vec![filter] }
    }

    /// One filter goes.
    #[must_use]
    pub fn remove(filter: FilterId) -> Self {
        Self { removed: vec![filter], added: Vec::new() }
    }

    /// What leads from one policy to another that differs in its filters alone; nothing if it differs in anything else.
    #[must_use]
    pub fn between(former: &Policy, next: &Policy) -> Option<Self> {
        if !former.differs_in_filters_alone(next) {
            return None;
        }
        let place = |filter: &&Filter| (Reverse(filter.weight), filter.id);
        let (mut before, mut after) = (former.filters().iter().peekable(), next.filters().iter().peekable());
        let mut change = Self::default();
        loop {
            let order = match (before.peek(), after.peek()) {
                (Some(one), Some(other)) => place(one).cmp(&place(other)),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (None, None) => return Some(change),
            };
            let gone = if order.is_le() { before.next() } else { None };
            let come = if order.is_ge() { after.next() } else { None };
            if gone != come {
                change.removed.extend(gone.map(|filter| filter.id));
                change.added.extend(come.cloned());
            }
        }
    }
}
