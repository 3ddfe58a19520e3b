//! Events (`WSAEVENT`): manual-reset, each an eventfd(2).

use std::{
    collections::HashMap,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{
        Arc, LazyLock, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use rustix::event::{EventfdFlags, eventfd};

use crate::code::{Code, INVALID_HANDLE};

/// What a handle is made of: the lowest two bits of Windows' handles are the
/// program's own to use.
const STEP: usize = 4;

static EVENTS: LazyLock<Mutex<HashMap<usize, Arc<Event>>>> = LazyLock::new(Mutex::default);
/// Handles are never used again, so that one that was closed is known as such.
static NEXT: AtomicUsize = AtomicUsize::new(STEP);

#[derive(Debug)]
pub(crate) struct Event(OwnedFd);

impl Event {
    pub(crate) fn new() -> Result<Self, Code> {
        Ok(Self(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
    }

    pub(crate) fn set(&self) {
        // It can only fail where the counter is full, and so the event set.
        let _set_already = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
    }

    pub(crate) fn reset(&self) {
        // It can only fail where nothing has set it.
        let _not_set = rustix::io::read(&self.0, &mut [0; 8]);
    }
}

impl AsFd for Event {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

pub(crate) fn create() -> Result<usize, Code> {
    let event = Arc::new(Event::new()?);
    let handle = NEXT.fetch_add(STEP, Ordering::Relaxed);
    events().insert(handle, event);
    Ok(handle)
}

pub(crate) fn close(handle: usize) -> Result<(), Code> {
    events().remove(&handle).map(drop).ok_or(INVALID_HANDLE)
}

pub(crate) fn find(handle: usize) -> Result<Arc<Event>, Code> {
    events().get(&handle).cloned().ok_or(INVALID_HANDLE)
}

/// The event of a `WSAOVERLAPPED`, if it has one. The lowest bit says no more
/// than that no completion port is to be told, and there is none.
pub(crate) fn of_overlapped(handle: usize) -> Result<Option<Arc<Event>>, Code> {
    match handle & !1 {
        0 => Ok(None),
        handle => find(handle).map(Some),
    }
}

fn events() -> MutexGuard<'static, HashMap<usize, Arc<Event>>> {
    EVENTS.lock().unwrap_or_else(PoisonError::into_inner)
}
