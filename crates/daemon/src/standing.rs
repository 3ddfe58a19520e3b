//! What stands, and how a change of few filters is taken in without reading and lowering all the others again.
//!
//! Texts are read in their order, so those before the first that has changed come to what they came to. The others are read anew;
//! where they say anything but filters, now or before, all of it is gone through, and so it is where something is wrong: then the
//! messages are about the whole.

use std::{collections::BTreeMap, sync::Arc};

use waylay_config::{
    Declarations, Diagnostic, Names, Sources, Span, declaration::FilterDeclaration, duplicates, lower,
    read_from, strangers,
};
use waylay_core::{Change, Filter, FilterId, Policy, ServiceId};

use crate::{
    authority::hold_to_account,
    draft::{LINTED, tell_lifetimes},
    keeper::State,
    ledger::{Ledger, Lifetime, ROOT},
    names::Remembered,
    numbers::{Numbered, Numbers},
};

/// Filters of texts that are read anew, at most.
const MOST: usize = 2_000;
/// Names that have been looked up for filters which may have gone since, at most.
const MOST_NAMES: usize = 1_000;

/// A policy that is in force, and what it comes from.
pub(crate) struct Standing {
    pub(crate) sources: Sources,
    pub(crate) declarations: Declarations,
    /// With the numbers that its services and filters have.
    pub(crate) policy: Policy,
}

/// What a change of few filters comes to.
pub(crate) struct Amendment<N> {
    sources: Sources,
    /// Filters that stay, the first ones.
    kept: usize,
    /// Those that come after them from now on.
    declarations: Declarations,
    change: Change,
    /// The way back.
    undo: Change,
    numbers: Numbers,
    numbered: Vec<Numbered>,
    names: Remembered<N>,
}

impl Standing {
    /// How many filters the first texts have.
    fn filters_of_the_first(&self, texts: usize) -> usize {
        self.declarations.filters.partition_point(|filter| filter.span.source() < texts)
    }

    /// Whether texts from a number on say something else than filters.
    fn says_more_than_filters(&self, first: usize) -> bool {
        says_more_than_filters(&self.declarations, first)
    }

    /// What filters are judged by. Users' services have been held to account, and are not a second time.
    fn context(&self, filters: Vec<FilterDeclaration>) -> Declarations {
        let mut services = self.declarations.services.clone();
        for service in &mut services {
            (service.before, service.after) = (Vec::new(), Vec::new());
        }
        let sublayers = self.declarations.sublayers.clone();
        Declarations { services, sublayers, filters, ..Declarations::default() }
    }
}

