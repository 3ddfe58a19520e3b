//! A policy in flat form, as engines install it: sorted lists, small indices, masks, and an [`Index`] of all filters in which one
//! is found without asking the others.
//!
//! A change of few filters does not compile all of them anew: tables share the *whole* with those they come from, and have a small
//! index of *amendments* beside it. [`Tables::renewed`] makes one whole of both.
//!
//! The classifications here are what a kernel program does, in Rust. [`Tables::decide`] builds a verdict from nothing but them, and
//! must answer what [`crate::decide()`] answers.

mod amendments;
mod asked;
mod hiding;
mod index;
mod lookup;
mod numbering;
mod order;
mod sets;
mod tree;
mod whole;
mod words;

pub use index::{Index, MAX_STEPS, MAX_WORDS, Report, Warning};
pub use words::CHUNK;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use amendments::Amendments;
use asked::Numbers;
use index::{Bounds, Layer};
use lookup::Found;
use order::Order;
use whole::Whole;

use crate::chain::{Chain, Hop, Records, ServiceSet};
use crate::change::Change;
use crate::conditions::{Conditions, FlagConditions};
use crate::decide::{answer_foreign, is_redirectable, settle_outside_policy, stays_in_sandbox};
use crate::ids::{FilterId, ServiceId, SublayerId};
use crate::leg::{Facts, Flags, Leg, ProcessFacts, Protocol};
use crate::model::{Action, AuthRule, Errno, FailurePolicy, Filter, Right};
use crate::policy::{Limit, LimitError, Policy, PolicyError};
use crate::slots::Slots;
use crate::trace::Trace;
use crate::verdict::{Refusal, Verdict};
use crate::world::{
    Availability, ForeignNamespace, Namespace, Room, Route, Sandboxes, Unredirectable, World,
};

/// Filters that tables hold, both layers together.
pub const MAX_FILTERS: usize = 131_072;
/// Sublayers that have filters: Linux 6.1 follows every number of them that a leg may hear, and gives up at a million instructions.
pub const MAX_SUBLAYERS: usize = 16;

/// A policy in flat form.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tables {
    services: Vec<TableService>,
    /// As they are heard, those without filters too.
    sublayers: Vec<SublayerId>,
    foreign_namespace: ForeignNamespace,
    sandboxes: Sandboxes,
    unredirectable: Unredirectable,
    resolvers: BTreeSet<SocketAddr>,
    slots: Slots,
    whole: Arc<Whole>,
    amendments: Amendments,
}

/// A service of the tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableService {
    /// Its id.
    pub id: ServiceId,
    /// Its name.
    pub name: String,
    /// Its bit in masks.
    pub slot: u8,
    /// What happens while it is absent.
    pub on_failure: FailurePolicy,
    /// The slots up to and including its own in the solved order: what a leg of it without records may no longer visit.
    pub prefix_mask: u64,
}

/// A redirect filter of the tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableFilter {
    /// Its id.
    pub id: FilterId,
    /// Slot of the service it redirects to.
    pub slot: u8,
    /// The higher, the earlier among those of its service.
    pub weight: u64,
    /// What must hold.
    pub conditions: Conditions,
}

impl TableFilter {
    fn new(filter: &Filter, slot: u8) -> Self {
        Self { id: filter.id, slot, weight: filter.weight, conditions: filter.conditions.clone() }
    }
}

/// An auth filter of the tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableAuthFilter {
    /// Its id.
    pub id: FilterId,
    /// Its sublayer.
    pub sublayer: SublayerId,
    /// The higher, the earlier among those of its sublayer.
    pub weight: u64,
    /// What it says.
    pub action: Action,
    /// What must hold of the flags.
    pub flags: FlagConditions,
    /// What must hold of the leg.
    pub conditions: Conditions,
}

impl TableAuthFilter {
    fn new(filter: &Filter, rule: AuthRule) -> Self {
        Self {
            id: filter.id,
            sublayer: rule.sublayer,
            weight: filter.weight,
            action: rule.action,
            flags: rule.flags,
            conditions: filter.conditions.clone(),
        }
    }
}

/// A leg in the numbers of the whole, and in those of its amendments.
struct Numbered {
    whole: Numbers,
    amendments: Numbers,
    /// Of another network namespace: only filters that ask for such count.
    foreign: bool,
}

