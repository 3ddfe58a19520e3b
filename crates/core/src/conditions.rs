//! What a filter asks of a leg: a conjunction of optional conditions.
//!
//! Addresses have one normal form, IPv6, with IPv4 kept as v4-mapped (`::ffff:a.b.c.d`), so that there is one comparison
//! and not one for each family. It follows that an IPv6 prefix which covers `::ffff:0:0/96`, such as `::/0`, covers every IPv4 destination.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::leg::{Facts, Flags, Protocol};

/// What must hold for a filter to match. An absent condition always holds.
///
/// `exe`, `uid` and `cgroup` are asked of the *original application*: they follow the chain through the services.
/// `via_exe` is asked of the process that dials this very leg.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conditions {
    /// The transport protocol.
    pub protocol: Option<Protocol>,
    /// A prefix the original destination lies in.
    pub remote: Option<Prefix>,
    /// A range the original destination's port lies in.
    pub remote_ports: Option<PortRange>,
    /// The original application's executable.
    pub exe: Option<FileId>,
    /// The original application's user.
    pub uid: Option<u32>,
    /// The original application's cgroup, exactly (not its descendants).
    pub cgroup: Option<u64>,
    /// The executable of the process that dials this leg.
    pub via_exe: Option<FileId>,
}

impl Conditions {
    /// Whether all of them hold.
    #[must_use]
    pub fn match_facts(&self, facts: &Facts) -> bool {
        holds(self.protocol, |protocol| protocol == facts.protocol)
            && holds(self.remote, |prefix| prefix.covers(facts.remote))
            && holds(self.remote_ports, |ports| ports.covers(facts.remote_port))
            && holds(self.exe, |exe| exe == facts.exe)
            && holds(self.uid, |uid| uid == facts.uid)
            && holds(self.cgroup, |cgroup| cgroup == facts.cgroup)
            && holds(self.via_exe, |exe| exe == facts.via_exe)
    }
}

/// Conditions on what the redirect layer has made of a leg; only the auth layer can ask them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlagConditions {
    /// The leg will go to a service.
    pub redirected: Option<bool>,
    /// The leg comes from a service.
    pub proxied: Option<bool>,
}

impl FlagConditions {
    /// Whether both of them hold.
    #[must_use]
    pub fn match_flags(self, flags: Flags) -> bool {
        holds(self.redirected, |redirected| redirected == flags.redirected)
            && holds(self.proxied, |proxied| proxied == flags.proxied)
    }
}

fn holds<T>(condition: Option<T>, test: impl FnOnce(T) -> bool) -> bool {
    condition.is_none_or(test)
}

/// A file by what identifies it to the kernel, not by a path that can be bound elsewhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId {
    /// Device of the file system.
    pub device: u64,
    /// Inode on it.
    pub inode: u64,
}

/// An address prefix in normal form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    network: Ipv6Addr,
    length: u8,
}

/// Why an address and a length are no prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PrefixError {
    /// The length exceeds the address's.
    #[error("a prefix of {address} has at most {allowed} bits, not {length}")]
    TooLong {
        /// The address given.
        address: IpAddr,
        /// The length given.
        length: u8,
        /// The longest one of its family.
        allowed: u8,
    },
    /// The address has bits beyond the length; perhaps a smaller prefix was meant.
    #[error("{address}/{length} has bits set beyond its length; its network is {network}")]
    HostBits {
        /// The address given.
        address: IpAddr,
        /// The length given.
        length: u8,
        /// The prefix that these would denote, had the bits been cleared.
        network: Prefix,
    },
}

impl Prefix {
    /// The prefix of `length` bits, counted as the address's own family counts them.
    pub fn new(address: IpAddr, length: u8) -> Result<Self, PrefixError> {
        let (allowed, offset) = match address {
            IpAddr::V4(_) => (32, 96),
            IpAddr::V6(_) => (128, 0),
        };
        if length > allowed {
            return Err(PrefixError::TooLong { address, length, allowed });
        }
        let network = Self::truncate(normal_form(address), offset + length);
        if network.network != normal_form(address) {
            return Err(PrefixError::HostBits { address, length, network });
        }
        Ok(network)
    }

    /// The prefix that covers this address alone.
    #[must_use]
    pub fn host(address: IpAddr) -> Self {
        Self { network: normal_form(address), length: 128 }
    }

    /// The network in normal form, host bits zero.
    #[must_use]
    pub const fn network(self) -> Ipv6Addr {
        self.network
    }

    /// The length in normal form: 96 more than people write for IPv4.
    #[must_use]
    pub const fn length(self) -> u8 {
        self.length
    }

    /// Whether an address in normal form lies inside.
    #[must_use]
    pub fn covers(self, address: Ipv6Addr) -> bool {
        Self::truncate(address, self.length) == self
    }

    fn truncate(address: Ipv6Addr, length: u8) -> Self {
        let host_bits = 128 - u32::from(length);
        // A shift by all 128 bits is no shift at all in a register.
        let mask = u128::MAX.checked_shl(host_bits).unwrap_or(0);
        Self { network: Ipv6Addr::from_bits(address.to_bits() & mask), length }
    }

    fn as_ipv4(self) -> Option<(Ipv4Addr, u8)> {
        let length = self.length.checked_sub(96)?;
        Some((self.network.to_ipv4_mapped()?, length))
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.as_ipv4() {
            Some((network, length)) => write!(f, "{network}/{length}"),
            None => write!(f, "{}/{}", self.network, self.length),
        }
    }
}

/// The one form in which addresses are compared: IPv6, with IPv4 as v4-mapped.
#[must_use]
pub fn normal_form(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}

/// Ports from `first` to `last`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortRange {
    first: u16,
    last: u16,
}

/// The range ends before it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the port range {first}-{last} ends before it begins")]
pub struct PortRangeError {
    /// The first port given.
    pub first: u16,
    /// The last port given.
    pub last: u16,
}

impl PortRange {
    /// The ports from `first` to `last`.
    pub const fn new(first: u16, last: u16) -> Result<Self, PortRangeError> {
        if first > last { Err(PortRangeError { first, last }) } else { Ok(Self { first, last }) }
    }

    /// One port alone.
    #[must_use]
    pub const fn single(port: u16) -> Self {
        Self { first: port, last: port }
    }

    /// The lowest port of it.
    #[must_use]
    pub const fn first(self) -> u16 {
        self.first
    }

    /// The highest port of it.
    #[must_use]
    pub const fn last(self) -> u16 {
        self.last
    }

    /// Whether the port is one of them.
    #[must_use]
    pub const fn covers(self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}
