//! The calls themselves, with pointers that the kernel checks.
#![expect(unsafe_code, reason = "pointers that somebody else vouches for")]

use std::{io, os::fd::BorrowedFd};

use waylay_abi as abi;

use super::super::{options::explain, query::Query, sys};
use crate::error::{QueryError, SetError};

/// Asks a socket, and leaves the answer in `len` bytes at `answer`; how many it has.
///
/// The pointer may lead nowhere: that is an error, as is a buffer that is too
/// short, an empty one included. [`QueryError::ShortBuffer`] tells the size. Of
/// a longer one no more is used than the answer takes.
///
/// # Errors
/// See [`QueryError`].
///
/// # Safety
/// If the `len` bytes at `answer` are memory of this process at all, nothing
/// else uses them during the call.
pub unsafe fn query(
    socket: BorrowedFd<'_>,
    query: Query,
    answer: *mut u8,
    len: usize,
) -> Result<usize, QueryError> {
    if answer.is_null() && len > 0 {
        return Err(QueryError::Fault);
    }
    let (level, option, len) = (abi::SOL_WAYLAY, query.option(), len.min(query.size()));
    let answered = if len == 0 {
        sys::option_size(socket, level, option)
            .and_then(|_size| Err(io::Error::from_raw_os_error(libc::ENOBUFS)))
    } else {
        // SAFETY: what is asked of the caller; the kernel sees to it that this process may write there.
        unsafe { sys::get_option_at(socket, level, option, answer, len) }
    };
    query.checked(answered.map_err(|error| explain(socket, option, error)))
}

/// Sets the `len` bytes at `records` on a socket that will connect on. The
/// pointer may lead nowhere: that is an error.
///
/// # Errors
/// See [`SetError`].
///
/// # Safety
/// If the `len` bytes at `records` are memory of this process at all, nothing
/// changes them during the call.
pub unsafe fn set_records(socket: BorrowedFd<'_>, records: *const u8, len: usize) -> Result<(), SetError> {
    // One byte too many is as wrong as many are, and less is read of what may not be there.
    let len = len.min(size_of::<abi::Handle>() + 1);
    // SAFETY: what is asked of the caller; the kernel sees to it that this process may read there.
    unsafe { sys::set_option_at(socket, abi::SOL_WAYLAY, abi::SET_RECORDS, records, len) }?;
    Ok(())
}
