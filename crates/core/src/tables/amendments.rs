//! What has changed since the whole was compiled, in an index of its own: a few filters that were added, and the ranks of those that
//! were removed.
//!
//! Where a filter is removed that has hidden others in the trees, these come into the small index as well, under the ranks that they
//! have. Ranks of both indexes are of one order, so what comes first is found by searching one after the other.

use std::collections::BTreeSet;

use super::hiding::Hiding;
use super::index::{Index, Layer, Placed, Sources};
use super::order::Order;
use super::sets::Set;
use super::tree::NO_RANK;
use super::whole::{Place, Whole, beginning_of, position_at, rank_at};
use super::{MAX_FILTERS, MAX_SUBLAYERS, TableAuthFilter, TableFilter, Tables};
use crate::change::Change;
use crate::conditions::Conditions;
use crate::ids::{FilterId, SublayerId};
use crate::model::{Filter, Layer as Stands};
use crate::policy::{Limit, LimitError, PolicyError, refuse_passing_by_name};

/// Filters that an index of amendments may have. It is made in a few milliseconds.
const MOST: usize = 256;
/// Words that it may have: half a MiB.
const MOST_WORDS: usize = 1 << 16;
/// Nodes that a lookup in it may come to.
const MOST_STEPS: u32 = 64;

/// What is to be done to a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Amendments {
    /// Positions in the whole.
    removed_redirect: BTreeSet<u32>,
    removed_auth: BTreeSet<u32>,
    /// In their order.
    redirect: Vec<Added<TableFilter>>,
    auth: Vec<Added<TableAuthFilter>>,
    index: Option<Index>,
}

/// A filter that was added, and its rank once it has one.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Added<F> {
    filter: F,
    rank: u32,
}

impl Amendments {
    pub(super) const fn index(&self) -> Option<&Index> {
        self.index.as_ref()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.removed_redirect.is_empty()
            && self.removed_auth.is_empty()
            && self.redirect.is_empty()
            && self.auth.is_empty()
    }

    pub(super) fn redirect_filter<'f>(&'f self, whole: &'f Whole, rank: u64) -> Option<&'f TableFilter> {
        at_rank(&whole.redirect, &self.redirect, rank)
    }

    pub(super) fn auth_filter<'f>(&'f self, whole: &'f Whole, rank: u64) -> Option<&'f TableAuthFilter> {
        at_rank(&whole.auth, &self.auth, rank)
    }

