//! A policy: services in their solved order, sublayers and filters, all checked once.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;

use crate::chain::ServiceSet;
use crate::change::Change;
use crate::conditions::OneOf;
use crate::host::HostPattern;
use crate::ids::{FilterId, ServiceId, SublayerId};
use crate::model::{Action, AuthRule, Filter, Layer, Service, Sublayer};
use crate::order::{OrderError, solve};
use crate::world::{Existing, ForeignNamespace, Sandboxes, Unredirectable};

/// Services of one policy. Excluded sets are kept as masks of this many bits.
pub const MAX_SERVICES: usize = 64;

/// So many filters that are added find their places one by one; more are put in order with all others.
const FEW: usize = 16;

/// A policy that holds together: names and ids are unique and known, limits are kept, the order is solved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    services: Vec<Service>,
    sublayers: Vec<Sublayer>,
    filters: Vec<Filter>,
    foreign_namespace: ForeignNamespace,
    sandboxes: Sandboxes,
    unredirectable: Unredirectable,
    existing: Existing,
    resolvers: BTreeSet<SocketAddr>,
}

/// Why declarations do not make a policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// The services have no order.
    #[error(transparent)]
    Order(#[from] OrderError),
    /// A limit is exceeded.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// Two services have one id.
    #[error("{service} is declared twice")]
    DuplicateService {
        /// The id.
        service: ServiceId,
    },
    /// Two sublayers have one id.
    #[error("{sublayer} is declared twice")]
    DuplicateSublayer {
        /// The id.
        sublayer: SublayerId,
    },
    /// Two filters have one id.
    #[error("{filter} is declared twice")]
    DuplicateFilter {
        /// The id.
        filter: FilterId,
    },
    /// A filter is to go that is not there.
    #[error("{filter} is not there")]
    UnknownFilter {
        /// The id.
        filter: FilterId,
    },
    /// A filter redirects to a service that does not exist.
    #[error("{filter} redirects to {service}, which does not exist")]
    UnknownService {
        /// The filter.
        filter: FilterId,
        /// The id nobody has.
        service: ServiceId,
    },
    /// A filter stands in a sublayer that does not exist.
    #[error("{filter} stands in {sublayer}, which does not exist")]
    UnknownSublayer {
        /// The filter.
        filter: FilterId,
        /// The id nobody has.
        sublayer: SublayerId,
    },
    /// A filter would let something pass, or past a service, because of a host's name.
    #[error("{filter} would let a connection pass by a name, which can be forged")]
    PassesByName {
        /// The filter.
        filter: FilterId,
    },
}

/// A limit and by how much it is exceeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("at most {allowed} {limit}, not {need}")]
pub struct LimitError {
    /// Which limit.
    pub limit: Limit,
    /// How many there would have to be.
    pub need: usize,
    /// How many there may be.
    pub allowed: usize,
}

impl LimitError {
    /// Refuses more than are allowed.
    pub fn check(limit: Limit, need: usize, allowed: usize) -> Result<(), Self> {
        if need > allowed { Err(Self { limit, need, allowed }) } else { Ok(()) }
    }
}

/// What there may be only so many of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Limit {
    /// Services of a policy.
    Services,
    /// Filters that an engine holds.
    Filters,
    /// Sublayers that have filters.
    Sublayers,
    /// Words of 8 bytes that compiled filters take.
    IndexWords,
    /// Nodes on the way of a lookup.
    LookupSteps,
    /// Mask slots: services of the policy and gone ones that live chains still name.
    Slots,
    /// Listeners of one service in one family.
    Listeners,
    /// Resolvers whose answers are listened to.
    Resolvers,
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Services => "services",
            Self::Filters => "filters",
            Self::Sublayers => "sublayers with filters",
            Self::IndexWords => "words of compiled filters",
            Self::LookupSteps => "steps of a lookup",
            Self::Slots => "mask slots",
            Self::Listeners => "listeners of a service in one family",
            Self::Resolvers => "resolvers",
        })
    }
}

