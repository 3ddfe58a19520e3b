//! Operations that wait until their socket's connection is established, and
//! the thread that finishes them.

use std::{
    collections::HashMap,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
    sync::{
        Arc, Condvar, LazyLock, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use rustix::{
    buffer::spare_capacity,
    event::{PollFd, PollFlags, epoll, poll},
    io::fcntl_dupfd_cloexec,
};

use crate::{
    abi::Overlapped,
    code::{ABORTED, Code, INTERRUPTED, INVALID},
    completion::Completion,
    event::Event,
    outcome::Outcome,
    question::Question,
    sys::{caller::Place, signals},
    thread::Thread,
};

/// An operation that waits.
#[derive(Debug)]
pub(crate) struct Operation {
    socket: RawFd,
    issuer: usize,
    /// The same connection, so that it stays one whatever becomes of the number.
    connection: OwnedFd,
    task: Task,
}

#[derive(Debug)]
enum Task {
    /// To ask again, and to say so.
    Finish(Question, Completion),
    /// Somebody waits inside a call.
    Wake(Arc<Waiter>),
}

#[derive(Debug)]
struct Waiter {
    event: Event,
    aborted: AtomicBool,
}

impl Operation {
    pub(crate) fn socket(&self) -> RawFd {
        self.socket
    }

    fn is_at(&self, place: Place<Overlapped>) -> bool {
        match &self.task {
            Task::Finish(_, completion) => completion.operation().address() == place.address(),
            Task::Wake(_) => false,
        }
    }

    fn abort(self) {
        match self.task {
            Task::Finish(_, completion) => completion.finish(Outcome { code: Some(ABORTED), bytes: 0 }),
            Task::Wake(waiter) => {
                waiter.aborted.store(true, Ordering::Release);
                waiter.event.set();
            }
        }
    }
}

/// The end of a thread ends what it began.
struct Issuer(Result<usize, Code>);

thread_local! {
    static ISSUER: Issuer = Issuer(Thread::current().map(|thread| thread.id()));
}

impl Issuer {
    fn current() -> Result<usize, Code> {
        ISSUER.try_with(|issuer| issuer.0).map_err(|_thread_ends| INVALID)?
    }
}

impl Drop for Issuer {
    fn drop(&mut self) {
        if let Ok(id) = self.0 {
            abort(|operation| operation.issuer == id);
        }
    }
}

#[derive(Debug, Default)]
struct Table {
    operations: HashMap<u64, Operation>,
    next: u64,
}

static TABLE: LazyLock<Mutex<Table>> = LazyLock::new(Mutex::default);
/// Some operation is done.
static DONE: Condvar = Condvar::new();

impl Table {
    /// Watches a connection for an operation of the number that is returned.
    fn watch(&mut self, connection: &OwnedFd) -> Result<u64, Code> {
        let id = self.next;
        self.next += 1;
        let flags = epoll::EventFlags::OUT | epoll::EventFlags::ONESHOT;
        epoll::add(poller()?, connection, epoll::EventData::new_u64(id), flags)?;
        Ok(id)
    }

    fn take(&mut self, id: u64) -> Option<Operation> {
        let operation = self.operations.remove(&id)?;
        unwatch(&operation.connection);
        Some(operation)
    }

    fn take_all(&mut self, which: impl Fn(&Operation) -> bool) -> Vec<Operation> {
        let ids: Vec<u64> =
            self.operations.iter().filter(|(_, operation)| which(operation)).map(|(id, _)| *id).collect();
        ids.into_iter().filter_map(|id| self.take(id)).collect()
    }
}

/// Closing its descriptor is not enough as long as the socket has another.
fn unwatch(connection: &OwnedFd) {
    if let Ok(poller) = poller() {
        let _not_there = epoll::delete(poller, connection);
    }
}

/// Leaves the question to be answered once the connection is there.
pub(crate) fn leave(socket: BorrowedFd<'_>, question: Question, completion: Completion) -> Result<(), Code> {
    let issuer = Issuer::current()?;
    let (number, connection) = (socket.as_raw_fd(), fcntl_dupfd_cloexec(socket, 0)?);
    let mut table = lock();
    if table.operations.values().any(|operation| operation.is_at(completion.operation())) {
        return Err(INVALID);
    }
    // The structure and its event are left alone if nothing begins.
    let id = table.watch(&connection)?;
    if let Err(code) = completion.begin() {
        unwatch(&connection);
        return Err(code);
    }
    let task = Task::Finish(question, completion);
    table.operations.insert(id, Operation { socket: number, issuer, connection, task });
    Ok(())
}

/// Waits in this call until the connection is there, or will not be.
pub(crate) fn wait_for_connection(socket: BorrowedFd<'_>) -> Result<(), Code> {
    let waiter = Arc::new(Waiter { event: Event::new()?, aborted: AtomicBool::new(false) });
    let (number, connection) = (socket.as_raw_fd(), fcntl_dupfd_cloexec(socket, 0)?);
    let issuer = Issuer::current()?;
    let mut table = lock();
    let id = table.watch(&connection)?;
    let task = Task::Wake(Arc::clone(&waiter));
    table.operations.insert(id, Operation { socket: number, issuer, connection, task });
    drop(table);
    let waited = poll(&mut [PollFd::new(&waiter.event, PollFlags::IN)], None);
    drop(lock().take(id));
    if waiter.aborted.load(Ordering::Acquire) {
        return Err(INTERRUPTED);
    }
    waited?;
    Ok(())
}

/// Whether an operation with this structure is under way.
pub(crate) fn is_pending(place: Place<Overlapped>) -> bool {
    lock().operations.values().any(|operation| operation.is_at(place))
}

/// Waits until no operation with this structure is under way; fails with `INVALID` if a routine is to tell.
pub(crate) fn wait_until_done(place: Place<Overlapped>) -> Result<(), Code> {
    let mut table = lock();
    loop {
        match table
            .operations
            .values()
            .find(|operation| operation.is_at(place))
            .map(|operation| &operation.task)
        {
            None => return Ok(()),
            Some(Task::Finish(_, completion)) if completion.has_routine() => return Err(INVALID),
            Some(Task::Finish(..) | Task::Wake(_)) => {}
        }
        table = DONE.wait(table).unwrap_or_else(PoisonError::into_inner);
    }
}

/// Ends operations before they are done.
pub(crate) fn abort(which: impl Fn(&Operation) -> bool) {
    let mut table = lock();
    table.take_all(which).into_iter().for_each(Operation::abort);
    DONE.notify_all();
}

fn lock() -> MutexGuard<'static, Table> {
    TABLE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What hears of connections, with a thread of its own that no signal reaches.
fn poller() -> Result<BorrowedFd<'static>, Code> {
    static POLLER: OnceLock<Result<OwnedFd, Code>> = OnceLock::new();
    let poller = POLLER.get_or_init(|| {
        let poller = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let events = poller.try_clone()?;
        let work = move || finish_for_ever(&events);
        signals::blocked(|| thread::Builder::new().name("waylay-ws2".into()).spawn(work))?;
        Ok(poller)
    });
    poller.as_ref().map(AsFd::as_fd).map_err(|code| *code)
}

fn finish_for_ever(poller: &OwnedFd) {
    let mut events = Vec::with_capacity(64);
    loop {
        // Interrupted, at worst.
        let _again = epoll::wait(poller, spare_capacity(&mut events), None);
        for epoll::Event { data, .. } in events.drain(..) {
            let mut table = lock();
            if let Some(operation) = table.take(data.u64()) {
                finish(&mut table, operation);
            }
            DONE.notify_all();
        }
    }
}

fn finish(table: &mut Table, operation: Operation) {
    let Operation { socket, issuer, connection, task } = operation;
    match task {
        Task::Wake(waiter) => waiter.event.set(),
        Task::Finish(question, completion) => match question.ask(connection.as_fd()) {
            Ok(bytes) => completion.finish(Outcome { code: None, bytes }),
            Err(failure) if failure.connecting => match table.watch(&connection) {
                Ok(id) => {
                    let task = Task::Finish(question, completion);
                    table.operations.insert(id, Operation { socket, issuer, connection, task });
                }
                Err(code) => completion.finish(Outcome { code: Some(code), bytes: 0 }),
            },
            Err(failure) => {
                let bytes = failure.needed.unwrap_or(0);
                completion.finish(Outcome { code: Some(failure.code), bytes });
            }
        },
    }
}
