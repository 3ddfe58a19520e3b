//! A policy in flat form, as engines install it: sorted lists, small indices, masks, and an [`Index`] of all filters in which one
//! is found without asking the others.
//!
//! The classifications here are what a kernel program does, in Rust. [`Tables::decide`] builds a verdict from nothing but them, and
//! must answer what [`crate::decide()`] answers.

mod asked;
mod index;
mod lookup;
mod numbering;
mod sets;
mod tree;
mod words;

pub use index::{Index, MAX_STEPS, MAX_WORDS, Report, Warning};
pub use words::CHUNK;

use crate::chain::{Chain, Hop, Records, ServiceSet};
use crate::conditions::{Conditions, FlagConditions};
use crate::decide::{settle_outside_policy, stays_in_sandbox};
use crate::ids::{FilterId, ServiceId, SublayerId};
use crate::leg::{Facts, Flags, Leg};
use crate::model::{Action, Errno, FailurePolicy, Right};
use crate::policy::{Limit, LimitError, Policy};
use crate::slots::Slots;
use crate::trace::Trace;
use crate::verdict::{Refusal, Verdict};
use crate::world::{Availability, ForeignNamespace, Room, Route, Sandboxes, Unredirectable, World};

/// Filters that tables hold, both layers together.
pub const MAX_FILTERS: usize = 131_072;
/// Sublayers that have filters: Linux 6.1 follows every number of them that a leg may hear, and gives up at a million instructions.
pub const MAX_SUBLAYERS: usize = 16;

/// A policy in flat form.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tables {
    services: Vec<TableService>,
    redirect_filters: Vec<TableFilter>,
    auth_filters: Vec<TableAuthFilter>,
    foreign_namespace: ForeignNamespace,
    sandboxes: Sandboxes,
    unredirectable: Unredirectable,
    slots: Slots,
    index: Index,
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
    /// What must hold.
    pub conditions: Conditions,
}

