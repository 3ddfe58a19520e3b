//! What is looked for.

use std::hint::black_box;

use thiserror::Error;

/// The test string by which virus scanners are tried, backwards.
///
/// As it is it must not occur in this repository nor in the binary made of it: scanners would take both for
/// infected, as the string asks them to.
const EICAR_BACKWARDS: &[u8] = br"*H+H$!ELIF-TSET-SURIVITNA-DRADNATS-RACIE$}7)CC7)^P(45XZP\4[PA@%P!O5X";
/// What reports call it, for the same reason.
const EICAR_NAME: &str = "EICAR test string";
/// Characters of a pattern that reports show at most.
const NAME_CHARS: usize = 64;

/// Byte strings to look for: at least one, none of them empty, each once.
///
/// # Example
///
/// ```
/// use waylay_inspect::scan::Patterns;
///
/// let patterns = Patterns::new([b"BEGIN PRIVATE KEY".to_vec(), vec![0xff, b'!']])?;
/// assert_eq!(patterns.name(0), "BEGIN PRIVATE KEY");
/// assert_eq!(patterns.name(1), r"\xff!");
/// # Ok::<(), waylay_inspect::scan::PatternError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Patterns {
    list: Vec<Vec<u8>>,
}

/// Why these are no patterns to look for.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PatternError {
    /// There is none.
    #[error("no pattern to look for")]
    None,
    /// One is empty; it would match everything.
    #[error("an empty pattern matches everything")]
    Empty,
    /// One is longer than [`Patterns::LONGEST`].
    #[error("a pattern of {length} bytes is too long: at most {} are possible", Patterns::LONGEST)]
    TooLong {
        /// Its length.
        length: usize,
    },
    /// Together they are longer than [`Patterns::MOST_BYTES`].
    #[error("patterns of {total} bytes in all are too many: at most {} are possible", Patterns::MOST_BYTES)]
    TooMany {
        /// Their lengths together.
        total: usize,
    },
    /// These bytes were not written by [`Patterns::encode`].
    #[error("not a list of patterns")]
    Malformed,
}

impl Patterns {
    /// Bytes of one pattern at most.
    pub const LONGEST: usize = 64 * 1024;
    /// Bytes of all patterns at most. What is built of them takes about a hundred times as much memory, where
    /// they have little in common: 93 MB for as many patterns of 8 bytes as fit, three times that while it is
    /// built.
    pub const MOST_BYTES: usize = 1024 * 1024;

    /// Those patterns, each once, in the order given.
    ///
    /// # Errors
    ///
    /// [`PatternError`] names the one that cannot be looked for.
    pub fn new(patterns: impl IntoIterator<Item = Vec<u8>>) -> Result<Self, PatternError> {
        let mut list: Vec<Vec<u8>> = Vec::new();
        let mut known = std::collections::BTreeSet::new();
        for pattern in patterns {
            match pattern.len() {
                0 => return Err(PatternError::Empty),
                length if length > Self::LONGEST => return Err(PatternError::TooLong { length }),
                _ => {}
            }
            if known.insert(pattern.clone()) {
                list.push(pattern);
            }
        }
        let total = list.iter().map(Vec::len).sum();
        match list.is_empty() {
            true => Err(PatternError::None),
            false if total > Self::MOST_BYTES => Err(PatternError::TooMany { total }),
            false => Ok(Self { list }),
        }
    }

    /// The EICAR test string: harmless, and what every virus scanner is tried with
    /// (<https://www.eicar.org/download-anti-malware-testfile/>).
    #[must_use]
    pub fn eicar() -> Self {
        Self { list: vec![eicar()] }
    }