    pub(super) fn redirect_filters<'f>(
        &'f self,
        whole: &'f Whole,
        order: &Order<'_>,
    ) -> impl Iterator<Item = &'f TableFilter> {
        merged(&whole.redirect, &self.removed_redirect, &self.redirect, |filter| order.of_redirect(filter))
    }

    pub(super) fn auth_filters<'f>(
        &'f self,
        whole: &'f Whole,
        order: &Order<'_>,
    ) -> impl Iterator<Item = &'f TableAuthFilter> {
        merged(&whole.auth, &self.removed_auth, &self.auth, |filter| order.of_auth(filter))
    }

    /// These and a change more, without ranks and an index yet.
    pub(super) fn with(&self, change: &Change, tables: &Tables) -> Result<Self, PolicyError> {
        let (whole, order) = (&*tables.whole, tables.order());
        let mut next = Self { index: None, ..self.clone() };
        for id in &change.removed {
            next.remove(*id, whole)?;
        }
        for filter in &change.added {
            if next.has(filter.id, whole) {
                return Err(PolicyError::DuplicateFilter { filter: filter.id });
            }
            next.add(filter, tables)?;
            refuse_passing_by_name(filter)?;
        }
        next.redirect.sort_by_key(|added| order.of_redirect(&added.filter));
        next.auth.sort_by_key(|added| order.of_auth(&added.filter));
        next.check(whole, &order)?;
        Ok(next)
    }

    fn remove(&mut self, id: FilterId, whole: &Whole) -> Result<(), PolicyError> {
        let added = self.redirect.len() + self.auth.len();
        self.redirect.retain(|added| added.filter.id != id);
        self.auth.retain(|added| added.filter.id != id);
        let was_added = self.redirect.len() + self.auth.len() < added;
        let was_there = was_added
            || match whole.place_of(id) {
                Some(Place::Redirect(at)) => self.removed_redirect.insert(at),
                Some(Place::Auth(at)) => self.removed_auth.insert(at),
                None => false,
            };
        if was_there { Ok(()) } else { Err(PolicyError::UnknownFilter { filter: id }) }
    }

    fn has(&self, id: FilterId, whole: &Whole) -> bool {
        let is_in_whole = match whole.place_of(id) {
            Some(Place::Redirect(at)) => !self.removed_redirect.contains(&at),
            Some(Place::Auth(at)) => !self.removed_auth.contains(&at),
            None => false,
        };
        is_in_whole
            || self.redirect.iter().any(|added| added.filter.id == id)
            || self.auth.iter().any(|added| added.filter.id == id)
    }

    fn add(&mut self, filter: &Filter, tables: &Tables) -> Result<(), PolicyError> {
        match filter.layer {
            Stands::Redirect { service } => {
                let known = tables.service(service);
                let known = known.ok_or(PolicyError::UnknownService { filter: filter.id, service })?;
                self.redirect.push(Added { filter: TableFilter::new(filter, known.slot), rank: 0 });
            }
            Stands::Auth(rule) => {
                if !tables.sublayers.contains(&rule.sublayer) {
                    let sublayer = rule.sublayer;
                    return Err(PolicyError::UnknownSublayer { filter: filter.id, sublayer });
                }
                self.auth.push(Added { filter: TableAuthFilter::new(filter, rule), rank: 0 });
            }
        }
        Ok(())
    }

    fn check(&self, whole: &Whole, order: &Order<'_>) -> Result<(), LimitError> {
        let in_whole = whole.redirect.len() + whole.auth.len();
        let removed = self.removed_redirect.len() + self.removed_auth.len();
        let filters = in_whole - removed + self.redirect.len() + self.auth.len();
        LimitError::check(Limit::Filters, filters, MAX_FILTERS)?;
        let mut used: BTreeSet<SublayerId> = self.auth.iter().map(|added| added.filter.sublayer).collect();
        let mut begin = 0;
        while let Some(filter) = whole.auth.get(begin as usize) {
            let end = whole.end_of(filter.sublayer, order);
            if self.removed_auth.range(begin..end).count() < (end - begin) as usize {
                used.insert(filter.sublayer);
            }
            begin = end;
        }
        LimitError::check(Limit::Sublayers, used.len(), MAX_SUBLAYERS)
    }

    /// With ranks and an index; `None` if that is not to be had cheaply.
    pub(super) fn indexed(mut self, whole: &Whole, order: &Order<'_>) -> Option<Self> {
        if !self.is_empty() {
            self.rank_redirect(whole, order)?;
            self.rank_auth(whole, order)?;
            self.index = Some(self.compile(whole, order)?);
        }
        Some(self)
    }

    fn rank_redirect(&mut self, whole: &Whole, order: &Order<'_>) -> Option<()> {
        let mut ranks = Ranks::default();
        for Added { filter, rank } in &mut self.redirect {
            let place = order.of_redirect(filter);
            let position = whole.redirect.partition_point(|other| order.of_redirect(other) < place) as u32;
            *rank = ranks.next(beginning_of(position), rank_at(position))?;
        }
        Some(())
    }

    fn rank_auth(&mut self, whole: &Whole, order: &Order<'_>) -> Option<()> {
        let mut ranks = Ranks::default();
        for Added { filter, rank } in &mut self.auth {
            let place = order.of_auth(filter);
            let position = whole.auth.partition_point(|other| order.of_auth(other) < place) as u32;
            let end = whole.end_of(filter.sublayer, order);
            let is_of =
                |at: u32| whole.auth.get(at as usize).is_some_and(|one| one.sublayer == filter.sublayer);
            // The last of a sublayer stand before the next one's beginning.
            let is_last = position == end && position.checked_sub(1).is_some_and(is_of);
            let (from, to) = if is_last {
                (rank_at(position - 1) + 1, beginning_of(position))
            } else {
                (beginning_of(position), rank_at(position))
            };
            *rank = ranks.next(from, to)?;
        }
        Some(())
    }

    fn compile(&self, whole: &Whole, order: &Order<'_>) -> Option<Index> {
        let [redirect, auth, _] = &whole.findings.hiding;
        let mut sources = Sources::default();
        let revived = revived(&self.removed_redirect, redirect)?;
        for (rank, filter) in ranked(&whole.redirect, &revived, &self.redirect) {
            sources.redirect.push(Placed { filter, rank, group: filter.slot, next_group: 0 });
        }
        let revived = self::revived(&self.removed_auth, auth)?;
        let auth = ranked(&whole.auth, &revived, &self.auth);
        let sublayers = auth.chunk_by(|(_, one), (_, other)| one.sublayer == other.sublayer);
        for (group, filters) in (0_u8..).zip(sublayers) {
            let next_group = next_group(filters, whole, order);
            let placed = filters.iter().map(|&(rank, filter)| Placed { filter, rank, group, next_group });
            sources.auth.extend(placed);
        }
        let removed_covers = self.covers(whole, &mut sources.covers)?;
        sources.removed[Layer::Redirect as usize] = ranks(&self.removed_redirect);
        sources.removed[Layer::Auth as usize] = ranks(&self.removed_auth);
        sources.removed[Layer::Covers as usize] = removed_covers;
        if sources.redirect.len() + sources.auth.len() > MOST || sources.covers.len() > MOST {
            return None;
        }
        let (index, _) = Index::new(&sources).ok()?;
        let fits = index.words().len() <= MOST_WORDS && index.report().most_steps <= MOST_STEPS;
        fits.then_some(index)
    }

    /// What is asked of processes by filters that were added, or was hidden; and what is not asked any more.
    fn covers<'f>(&'f self, whole: &'f Whole, covers: &mut Vec<&'f Conditions>) -> Option<Set<u32>> {
        covers.extend(self.redirect.iter().map(|added| &added.filter.conditions));
        let asked = &whole.findings.covers;
        let mut gone: BTreeSet<u32> =
            self.removed_redirect.iter().filter_map(|position| asked[*position as usize]).collect();
        if !gone.is_empty() {
            let still_there =
                (0..).zip(asked).filter(|(position, _)| !self.removed_redirect.contains(position));
            for asked in still_there.filter_map(|(_, asked)| *asked) {
                gone.remove(&asked);
            }
        }
        let hiding = &whole.findings.hiding[Layer::Covers as usize];
        let mut hidden = BTreeSet::new();
        for asked in &gone {
            hidden.extend(hiding.of(*asked)?.filter(|hidden| !gone.contains(hidden)));
        }
        for (filter, asked) in whole.redirect.iter().zip(asked) {
            if hidden.is_empty() {
                break;
            }
            // Whoever asks the same stands for all that do.
            if asked.is_some_and(|asked| hidden.remove(&asked)) {
                covers.push(&filter.conditions);
            }
        }
        Some(Set::of(gone.into_iter().map(|asked| (asked, asked))))
    }
}

