//! However a stream is cut, the same pattern is found in it, from the same byte on.

#![expect(clippy::unwrap_used, reason = "a failed set-up is a failed test")]

use proptest::prelude::*;
use waylay_inspect::scan::{Matcher, Patterns};

fn matcher(patterns: &[Vec<u8>]) -> Matcher {
    Matcher::new(&Patterns::new(patterns.to_vec()).unwrap()).unwrap()
}

/// The definition: the pattern that ends first, where several do the longest; and where it ends.
fn by_definition(patterns: &[Vec<u8>], stream: &[u8]) -> Option<(usize, usize)> {
    (1..=stream.len()).find_map(|end| {
        let ending = |index: &usize| stream[..end].ends_with(&patterns[*index]);
        (0..patterns.len())
            .filter(ending)
            .max_by_key(|index| patterns[*index].len())
            .map(|index| (index, end))
    })
}

/// The number of the pattern and that of the chunk in which it ends.
fn in_chunks(matcher: &Matcher, chunks: &[&[u8]]) -> Option<(usize, usize)> {
    let mut position = matcher.start();
    let mut found = chunks
        .iter()
        .enumerate()
        .filter_map(|(number, chunk)| matcher.feed(&mut position, chunk).map(|pattern| (pattern, number)));
    found.next()
}

fn cut<'s>(stream: &'s [u8], cuts: &[usize]) -> Vec<&'s [u8]> {
    let mut ends: Vec<usize> = cuts.iter().map(|cut| cut % (stream.len() + 1)).collect();
    ends.extend([0, stream.len()]);
    ends.sort_unstable();
    ends.windows(2).map(|pair| &stream[pair[0]..pair[1]]).collect()
}

/// Few different bytes, so that patterns overlap, contain and repeat each other.
fn bytes(length: impl Into<prop::collection::SizeRange>) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop::sample::select(vec![b'a', b'b', 0, 0xff]), length)
}

fn pattern_list() -> impl Strategy<Value = Vec<Vec<u8>>> {
    prop::collection::btree_set(bytes(1..7), 1..6).prop_map(|set| set.into_iter().collect())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn how_a_stream_is_cut_does_not_matter(
        patterns in pattern_list(),
        stream in bytes(0..60),
        cuts in prop::collection::vec(0_usize..61, 0..12),
    ) {
        let chunks = cut(&stream, &cuts);
        let ends: Vec<usize> = chunks
            .iter()
            .scan(0, |end, chunk| { *end += chunk.len(); Some(*end) })
            .collect();
        let wanted = by_definition(&patterns, &stream)
            .map(|(pattern, end)| (pattern, ends.iter().position(|chunk_end| *chunk_end >= end).unwrap()));
        prop_assert_eq!(in_chunks(&matcher(&patterns), &chunks), wanted);
    }

    #[test]
    fn no_stream_is_too_strange(
        patterns in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..20), 1..20),
        chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..10),
    ) {
        let patterns = Patterns::new(patterns).unwrap();
        let matcher = Matcher::new(&patterns).unwrap();
        let mut position = matcher.start();
        for chunk in &chunks {
            let found = matcher.feed(&mut position, chunk);
            prop_assert!(found.is_none_or(|pattern| pattern < patterns.iter().count()));
        }
    }

    #[test]
    fn lists_of_patterns_survive_the_way_to_the_process(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        // Whatever arrives is understood or refused.
        if let Ok(patterns) = Patterns::decode(&bytes) {
            prop_assert_eq!(Patterns::decode(&patterns.encode()), Ok(patterns));
        }
    }
}

#[test]
fn a_pattern_over_any_number_of_chunks_is_found_in_the_last() {
    let pattern = b"a pattern of thirty-two letters.".to_vec();
    let matcher = matcher(std::slice::from_ref(&pattern));
    let stream = [b"before it ".as_slice(), &pattern].concat();
    for size in 1..=stream.len() {
        let chunks: Vec<&[u8]> = stream.chunks(size).collect();
        assert_eq!(in_chunks(&matcher, &chunks), Some((0, chunks.len() - 1)), "in chunks of {size}");
        let without_the_end: Vec<&[u8]> = stream[..stream.len() - 1].chunks(size).collect();
        assert_eq!(in_chunks(&matcher, &without_the_end), None, "in chunks of {size}");
    }
}

#[test]
fn a_false_start_does_not_hide_what_starts_inside_of_it() {
    let matcher = matcher(&[b"aab".to_vec(), b"abcd".to_vec()]);
    assert_eq!(in_chunks(&matcher, &[b"aa", b"a", b"a", b"b"]), Some((0, 3)));
    assert_eq!(in_chunks(&matcher, &[b"abca", b"bc", b"d"]), Some((1, 2)));
}

#[test]
fn what_has_been_found_stays_found() {
    let matcher = matcher(&[b"one".to_vec(), b"two".to_vec()]);
    let mut position = matcher.start();
    assert_eq!(matcher.feed(&mut position, b"two one"), Some(1));
    assert_eq!(matcher.feed(&mut position, b"one"), Some(1));
}

#[test]
fn streams_do_not_see_each_others_bytes() {
    let matcher = matcher(&[b"split".to_vec()]);
    let (mut one, mut other) = (matcher.start(), matcher.start());
    assert_eq!(matcher.feed(&mut one, b"spl"), None);
    assert_eq!(matcher.feed(&mut other, b"it"), None);
    assert_eq!(matcher.feed(&mut one, b"it"), Some(0));
}

/// A mebibyte of patterns that share nothing but their first bytes.
#[test]
fn as_many_patterns_as_are_allowed_can_be_looked_for() {
    const LENGTH: usize = 1024;
    let pattern = |seed: usize| -> Vec<u8> {
        let mut state = seed as u32 | 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state as u8
        };
        (0..LENGTH).map(|_| next()).collect()
    };
    let patterns: Vec<Vec<u8>> = (1..=Patterns::MOST_BYTES / LENGTH).map(|seed| pattern(2 * seed)).collect();
    let matcher = matcher(&patterns);
    let stream = [vec![7; 100_000], patterns[777].clone()].concat();
    let chunks: Vec<&[u8]> = stream.chunks(1000).collect();
    assert_eq!(in_chunks(&matcher, &chunks), Some((777, chunks.len() - 1)));
}