/// What the auth layer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AuthOutcome {
    /// Pass, by this filter or because nobody decided.
    Permit(Option<FilterId>),
    /// Refuse.
    Block {
        /// The filter that decided.
        filter: FilterId,
        /// What connect() returns.
        errno: Errno,
    },
}

impl Tables {
    /// The tables of a policy that no live flow precedes.
    pub fn compile(policy: &Policy) -> Result<Self, LimitError> {
        Self::compile_keeping(policy, Slots::default())
    }

    /// The tables of a policy that replaces another: services keep the slots they have, and so do gone ones until they are released.
    pub fn compile_keeping(policy: &Policy, mut slots: Slots) -> Result<Self, LimitError> {
        LimitError::check(Limit::Filters, policy.filters().len(), MAX_FILTERS)?;
        let services = compile_services(policy, &mut slots)?;
        let redirect = compile_redirect_filters(policy, &services);
        let auth = compile_auth_filters(policy);
        let tables = Self {
            sublayers: policy.sublayers().iter().map(|sublayer| sublayer.id).collect(),
            foreign_namespace: policy.foreign_namespace(),
            sandboxes: policy.sandboxes(),
            unredirectable: policy.unredirectable(),
            resolvers: policy.resolvers().clone(),
            services,
            slots,
            ..Self::default()
        };
        tables.with_whole(redirect, auth)
    }

    /// These with all filters compiled anew.
    fn with_whole(&self, redirect: Vec<TableFilter>, auth: Vec<TableAuthFilter>) -> Result<Self, LimitError> {
        let used: BTreeSet<SublayerId> = auth.iter().map(|filter| filter.sublayer).collect();
        LimitError::check(Limit::Sublayers, used.len(), MAX_SUBLAYERS)?;
        let whole = Arc::new(Whole::new(redirect, auth)?);
        Ok(Self {
            services: self.services.clone(),
            sublayers: self.sublayers.clone(),
            foreign_namespace: self.foreign_namespace,
            unredirectable: self.unredirectable,
            sandboxes: self.sandboxes,
            resolvers: self.resolvers.clone(),
            slots: self.slots.clone(),
            whole,
            amendments: Amendments::default(),
        })
    }

    /// The tables of the policy that a change of filters leads to, of the same services.
    ///
    /// Where few have changed since the whole was compiled that takes a few milliseconds, whatever the whole is; otherwise it is
    /// compiled anew. Compiling anew is also what [`Tables::renewed`] does later, elsewhere.
    ///
    /// # Errors
    /// [`PolicyError`], as [`Policy::change`] has it for the same change, or for a limit of tables.
    pub fn change(&self, change: &Change) -> Result<Self, PolicyError> {
        let amendments = self.amendments.with(change, self)?;
        match amendments.clone().indexed(&self.whole, &self.order()) {
            Some(amendments) => Ok(Self { amendments, ..self.clone() }),
            None => Ok(self.compile_anew(&amendments)?),
        }
    }

    /// Whether filters have changed since the whole was compiled. A lookup takes a little longer then.
    #[must_use]
    pub fn is_amended(&self) -> bool {
        !self.amendments.is_empty()
    }

    /// The same tables, all of them compiled anew.
    ///
    /// # Errors
    /// [`LimitError`] if the whole would be too large.
    pub fn renewed(&self) -> Result<Self, LimitError> {
        self.compile_anew(&self.amendments)
    }

    fn compile_anew(&self, amendments: &Amendments) -> Result<Self, LimitError> {
        let order = self.order();
        let redirect = amendments.redirect_filters(&self.whole, &order).cloned().collect();
        let auth = amendments.auth_filters(&self.whole, &order).cloned().collect();
        self.with_whole(redirect, auth)
    }