impl Policy {
    /// Checks the declarations and solves the order. Legs of foreign namespaces pass, sandboxes stay, what cannot be redirected is
    /// refused, and what is older than the policy stays; see [`Policy::with_foreign_namespace`],
    /// [`Policy::with_sandboxes`], [`Policy::with_unredirectable`] and [`Policy::with_existing`].
    pub fn new(
        services: Vec<Service>,
        sublayers: Vec<Sublayer>,
        filters: Vec<Filter>,
    ) -> Result<Self, PolicyError> {
        LimitError::check(Limit::Services, services.len(), MAX_SERVICES)?;
        refuse_duplicates(services.iter().map(|service| service.id), |service| {
            PolicyError::DuplicateService { service }
        })?;
        refuse_duplicates(sublayers.iter().map(|sublayer| sublayer.id), |sublayer| {
            PolicyError::DuplicateSublayer { sublayer }
        })?;
        refuse_duplicates(filters.iter().map(|filter| filter.id), |filter| PolicyError::DuplicateFilter {
            filter,
        })?;
        for filter in &filters {
            refuse_unknown_owner(filter, &services, &sublayers)?;
            refuse_passing_by_name(filter)?;
        }
        let order = solve(&services)?;
        Ok(Self {
            services: order.into_iter().map(|index| services[index].clone()).collect(),
            sublayers: heaviest_first(sublayers, |sublayer| (Reverse(sublayer.weight), sublayer.id)),
            filters: heaviest_first(filters, |filter| (Reverse(filter.weight), filter.id)),
            foreign_namespace: ForeignNamespace::default(),
            sandboxes: Sandboxes::default(),
            unredirectable: Unredirectable::default(),
            existing: Existing::default(),
            resolvers: BTreeSet::new(),
        })
    }

    /// The same policy with another rule for legs of foreign network namespaces.
    #[must_use]
    pub fn with_foreign_namespace(self, foreign_namespace: ForeignNamespace) -> Self {
        Self { foreign_namespace, ..self }
    }

    /// The same policy with another rule for legs from sandboxes.
    #[must_use]
    pub fn with_sandboxes(self, sandboxes: Sandboxes) -> Self {
        Self { sandboxes, ..self }
    }

    /// The same policy with another rule for what cannot be redirected.
    #[must_use]
    pub fn with_unredirectable(self, unredirectable: Unredirectable) -> Self {
        Self { unredirectable, ..self }
    }

    /// The same policy with other ids; services keep their order, and filters of one weight are ordered by the new ones.
    ///
    /// # Errors
    /// If two services or two filters would have one id.
    pub fn renumbered(
        mut self,
        service: impl Fn(ServiceId) -> ServiceId,
        filter: impl Fn(FilterId) -> FilterId,
    ) -> Result<Self, PolicyError> {
        for each in &mut self.services {
            each.id = service(each.id);
        }
        for each in &mut self.filters {
            each.id = filter(each.id);
            if let Layer::Redirect { service: target } = &mut each.layer {
                *target = service(*target);
            }
        }
        refuse_duplicates(self.services.iter().map(|service| service.id), |service| {
            PolicyError::DuplicateService { service }
        })?;
        refuse_duplicates(self.filters.iter().map(|filter| filter.id), |filter| {
            PolicyError::DuplicateFilter { filter }
        })?;
        self.filters.sort_by_key(|filter| (Reverse(filter.weight), filter.id));
        Ok(self)
    }

    /// The same policy with another rule for connections that are older than it.
    #[must_use]
    pub fn with_existing(self, existing: Existing) -> Self {
        Self { existing, ..self }
    }

    /// The same policy with other resolvers.
    #[must_use]
    pub fn with_resolvers(self, resolvers: impl IntoIterator<Item = SocketAddr>) -> Self {
        Self { resolvers: resolvers.into_iter().collect(), ..self }
    }

    /// Filters go, and filters come.
    ///
    /// # Errors
    /// [`PolicyError`] if one that is to go is not there, or one that comes has the id of another or no service or sublayer: then
    /// nothing is changed.
    pub fn change(&mut self, change: &Change) -> Result<(), PolicyError> {
        let removed: BTreeSet<FilterId> = change.removed.iter().copied().collect();
        let coming: BTreeSet<FilterId> = change.added.iter().map(|filter| filter.id).collect();
        let known = self.filters.iter().map(|filter| filter.id);
        let known: BTreeSet<FilterId> =
            known.filter(|id| removed.contains(id) || coming.contains(id)).collect();
        refuse_duplicates(change.removed.iter().copied(), |filter| PolicyError::UnknownFilter { filter })?;
        if let Some(filter) = removed.iter().copied().find(|id| !known.contains(id)) {
            return Err(PolicyError::UnknownFilter { filter });
        }
        let stay = known.difference(&removed).copied();
        refuse_duplicates(stay.chain(change.added.iter().map(|filter| filter.id)), |filter| {
            PolicyError::DuplicateFilter { filter }
        })?;
        for filter in &change.added {
            refuse_unknown_owner(filter, &self.services, &self.sublayers)?;
            refuse_passing_by_name(filter)?;
        }
        self.filters.retain(|filter| !removed.contains(&filter.id));
        self.take_in(&change.added);
        Ok(())
    }

    fn take_in(&mut self, added: &[Filter]) {
        let place = |filter: &Filter| (Reverse(filter.weight), filter.id);
        if added.len() > FEW {
            self.filters.extend(added.iter().cloned());
            self.filters.sort_by_key(place);
            return;
        }
        for filter in added {
            let at = self.filters.partition_point(|known| place(known) < place(filter));
            self.filters.insert(at, filter.clone());
        }
    }

