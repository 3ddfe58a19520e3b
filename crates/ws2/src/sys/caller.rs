//! Memory of whoever called: places and regions that are never dereferenced.
#![expect(unsafe_code, reason = "the caller's pointers become places it vouches for")]

use std::{fmt, marker::PhantomData, os::fd::BorrowedFd};

use waylay::{
    QueryError, SetError,
    control::{self, Query},
};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::memory::{self, Fault};

/// A pointer to a `T` that may lead nowhere.
pub(crate) struct Place<T> {
    address: usize,
    kind: PhantomData<fn() -> T>,
}

impl<T> Place<T> {
    /// # Safety
    /// If the pointer leads to memory of this process, a `T` may be read and
    /// written there, by any thread, until the call or the operation that it
    /// begins is done.
    pub(crate) unsafe fn vouched_for(pointer: *mut T) -> Self {
        Self { address: pointer.expose_provenance(), kind: PhantomData }
    }

    /// What a structure of the caller's leads to, by the same promise.
    pub(crate) fn followed(address: usize) -> Self {
        Self { address, kind: PhantomData }
    }

    pub(crate) fn is_null(self) -> bool {
        self.address == 0
    }

    pub(crate) fn is_aligned(self) -> bool {
        self.address.is_multiple_of(align_of::<T>())
    }

    pub(crate) fn address(self) -> usize {
        self.address
    }

    /// The part of it that begins so many bytes on.
    pub(crate) fn part<P>(self, offset: usize) -> Place<P> {
        Place { address: self.address.wrapping_add(offset), kind: PhantomData }
    }
}

impl Place<u8> {
    /// Copies what it begins with.
    pub(crate) fn read_bytes(self, into: &mut [u8]) -> Result<(), Fault> {
        if into.is_empty() { Ok(()) } else { memory::read(self.address, into) }
    }

    /// Overwrites what it begins with.
    pub(crate) fn write_bytes(self, bytes: &[u8]) -> Result<(), Fault> {
        if bytes.is_empty() {
            return Ok(());
        }
        // SAFETY: whoever made the place has vouched for it.
        unsafe { memory::write(self.address, bytes) }
    }
}

impl<T: FromBytes + IntoBytes + Immutable> Place<T> {
    pub(crate) fn read(self) -> Result<T, Fault> {
        let mut value = T::new_zeroed();
        memory::read(self.address, value.as_mut_bytes())?;
        Ok(value)
    }

    pub(crate) fn write(self, value: &T) -> Result<(), Fault> {
        // SAFETY: whoever made the place has vouched for it.
        unsafe { memory::write(self.address, value.as_bytes()) }
    }

    /// Whether it can be written.
    pub(crate) fn check(self) -> Result<(), Fault> {
        // SAFETY: whoever made the place has vouched for it.
        unsafe { memory::check(self.address, size_of::<T>()) }
    }
}

impl<T> Clone for Place<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Place<T> {}

impl<T> fmt::Debug for Place<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.address)
    }
}

/// A buffer that may lead nowhere.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Region {
    address: usize,
    len: usize,
}

impl Region {
    /// # Safety
    /// As [`Place::vouched_for`], of the `len` bytes there.
    pub(crate) unsafe fn vouched_for(pointer: *mut libc::c_void, len: u32) -> Self {
        Self { address: pointer.expose_provenance(), len: len as usize }
    }

    pub(crate) fn is_none(self) -> bool {
        self.address == 0 && self.len == 0
    }

    pub(crate) fn len(self) -> usize {
        self.len
    }

    /// What it begins with.
    pub(crate) fn start<T>(self) -> Place<T> {
        Place { address: self.address, kind: PhantomData }
    }

    /// Fills it with the answer to a query.
    pub(crate) fn query(self, socket: BorrowedFd<'_>, query: Query) -> Result<usize, QueryError> {
        // SAFETY: whoever made the region has vouched for it.
        unsafe { control::query(socket, query, self.address as *mut u8, self.len) }
    }

    /// Sets what it holds as records.
    pub(crate) fn set_as_records(self, socket: BorrowedFd<'_>) -> Result<(), SetError> {
        // SAFETY: whoever made the region has vouched for it.
        unsafe { control::set_records(socket, self.address as *const u8, self.len) }
    }
}
