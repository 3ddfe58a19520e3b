//! Which destinations can be reached, and from which address: what a host publishes of its routing tables to its engine.
//!
//! ```
//! use waylay_core::{Errno, Obstacle, Prefix, Protocol, Reach, Route, Routes};
//!
//! let mut routes = Routes::default();
//! let source = Some("10.0.0.1".parse()?);
//! routes.set(Prefix::new("10.0.0.0".parse()?, 24)?, Reach::From(source));
//! routes.set(Prefix::new("10.0.0.255".parse()?, 32)?, Reach::Group);
//! routes.set(Prefix::new("0.0.0.0".parse()?, 0)?, Reach::Never(Errno::ENETUNREACH));
//!
//! assert_eq!(routes.to("10.0.0.7".parse()?), Reach::From(source));
//! assert_eq!(routes.to("192.0.2.1".parse()?).route(), Route::Missing(Errno::ENETUNREACH));
//! // To all hosts of the network go datagrams, which no service can have, and nobody connects.
//! let all = routes.to("10.0.0.255".parse()?);
//! assert_eq!(all.route(), Route::Missing(Errno::ENETUNREACH));
//! assert_eq!(all.obstacle(Protocol::Udp), Some(Obstacle::Broadcast));
//! assert_eq!(all.obstacle(Protocol::Tcp), None);
//! // Of what nothing was published nothing is known, and it is treated as reachable.
//! assert_eq!(routes.to("2001:db8::1".parse()?), Reach::From(None));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::address::{Prefix, normal_form};
use crate::leg::Protocol;
use crate::model::Errno;
use crate::world::{Obstacle, Route};

/// How far the host gets towards a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// There is a route; connections start from this address, if it is known.
    From(Option<IpAddr>),
    /// It is this host itself, by one of its addresses; connections start from this one.
    Here(IpAddr),
    /// It is many hosts: datagrams get there, and nobody connects to them.
    Group,
    /// There is none, and connect() fails with this error.
    Never(Errno),
}

impl Default for Reach {
    /// Of what nothing is known.
    fn default() -> Self {
        Self::From(None)
    }
}

impl Reach {
    /// The half of it that a decision depends on.
    #[must_use]
    pub const fn route(self) -> Route {
        match self {
            Self::From(_) | Self::Here(_) => Route::Exists,
            Self::Group => Route::Missing(Errno::ENETUNREACH),
            Self::Never(errno) => Route::Missing(errno),
        }
    }

    /// Why no service can have what goes there, if that is so.
    #[must_use]
    pub const fn obstacle(self, protocol: Protocol) -> Option<Obstacle> {
        match (self, protocol) {
            (Self::Group, Protocol::Udp) => Some(Obstacle::Broadcast),
            (Self::Group, Protocol::Tcp) | (Self::From(_) | Self::Here(_) | Self::Never(_), _) => None,
        }
    }
}

/// The reach of every destination, by prefix; the longest that covers an address speaks for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Routes {
    prefixes: BTreeMap<Prefix, Reach>,
}

impl Routes {
    /// Says how far the host gets towards all of a prefix that no longer one covers.
    pub fn set(&mut self, prefix: Prefix, reach: Reach) {
        self.prefixes.insert(prefix, reach);
    }

    /// How far it gets towards an address.
    #[must_use]
    pub fn to(&self, address: IpAddr) -> Reach {
        self.longest(address).map_or_else(Reach::default, |(_, reach)| reach)
    }

    /// The longest prefix that covers an address.
    #[must_use]
    pub fn longest(&self, address: IpAddr) -> Option<(Prefix, Reach)> {
        let address = normal_form(address);
        let candidates = (0..=128).rev().map(|length| Prefix::covering(address, length));
        candidates.filter_map(|prefix| Some((prefix, *self.prefixes.get(&prefix)?))).next()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (Prefix, Reach)> + '_ {
        self.prefixes.iter().map(|(&prefix, &reach)| (prefix, reach))
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.prefixes.len()
    }

    /// Whether nothing is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.prefixes.is_empty()
    }
}