    /// Whether another policy says the same of everything but filters.
    pub(crate) fn differs_in_filters_alone(&self, other: &Self) -> bool {
        let Self {
            services,
            sublayers,
            filters: _,
            foreign_namespace,
            sandboxes,
            unredirectable,
            existing,
            resolvers,
        } = self;
        *services == other.services
            && *sublayers == other.sublayers
            && *foreign_namespace == other.foreign_namespace
            && *sandboxes == other.sandboxes
            && *unredirectable == other.unredirectable
            && *existing == other.existing
            && *resolvers == other.resolvers
    }

    /// The services in their solved order.
    #[must_use]
    pub fn services(&self) -> &[Service] {
        &self.services
    }

    /// The sublayers in the order they are heard.
    #[must_use]
    pub fn sublayers(&self) -> &[Sublayer] {
        &self.sublayers
    }

    /// All filters of both layers, by weight from high to low, equal weights by id.
    #[must_use]
    pub fn filters(&self) -> &[Filter] {
        &self.filters
    }

    /// The patterns of hosts that filters name, by their keys.
    #[must_use]
    pub fn host_patterns(&self) -> BTreeMap<u64, &HostPattern> {
        let asked = self.filters.iter().filter_map(|filter| filter.conditions.host.as_ref());
        asked.flat_map(OneOf::values).map(|pattern| (pattern.key(), pattern)).collect()
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

    /// What becomes of connections that are older than the policy.
    #[must_use]
    pub const fn existing(&self) -> Existing {
        self.existing
    }

    /// Whose answers names of hosts are learned from.
    #[must_use]
    pub const fn resolvers(&self) -> &BTreeSet<SocketAddr> {
        &self.resolvers
    }

    /// The service of this id.
    #[must_use]
    pub fn service(&self, id: ServiceId) -> Option<&Service> {
        self.services.iter().find(|service| service.id == id)
    }

    /// Every service up to and including this one in the solved order; nothing if it is not of this policy.
    #[must_use]
    pub fn up_to(&self, service: ServiceId) -> Option<ServiceSet> {
        let position = self.services.iter().position(|candidate| candidate.id == service)?;
        Some(self.services[..=position].iter().map(|earlier| earlier.id).collect())
    }

    /// The filters that redirect to this service, in the order they are asked.
    pub fn redirect_filters(&self, service: ServiceId) -> impl Iterator<Item = &Filter> {
        self.filters.iter().filter(move |filter| filter.layer == Layer::Redirect { service })
    }

    /// The filters of this sublayer, in the order they are asked.
    pub fn auth_filters(&self, sublayer: SublayerId) -> impl Iterator<Item = (&Filter, AuthRule)> {
        self.filters.iter().filter_map(move |filter| match filter.layer {
            Layer::Auth(rule) if rule.sublayer == sublayer => Some((filter, rule)),
            Layer::Auth(_) | Layer::Redirect { .. } => None,
        })
    }
}

fn refuse_duplicates<Id: Ord + Copy>(
    ids: impl Iterator<Item = Id>,
    error: impl Fn(Id) -> PolicyError,
) -> Result<(), PolicyError> {
    let mut seen = BTreeSet::new();
    for id in ids {
        if !seen.insert(id) {
            return Err(error(id));
        }
    }
    Ok(())
}

fn refuse_unknown_owner(
    filter: &Filter,
    services: &[Service],
    sublayers: &[Sublayer],
) -> Result<(), PolicyError> {
    match filter.layer {
        Layer::Redirect { service } if !services.iter().any(|known| known.id == service) => {
            Err(PolicyError::UnknownService { filter: filter.id, service })
        }
        Layer::Auth(AuthRule { sublayer, .. }) if !sublayers.iter().any(|known| known.id == sublayer) => {
            Err(PolicyError::UnknownSublayer { filter: filter.id, sublayer })
        }
        Layer::Redirect { .. } | Layer::Auth(_) => Ok(()),
    }
}

/// Whoever can forge an answer, or has his address at a host of many names, decides what is known of a connection: so that may add a
/// block or a redirect, or take a permission away, and never the other way round.
pub(crate) fn refuse_passing_by_name(filter: &Filter) -> Result<(), PolicyError> {
    let Some(host) = &filter.conditions.host else { return Ok(()) };
    let passes = match filter.layer {
        Layer::Redirect { .. } => host.is_negated(),
        Layer::Auth(rule) => match rule.action {
            Action::Permit(_) => !host.is_negated(),
            Action::Block { .. } => host.is_negated(),
            Action::Continue => false,
        },
    };
    if passes { Err(PolicyError::PassesByName { filter: filter.id }) } else { Ok(()) }
}

fn heaviest_first<T, K: Ord>(mut items: Vec<T>, key: impl Fn(&T) -> K) -> Vec<T> {
    items.sort_by_key(key);
    items
}
