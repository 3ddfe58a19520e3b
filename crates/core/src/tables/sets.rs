//! Sets of numbers as intervals: what every condition comes to.

use crate::address::{Family, Prefix};
use crate::conditions::OneOf;

/// The first of the IPv4-mapped addresses, and the last.
pub(super) const MAPPED: (u128, u128) = (0xffff_0000_0000, 0xffff_ffff_ffff);

/// A set of numbers: intervals, both ends included, in order and apart from each other.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Set<T>(Vec<(T, T)>);

/// Numbers that sets are made of.
pub(super) trait Number: Copy + Ord {
    const MIN: Self;
    const MAX: Self;
    fn next(self) -> Option<Self>;
    fn previous(self) -> Option<Self>;
}

macro_rules! number {
    ($($type:ty),*) => {$(
        impl Number for $type {
            const MIN: Self = Self::MIN;
            const MAX: Self = Self::MAX;

            fn next(self) -> Option<Self> {
                self.checked_add(1)
            }

            fn previous(self) -> Option<Self> {
                self.checked_sub(1)
            }
        }
    )*};
}

number!(u32, u128);

impl<T: Number> Set<T> {
    pub(super) fn of(intervals: impl IntoIterator<Item = (T, T)>) -> Self {
        let mut sorted: Vec<(T, T)> = intervals.into_iter().collect();
        sorted.sort_unstable();
        let mut apart: Vec<(T, T)> = Vec::with_capacity(sorted.len());
        for (first, last) in sorted {
            match apart.last_mut() {
                Some((_, end)) if end.next().is_none_or(|after| first <= after) => *end = (*end).max(last),
                _ => apart.push((first, last)),
            }
        }
        Self(apart)
    }

    pub(super) fn all() -> Self {
        Self(vec![(T::MIN, T::MAX)])
    }

    /// What is not in it.
    pub(super) fn complement(&self) -> Self {
        let mut gaps = Vec::with_capacity(self.0.len() + 1);
        let mut from = Some(T::MIN);
        for &(first, last) in &self.0 {
            if let (Some(from), Some(to)) = (from, first.previous())
                && from <= to
            {
                gaps.push((from, to));
            }
            from = last.next();
        }
        if let Some(from) = from {
            gaps.push((from, T::MAX));
        }
        Self(gaps)
    }

    pub(super) fn intersection(&self, other: &Self) -> Self {
        let mut both = Vec::new();
        let (mut ours, mut theirs) = (self.0.iter().peekable(), other.0.iter().peekable());
        while let (Some(a), Some(b)) = (ours.peek(), theirs.peek()) {
            let (first, last) = (a.0.max(b.0), a.1.min(b.1));
            if first <= last {
                both.push((first, last));
            }
            if a.1 < b.1 {
                ours.next()
            } else {
                theirs.next()
            };
        }
        Self(both)
    }

    pub(super) fn is_all(&self) -> bool {
        self.0 == [(T::MIN, T::MAX)]
    }

    pub(super) fn intervals(&self) -> &[(T, T)] {
        &self.0
    }

    /// Where it begins and where it has ended, in order: an odd number of these are at or below a number that is in it.
    pub(super) fn edges(&self) -> impl Iterator<Item = T> {
        self.0.iter().flat_map(|&(first, last)| [Some(first), last.next()]).flatten()
    }
}

/// The set that a list comes to, given the numbers of a value.
pub(super) fn listed<T: Number, V>(list: &OneOf<V>, numbers: impl Fn(&V) -> (T, T)) -> Set<T> {
    let set = Set::of(list.values().iter().map(numbers));
    if list.is_negated() { set.complement() } else { set }
}

pub(super) fn prefix(prefix: &Prefix) -> (u128, u128) {
    let first = prefix.network().to_bits();
    (first, first | u128::MAX.checked_shr(prefix.length().into()).unwrap_or(0))
}

/// The addresses of the families that are asked for.
pub(super) fn families(list: &OneOf<Family>) -> Set<u128> {
    let mapped = Set::of([MAPPED]);
    let holds = |family| list.holds(|value| *value == family);
    match (holds(Family::Ipv4), holds(Family::Ipv6)) {
        (true, true) => Set::all(),
        (true, false) => mapped,
        (false, true) => mapped.complement(),
        (false, false) => Set::of([]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_kept_in_order_and_apart() {
        let set = Set::of([(7_u32, 9), (1, 2), (3, 4), (8, 12)]);
        assert_eq!(set.intervals(), [(1, 4), (7, 12)]);
        assert_eq!(set.complement().intervals(), [(0, 0), (5, 6), (13, u32::MAX)]);
        assert_eq!(set.complement().complement(), set);
        assert_eq!(set.edges().collect::<Vec<_>>(), [1, 5, 7, 13]);
        assert_eq!(Set::of([(5, u32::MAX)]).edges().collect::<Vec<_>>(), [5]);
    }

    #[test]
    fn all_and_nothing_are_each_others_complement() {
        assert_eq!(Set::<u32>::all().complement(), Set::of([]));
        assert!(Set::<u128>::of([]).complement().is_all());
        assert_eq!(Set::of([(0_u32, 3)]).intersection(&Set::of([(2, 9)])).intervals(), [(2, 3)]);
        assert_eq!(Set::of([(0_u32, 3)]).intersection(&Set::of([(4, 9)])), Set::of([]));
    }

    #[test]
    fn a_prefix_is_one_interval() {
        let net = Prefix::new("192.0.2.0".parse().unwrap(), 24).unwrap();
        assert_eq!(prefix(&net), (0xffff_c000_0200, 0xffff_c000_02ff));
        assert_eq!(prefix(&Prefix::new("::".parse().unwrap(), 0).unwrap()), (0, u128::MAX));
        let families = families(&OneOf::none_of([Family::Ipv4]));
        assert_eq!(families.intervals(), [(0, MAPPED.0 - 1), (MAPPED.1 + 1, u128::MAX)]);
    }
}
