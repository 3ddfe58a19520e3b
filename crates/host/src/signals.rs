//! Signals to waylay while a command runs: the command's, not ours.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
};

use rustix::process::{Pid, Signal, kill_process};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2},
    iterator::{Handle, SignalsInfo, exfiltrator::origin::WithOrigin},
    low_level::siginfo::{Cause, Origin},
};

use crate::assignment::Interruption;

const WATCHED: [i32; 6] = [SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2];

/// Receives this process's signals from the first moment of a run to its last.
/// While a command runs they are passed on to it; before and after that they
/// wait to be taken.
#[derive(Debug)]
pub(crate) struct Signals {
    handle: Handle,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    command: Option<Pid>,
    pending: Interruption,
}

impl Signals {
    /// Those that wait can be taken from `pending`.
    pub(crate) fn watch(pending: Interruption) -> io::Result<Self> {
        let mut signals = SignalsInfo::<WithOrigin>::new(WATCHED)?;
        let handle = signals.handle();
        let state = Arc::new(Mutex::new(State { command: None, pending }));
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for origin in signals.forever() {
                lock(&shared).receive(&origin);
            }
        });
        Ok(Self { handle, state })
    }

    /// From here on signals are the command's, those that wait too.
    pub(crate) fn pass_to(&self, command: u32) {
        let mut state = lock(&self.state);
        state.command = i32::try_from(command).ok().and_then(Pid::from_raw);
        if let (Some(command), Some(signal)) = (state.command, state.pending.take()) {
            send(command, signal);
        }
    }

    /// From here on they wait again: the command has ended.
    pub(crate) fn keep(&self) {
        lock(&self.state).command = None;
    }

    /// A signal that asks this process to end.
    pub(crate) fn take(&self) -> Option<i32> {
        lock(&self.state).pending.take()
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        self.handle.close();
    }
}

impl State {
    fn receive(&mut self, origin: &Origin) {
        match self.command {
            // What the terminal sends reaches the command without us: it is in
            // the same foreground group.
            Some(_) if matches!(origin.cause, Cause::Kernel) => {}
            Some(command) => send(command, origin.signal),
            None if [SIGUSR1, SIGUSR2].contains(&origin.signal) => {}
            None => self.pending.raise(origin.signal),
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn send(command: Pid, signal: i32) {
    if let Some(signal) = Signal::from_named_raw(signal) {
        let _gone_already = kill_process(command, signal);
    }
}