/// An auth filter of the tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableAuthFilter {
    /// Its id.
    pub id: FilterId,
    /// Its sublayer, counted from the one heard first, among those that have filters.
    pub sublayer: u8,
    /// What it says.
    pub action: Action,
    /// What must hold of the flags.
    pub flags: FlagConditions,
    /// What must hold of the leg.
    pub conditions: Conditions,
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
        let redirect_filters = compile_redirect_filters(policy, &services);
        let auth_filters = compile_auth_filters(policy)?;
        Ok(Self {
            index: Index::new(&redirect_filters, &auth_filters)?,
            redirect_filters,
            auth_filters,
            foreign_namespace: policy.foreign_namespace(),
            sandboxes: policy.sandboxes(),
            unredirectable: policy.unredirectable(),
            services,
            slots,
        })
    }

    /// The services in their solved order.
    #[must_use]
    pub fn services(&self) -> &[TableService] {
        &self.services
    }

    /// The redirect filters: by solved order of their services, then by weight from high to low, then by id.
    #[must_use]
    pub fn redirect_filters(&self) -> &[TableFilter] {
        &self.redirect_filters
    }

    /// The auth filters: by sublayer as heard, then by weight from high to low, then by id.
    #[must_use]
    pub fn auth_filters(&self) -> &[TableAuthFilter] {
        &self.auth_filters
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

    /// All filters in the form in which they are looked up.
    #[must_use]
    pub const fn index(&self) -> &Index {
        &self.index
    }

    /// Position of the first redirect filter that matches and whose service is not in `skip`.
    #[must_use]
    pub fn classify_redirect(&self, facts: &Facts, skip: u64) -> Option<usize> {
        let numbers = self.index.numbers(facts, Flags::default());
        self.index.first(index::Layer::Redirect, &numbers, skip, 0)
    }

    /// What the auth layer says. The rule of arbitration is told at [`Action`].
    #[must_use]
    pub fn classify_auth(&self, facts: &Facts, flags: Flags) -> AuthOutcome {
        let numbers = self.index.numbers(facts, flags);
        let mut outcome = AuthOutcome::Permit(None);
        let mut from = 0;
        while let Some(rank) = self.index.first(index::Layer::Auth, &numbers, 0, from) {
            let filter = &self.auth_filters[rank];
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
            from = self.auth_filters.partition_point(|other| other.sublayer <= filter.sublayer);
        }
        outcome
    }

    /// The verdict, from the tables alone.
    #[must_use]
    pub fn decide(&self, leg: &Leg, records: &Records, world: &World) -> Verdict {
        if let Some(verdict) = settle_outside_policy(self.foreign_namespace, world, &mut Trace::default()) {
            return verdict;
        }
        let caller = leg.caller.service.and_then(|service| self.service(service));
        let chain = self.effective_chain(leg, records, caller);
        let facts = Facts::new(leg, &chain, &world.cgroups);
        let skip = self.mask_of(chain.excluded()) | caller.map_or(0, |service| bit(service.slot));
        let is_to_a_group = leg.is_to_a_group();
        let wanted = match is_to_a_group {
            true => self.judge_group(&facts, skip),
            false => self.choose(&facts, skip, chain.is_full(), world),
        };
        let choice = match (wanted, world.route) {
            (Ok(None), _) => Ok(None),
            (_, _) if stays_in_sandbox(world.confinement, self.sandboxes) => Ok(None),
            (Ok(Some(_)) | Err(_), Route::Missing(errno)) if !is_to_a_group => {
                Err(Refusal::NoRoute { errno })
            }
            (wanted, Route::Missing(_) | Route::Exists) => wanted,
        };
        let flags = Flags {
            redirected: matches!(choice, Ok(Some(_))),
            proxied: caller.is_some() || !chain.hops().is_empty(),
        };
        match (self.classify_auth(&facts, flags), choice, world.room) {
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

    fn effective_chain(&self, leg: &Leg, records: &Records, caller: Option<&TableService>) -> Chain {
        match (records, caller) {
            (Records::Carried(chain), _) => chain.clone(),
            (Records::None, Some(service)) => {
                Chain::forgotten(self.services_of(service.prefix_mask), leg.caller)
            }
            (Records::None, None) => Chain::default(),
        }
    }

    fn judge_group(&self, facts: &Facts, skip: u64) -> Result<Option<Hop>, Refusal> {
        match (self.classify_redirect(facts, skip), self.unredirectable) {
            (Some(_), Unredirectable::Block) => Err(Refusal::Unredirectable),
            (Some(_), Unredirectable::Permit) | (None, _) => Ok(None),
        }
    }

    /// Each round either settles the choice or skips one service more.
    fn choose(
        &self,
        facts: &Facts,
        mut skip: u64,
        full: bool,
        world: &World,
    ) -> Result<Option<Hop>, Refusal> {
        while let Some(filter) =
            self.classify_redirect(facts, skip).map(|index| &self.redirect_filters[index])
        {
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
        policy.redirect_filters(service.id).map(move |filter| TableFilter {
            id: filter.id,
            slot,
            conditions: filter.conditions.clone(),
        })
    };
    services.iter().flat_map(filters_of).collect()
}

/// Sublayers without filters get no index.
fn compile_auth_filters(policy: &Policy) -> Result<Vec<TableAuthFilter>, LimitError> {
    let used = policy.sublayers().iter().filter(|sublayer| policy.auth_filters(sublayer.id).next().is_some());
    let used: Vec<SublayerId> = used.map(|sublayer| sublayer.id).collect();
    LimitError::check(Limit::Sublayers, used.len(), MAX_SUBLAYERS)?;
    let filters_of = |(index, id)| {
        policy.auth_filters(id).map(move |(filter, rule)| TableAuthFilter {
            id: filter.id,
            sublayer: index,
            action: rule.action,
            flags: rule.flags,
            conditions: filter.conditions.clone(),
        })
    };
    Ok((0u8..).zip(used).flat_map(filters_of).collect())
}
