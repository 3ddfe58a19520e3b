//! Who watches the bytes, and may end the connection.

use crate::Direction;

/// Bytes that are read, and shown to the observer, at once: 64 KiB at most.
pub const BUFFER_BYTES: usize = 64 * 1024;

/// What becomes of the connection after a chunk was observed.
///
/// # Example
///
/// ```
/// use waylay_relay::Verdict;
///
/// let suspicious = b"EICAR".starts_with(b"EI");
/// let verdict = if suspicious { Verdict::Stop } else { Verdict::Forward };
/// assert_eq!(verdict, Verdict::Stop);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Forward the chunk and go on.
    Forward,
    /// Don't forward the chunk; reset both sides.
    Stop,
}

/// Sees the bytes of a connection before they are forwarded: all of them, unless it
/// [looks](Self::looks) away.
///
/// `()` observes nothing; every `FnMut(Direction, &[u8]) -> Verdict` is an observer. A panic resets both
/// sides.
///
/// # Example
///
/// ```
/// use waylay_relay::{Direction, Observer, Verdict};
///
/// struct Limit(usize);
///
/// impl Observer for Limit {
///     fn bytes(&mut self, _: Direction, bytes: &[u8]) -> Verdict {
///         self.0 = self.0.saturating_sub(bytes.len());
///         if self.0 == 0 { Verdict::Stop } else { Verdict::Forward }
///     }
/// }
///
/// assert_eq!(Limit(3).bytes(Direction::ToDestination, b"four"), Verdict::Stop);
/// assert_eq!(().bytes(Direction::ToDestination, b"four"), Verdict::Forward);
/// ```
pub trait Observer {
    /// Called once for each chunk, in the order of the stream, before any byte of it is forwarded.
    ///
    /// Chunks are never empty and at most [`BUFFER_BYTES`](crate::BUFFER_BYTES) long; where they are cut
    /// means nothing.
    fn bytes(&mut self, direction: Direction, bytes: &[u8]) -> Verdict;

    /// Whether it wants to see what comes next in a direction: yes, unless it says otherwise.
    ///
    /// Asked before each chunk. Bytes that nobody looks at need not be copied, which saves a
    /// large transfer about a third of the relay's processor time; how many pass unseen before it is asked again means nothing.
    fn looks(&self, direction: Direction) -> bool {
        let _the_same_for_both = direction;
        true
    }
}

impl Observer for () {
    fn looks(&self, _: Direction) -> bool {
        false
    }

    fn bytes(&mut self, _: Direction, _: &[u8]) -> Verdict {
        Verdict::Forward
    }
}

impl<F: FnMut(Direction, &[u8]) -> Verdict> Observer for F {
    fn bytes(&mut self, direction: Direction, bytes: &[u8]) -> Verdict {
        self(direction, bytes)
    }
}
