//! A list of patterns as it comes through a pipe, and a stream in which they are looked for. The input is the
//! length of the list in units of four bytes, the size of the pieces, the list, and the stream.

use waylay_inspect::scan::{Matcher, Patterns};

/// Characters of a name at most, the sign that it was cut included.
const LONGEST_NAME: usize = 65;

/// Whatever is understood survives the way back, and is found exactly where it is.
pub(crate) fn check(bytes: &[u8]) {
    let &[length, piece, ref rest @ ..] = bytes else { return };
    let (list, stream) = rest.split_at(rest.len().min(usize::from(length) * 4));
    let Ok(patterns) = Patterns::decode(list) else { return };
    assert_eq!(Patterns::decode(&patterns.encode()).as_ref(), Ok(&patterns));
    let all: Vec<&[u8]> = patterns.iter().collect();
    assert!(all.iter().all(|pattern| !pattern.is_empty()));
    let Ok(matcher) = Matcher::new(&patterns) else { panic!("no automaton for {patterns:?}") };
    let found = found(&matcher, stream, usize::from(piece).max(1));
    assert_eq!(found, by_definition(&all, stream, usize::from(piece).max(1)));
    assert!((0..=all.len()).all(|index| patterns.name(index).chars().count() <= LONGEST_NAME));
}

/// The pattern, and the piece it ends in.
fn found(matcher: &Matcher, stream: &[u8], piece: usize) -> Option<(usize, usize)> {
    let mut position = matcher.start();
    let mut pieces = stream.chunks(piece).enumerate();
    pieces.find_map(|(number, bytes)| matcher.feed(&mut position, bytes).map(|pattern| (pattern, number)))
}

/// The one that ends first, and of several the longest.
fn by_definition(patterns: &[&[u8]], stream: &[u8], piece: usize) -> Option<(usize, usize)> {
    (1..=stream.len()).find_map(|end| {
        let ending = (0..patterns.len()).filter(|index| stream[..end].ends_with(patterns[*index]));
        ending.max_by_key(|index| patterns[*index].len()).map(|index| (index, (end - 1) / piece))
    })
}