impl<N: Names> Amendment<N> {
    /// What a ledger comes to in the place of the one in force; nothing where all of it is to be gone through. `names` has been
    /// asked nothing yet.
    pub(crate) fn of(state: &State<N>, ledger: &Ledger, names: Remembered<N>) -> Option<Self> {
        let standing = state.standing.as_ref()?;
        let known = state.names.as_ref().filter(|known| known.taken_in() < MOST_NAMES)?;
        let (before, after) = (state.ledger.pieces(), ledger.pieces());
        let same = before.iter().zip(after).take_while(|(one, other)| Arc::ptr_eq(one, other)).count();
        let kept = standing.filters_of_the_first(same);
        let gone = &standing.declarations.filters[kept..];
        let is_the_same = same == before.len() && same == after.len();
        // What a run says is for those in its cgroup.
        let of_runs = before[same..].iter().chain(&after[same..]).any(|piece| piece.run.is_some());
        let of_boot = after[same..].iter().any(|piece| piece.origin.lifetime() == Lifetime::Boot);
        // After the last filter that asks for hosts nobody is asked for their names any more.
        let has_asked = gone.iter().any(asks_for_hosts);
        if is_the_same
            || of_runs
            || of_boot
            || kept <= LINTED
            || gone.len() > MOST
            || has_asked
            || standing.says_more_than_filters(same)
        {
            return None;
        }
        let sources = ledger.sources();
        let (mut read, mut diagnostics) = read_from(&sources, same);
        diagnostics.extend(tell_lifetimes(&mut read, ledger));
        diagnostics.extend(duplicates(&read));
        let is_named_again = are_named_again(&read.filters, &standing.declarations.filters[..kept]);
        if says_more_than_filters(&read, 0) || read.filters.len() > MOST || is_named_again {
            return None;
        }
        let filters = hold_filters_to_account(standing, ledger, same, read.filters, &mut diagnostics);
        let declarations = Declarations {
            filters,
            services: standing.declarations.services.clone(),
            sublayers: standing.declarations.sublayers.clone(),
            orders: standing.declarations.orders.clone(),
            resolvers: standing.declarations.resolvers.clone(),
            ..Declarations::default()
        };
        let lowered = lower(&declarations, &names, &mut diagnostics)?;
        let asks = lowered.policy.filters().iter().any(|filter| filter.conditions.host.is_some());
        let others_answer = asks && lowered.policy.resolvers() != standing.policy.resolvers();
        if others_answer || !known.agrees_with(&names) {
            return None;
        }
        let mut counts = vec![0; after.len()];
        declarations.filters.iter().for_each(|filter| counts[filter.span.source()] += 1);
        let mut numbers = state.numbers.clone();
        let numbered = numbers.number_others(ledger, same, &counts)?;
        let come = renumbered(lowered.policy, &numbered[same..], &standing.policy)?;
        let ids: Vec<_> = before[same..].iter().map(|piece| state.numbers.of(piece)).collect();
        let (change, undo) = differences(go(standing, &ids), come);
        Some(Self { sources, kept, declarations, change, undo, numbers, numbered, names })
    }

    /// What is allowed and probably not meant.
    pub(crate) fn warnings(&self) -> Vec<Diagnostic> {
        strangers(&self.declarations, &self.names)
    }

    pub(crate) const fn sources(&self) -> &Sources {
        &self.sources
    }

    pub(crate) const fn numbers(&self) -> &Numbers {
        &self.numbers
    }

    /// The numbers of all filters, and what declares those that have come.
    pub(crate) fn numbered(&self) -> (Vec<Numbered>, &Declarations) {
        (self.numbered.clone(), &self.declarations)
    }

    pub(crate) const fn change(&self) -> &Change {
        &self.change
    }

    /// The change that takes it back.
    pub(crate) const fn undo(&self) -> &Change {
        &self.undo
    }

    /// Takes note of it; the policy has been changed already.
    pub(crate) fn settle(self, state: &mut State<N>, ledger: Ledger) {
        if let Some(standing) = &mut state.standing {
            standing.sources = self.sources;
            standing.declarations.filters.truncate(self.kept);
            standing.declarations.filters.extend(self.declarations.filters);
        }
        if let Some(names) = &mut state.names {
            names.take_in(self.names);
        }
        (state.ledger, state.numbers) = (ledger, self.numbers);
    }
}

fn says_more_than_filters(declarations: &Declarations, first: usize) -> bool {
    everything_but_filters(declarations).any(|span| span.source() >= first)
}

/// Where something else is said.
pub(crate) fn everything_but_filters(declarations: &Declarations) -> impl Iterator<Item = Span> {
    let Declarations {
        services,
        unreadable_services,
        sublayers,
        orders,
        filters: _,
        unredirectable,
        other_namespaces,
        existing,
        override_sandbox,
        resolvers,
    } = declarations;
    let names = services.iter().map(|service| service.name.span);
    let names = names.chain(unreadable_services.iter().map(|name| name.span));
    let names = names.chain(sublayers.iter().map(|sublayer| sublayer.name.span));
    let orders = orders.iter().flatten().map(|name| name.span);
    let switches = [
        unredirectable.as_ref().map(|switch| switch.span),
        other_namespaces.as_ref().map(|switch| switch.span),
        existing.as_ref().map(|switch| switch.span),
        override_sandbox.as_ref().map(|switch| switch.span),
        resolvers.as_ref().map(|switch| switch.span),
    ];
    names.chain(orders).chain(switches.into_iter().flatten())
}

