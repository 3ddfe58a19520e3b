//! When a direction is worth a pipe.

/// Bytes of reads in a row none of which was small before a direction is spliced: 512 KiB, so that a pipe is made
/// for bulk and not for an answer of middling size. They need not fill the buffer: a window that is drained at a
/// go ends with a read that does not.
const BULK: usize = 512 * 1024;
/// Splices in a row that moved little before it is copied again.
const SMALL_SPLICES: u32 = 16;
/// Bytes below which one copy is cheaper than one more system call.
const SMALL: usize = 16 * 1024;

/// How a direction has been going since it last changed between copying and splicing.
#[derive(Default)]
pub(crate) struct Pace {
    copied: usize,
    small_splices: u32,
}

impl Pace {
    /// After a read that copied.
    pub(crate) fn copied(&mut self, count: usize) {
        self.copied = if count < SMALL { 0 } else { self.copied.saturating_add(count) };
    }

    /// After a read that spliced.
    pub(crate) fn spliced(&mut self, count: usize) {
        self.small_splices = if count < SMALL { self.small_splices.saturating_add(1) } else { 0 };
    }

    /// Whether to splice what is copied.
    pub(crate) fn is_bulk(&self) -> bool {
        self.copied >= BULK
    }

    /// Whether to copy what is spliced.
    pub(crate) fn has_dwindled(&self) -> bool {
        self.small_splices >= SMALL_SPLICES
    }
}
