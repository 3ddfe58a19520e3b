//! Descriptors that callers name by number.
#![expect(unsafe_code, reason = "a number is taken for a descriptor")]

use std::{
    io,
    os::fd::{BorrowedFd, RawFd},
};

/// The descriptor of that number, if it can be one. Whether it is open the
/// kernel will say.
pub(crate) fn named(number: RawFd) -> Option<BorrowedFd<'static>> {
    // SAFETY: it is used for system calls within one call of the program, whose part it is not to close it
    // meanwhile; one that is closed all the same is a wrong number, which the kernel refuses.
    (number >= 0).then(|| unsafe { BorrowedFd::borrow_raw(number) })
}

/// Closes the descriptor of that number.
pub(crate) fn close(number: RawFd) -> io::Result<()> {
    // SAFETY: the program has handed it over to be closed.
    if unsafe { libc::close(number) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