fn asks_for_hosts(filter: &FilterDeclaration) -> bool {
    filter.wanted.host.is_some() || filter.excluded.host.is_some()
}

/// Whether a name is one of the others'.
fn are_named_again(filters: &[FilterDeclaration], others: &[FilterDeclaration]) -> bool {
    let names: Vec<&str> = filters.iter().filter_map(name).collect();
    !names.is_empty() && others.iter().filter_map(name).any(|other| names.contains(&other))
}

fn name(filter: &FilterDeclaration) -> Option<&str> {
    filter.name.as_ref().map(|name| name.value.as_str())
}

/// Together with those that users other than root have already, of which each has a share.
fn hold_filters_to_account(
    standing: &Standing,
    ledger: &Ledger,
    same: usize,
    filters: Vec<FilterDeclaration>,
    diagnostics: &mut Vec<Diagnostic>,
) -> Vec<FilterDeclaration> {
    let texts = ledger.pieces().iter().take(same).enumerate();
    let of_users = texts.filter(|(_, piece)| piece.origin.owner() != ROOT).flat_map(|(index, _)| {
        let (from, to) = (standing.filters_of_the_first(index), standing.filters_of_the_first(index + 1));
        standing.declarations.filters[from..to].iter().cloned()
    });
    let mut judged: Vec<FilterDeclaration> = of_users.collect();
    let before = judged.len();
    judged.extend(filters);
    let mut context = standing.context(judged);
    diagnostics.extend(hold_to_account(&mut context, ledger));
    context.filters.split_off(before)
}

/// Filters with the numbers that they have, and those of the services in force.
fn renumbered(lowered: Policy, numbered: &[Numbered], in_force: &Policy) -> Option<Vec<Filter>> {
    let ids: Vec<u32> = numbered.iter().flat_map(|numbered| numbered.filters.clone()).collect();
    let service_of = |name: &str| in_force.services().iter().find(|service| service.name == name);
    let services: BTreeMap<ServiceId, ServiceId> = lowered
        .services()
        .iter()
        .map(|service| Some((service.id, service_of(&service.name)?.id)))
        .collect::<Option<_>>()?;
    let filter = |id: FilterId| FilterId(ids.get(id.0 as usize - 1).copied().unwrap_or(0));
    let service = |id: ServiceId| services.get(&id).copied().unwrap_or(id);
    Some(lowered.renumbered(service, filter).ok()?.filters().to_vec())
}

/// Filters in force, by their numbers.
fn go(standing: &Standing, ids: &[std::ops::Range<u32>]) -> Vec<Filter> {
    if ids.iter().all(std::ops::Range::is_empty) {
        return Vec::new();
    }
    let goes = |filter: &&Filter| ids.iter().any(|ids| ids.contains(&filter.id.0));
    standing.policy.filters().iter().filter(goes).cloned().collect()
}

/// From those that go to those that come, and back.
fn differences(go: Vec<Filter>, come: Vec<Filter>) -> (Change, Change) {
    let by_id = |filters: Vec<Filter>| -> BTreeMap<FilterId, Filter> {
        filters.into_iter().map(|filter| (filter.id, filter)).collect()
    };
    let (mut go, mut come) = (by_id(go), by_id(come));
    let stay: Vec<FilterId> =
        come.iter().filter(|(id, filter)| go.get(id) == Some(filter)).map(|(id, _)| *id).collect();
    for id in stay {
        go.remove(&id);
        come.remove(&id);
    }
    let change = |go: &BTreeMap<FilterId, Filter>, come: &BTreeMap<FilterId, Filter>| Change {
        removed: go.keys().copied().collect(),
        added: come.values().cloned().collect(),
    };
    (change(&go, &come), change(&come, &go))
}
