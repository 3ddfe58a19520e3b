//! Threads as far as completion routines concern them: a queue each, which its
//! thread works off when it waits alertably.

use std::{
    cell::Cell,
    collections::{HashMap, VecDeque},
    sync::{
        Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering},
    },
};

use crate::{
    abi::Overlapped,
    code::{Code, INVALID},
    event::Event,
    outcome::Outcome,
    sys::{caller::Place, routine::Routine},
};

/// A completion routine that is due.
#[derive(Debug)]
pub(crate) struct Due {
    pub(crate) routine: Routine,
    pub(crate) outcome: Outcome,
    pub(crate) operation: Place<Overlapped>,
}

#[derive(Debug)]
pub(crate) struct Thread {
    id: usize,
    due: Mutex<VecDeque<Due>>,
    /// Set as long as a routine is due.
    signal: Event,
}

static THREADS: LazyLock<Mutex<HashMap<usize, Weak<Thread>>>> = LazyLock::new(Mutex::default);
static NEXT: AtomicUsize = AtomicUsize::new(4);

thread_local! {
    static CURRENT: Registration = Registration::new();
    /// Completion routines that are running.
    static DEPTH: Cell<usize> = const { Cell::new(0) };
}

/// A thread's own part of it.
struct Registration(Result<Arc<Thread>, Code>);

impl Registration {
    fn new() -> Self {
        Self(Event::new().map(|signal| {
            let id = NEXT.fetch_add(4, Ordering::Relaxed);
            let thread = Arc::new(Thread { id, due: Mutex::default(), signal });
            threads().insert(id, Arc::downgrade(&thread));
            thread
        }))
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        if let Ok(thread) = &self.0 {
            threads().remove(&thread.id);
        }
    }
}

impl Thread {
    /// The calling one.
    pub(crate) fn current() -> Result<Arc<Self>, Code> {
        CURRENT.try_with(|registration| registration.0.clone()).map_err(|_thread_ends| INVALID)?
    }

    /// The one of a `WSATHREADID`.
    pub(crate) fn named(handle: usize) -> Result<Arc<Self>, Code> {
        threads().get(&handle).and_then(Weak::upgrade).ok_or(INVALID)
    }

    pub(crate) fn id(&self) -> usize {
        self.id
    }

    pub(crate) fn signal(&self) -> &Event {
        &self.signal
    }

    pub(crate) fn queue(&self, due: Due) {
        self.lock().push_back(due);
        self.signal.set();
    }

    /// Runs what is due, on the thread itself; whether there was anything.
    pub(crate) fn run_due(&self) -> bool {
        let mut any = false;
        while let Some(due) = self.next_due() {
            DEPTH.set(DEPTH.get() + 1);
            due.routine.call(due.outcome, due.operation);
            DEPTH.set(DEPTH.get() - 1);
            any = true;
        }
        any
    }

    fn next_due(&self) -> Option<Due> {
        let mut queue = self.lock();
        let due = queue.pop_front();
        if queue.is_empty() {
            self.signal.reset();
        }
        due
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Due>> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the calling thread runs a completion routine.
pub(crate) fn in_routine() -> bool {
    DEPTH.get() > 0
}

fn threads() -> MutexGuard<'static, HashMap<usize, Weak<Thread>>> {
    THREADS.lock().unwrap_or_else(PoisonError::into_inner)
}
