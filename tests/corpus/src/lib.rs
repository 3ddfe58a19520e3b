//! Gives bytes of strangers to what decodes them: those that fuzzing found worth keeping (`fuzz/corpus`), the
//! same with a few bytes changed, and random ones.
//!
//! It knows nothing of what the bytes mean: each decoder has its checks in a module `strange` beside it, which
//! the targets in `fuzz` call as well.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
};

/// Inputs of a corpus below which it must have been lost.
const FEWEST: usize = 10;
/// Inputs made of each that is kept, and as many again at random in all as would be for so many files.
const CHANGED: usize = 8;
const RANDOM: usize = 300;
/// Bytes of a random input at most.
const LONGEST: u64 = 600;

/// Calls `check` with the inputs of the target of that name. They are the same each time.
///
/// # Panics
/// If `check` does; the input is printed then. If the corpus is not there.
pub fn replay(target: &str, check: impl Fn(&[u8])) {
    let give = |origin: &str, bytes: &[u8]| {
        let given = Given { origin, bytes };
        check(given.bytes);
    };
    let kept = corpus(target);
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for (path, bytes) in &kept {
        give(&path.display().to_string(), bytes);
        for _ in 0..CHANGED {
            give(&format!("{}, changed", path.display()), &random.change(bytes));
        }
    }
    for _ in 0..RANDOM {
        give("at random", &random.bytes());
    }
}

fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    let entries = fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("a readable entry").path()).collect();
    paths.sort();
    assert!(paths.len() >= FEWEST, "where has {} gone?", directory.display());
    paths
        .into_iter()
        .map(|path| {
            let bytes = fs::read(&path).expect("a readable file");
            (path, bytes)
        })
        .collect()
}

/// Printed if the check ends in a panic.
struct Given<'a> {
    origin: &'a str,
    bytes: &'a [u8],
}

impl Drop for Given<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("the input ({}): b\"{}\"", self.origin, self.bytes.escape_ascii());
        }
    }
}

/// Xorshift (Marsaglia 2003).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound.max(1)
    }

    fn index(&mut self, length: usize) -> usize {
        self.below(length as u64) as usize
    }

    fn bytes(&mut self) -> Vec<u8> {
        let length = self.below(LONGEST);
        (0..length).map(|_| self.below(256) as u8).collect()
    }

    fn change(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        for _ in 0..=self.below(4) {
            let at = self.index(bytes.len() + 1);
            match self.below(4) {
                0 => bytes.truncate(at),
                1 => bytes.insert(at, self.below(256) as u8),
                2 => bytes.extend_from_within(at..),
                _ => {
                    if let Some(byte) = bytes.get_mut(at) {
                        *byte ^= 1 << self.below(8);
                    }
                }
            }
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn every_input_is_given_and_more_are_made_of_it() {
        let given = Cell::new(0);
        replay("arguments", |_| given.set(given.get() + 1));
        assert_eq!(given.get(), corpus("arguments").len() * (1 + CHANGED) + RANDOM);
    }
}
