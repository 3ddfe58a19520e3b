//! What an engine can do on this machine, and what is missing where it cannot.

use std::fmt;

/// What an engine can do on this machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    list: Vec<Capability>,
}

/// One thing an engine may be able to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capability {
    /// The thing.
    pub feature: Feature,
    /// Whether it can.
    pub state: CapabilityState,
}

/// What engines differ in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Feature {
    /// Redirecting TCP over IPv4.
    RedirectTcp4,
    /// Redirecting TCP over IPv6.
    RedirectTcp6,
    /// Redirecting UDP over IPv4.
    RedirectUdp4,
    /// Redirecting UDP over IPv6.
    RedirectUdp6,
    /// Permitting and blocking.
    Authorise,
    /// Records: query and set.
    Records,
    /// Showing the application the address it asked for.
    HideRedirection,
    /// Refusing sockets of IPv4 and IPv6 that cannot be redirected.
    RefuseSockets,
    /// Refusing sockets of other families that cannot be redirected.
    RefuseFamilies,
    /// Rules that no unprivileged process can get around.
    Enforcement,
    /// Rules that stay in force when their owner dies.
    OutliveOwner,
    /// Watching the whole host instead of one process tree.
    HostScope,
    /// Showing services in datagrams themselves where these were going, by a program on the loopback.
    ShowInPackets,
}

/// Whether an engine can do a thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CapabilityState {
    /// It can.
    Available,
    /// It cannot.
    Missing {
        /// The kernel feature or privilege that is missing, by its own name.
        needs: String,
        /// What a person can do about it.
        remedy: String,
    },
}

impl Capabilities {
    /// Whether the engine can do the thing. What it does not mention it cannot do.
    #[must_use]
    pub fn has(&self, feature: Feature) -> bool {
        self.list
            .iter()
            .any(|capability| capability.feature == feature && capability.state == CapabilityState::Available)
    }

    /// What the engine says, in its own order.
    pub fn iter(&self) -> impl Iterator<Item = &Capability> {
        self.list.iter()
    }
}

impl FromIterator<Capability> for Capabilities {
    fn from_iter<I: IntoIterator<Item = Capability>>(capabilities: I) -> Self {
        Self { list: capabilities.into_iter().collect() }
    }
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RedirectTcp4 => "redirect TCP over IPv4",
            Self::RedirectTcp6 => "redirect TCP over IPv6",
            Self::RedirectUdp4 => "redirect UDP over IPv4",
            Self::RedirectUdp6 => "redirect UDP over IPv6",
            Self::Authorise => "permit and block",
            Self::Records => "records",
            Self::HideRedirection => "show applications the address they asked for",
            Self::RefuseSockets => "refuse sockets of IP that cannot be redirected",
            Self::RefuseFamilies => "refuse sockets of other families that cannot be redirected",
            Self::Enforcement => "rules no unprivileged process can get around",
            Self::OutliveOwner => "rules that outlive their owner",
            Self::HostScope => "watch the whole host",
            Self::ShowInPackets => "show services the destination in datagrams themselves",
        })
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.state {
            CapabilityState::Available => write!(f, "{}: yes", self.feature),
            CapabilityState::Missing { needs, remedy } => {
                write!(f, "{}: no, needs {needs} ({remedy})", self.feature)
            }
        }
    }
}
