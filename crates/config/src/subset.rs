//! What lists of values have in common: exceptions taken out of them, and whether one covers another.

use std::net::Ipv6Addr;

use waylay_core::{CommandName, Family, FileId, Namespace, PortRange, Prefix, Protocol};

/// Values as sets.
pub(crate) trait Difference: Clone + PartialEq {
    /// What is left of it.
    fn minus(self, other: &Self) -> Vec<Self>;

    /// Whether everything in `other` is in it.
    fn contains(&self, other: &Self) -> bool;
}

/// What is left of some values.
pub(crate) fn without<T: Difference>(values: Vec<T>, excluded: &[T]) -> Vec<T> {
    excluded
        .iter()
        .fold(values, |left, other| left.into_iter().flat_map(|value| value.minus(other)).collect())
}

macro_rules! discrete {
    ($($type:ty),*) => {$(
        impl Difference for $type {
            fn minus(self, other: &Self) -> Vec<Self> {
                if self == *other { Vec::new() } else { vec![self] }
            }

            fn contains(&self, other: &Self) -> bool {
                self == other
            }
        }
    )*};
}

discrete!(Protocol, Family, u32, u64, FileId, CommandName, Namespace);

impl Difference for PortRange {
    fn minus(self, other: &Self) -> Vec<Self> {
        let below = other.first().checked_sub(1).map(|last| (self.first(), self.last().min(last)));
        let above = other.last().checked_add(1).map(|first| (self.first().max(first), self.last()));
        let parts = [below, above].into_iter().flatten();
        parts.filter_map(|(first, last)| Self::new(first, last).ok()).collect()
    }

    fn contains(&self, other: &Self) -> bool {
        self.first() <= other.first() && other.last() <= self.last()
    }
}

impl Difference for Prefix {
    fn minus(self, other: &Self) -> Vec<Self> {
        if other.contains(&self) {
            return Vec::new();
        }
        if !Difference::contains(&self, other) {
            return vec![self];
        }
        // Beside the way down to `other` there is one half a bit that is not on it.
        let halves = self.length() + 1..=other.length();
        halves.map(|length| Self::covering(flip(other.network(), length), length)).collect()
    }

    fn contains(&self, other: &Self) -> bool {
        self.length() <= other.length() && Self::covering(other.network(), self.length()) == *self
    }
}

/// An address with its bit of this number, from 1 on, the other way.
fn flip(address: Ipv6Addr, number: u8) -> Ipv6Addr {
    Ipv6Addr::from_bits(address.to_bits() ^ 1 << (128 - u32::from(number)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn range() -> impl Strategy<Value = PortRange> {
        (0..20_u16, 0..20_u16).prop_map(|(a, b)| PortRange::new(a.min(b), a.max(b)).unwrap())
    }

    /// Of the lowest four bits only.
    fn prefix() -> impl Strategy<Value = Prefix> {
        (0..16_u128, 124..=128_u8)
            .prop_map(|(bits, length)| Prefix::covering(Ipv6Addr::from_bits(bits), length))
    }

    proptest! {
        #[test]
        fn of_ports_exactly_the_excluded_ones_are_gone(wanted in range(), excluded in range()) {
            let left = wanted.minus(&excluded);
            for port in 0..=20 {
                let expected = wanted.covers(port) && !excluded.covers(port);
                prop_assert_eq!(left.iter().filter(|range| range.covers(port)).count(), usize::from(expected));
            }
        }

        #[test]
        fn of_prefixes_exactly_the_excluded_ones_are_gone(wanted in prefix(), excluded in prefix()) {
            let left = wanted.minus(&excluded);
            for bits in 0..16 {
                let address = Ipv6Addr::from_bits(bits);
                let expected = wanted.covers(address) && !excluded.covers(address);
                prop_assert_eq!(left.iter().filter(|prefix| prefix.covers(address)).count(), usize::from(expected));
            }
        }

        #[test]
        fn a_prefix_covers_another_if_it_covers_all_its_addresses(one in prefix(), other in prefix()) {
            let all = (0..16).map(Ipv6Addr::from_bits).all(|address| !other.covers(address) || one.covers(address));
            prop_assert_eq!(Difference::contains(&one, &other), all);
        }
    }

    #[test]
    fn the_ends_of_the_ports_can_be_excluded() {
        let all = PortRange::new(0, u16::MAX).unwrap();
        assert_eq!(all.minus(&PortRange::single(0)), [PortRange::new(1, u16::MAX).unwrap()]);
        assert_eq!(all.minus(&PortRange::single(u16::MAX)), [PortRange::new(0, u16::MAX - 1).unwrap()]);
        assert_eq!(all.minus(&all), []);
    }
}
