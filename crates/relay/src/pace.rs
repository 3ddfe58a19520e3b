//! When a direction is worth a pipe.

/// Reads in a row that filled the buffer before a direction is spliced: 512 KiB, so that a pipe is made for
/// bulk and not for an answer of middling size.
const FULL_READS: u32 = 8;
/// Splices in a row that moved little before it is copied again.
const SMALL_SPLICES: u32 = 16;
/// Bytes below which one copy is cheaper than one more system call.
const SMALL: usize = 16 * 1024;

/// How a direction has been going since it last changed between copying and splicing.
#[derive(Default)]
pub(crate) struct Pace {
    full_reads: u32,
    small_splices: u32,
}

impl Pace {
    /// After a read that copied.
    pub(crate) fn copied(&mut self, filled: bool) {
        self.full_reads = if filled { self.full_reads.saturating_add(1) } else { 0 };
    }

    /// After a read that spliced.
    pub(crate) fn spliced(&mut self, count: usize) {
        self.small_splices = if count < SMALL { self.small_splices.saturating_add(1) } else { 0 };
    }

    /// Whether to splice what is copied.
    pub(crate) fn is_bulk(&self) -> bool {
        self.full_reads >= FULL_READS
    }

    /// Whether to copy what is spliced.
    pub(crate) fn has_dwindled(&self) -> bool {
        self.small_splices >= SMALL_SPLICES
    }
}
