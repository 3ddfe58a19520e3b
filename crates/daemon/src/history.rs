//! What filters are called, of the policy in force and of those before it, whose connections may still live.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};

use waylay_config::{Declarations, called};
use waylay_core::FilterId;

use crate::{lately::Lately, ledger::Piece, numbers::Numbered, past::Past};

/// How many policies are remembered.
const REMEMBERED: usize = 16;

/// Clones are one and the same.
#[derive(Clone, Default)]
pub struct History(Arc<Mutex<VecDeque<Version>>>, pub(crate) Lately, pub(crate) Past);

type Version = Vec<(Numbered, Arc<Names>)>;
/// Of each filter of a text its name and where it begins.
type Names = Vec<(Option<String>, usize)>;

/// A filter as people know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Its name, if it has one.
    pub name: Option<String>,
    /// Its text and line.
    pub place: String,
}

impl History {
    /// Remembers a policy as the newest.
    pub fn add(&self, numbered: Vec<Numbered>, declarations: &Declarations) {
        let mut versions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known: BTreeMap<u64, Arc<Names>> = versions
            .back()
            .into_iter()
            .flatten()
            .map(|(of, names)| (of.piece.id, Arc::clone(names)))
            .collect();
        let mut names: BTreeMap<usize, Names> = BTreeMap::new();
        for filter in &declarations.filters {
            let name = filter.name.as_ref().map(|name| name.value.clone());
            names.entry(filter.span.source()).or_default().push((name, filter.span.start()));
        }
        let names_of = |(index, numbered): (usize, Numbered)| {
            let kept = known.get(&numbered.piece.id).map(Arc::clone);
            let names = kept.unwrap_or_else(|| Arc::new(names.remove(&index).unwrap_or_default()));
            (numbered, names)
        };
        let version = numbered.into_iter().enumerate().map(names_of).collect();
        versions.push_back(version);
        if versions.len() > REMEMBERED {
            versions.pop_front();
        }
    }

    /// Forgets the newest, which did not come into force.
    pub fn take_back(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop_back();
    }

    /// Where a filter comes from.
    #[must_use]
    pub fn find(&self, filter: FilterId) -> Option<Known> {
        let versions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = versions.iter().rev().flatten();
        let (numbered, names) = all.find(|(numbered, _)| numbered.filters.contains(&filter.0))?;
        let (name, start) = names.get((filter.0 - numbered.filters.start) as usize)?;
        // The place says whose it is.
        let name = name.as_ref().map(|name| match &numbered.piece.run {
            Some(run) => name.strip_prefix(&run.prefix()).unwrap_or(name).to_owned(),
            None => name.clone(),
        });
        Some(Known { name, place: place(&numbered.piece, *start) })
    }

    /// A service or sublayer as people know it: of a run, by the name that its user has given it.
    #[must_use]
    pub fn in_words(&self, name: &str) -> String {
        let versions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut runs =
            versions.iter().rev().flatten().filter_map(|(numbered, _)| numbered.piece.run.as_ref());
        let own =
            runs.find_map(|run| Some(format!("{} of {}", name.strip_prefix(&run.prefix())?, run.in_words())));
        own.unwrap_or_else(|| name.to_owned())
    }

    /// What the names of the run begin with whose filter this is.
    pub(crate) fn run_of(&self, filter: FilterId) -> Option<String> {
        let versions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = versions.iter().rev().flatten();
        let (numbered, _) = all.find(|(numbered, _)| numbered.filters.contains(&filter.0))?;
        Some(numbered.piece.run.as_ref()?.prefix())
    }

    /// A filter as people know it.
    #[must_use]
    pub fn describe(&self, filter: FilterId) -> String {
        self.find(filter)
            .map_or_else(|| filter.to_string(), |known| called(known.name.as_deref(), &known.place))
    }
}

fn place(piece: &Piece, start: usize) -> String {
    let before = piece.text.as_bytes().iter().take(start);
    format!("{}:{}", piece.name, 1 + before.filter(|byte| **byte == b'\n').count())
}

#[cfg(test)]
mod tests {
    use waylay_config::read;

    use super::*;
    use crate::ledger::{Ledger, Lifetime, ROOT};

    #[test]
    fn filters_are_named_that_are_no_longer_in_force() {
        let mut ledger = Ledger::default();
        let history = History::default();
        let number = ledger.add(
            ROOT,
            "root",
            Lifetime::Daemon,
            "[[filter]]\nname = \"web\"\naction = \"redirect\"\nservice = \"log\"\n\n\n[[filter]]\naction = \"redirect\"\nservice = \"log\"\n".into(),
        );
        let numbered = |ledger: &Ledger, filters: std::ops::Range<u32>| {
            let pieces = ledger.pieces().iter();
            pieces
                .map(|piece| Numbered { piece: Arc::clone(piece), filters: filters.clone() })
                .collect::<Vec<_>>()
        };
        let remember = |ledger: &Ledger, ids| {
            let (declarations, _) = read(&ledger.sources());
            history.add(numbered(ledger, ids), &declarations);
        };
        remember(&ledger, 5..7);
        ledger.remove(number);
        (0..REMEMBERED - 1).for_each(|_| remember(&ledger, 0..0));
        assert_eq!(history.describe(FilterId(5)), "filter \"web\" (added by root (1):1)");
        assert_eq!(history.describe(FilterId(6)), "the filter at added by root (1):7");
        assert_eq!(history.describe(FilterId(7)), "filter 7");
        remember(&ledger, 0..0);
        assert_eq!(history.describe(FilterId(5)), "filter 5");
    }
}
