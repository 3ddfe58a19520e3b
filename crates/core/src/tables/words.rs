//! The words that compiled filters are made of, written and read.
//!
//! Words are grouped in *chunks* of [`CHUNK`]: the kernel side looks a chunk up and reads what is in it. So whatever is read as
//! one (a node, a filter, a level of a sorted array) lies in one chunk.

use std::cmp::min;

/// Words of a chunk.
pub const CHUNK: usize = 512;

/// A sorted array in the words: where, and how many. 0 is an empty one.
///
/// Up to [`CHUNK`] numbers are in one chunk. More are in levels, each at a chunk's beginning: the last has all numbers, and each before
/// it the first numbers of the next one's chunks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Array(pub(super) u64);

impl Array {
    fn new(offset: usize, count: usize) -> Self {
        Self(offset as u64 | (count as u64) << 32)
    }

    const fn offset(self) -> usize {
        (self.0 & 0xffff_ffff) as usize
    }

    const fn count(self) -> usize {
        (self.0 >> 32) as usize
    }
}

/// Writes words.
#[derive(Debug, Default)]
pub(super) struct Writer {
    words: Vec<u64>,
}

impl Writer {
    pub(super) fn new(header: usize) -> Self {
        Self { words: vec![0; header] }
    }

    pub(super) fn len(&self) -> usize {
        self.words.len()
    }

    pub(super) fn set(&mut self, at: usize, word: u64) {
        self.words[at] = word;
    }

    /// Words that are read one by one.
    pub(super) fn append(&mut self, words: impl IntoIterator<Item = u64>) -> u64 {
        let at = self.words.len();
        self.words.extend(words);
        at as u64
    }

    /// Words that are read as one; at most a chunk of them.
    pub(super) fn place(&mut self, words: &[u64]) -> u64 {
        debug_assert!(words.len() <= CHUNK);
        if self.words.len() % CHUNK + words.len() > CHUNK {
            self.align();
        }
        self.append(words.iter().copied())
    }

    pub(super) fn array(&mut self, numbers: &[u64]) -> Array {
        if numbers.is_empty() {
            return Array::default();
        }
        if numbers.len() <= CHUNK {
            return Array::new(self.place(numbers) as usize, numbers.len());
        }
        let mut levels = vec![numbers.to_vec()];
        while levels[levels.len() - 1].len() > CHUNK {
            let below = &levels[levels.len() - 1];
            levels.push(below.iter().step_by(CHUNK).copied().collect());
        }
        self.align();
        let offset = self.len();
        for level in levels.into_iter().rev() {
            self.append(level);
            self.align();
        }
        Array::new(offset, numbers.len())
    }

    pub(super) fn finish(mut self) -> Vec<u64> {
        self.align();
        self.words
    }

    fn align(&mut self) {
        self.words.resize(self.words.len().next_multiple_of(CHUNK), 0);
    }
}

/// Reads words. What is beyond their end is 0.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'w>(pub(super) &'w [u64]);

impl Reader<'_> {
    pub(super) fn word(self, at: u64) -> u64 {
        self.0.get(at as usize).copied().unwrap_or(0)
    }

    /// How many numbers of an array are not greater than one.
    pub(super) fn search(self, array: Array, number: u64) -> u64 {
        let (mut offset, count) = (array.offset(), array.count());
        if count <= CHUNK {
            return self.count_up_to(offset, count, number) as u64;
        }
        let mut sizes = vec![count];
        while sizes[sizes.len() - 1] > CHUNK {
            sizes.push(sizes[sizes.len() - 1].div_ceil(CHUNK));
        }
        let mut at = 0;
        for (level, size) in sizes.iter().rev().enumerate() {
            let chunk = at * CHUNK;
            let here = self.count_up_to(offset + chunk, min(CHUNK, size - chunk), number);
            let is_last = level + 1 == sizes.len();
            at = chunk + if is_last { here } else { here.saturating_sub(1) };
            offset += size.next_multiple_of(CHUNK);
        }
        at as u64
    }

    fn count_up_to(self, offset: usize, count: usize, number: u64) -> usize {
        let numbers = self.0.get(offset..offset + count).unwrap_or_default();
        numbers.partition_point(|word| *word <= number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_of_every_size_are_searched() {
        for count in [0, 1, 2, 511, 512, 513, 1024, 5000, CHUNK * CHUNK, CHUNK * CHUNK + 1] {
            let numbers: Vec<u64> = (0..count as u64).map(|n| 3 * n + 2).collect();
            let mut writer = Writer::new(7);
            let array = writer.array(&numbers);
            let words = writer.finish();
            let reader = Reader(&words);
            let step = (count / 700).max(1);
            for probe in (0..3 * count as u64 + 9).step_by(step) {
                let expected = numbers.partition_point(|number| *number <= probe) as u64;
                assert_eq!(reader.search(array, probe), expected, "{probe} among {count}");
            }
        }
    }

    #[test]
    fn what_is_read_as_one_is_in_one_chunk() {
        let mut writer = Writer::new(0);
        writer.append(vec![1; CHUNK - 3]);
        assert_eq!(writer.place(&[2; 3]), CHUNK as u64 - 3);
        writer.append(vec![1; CHUNK - 3]);
        assert_eq!(writer.place(&[2; 4]), 2 * CHUNK as u64);
    }
}
