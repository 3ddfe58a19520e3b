//! Which filters are not in the trees because of which others, so that they can be seen to when one of those is removed.

use std::collections::{BTreeSet, HashMap};

/// Filters that one may hide if its removal is to be a small change.
const MOST: usize = 192;
/// Pairs that are kept of one layer.
const MOST_PAIRS: usize = 1 << 20;

/// What is hidden by what, by the numbers of rules while a tree is built, and then by ranks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Hiding {
    /// `None`: too many to be kept.
    by: HashMap<u32, Option<BTreeSet<u32>>>,
    pairs: usize,
}

impl Hiding {
    /// One hides another.
    pub(super) fn note(&mut self, by: u32, hidden: u32) {
        let list = self.by.entry(by).or_insert_with(|| Some(BTreeSet::new()));
        let Some(known) = list else { return };
        if known.insert(hidden) {
            self.pairs += 1;
        }
        if known.len() > MOST || self.pairs > MOST_PAIRS {
            *list = None;
        }
    }

    /// The same of many, of which few are looked at.
    pub(super) fn note_all(&mut self, mut pairs: impl Iterator<Item = (u32, u32)>) {
        let mut last = BTreeSet::new();
        for (by, hidden) in pairs.by_ref().take(MOST + 1) {
            self.note(by, hidden);
            last.insert(by);
        }
        if pairs.next().is_some() {
            last.into_iter().for_each(|by| drop(self.by.insert(by, None)));
        }
    }

    /// What one hides; `None` if that is too much.
    pub(super) fn of(&self, by: u32) -> Option<impl Iterator<Item = u32> + '_> {
        const NOTHING: &Option<BTreeSet<u32>> = &Some(BTreeSet::new());
        self.by.get(&by).unwrap_or(NOTHING).as_ref().map(|hidden| hidden.iter().copied())
    }

    /// The same by other numbers.
    pub(super) fn renumbered(self, number: impl Fn(u32) -> u32) -> Self {
        let list = |list: BTreeSet<u32>| list.into_iter().map(&number).collect();
        let by = self.by.into_iter().map(|(by, hidden)| (number(by), hidden.map(list))).collect();
        Self { by, pairs: self.pairs }
    }
}
