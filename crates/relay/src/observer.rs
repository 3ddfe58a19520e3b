//! Who watches the bytes, and may end the connection.

use crate::Direction;

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

/// Sees every byte of a connection before it is forwarded.
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
}

impl Observer for () {
    fn bytes(&mut self, _: Direction, _: &[u8]) -> Verdict {
        Verdict::Forward
    }
}

impl<F: FnMut(Direction, &[u8]) -> Verdict> Observer for F {
    fn bytes(&mut self, direction: Direction, bytes: &[u8]) -> Verdict {
        self(direction, bytes)
    }
}
