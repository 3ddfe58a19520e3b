//! Addresses and ports, as filters and routes name them.
//!
//! Addresses have one normal form, IPv6, with IPv4 kept as v4-mapped (`::ffff:a.b.c.d`), so that there is one comparison
//! and not one for each family. It follows that an IPv6 prefix which covers `::ffff:0:0/96`, such as `::/0`, covers every IPv4 destination.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

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

    /// The prefix of `length` bits, counted in normal form, that covers an address in normal form; 128 bits for a larger `length`.
    #[must_use]
    pub fn covering(address: Ipv6Addr, length: u8) -> Self {
        Self::truncate(address, length.min(128))
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

/// The family of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4, in whichever form it is written.
    Ipv4,
    /// IPv6.
    Ipv6,
}

impl Family {
    /// The family of an address in normal form.
    #[must_use]
    pub fn of(address: Ipv6Addr) -> Self {
        if address.to_ipv4_mapped().is_some() { Self::Ipv4 } else { Self::Ipv6 }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
        })
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

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(address: &str, length: u8) -> Prefix {
        Prefix::new(address.parse().unwrap(), length).unwrap()
    }

    fn covers(prefix: Prefix, address: &str) -> bool {
        prefix.covers(normal_form(address.parse().unwrap()))
    }

    #[test]
    fn an_ipv4_prefix_covers_its_network_and_nothing_else() {
        let network = prefix("192.0.2.0", 24);
        assert!(covers(network, "192.0.2.0") && covers(network, "192.0.2.255"));
        assert!(!covers(network, "192.0.3.0") && !covers(network, "192.0.1.255"));
        assert!(covers(network, "::ffff:192.0.2.7"));
        assert!(!covers(network, "::192.0.2.7"));
    }

    #[test]
    fn the_shortest_and_longest_prefixes() {
        assert!(covers(prefix("0.0.0.0", 0), "203.0.113.9"));
        assert!(!covers(prefix("0.0.0.0", 0), "2001:db8::1"));
        assert!(covers(prefix("::", 0), "2001:db8::1") && covers(prefix("::", 0), "203.0.113.9"));
        assert!(covers(prefix("2001:db8::1", 128), "2001:db8::1"));
        assert!(!covers(prefix("2001:db8::1", 128), "2001:db8::2"));
        assert_eq!(Prefix::host("192.0.2.1".parse().unwrap()), prefix("192.0.2.1", 32));
    }

    #[test]
    fn what_is_no_prefix_is_refused_with_the_one_perhaps_meant() {
        let address: IpAddr = "192.0.2.1".parse().unwrap();
        assert_eq!(Prefix::new(address, 33), Err(PrefixError::TooLong { address, length: 33, allowed: 32 }));
        let error = Prefix::new(address, 24).unwrap_err();
        assert_eq!(
            error.to_string(),
            "192.0.2.1/24 has bits set beyond its length; its network is 192.0.2.0/24"
        );
    }

    #[test]
    fn prefixes_print_as_people_write_them() {
        assert_eq!(prefix("10.0.0.0", 8).to_string(), "10.0.0.0/8");
        assert_eq!(prefix("2001:db8::", 32).to_string(), "2001:db8::/32");
        assert_eq!(prefix("::", 0).to_string(), "::/0");
    }

    #[test]
    fn port_ranges_include_both_ends() {
        let ports = PortRange::new(80, 443).unwrap();
        assert!(ports.covers(80) && ports.covers(443) && !ports.covers(79) && !ports.covers(444));
        assert_eq!(PortRange::new(2, 1), Err(PortRangeError { first: 2, last: 1 }));
        assert!(PortRange::new(0, u16::MAX).unwrap().covers(u16::MAX));
    }
}
