//! Small numbers for large facts: what a leg's address, file, command and cgroups are called in compiled filters.
//!
//! Addresses that no condition tells apart have one number, and numbers of addresses are in the addresses' order, IPv4 first. Files,
//! commands, cgroups, network namespaces and patterns of hosts that conditions name have a number each, from 1; all others have 0.

use std::collections::BTreeSet;

use super::sets::{MAPPED, Set};
use super::words::{Array, Reader, Writer};
use crate::process::{CommandName, FileId};

/// Where to look for the number of an address: four words.
#[derive(Clone, Debug, Default)]
pub(super) struct Addresses {
    four: Vec<u64>,
    six: Vec<u128>,
}

impl Addresses {
    /// Tells apart what these sets do.
    pub(super) fn new<'s>(sets: impl IntoIterator<Item = &'s Set<u128>>) -> Self {
        let edges: BTreeSet<u128> = sets.into_iter().flat_map(Set::edges).collect();
        let (first, last) = MAPPED;
        let is_mapped = |edge: &u128| (first..=last).contains(edge);
        // Those behind the mapped addresses are not told apart from those before them by any edge among IPv6's own.
        let behind = (!edges.is_empty()).then_some(last + 1);
        let four = edges.range(first + 1..=last).map(|edge| (edge - first) as u64).collect();
        let six: BTreeSet<u128> = edges
            .iter()
            .copied()
            .filter(|edge| !is_mapped(edge))
            .chain(behind)
            .filter(|edge| *edge > 0)
            .collect();
        Self { four, six: six.into_iter().collect() }
    }

    /// The numbers of a set's addresses.
    pub(super) fn numbers(&self, set: &Set<u128>) -> Set<u32> {
        let (first, last) = MAPPED;
        let six =
            |address: u128| (self.four.len() + 1 + self.six.partition_point(|edge| *edge <= address)) as u32;
        let four = |address: u128| self.four.partition_point(|edge| *edge <= (address - first) as u64) as u32;
        let mut numbers = Vec::with_capacity(set.intervals().len());
        for &(from, to) in set.intervals() {
            if from < first {
                numbers.push((six(from), six(to.min(first - 1))));
            }
            if from <= last && to >= first {
                numbers.push((four(from.max(first)), four(to.min(last))));
            }
            if to > last {
                numbers.push((six(from.max(last + 1)), six(to)));
            }
        }
        let all = Set::of(numbers);
        // So that conditions that ask nothing are seen to.
        let every = (self.four.len() + 1 + self.six.len()) as u32;
        if all.intervals() == [(0, every)] { Set::all() } else { all }
    }

    /// Edges of IPv4; upper halves of IPv6; for each of those, the number it begins with and the edges of the lower halves.
    pub(super) fn write(&self, writer: &mut Writer) -> [u64; 3] {
        let four = writer.array(&self.four);
        let half = |edge: &u128| (edge >> 64) as u64;
        let mut halves: BTreeSet<u64> = self.six.iter().map(half).collect();
        let divided = self.six.iter().filter(|edge| **edge as u64 != 0);
        halves.extend(divided.filter_map(|edge| half(edge).checked_add(1)).collect::<Vec<_>>());
        let base = self.four.len() as u64 + 1;
        let mut entries = vec![base, 0];
        for &upper in &halves {
            let whole = u128::from(upper) << 64;
            let number = base + self.six.partition_point(|edge| *edge <= whole) as u64;
            let lower = self.six.iter().skip(number as usize - base as usize);
            let lower: Vec<u64> =
                lower.take_while(|edge| half(edge) == upper).map(|edge| *edge as u64).collect();
            let Array(lower) = writer.array(&lower);
            entries.extend([number, lower]);
        }
        let halves: Vec<u64> = halves.into_iter().collect();
        let Array(halves) = writer.array(&halves);
        let entries = writer.append(entries);
        [four.0, halves, entries]
    }
}

/// The number of an address, given the three words.
pub(super) fn number_of_address(words: Reader<'_>, [four, halves, entries]: [u64; 3], address: u128) -> u32 {
    let (first, last) = MAPPED;
    if (first..=last).contains(&address) {
        return words.search(Array(four), (address - first) as u64) as u32;
    }
    let entry = entries + 2 * words.search(Array(halves), (address >> 64) as u64);
    let lower = Array(words.word(entry + 1));
    (words.word(entry) + words.search(lower, address as u64)) as u32
}

