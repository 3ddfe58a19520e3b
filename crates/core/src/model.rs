//! What people declare: services, sublayers and filters.

use std::fmt;

use crate::conditions::{Conditions, FlagConditions};
use crate::ids::{FilterId, ServiceId, SublayerId};

/// What becomes of a connection whose service is absent.
///
/// A service that is present but whose backlog is full refuses under both: flooding must not buy a way around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FailurePolicy {
    /// Go on without this service.
    Open,
    /// Refuse the connection.
    Closed,
}

impl FailurePolicy {
    /// What becomes of those who want a service that is gone, in words.
    #[must_use]
    pub const fn consequence(self) -> &'static str {
        match self {
            Self::Open => "new connections go on without it (open)",
            Self::Closed => "new connections are refused (closed)",
        }
    }
}

/// A redirect service: a local proxy that inspects a connection and dials on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its id.
    pub id: ServiceId,
    /// Its name, by which other services order themselves against it.
    pub name: String,
    /// Names of services that see a connection after this one.
    pub before: Vec<String>,
    /// Names of services that see a connection ahead of this one.
    pub after: Vec<String>,
    /// What happens to connections while it is absent.
    pub on_failure: FailurePolicy,
}

/// An ordered group of auth filters. Sublayers are heard by weight from high to low, equal weights by id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sublayer {
    /// Its id.
    pub id: SublayerId,
    /// Its name.
    pub name: String,
    /// The higher, the earlier.
    pub weight: u16,
}

/// Conditions, a weight and what follows when the conditions hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// Its id.
    pub id: FilterId,
    /// The higher, the earlier among the filters of its service or sublayer; equal weights are ordered by id.
    pub weight: u64,
    /// What must hold for it to match.
    pub conditions: Conditions,
    /// Where it stands and what it does there.
    pub layer: Layer,
}

/// Where a filter stands, with what only that layer knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer {
    /// A match redirects the connection to this service.
    Redirect {
        /// The service.
        service: ServiceId,
    },
    /// A match permits or blocks the original destination.
    Auth(AuthRule),
}

/// The auth layer's half of a filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuthRule {
    /// The sublayer the filter belongs to.
    pub sublayer: SublayerId,
    /// Conditions on what the redirect layer has made of the leg.
    pub flags: FlagConditions,
    /// What a match says.
    pub action: Action,
}

/// What an auth filter says.
///
/// Sublayers are heard from high weight to low, and all of them are heard. Inside one, the first matching filter that permits or
/// blocks is the sublayer's decision. A *soft* decision stands until a lower sublayer decides otherwise; a *hard* one stands whatever
/// the lower sublayers say. So a block with [`Right::Soft`] is overridden by a lower sublayer's permit, a soft permit by a lower
/// sublayer's block, and a hard block ends the evaluation. Where nobody decides the connection is permitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Let the connection pass.
    Permit(Right),
    /// Refuse the connection.
    Block {
        /// Whether lower sublayers may override it.
        right: Right,
        /// What the application's connect() returns.
        errno: Errno,
    },
    /// Say nothing; the next filter of the sublayer is asked.
    Continue,
}

impl Action {
    /// A permit as filters give it by default: soft.
    pub const PERMIT: Self = Self::Permit(Right::Soft);
    /// A block as filters give it by default: hard, with `EACCES`.
    pub const BLOCK: Self = Self::Block { right: Right::Hard, errno: Errno::EACCES };
}

/// Whether lower sublayers may override a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Right {
    /// They may.
    Soft,
    /// They may not.
    Hard,
}

/// An error number of the Linux system call interface, 1 to 4095.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Errno(u16);

impl Errno {
    /// Operation not permitted.
    pub const EPERM: Self = Self(1);
    /// Permission denied.
    pub const EACCES: Self = Self(13);
    /// Network is unreachable.
    pub const ENETUNREACH: Self = Self(101);
    /// No buffer space available.
    pub const ENOBUFS: Self = Self(105);
    /// Connection timed out.
    pub const ETIMEDOUT: Self = Self(110);
    /// Connection refused.
    pub const ECONNREFUSED: Self = Self(111);
    /// No route to host.
    pub const EHOSTUNREACH: Self = Self(113);

    /// The largest number the kernel lets a hook return.
    pub const MAX: u16 = 4095;

    const NAMED: [(Self, &str); 7] = [
        (Self::EPERM, "EPERM"),
        (Self::EACCES, "EACCES"),
        (Self::ENETUNREACH, "ENETUNREACH"),
        (Self::ENOBUFS, "ENOBUFS"),
        (Self::ETIMEDOUT, "ETIMEDOUT"),
        (Self::ECONNREFUSED, "ECONNREFUSED"),
        (Self::EHOSTUNREACH, "EHOSTUNREACH"),
    ];

    /// The error with this number, if a system call can return it.
    #[must_use]
    pub const fn new(number: u16) -> Option<Self> {
        if number == 0 || number > Self::MAX { None } else { Some(Self(number)) }
    }

    /// The error of this name (`EACCES`), among those a filter usually gives.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::NAMED.iter().find(|(_, known)| *known == name).map(|(errno, _)| *errno)
    }

    /// Its number, positive.
    #[must_use]
    pub const fn number(self) -> u16 {
        self.0
    }
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Soft => "soft",
            Self::Hard => "hard",
        })
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Permit(right) => write!(f, "permit ({right})"),
            Self::Block { right, errno } => write!(f, "block ({right}, {errno})"),
            Self::Continue => f.write_str("continue"),
        }
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Self::NAMED.iter().find(|(errno, _)| errno == self) {
            Some((_, name)) => f.write_str(name),
            None => write!(f, "errno {}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_errno_is_one_a_system_call_can_return() {
        assert_eq!(Errno::new(0), None);
        assert_eq!(Errno::new(4096), None);
        assert_eq!(Errno::new(13), Some(Errno::EACCES));
        assert_eq!(Errno::named("ECONNREFUSED"), Some(Errno::ECONNREFUSED));
        assert_eq!(Errno::named("EWHATEVER"), None);
        assert_eq!(Errno::EACCES.to_string(), "EACCES");
        assert_eq!(Errno::new(99).unwrap().to_string(), "errno 99");
    }
}
