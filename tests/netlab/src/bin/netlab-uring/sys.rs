//! Entries of a ring, whose pointers the kernel follows.
#![expect(unsafe_code, reason = "an entry's pointers have to be good until it is done")]

use io_uring::{IoUring, squeue::Entry};

/// Puts an entry in the ring.
pub(crate) fn push(ring: &mut IoUring, entry: &Entry) {
    // SAFETY: the caller waits until the entry is done, and what it points to is on its stack until then.
    unsafe { ring.submission().push(entry) }.expect("the ring is empty");
}