/// Gives ranks, each after those before.
#[derive(Default)]
struct Ranks {
    next: u32,
}

impl Ranks {
    /// One of these, unless there is none left.
    fn next(&mut self, from: u32, to: u32) -> Option<u32> {
        let rank = self.next.max(from);
        self.next = rank + 1;
        (rank < to && u64::from(rank) < NO_RANK).then_some(rank)
    }
}

fn next_group(filters: &[(u32, &TableAuthFilter)], whole: &Whole, order: &Order<'_>) -> u32 {
    let Some((last, filter)) = filters.last() else { return 0 };
    let end = whole.end_of(filter.sublayer, order);
    let last_in_whole = end.checked_sub(1).and_then(|at| whole.auth.get(at as usize));
    match last_in_whole {
        Some(in_whole) if in_whole.sublayer == filter.sublayer => beginning_of(end),
        Some(_) | None => last + 1,
    }
}

/// What those that were removed have hidden.
fn revived(removed: &BTreeSet<u32>, hiding: &Hiding) -> Option<BTreeSet<u32>> {
    let mut revived = BTreeSet::new();
    for position in removed {
        let hidden = hiding.of(rank_at(*position))?.filter_map(|rank| position_at(rank.into()));
        revived.extend(hidden.filter(|position| !removed.contains(position)));
    }
    Some(revived)
}

fn ranks(positions: &BTreeSet<u32>) -> Set<u32> {
    Set::of(positions.iter().map(|position| (rank_at(*position), rank_at(*position))))
}

/// Some of the whole, and all that were added, with their ranks and in the order of these.
fn ranked<'f, F>(whole: &'f [F], some: &BTreeSet<u32>, added: &'f [Added<F>]) -> Vec<(u32, &'f F)> {
    let some = some.iter().map(|position| (rank_at(*position), &whole[*position as usize]));
    let mut ranked: Vec<(u32, &F)> =
        some.chain(added.iter().map(|added| (added.rank, &added.filter))).collect();
    ranked.sort_by_key(|(rank, _)| *rank);
    ranked
}

fn at_rank<'f, F>(whole: &'f [F], added: &'f [Added<F>], rank: u64) -> Option<&'f F> {
    match position_at(rank) {
        Some(position) => whole.get(position as usize),
        None => {
            let at = added.binary_search_by_key(&rank, |added| added.rank.into()).ok()?;
            Some(&added[at].filter)
        }
    }
}

/// Those that were not removed and those that were added, in their order.
fn merged<'f, F, K: Ord>(
    whole: &'f [F],
    removed: &'f BTreeSet<u32>,
    added: &'f [Added<F>],
    place: impl Fn(&F) -> K,
) -> impl Iterator<Item = &'f F> {
    let mut stay =
        (0..).zip(whole).filter(|(at, _)| !removed.contains(at)).map(|(_, filter)| filter).peekable();
    let mut added = added.iter().map(|added| &added.filter).peekable();
    std::iter::from_fn(move || match (stay.peek(), added.peek()) {
        (Some(one), Some(other)) if place(other) < place(one) => added.next(),
        (Some(_), _) => stay.next(),
        (None, _) => added.next(),
    })
}
