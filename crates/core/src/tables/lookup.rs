//! The first filter that matches, found in the words. The kernel side's `lookup.h` is this again.

use super::asked::{LINEAGES, Numbers, field};
use super::tree::{BLOCK, NO_RANK, Pointer, kind, rank_of};
use super::words::{Array, Reader};

/// What a filter's words are for: what a field must be, from and to; a list of such; what a lineage must have, and must not.
pub(super) mod question {
    pub(crate) const RANGE: u64 = 0;
    pub(crate) const LIST: u64 = 1;
    pub(crate) const LINEAGE: u64 = 2;
    pub(crate) const NO_LINEAGE: u64 = 3;
}

/// Where a layer begins: for everybody, and for each number of each lineage.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) all: Pointer,
    pub(super) lineages: [u64; LINEAGES],
}

/// A search.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lookup<'l> {
    pub(super) words: Reader<'l>,
    pub(super) numbers: &'l Numbers,
    /// Groups that are left out.
    pub(super) skip: u64,
    /// The first rank that is looked for.
    pub(super) from: u64,
    /// Ranks that do not count, and the words that have the list of them.
    pub(super) removed: Option<(Reader<'l>, Array)>,
}

/// The best that a search has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) rank: u64,
    /// Where the next group begins.
    pub(super) next_group: u64,
}

impl Found {
    pub(super) const NOTHING: Self = Self { rank: NO_RANK, next_group: 0 };
}

impl Lookup<'_> {
    /// The first filter that matches, if it comes before what is found already.
    pub(super) fn first(self, entry: Entry, mut found: Found) -> Found {
        self.follow(entry.all, &mut found);
        for (lineage, at) in entry.lineages.into_iter().enumerate().filter(|(_, at)| *at != 0) {
            for number in &self.numbers.lineages[lineage] {
                self.follow(self.words.word(at + u64::from(*number)), &mut found);
            }
        }
        found
    }

    /// From node to node, for as long as something better can be found.
    fn follow(self, mut pointer: Pointer, found: &mut Found) {
        while pointer != 0 && rank_of(pointer) < found.rank {
            let node = pointer & 0xffff_ffff;
            let head = self.words.word(node);
            pointer = match head & 0xff {
                kind::SPLIT => {
                    let piece = self.words.search(Array(self.words.word(node + 1)), self.field(head >> 8));
                    self.words.word(self.words.word(node + 2) + piece)
                }
                kind::DIRECT if self.field(head >> 8) < self.words.word(node + 1) => {
                    self.words.word(self.words.word(node + 2) + self.field(head >> 8))
                }
                kind::DIRECT => self.words.word(node + 3),
                kind::LEAF => {
                    let mut candidates = (0..head >> 8).map(|index| self.words.word(node + 2 + index));
                    candidates.find(|candidate| self.consider(*candidate, found));
                    self.words.word(node + 1)
                }
                _ => {
                    self.look_through(node, head, found);
                    self.words.word(node + 1)
                }
            };
        }
    }

    fn field(self, index: u64) -> u64 {
        let fields = &self.numbers.fields;
        fields.get(index as usize & 0xff).copied().unwrap_or(0).into()
    }

    /// A block.
    fn look_through(self, node: u64, head: u64, found: &mut Found) {
        let mut left = self.meet_rows(node, head);
        let listed = self.words.word(node + 2);
        for (word, left) in (0..).zip(&mut left) {
            while *left != 0 {
                let index = word * 64 + u64::from(left.trailing_zeros());
                if self.consider(self.words.word(listed + index), found) {
                    return;
                }
                *left &= *left - 1;
            }
        }
    }

    /// The filters of a block that match by all fields that have rows.
    fn meet_rows(self, node: u64, head: u64) -> [u64; BLOCK / 64] {
        let (fields, count) = (head >> 8 & 0xff, head >> 32);
        let mut left = std::array::from_fn(|word| match count.saturating_sub(64 * word as u64) {
            0 => 0,
            here => u64::MAX >> 64_u64.saturating_sub(here),
        });
        for index in 0..fields {
            let (edges, rows) =
                (self.words.word(node + 4 + 2 * index), self.words.word(node + 5 + 2 * index));
            let piece = self.words.search(Array(edges), self.field(rows >> 32));
            let row = self.words.word((rows & 0xffff_ffff) + piece);
            for (word, left) in (0..).zip(&mut left).filter(|(_, left)| **left != 0) {
                *left &= self.words.word(row + word);
            }
            if left == [0; BLOCK / 64] {
                break;
            }
        }
        left
    }

    /// Whether nothing that comes after it counts any more.
    fn consider(self, candidate: u64, found: &mut Found) -> bool {
        let (rank, group) = (rank_of(candidate), candidate >> 56);
        if rank >= found.rank {
            return true;
        }
        let rule = candidate & 0xffff_ffff;
        let counts = rank >= self.from && self.skip >> (group & 63) & 1 == 0;
        if counts && self.matches(rule) && !self.is_removed(rank) {
            *found = Found { rank, next_group: self.words.word(rule + 1) >> 32 };
            return true;
        }
        false
    }

    fn is_removed(self, rank: u64) -> bool {
        self.removed.is_some_and(|(words, ranks)| words.search(ranks, rank) & 1 == 1)
    }

    /// Every candidate is asked all that its filter asks, whatever way has led there.
    fn matches(self, rule: u64) -> bool {
        let count = self.words.word(rule) & 0xff;
        (0..count).all(|index| {
            let question = self.words.word(rule + 2 + 2 * index);
            self.holds(question & 0xff, question >> 8, self.words.word(rule + 3 + 2 * index))
        })
    }

    fn holds(self, kind: u64, about: u64, against: u64) -> bool {
        let listed = |number: u64| self.words.search(Array(against), number) & 1 == 1;
        let lineage = || self.numbers.lineages.get(about as usize).into_iter().flatten();
        match kind {
            question::RANGE => (against & 0xffff_ffff..=against >> 32).contains(&self.field(about)),
            question::LIST => listed(self.field(about)),
            question::LINEAGE => lineage().any(|number| listed((*number).into())),
            question::NO_LINEAGE => !lineage().any(|number| listed((*number).into())),
            _ => false,
        }
    }
}

const _: () = assert!(field::COUNT <= 16);
