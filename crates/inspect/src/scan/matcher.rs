//! Patterns in a stream that comes in pieces.
//!
//! An Aho-Corasick automaton is stepped byte by byte, and its state, one number, is kept between the pieces:
//! what was seen is not, so a pattern may be spread over any number of them, and memory does not grow with
//! the stream.

use aho_corasick::{
    Anchored,
    automaton::{Automaton, StateID},
    nfa::contiguous::NFA,
};
use thiserror::Error;

use super::Patterns;

/// An automaton that finds patterns; all connections of a service share one.
///
/// # Example
///
/// ```
/// use waylay_inspect::scan::{Matcher, Patterns};
///
/// let matcher = Matcher::new(&Patterns::new([b"secret".to_vec()])?)?;
/// let mut stream = matcher.start();
/// assert_eq!(matcher.feed(&mut stream, b"top sec"), None);
/// assert_eq!(matcher.feed(&mut stream, b"ret"), Some(0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Matcher {
    automaton: NFA,
    start: StateID,
}

/// How far a stream has been looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    state: StateID,
    found: Option<usize>,
}

/// No automaton can be built of the patterns.
#[derive(Debug, Error)]
#[error("cannot look for these patterns")]
pub struct MatcherError(#[source] Box<dyn std::error::Error + Send + Sync>);

impl Matcher {
    /// An automaton for those patterns.
    ///
    /// # Errors
    ///
    /// [`MatcherError`] if it would have more states than can be numbered, which the limits of [`Patterns`]
    /// keep away.
    pub fn new(patterns: &Patterns) -> Result<Self, MatcherError> {
        let automaton = NFA::new(patterns.iter()).map_err(|error| MatcherError(error.into()))?;
        let start = automaton.start_state(Anchored::No).map_err(|error| MatcherError(error.into()))?;
        Ok(Self { automaton, start })
    }

    /// Where every stream starts.
    #[must_use]
    pub fn start(&self) -> Position {
        Position { state: self.start, found: None }
    }

    /// Looks at the next bytes of a stream. Returns the number of the pattern that ends first, from the bytes
    /// in which it ends on; where several end at once, that of the longest.
    pub fn feed(&self, position: &mut Position, bytes: &[u8]) -> Option<usize> {
        if position.found.is_none() {
            position.found = self.step(&mut position.state, bytes);
        }
        position.found
    }

    fn step(&self, state: &mut StateID, bytes: &[u8]) -> Option<usize> {
        for byte in bytes {
            *state = self.automaton.next_state(Anchored::No, *state, *byte);
            if self.automaton.is_special(*state) && self.automaton.is_match(*state) {
                return Some(self.automaton.match_pattern(*state, 0).as_usize());
            }
        }
        None
    }
}