    fn order(&self) -> Order<'_> {
        Order::new(&self.services, &self.sublayers)
    }

    /// The services in their solved order.
    #[must_use]
    pub fn services(&self) -> &[TableService] {
        &self.services
    }

    /// The redirect filters: by solved order of their services, then by weight from high to low, then by id.
    #[must_use]
    pub fn redirect_filters(&self) -> Vec<&TableFilter> {
        self.amendments.redirect_filters(&self.whole, &self.order()).collect()
    }

    /// The auth filters: by sublayer as heard, then by weight from high to low, then by id.
    #[must_use]
    pub fn auth_filters(&self) -> Vec<&TableAuthFilter> {
        self.amendments.auth_filters(&self.whole, &self.order()).collect()
    }

    /// What becomes of legs of foreign network namespaces.
    #[must_use]
    pub const fn foreign_namespace(&self) -> ForeignNamespace {
        self.foreign_namespace
    }

    /// What becomes of legs from sandboxes.
    #[must_use]
    pub const fn sandboxes(&self) -> Sandboxes {
        self.sandboxes
    }

    /// What becomes of what cannot be redirected.
    #[must_use]
    pub const fn unredirectable(&self) -> Unredirectable {
        self.unredirectable
    }

    /// Whose answers names of hosts are learned from.
    #[must_use]
    pub const fn resolvers(&self) -> &BTreeSet<SocketAddr> {
        &self.resolvers
    }

    /// The slots in use, those of gone services included. The next tables are compiled keeping them.
    #[must_use]
    pub const fn slots(&self) -> &Slots {
        &self.slots
    }

    /// The service of this id.
    #[must_use]
    pub fn service(&self, id: ServiceId) -> Option<&TableService> {
        self.services.iter().find(|service| service.id == id)
    }

    /// The slots of a set of services, as a mask. Services without a slot cannot be visited anyway.
    #[must_use]
    pub fn mask_of(&self, services: &ServiceSet) -> u64 {
        services.iter().filter_map(|service| self.slots.of(service)).fold(0, |mask, slot| mask | bit(slot))
    }

    /// The services that a mask names.
    #[must_use]
    pub fn services_of(&self, mask: u64) -> ServiceSet {
        self.slots.iter().filter(|&(_, slot)| mask & bit(slot) != 0).map(|(service, _)| service).collect()
    }

    /// All filters of the whole in the form in which they are looked up.
    #[must_use]
    pub fn index(&self) -> &Index {
        &self.whole.index
    }

    /// What amends the whole, in the same form: filters that were added, and ranks of the whole that do not count any more.
    #[must_use]
    pub const fn amendments(&self) -> Option<&Index> {
        self.amendments.index()
    }

    /// Whether both have one whole, so that [`Tables::index`] of the one need not be written again for the other.
    #[must_use]
    pub fn share_whole_with(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.whole, &other.whole)
    }

    /// Whether some filter asks for names of hosts.
    #[must_use]
    pub fn ask_for_hosts(&self) -> bool {
        self.whole.index.asks_for_hosts() || self.amendments().is_some_and(Index::asks_for_hosts)
    }

    /// Whether some filter is about legs of other network namespaces.
    #[must_use]
    pub fn ask_for_namespaces(&self) -> bool {
        self.whole.index.asks_for_namespaces() || self.amendments().is_some_and(Index::asks_for_namespaces)
    }

    /// Whether some filter asks who dials, or for whom. If none does, what becomes of an application's leg depends on its addresses alone.
    #[must_use]
    pub fn ask_of_processes(&self) -> bool {
        self.whole.index.asks_of_processes() || self.amendments().is_some_and(Index::asks_of_processes)
    }

    /// Whether a leg of UDP might be anything but direct: redirected or blocked by a filter, or blocked as one of another network namespace. If none
    /// might, each is direct that does not dial a service's own socket.
    #[must_use]
    pub fn concern_datagrams(&self) -> bool {
        let blocks = |filter: &&TableAuthFilter| match filter.action {
            Action::Block { .. } => true,
            Action::Permit(_) | Action::Continue => false,
        };
        let redirecting = self.redirect_filters().into_iter().map(|filter| &filter.conditions);
        let blocking = self.auth_filters().into_iter().filter(blocks).map(|filter| &filter.conditions);
        let mut refusing_or_redirecting = redirecting.chain(blocking);
        let of_others = match self.foreign_namespace {
            ForeignNamespace::Permit => false,
            ForeignNamespace::Block => true,
        };
        of_others || refusing_or_redirecting.any(|conditions| conditions.admit(Protocol::Udp))
    }

    fn numbers(&self, facts: &Facts, flags: Flags) -> Numbered {
        let amendments = self.amendments().map(|index| index.numbers(facts, flags));
        Numbered {
            whole: self.whole.index.numbers(facts, flags),
            amendments: amendments.unwrap_or_default(),
            foreign: facts.namespace != Namespace::Own,
        }
    }

    /// In the whole, and then in what amends it for what comes before.
    fn first(&self, layer: Layer, numbers: &Numbered, skip: u64, from: u64) -> Option<Found> {
        let amended_by = self.amendments();
        let counts = |index: &Index| !numbers.foreign || index.asks_for_namespaces();
        let bounds = Bounds { skip, from, amended_by, found: Found::NOTHING };
        let mut found = Found::NOTHING;
        if counts(&self.whole.index) {
            found = self.whole.index.first(layer, &numbers.whole, bounds);
        }
        if let Some(amendments) = amended_by.filter(|index| counts(index)) {
            let bounds = Bounds { amended_by: None, found, ..bounds };
            found = amendments.first(layer, &numbers.amendments, bounds);
        }
        (found != Found::NOTHING).then_some(found)
    }

    /// Whether some redirect filter is about a process, whatever it asks of destinations.
    pub(crate) fn cover(&self, process: &ProcessFacts) -> bool {
        let amendments = self.amendments().map(|index| index.numbers_of_process(process));
        let numbers = Numbered {
            whole: self.whole.index.numbers_of_process(process),
            amendments: amendments.unwrap_or_default(),
            foreign: false,
        };
        self.first(Layer::Covers, &numbers, 0, 0).is_some()
    }

    /// The first redirect filter that matches and whose service is not in `skip`.
    #[must_use]
    pub fn classify_redirect(&self, facts: &Facts, skip: u64) -> Option<&TableFilter> {
        self.redirect_by(&self.numbers(facts, Flags::default()), skip)
    }

    fn redirect_by(&self, numbers: &Numbered, skip: u64) -> Option<&TableFilter> {
        let found = self.first(Layer::Redirect, numbers, skip, 0)?;
        self.amendments.redirect_filter(&self.whole, found.rank)
    }

    /// What the auth layer says. The rule of arbitration is told at [`Action`].
    #[must_use]
    pub fn classify_auth(&self, facts: &Facts, flags: Flags) -> AuthOutcome {
        self.auth_by(&self.numbers(facts, flags))
    }

    fn auth_by(&self, numbers: &Numbered) -> AuthOutcome {
        let mut outcome = AuthOutcome::Permit(None);
        let mut from = 0;
        while let Some(found) = self.first(Layer::Auth, numbers, 0, from) {
            let Some(filter) = self.amendments.auth_filter(&self.whole, found.rank) else { break };
            let right = match filter.action {
                Action::Continue => break,
                Action::Permit(right) => {
                    outcome = AuthOutcome::Permit(Some(filter.id));
                    right
                }
                Action::Block { right, errno } => {
                    outcome = AuthOutcome::Block { filter: filter.id, errno };
                    right
                }
            };
            if right == Right::Hard {
                break;
            }
            from = found.next_group;
        }
        outcome
    }

    /// The verdict, from the tables alone.
    #[must_use]
    pub fn decide(&self, leg: &Leg, records: &Records, world: &World) -> Verdict {
        if let Some(verdict) = settle_outside_policy(world, &mut Trace::default()) {
            return verdict;
        }
        if let Namespace::Foreign(_) = world.namespace {
            return self.judge_visitor(leg, world);
        }
        let caller = leg.caller.service.and_then(|service| self.service(service));
        let chain = self.effective_chain(leg, records, caller);
        let facts = Facts::new(leg, &chain, world);
        let skip = self.mask_of(chain.excluded()) | caller.map_or(0, |service| bit(service.slot));
        let is_redirectable = is_redirectable(leg, world);
        let mut numbers = self.numbers(&facts, Flags::default());
        let wanted = match is_redirectable {
            true => self.choose(&numbers, skip, chain.is_full(), world),
            false => self.judge_unredirectable(&numbers, skip),
        };
        let choice = match (wanted, world.route) {
            (Ok(None), _) => Ok(None),
            (_, _) if stays_in_sandbox(world.confinement, self.sandboxes) => Ok(None),
            (Ok(Some(_)) | Err(_), Route::Missing(errno)) if is_redirectable => {
                Err(Refusal::NoRoute { errno })
            }
            (wanted, Route::Missing(_) | Route::Exists) => wanted,
        };
        let flags = Flags {
            redirected: matches!(choice, Ok(Some(_))),
            proxied: caller.is_some() || !chain.hops().is_empty(),
        };
        numbers.whole.set_flags(flags);
        numbers.amendments.set_flags(flags);
        match (self.auth_by(&numbers), choice, world.room) {
            (AuthOutcome::Block { filter, errno }, _, _) => {
                Verdict::Refuse(Refusal::Blocked { filter, errno })
            }
            (AuthOutcome::Permit(_), Err(refusal), _) => Verdict::Refuse(refusal),
            (AuthOutcome::Permit(_), Ok(None), _) => Verdict::Direct,
            (AuthOutcome::Permit(_), Ok(Some(_)), Room::Exhausted(resource)) => {
                Verdict::Refuse(Refusal::Shortage(resource))
            }
            (AuthOutcome::Permit(_), Ok(Some(hop)), Room::Granted) => Verdict::redirect(hop, chain, leg),
        }
    }

    fn judge_visitor(&self, leg: &Leg, world: &World) -> Verdict {
        let facts = Facts::new(leg, &Chain::default(), world);
        match self.classify_auth(&facts, Flags::default()) {
            AuthOutcome::Block { filter, errno } => Verdict::Refuse(Refusal::Blocked { filter, errno }),
            AuthOutcome::Permit(Some(_)) => Verdict::Direct,
            AuthOutcome::Permit(None) => answer_foreign(self.foreign_namespace),
        }
    }

    fn effective_chain(&self, leg: &Leg, records: &Records, caller: Option<&TableService>) -> Chain {
        match (records, caller) {
            (Records::Carried(chain), _) => chain.clone(),
            (Records::None, Some(service)) => {
                Chain::forgotten(self.services_of(service.prefix_mask), leg.caller)
            }
            (Records::None, None) => Chain::default(),
        }
    }

    fn judge_unredirectable(&self, numbers: &Numbered, skip: u64) -> Result<Option<Hop>, Refusal> {
        match (self.redirect_by(numbers, skip), self.unredirectable) {
            (Some(_), Unredirectable::Block) => Err(Refusal::Unredirectable),
            (Some(_), Unredirectable::Permit) | (None, _) => Ok(None),
        }
    }

    /// Each round either settles the choice or skips one service more.
    fn choose(
        &self,
        numbers: &Numbered,
        mut skip: u64,
        full: bool,
        world: &World,
    ) -> Result<Option<Hop>, Refusal> {
        while let Some(filter) = self.redirect_by(numbers, skip) {
            let Some(service) = self.services.iter().find(|service| service.slot == filter.slot) else {
                break;
            };
            let id = service.id;
            match (full, world.availability_of(id), service.on_failure) {
                (true, _, FailurePolicy::Closed) => return Err(Refusal::HopLimit { service: id }),
                (false, Availability::Available, _) => {
                    return Ok(Some(Hop { service: id, filter: filter.id }));
                }
                (false, Availability::BacklogFull, _) => return Err(Refusal::BacklogFull { service: id }),
                (false, Availability::Absent, FailurePolicy::Closed) => {
                    return Err(Refusal::ServiceAbsent { service: id });
                }
                (true, _, FailurePolicy::Open) | (false, Availability::Absent, FailurePolicy::Open) => {
                    skip |= bit(filter.slot)
                }
            }
        }
        Ok(None)
    }
}

const fn bit(slot: u8) -> u64 {
    1 << slot
}

fn compile_services(policy: &Policy, slots: &mut Slots) -> Result<Vec<TableService>, LimitError> {
    let mut prefix_mask = 0;
    let mut services = Vec::with_capacity(policy.services().len());
    for service in policy.services() {
        let slot = slots.assign(service.id)?;
        prefix_mask |= bit(slot);
        services.push(TableService {
            id: service.id,
            name: service.name.clone(),
            slot,
            on_failure: service.on_failure,
            prefix_mask,
        });
    }
    Ok(services)
}

fn compile_redirect_filters(policy: &Policy, services: &[TableService]) -> Vec<TableFilter> {
    let filters_of = |service: &TableService| {
        let slot = service.slot;
        policy.redirect_filters(service.id).map(move |filter| TableFilter::new(filter, slot))
    };
    services.iter().flat_map(filters_of).collect()
}

fn compile_auth_filters(policy: &Policy) -> Vec<TableAuthFilter> {
    let sublayers = policy.sublayers().iter();
    let filters = sublayers.flat_map(|sublayer| policy.auth_filters(sublayer.id));
    filters.map(|(filter, rule)| TableAuthFilter::new(filter, rule)).collect()
}
