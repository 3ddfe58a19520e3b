//! A change of a policy's filters.

use crate::ids::FilterId;
use crate::model::Filter;

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
}