/// What has 16 bytes and is only compared: files and commands.
pub(super) type Name = [u64; 2];

pub(super) const fn name_of_file(file: FileId) -> Name {
    [file.device, file.inode]
}

pub(super) fn name_of_command(command: CommandName) -> Name {
    let mut bytes = [0; 16];
    bytes.iter_mut().zip(command.as_bytes()).for_each(|(to, from)| *to = *from);
    let [a, b, c, d, e, f, g, h, rest @ ..] = bytes;
    [u64::from_ne_bytes([a, b, c, d, e, f, g, h]), u64::from_ne_bytes(rest)]
}

/// Numbers of names. They are found by 64 bits that are made of a name, so that one comparison decides; the name itself has the last word.
#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    salt: u64,
    /// Digest and name, in the digests' order.
    sorted: Vec<(u64, Name)>,
}

impl Names {
    pub(super) fn new(names: impl IntoIterator<Item = Name>) -> Self {
        let names: BTreeSet<Name> = names.into_iter().collect();
        let mut salt = 0;
        loop {
            let mut sorted: Vec<(u64, Name)> =
                names.iter().map(|name| (digest(*name, salt), *name)).collect();
            sorted.sort_unstable();
            if sorted.windows(2).all(|pair| pair[0].0 != pair[1].0) {
                return Self { salt, sorted };
            }
            salt += 1;
        }
    }

    pub(super) fn number(&self, name: Name) -> u32 {
        let digest = digest(name, self.salt);
        self.sorted.binary_search_by_key(&digest, |(known, _)| *known).map_or(0, |at| at as u32 + 1)
    }

    /// Digests, names, and the salt.
    pub(super) fn write(&self, writer: &mut Writer) -> [u64; 3] {
        let digests: Vec<u64> = self.sorted.iter().map(|(digest, _)| *digest).collect();
        let Array(digests) = writer.array(&digests);
        // A name is read as one.
        if writer.len() % 2 == 1 {
            writer.append([0]);
        }
        let names = writer.append(self.sorted.iter().flat_map(|(_, name)| *name));
        [digests, names, self.salt]
    }
}

/// The number of a name, given the three words.
pub(super) fn number_of_name(words: Reader<'_>, [digests, names, salt]: [u64; 3], name: Name) -> u32 {
    let at = words.search(Array(digests), digest(name, salt));
    let Some(before) = at.checked_sub(1) else { return 0 };
    let known = [words.word(names + 2 * before), words.word(names + 2 * before + 1)];
    if known == name { at as u32 } else { 0 }
}

/// Murmur's finalizer over both halves.
const fn digest(name: Name, salt: u64) -> u64 {
    let mut mixed = name[0].wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ name[1].wrapping_add(salt);
    mixed = (mixed ^ mixed >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
    mixed = (mixed ^ mixed >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    mixed ^ mixed >> 33
}

/// Numbers of what is known by 64 bits: cgroups, namespaces, patterns of hosts.
#[derive(Clone, Debug, Default)]
pub(super) struct Ids(Vec<u64>);

impl Ids {
    pub(super) fn new(ids: impl IntoIterator<Item = u64>) -> Self {
        let ids: BTreeSet<u64> = ids.into_iter().collect();
        Self(ids.into_iter().collect())
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn number(&self, id: u64) -> u32 {
        self.0.binary_search(&id).map_or(0, |at| at as u32 + 1)
    }

    pub(super) fn write(&self, writer: &mut Writer) -> [u64; 2] {
        let Array(ids) = writer.array(&self.0);
        [ids, writer.append(self.0.iter().copied())]
    }
}

/// The number of such, given the two words.
pub(super) fn number_of_id(words: Reader<'_>, [sorted, ids]: [u64; 2], id: u64) -> u32 {
    let at = words.search(Array(sorted), id);
    let is_it = at.checked_sub(1).is_some_and(|before| words.word(ids + before) == id);
    if is_it { at as u32 } else { 0 }
}