    /// The patterns, in order.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.list.iter().map(Vec::as_slice)
    }

    /// What reports call pattern number `index`: its text, shortened; bytes that are no text as `\xNN`.
    #[must_use]
    pub fn name(&self, index: usize) -> String {
        let Some(pattern) = self.list.get(index) else { return String::new() };
        if *pattern == eicar() {
            return EICAR_NAME.to_owned();
        }
        shortened(&text(pattern))
    }

    /// The patterns as bytes, for the process that looks for them.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = number(self.list.len()).to_vec();
        for pattern in &self.list {
            bytes.extend_from_slice(&number(pattern.len()));
            bytes.extend_from_slice(pattern);
        }
        bytes
    }

    /// Reads what [`Patterns::encode`] wrote.
    ///
    /// # Errors
    ///
    /// [`PatternError`]; [`PatternError::Malformed`] for other bytes.
    pub fn decode(mut bytes: &[u8]) -> Result<Self, PatternError> {
        let count = take_number(&mut bytes)?;
        let mut patterns = Vec::new();
        for _ in 0..count {
            let length = take_number(&mut bytes)?;
            let (pattern, rest) = bytes.split_at_checked(length).ok_or(PatternError::Malformed)?;
            patterns.push(pattern.to_vec());
            bytes = rest;
        }
        // Fewer than there were must not be taken for all.
        if bytes.is_empty() { Self::new(patterns) } else { Err(PatternError::Malformed) }
    }
}

fn number(length: usize) -> [u8; 4] {
    u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes()
}

fn take_number(bytes: &mut &[u8]) -> Result<usize, PatternError> {
    let (number, rest) = bytes.split_first_chunk::<4>().ok_or(PatternError::Malformed)?;
    *bytes = rest;
    Ok(u32::from_be_bytes(*number) as usize)
}

/// Turned round in a way that the compiler cannot do beforehand.
fn eicar() -> Vec<u8> {
    black_box(EICAR_BACKWARDS).iter().rev().copied().collect()
}

fn text(pattern: &[u8]) -> String {
    let mut text = String::new();
    for chunk in pattern.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}")));
    }
    text
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(NAME_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_test_string_is_the_one_scanners_know() {
        let eicar = eicar();
        assert_eq!(eicar.len(), 68);
        assert!(eicar.starts_with(b"X5O!P%@AP") && eicar.ends_with(b"TEST-FILE!$H+H*"));
        assert_eq!(Patterns::eicar().name(0), "EICAR test string");
    }

    #[test]
    fn names_are_short_and_show_every_byte() {
        let patterns = Patterns::new([b"caf\xc3\xa9 \xff\x00".to_vec(), vec![b'a'; 1000]]).unwrap();
        assert_eq!(patterns.name(0), "café \\xff\0");
        assert_eq!(patterns.name(1), format!("{}…", "a".repeat(64)));
        assert_eq!(patterns.name(2), "");
    }

    #[test]
    fn what_cannot_be_looked_for_is_refused() {
        let new = |lengths: &[usize]| Patterns::new(lengths.iter().map(|length| vec![b'a'; *length]));
        assert_eq!(new(&[]), Err(PatternError::None));
        assert_eq!(new(&[3, 0]), Err(PatternError::Empty));
        assert_eq!(new(&[65_537]), Err(PatternError::TooLong { length: 65_537 }));
        assert_eq!(new(&[65_536]).unwrap().iter().count(), 1);
        let many: Vec<usize> = (65_500..65_520).collect();
        assert_eq!(new(&many), Err(PatternError::TooMany { total: many.iter().sum() }));
        assert_eq!(new(&[3, 3, 3]).unwrap().iter().count(), 1, "the same one");
    }

    #[test]
    fn they_are_read_back_and_nothing_else_is() {
        let patterns = Patterns::new([b"one\n".to_vec(), vec![0, 255], vec![7; 60_000]]).unwrap();
        assert_eq!(Patterns::decode(&patterns.encode()), Ok(patterns.clone()));
        let bytes = patterns.encode();
        assert_eq!(Patterns::decode(&bytes[..bytes.len() - 1]), Err(PatternError::Malformed));
        assert_eq!(Patterns::decode(&[]), Err(PatternError::Malformed));
        assert_eq!(Patterns::decode(&number(0)), Err(PatternError::None));
        assert_eq!(Patterns::decode(&[number(1), number(0)].concat()), Err(PatternError::Empty));
        assert_eq!(Patterns::decode(&[patterns.encode(), vec![0]].concat()), Err(PatternError::Malformed));
    }
}
