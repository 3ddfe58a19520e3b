//! What becomes of a leg.

use std::fmt;

use crate::chain::{Chain, Hop};
use crate::ids::{FilterId, ServiceId};
use crate::leg::Leg;
use crate::model::Errno;
use crate::trace::{Ids, Naming};
use crate::world::Resource;

/// What becomes of a leg.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes to the destination the caller asked for.
    Direct,
    /// It goes to a service.
    Redirect {
        /// The service.
        service: ServiceId,
        /// The filter of it that matched.
        filter: FilterId,
        /// The chain of the new flow, this hop included.
        chain: Chain,
    },
    /// The caller's connect() fails.
    Refuse(Refusal),
}

/// Why a connection is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Refusal {
    /// An auth filter blocks the original destination.
    Blocked {
        /// The filter.
        filter: FilterId,
        /// The error it gives.
        errno: Errno,
    },
    /// The service is absent and fails closed.
    ServiceAbsent {
        /// The service.
        service: ServiceId,
    },
    /// The service has no room for another connection.
    BacklogFull {
        /// The service.
        service: ServiceId,
    },
    /// The chain is full and this service, which fails closed, would stay unvisited.
    HopLimit {
        /// The service.
        service: ServiceId,
    },
    /// A listener of the service was dialled past the engine.
    ListenerDialled {
        /// The service.
        service: ServiceId,
    },
    /// The policy blocks legs of foreign network namespaces.
    ForeignNamespace,
    /// It cannot be redirected (the kind of socket, or a destination that is a group of hosts), and the application is one whose
    /// connections are.
    Unredirectable,
    /// The destination has no route, or is on this host and nobody listens there; the application sees the kernel's own error.
    NoRoute {
        /// That error.
        errno: Errno,
    },
    /// Another flow cannot be taken on.
    Shortage(Resource),
}

impl Verdict {
    pub(crate) fn redirect(hop: Hop, chain: Chain, leg: &Leg) -> Self {
        Self::Redirect { service: hop.service, filter: hop.filter, chain: chain.extended(hop, leg.caller) }
    }
}

impl Refusal {
    /// What the caller's connect() returns.
    #[must_use]
    pub const fn errno(self) -> Errno {
        match self {
            Self::Blocked { errno, .. } | Self::NoRoute { errno } => errno,
            Self::ServiceAbsent { .. } | Self::BacklogFull { .. } => Errno::ECONNREFUSED,
            Self::HopLimit { .. } | Self::ListenerDialled { .. } => Errno::ECONNREFUSED,
            Self::ForeignNamespace | Self::Unredirectable => Errno::EACCES,
            Self::Shortage(_) => Errno::ENOBUFS,
        }
    }
}

impl Refusal {
    /// Why, with names.
    pub fn explain(self, naming: &dyn Naming) -> impl fmt::Display + '_ {
        fmt::from_fn(move |f| self.write(f, naming))
    }

    fn write(self, f: &mut fmt::Formatter<'_>, naming: &dyn Naming) -> fmt::Result {
        let named = |service| naming.service(service);
        match self {
            Self::Blocked { filter, errno } => write!(f, "blocked by {} with {errno}", naming.filter(filter)),
            Self::ServiceAbsent { service } => write!(f, "{} is absent and fails closed", named(service)),
            Self::BacklogFull { service } => write!(f, "{} has a full backlog", named(service)),
            Self::HopLimit { service } => {
                write!(f, "the chain is full before {}, which fails closed", named(service))
            }
            Self::ListenerDialled { service } => {
                write!(f, "a listener of {} was dialled past the engine", named(service))
            }
            Self::ForeignNamespace => f.write_str("another network namespace"),
            Self::Unredirectable => f.write_str("it cannot be redirected"),
            Self::NoRoute { errno: Errno::ECONNREFUSED } => f.write_str("nobody listens there"),
            Self::NoRoute { .. } => f.write_str("the destination has no route"),
            Self::Shortage(resource) => write!(f, "no {resource} left"),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, &Ids)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Direct => f.write_str("direct"),
            Self::Redirect { service, filter, .. } => write!(f, "redirected to {service} by {filter}"),
            Self::Refuse(refusal) => write!(f, "refused with {}: {refusal}", refusal.errno()),
        }
    }
}
