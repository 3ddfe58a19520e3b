//! Who has had a connection already, and whom it may no longer visit.
//!
//! A leg that carries records brings its chain with it; each redirect adds a hop and excludes the service. A leg that leaves a
//! registered service *without* records has lost its chain, and is given one in which that service and every earlier one are excluded.
//! Along legs with records the excluded set grows, along legs without it the position grows: no connection can go round for ever.

use std::collections::BTreeSet;

use crate::ids::{FilterId, ServiceId};
use crate::process::Process;

/// Redirects one chain may hold. It bounds what a record occupies in the kernel.
pub const MAX_HOPS: usize = 16;

/// A service redirected a leg, by one of its filters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hop {
    /// The service.
    pub service: ServiceId,
    /// The filter of it that matched.
    pub filter: FilterId,
}

/// A set of services.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ServiceSet(BTreeSet<ServiceId>);

impl ServiceSet {
    /// Whether the service is one of them.
    #[must_use]
    pub fn contains(&self, service: ServiceId) -> bool {
        self.0.contains(&service)
    }

    /// Adds a service.
    pub fn insert(&mut self, service: ServiceId) {
        self.0.insert(service);
    }

    /// The services by ascending id.
    pub fn iter(&self) -> impl Iterator<Item = ServiceId> + '_ {
        self.0.iter().copied()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<ServiceId> for ServiceSet {
    fn from_iter<I: IntoIterator<Item = ServiceId>>(services: I) -> Self {
        Self(services.into_iter().collect())
    }
}

/// The ordered hops of a connection, the services it may no longer visit, and the application it began with.
///
/// Whoever has a hop is excluded; whoever is excluded need not have one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Chain {
    hops: Vec<Hop>,
    excluded: ServiceSet,
    origin: Option<Process>,
}

/// Why parts do not make a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// More hops than a chain holds.
    #[error("a chain holds at most {MAX_HOPS} hops, not {hops}")]
    TooManyHops {
        /// How many were given.
        hops: usize,
    },
}

impl Chain {
    /// A chain from its parts, as an engine decodes them. Services with a hop are excluded whether named so or not.
    pub fn new(
        hops: Vec<Hop>,
        mut excluded: ServiceSet,
        origin: Option<Process>,
    ) -> Result<Self, ChainError> {
        if hops.len() > MAX_HOPS {
            return Err(ChainError::TooManyHops { hops: hops.len() });
        }
        for hop in &hops {
            excluded.insert(hop.service);
        }
        Ok(Self { hops, excluded, origin })
    }

    /// The chain of a leg whose service forgot the records: no hops, and `excluded` names that service and all before it.
    #[must_use]
    pub fn forgotten(excluded: ServiceSet, caller: Process) -> Self {
        Self { hops: Vec::new(), excluded, origin: Some(caller) }
    }

    /// The hops, oldest first.
    #[must_use]
    pub fn hops(&self) -> &[Hop] {
        &self.hops
    }

    /// The services that the connection may no longer visit.
    #[must_use]
    pub const fn excluded(&self) -> &ServiceSet {
        &self.excluded
    }

    /// The application that the connection began with.
    #[must_use]
    pub const fn origin(&self) -> Option<&Process> {
        self.origin.as_ref()
    }

    /// Whether no further hop fits.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.hops.len() >= MAX_HOPS
    }

    /// The same, if its first leg is the last one so far, of somebody else who has dialled that.
    #[must_use]
    pub fn dialled_by(mut self, caller: Process) -> Self {
        if let [_first] = self.hops[..] {
            self.origin = Some(caller);
        }
        self
    }

    /// The chain of the flow that one more redirect makes. The caller becomes the origin where there is none yet.
    #[must_use]
    pub fn extended(mut self, hop: Hop, caller: Process) -> Self {
        self.hops.push(hop);
        self.excluded.insert(hop.service);
        self.origin = self.origin.or(Some(caller));
        self
    }
}

/// What a leg brings with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Records {
    /// Nothing: an application's leg, or one of a service that did not copy its records.
    #[default]
    None,
    /// The chain that the service copied from its inbound leg.
    Carried(Chain),
}

/// How a service stands to a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RedirectState {
    /// Nobody has redirected the connection.
    NotRedirected,
    /// This service redirected it last.
    RedirectedBySelf,
    /// Others have redirected it, this service has not.
    RedirectedByOther,
    /// This service redirected it, and others after it.
    PreviouslyRedirectedBySelf,
}

/// How the service stands to the chain.
///
/// It looks at hops alone: a service can be excluded (having forgotten its records) without having a hop.
#[must_use]
pub fn state(service: ServiceId, chain: &Chain) -> RedirectState {
    match chain.hops.split_last() {
        None => RedirectState::NotRedirected,
        Some((newest, _)) if newest.service == service => RedirectState::RedirectedBySelf,
        Some((_, older)) if older.iter().any(|hop| hop.service == service) => {
            RedirectState::PreviouslyRedirectedBySelf
        }
        Some(_) => RedirectState::RedirectedByOther,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain_of(services: &[u32]) -> Chain {
        let hops = services.iter().map(|&id| Hop { service: ServiceId(id), filter: FilterId(0) }).collect();
        Chain::new(hops, ServiceSet::default(), None).unwrap()
    }

    #[test]
    fn the_four_states() {
        let me = ServiceId(1);
        assert_eq!(state(me, &chain_of(&[])), RedirectState::NotRedirected);
        assert_eq!(state(me, &chain_of(&[2, 1])), RedirectState::RedirectedBySelf);
        assert_eq!(state(me, &chain_of(&[2, 3])), RedirectState::RedirectedByOther);
        assert_eq!(state(me, &chain_of(&[1, 2])), RedirectState::PreviouslyRedirectedBySelf);
    }

    #[test]
    fn the_newest_hop_decides_when_a_service_occurs_twice() {
        assert_eq!(state(ServiceId(1), &chain_of(&[1, 2, 1])), RedirectState::RedirectedBySelf);
        assert_eq!(state(ServiceId(2), &chain_of(&[1, 2, 1])), RedirectState::PreviouslyRedirectedBySelf);
    }

    #[test]
    fn a_chain_begins_with_whoever_dials_its_first_leg() {
        let hop = |id| Hop { service: ServiceId(id), filter: FilterId(0) };
        let [unknown, first, second] = [0, 1, 2].map(|pid| Process { pid, ..Process::default() });
        let one = Chain::default().extended(hop(1), unknown).dialled_by(first);
        assert_eq!(one.origin(), Some(&first));
        let two = one.extended(hop(2), unknown).dialled_by(second);
        assert_eq!((two.origin(), two.hops().len()), (Some(&first), 2));
    }

    #[test]
    fn whoever_has_a_hop_is_excluded() {
        let chain = chain_of(&[4, 2]);
        assert_eq!(chain.excluded().iter().collect::<Vec<_>>(), [ServiceId(2), ServiceId(4)]);
    }

    #[test]
    fn a_chain_holds_so_many_hops_and_no_more() {
        let hop = Hop { service: ServiceId(1), filter: FilterId(1) };
        assert!(Chain::new(vec![hop; MAX_HOPS], ServiceSet::default(), None).unwrap().is_full());
        assert_eq!(
            Chain::new(vec![hop; MAX_HOPS + 1], ServiceSet::default(), None),
            Err(ChainError::TooManyHops { hops: MAX_HOPS + 1 })
        );
    }
}
