//! Now and then, flows whose end nobody was told of are swept up, and what services had who left is freed.

use std::{
    sync::mpsc::{self, RecvTimeoutError, Sender},
    thread::{self, JoinHandle},
    time::Duration,
};

use waylay_engine::Engine;
use waylay_engine_ebpf::FlowSweeper;

use crate::background::SharedEngine;

/// Between two sweeps. One takes a millisecond with nothing to look at, and five with 8,000 flows.
const PAUSE: Duration = Duration::from_secs(2);

/// Sweeps on a thread of its own.
pub(crate) struct Sweeping {
    stop: Sender<()>,
    thread: JoinHandle<()>,
}

impl Sweeping {
    pub(crate) fn start(sweeper: FlowSweeper, engine: SharedEngine) -> Self {
        let (stop, stopped) = mpsc::channel::<()>();
        let thread = thread::spawn(move || {
            while stopped.recv_timeout(PAUSE) == Err(RecvTimeoutError::Timeout) {
                // What could not be looked at is looked at by the next sweep.
                let _next_time = sweeper.sweep();
                // Who asks which slots are taken frees those that nothing carries.
                let _next_time = engine.lock().slots();
            }
        });
        Self { stop, thread }
    }

    pub(crate) fn stop(self) {
        drop(self.stop);
        // One that panicked has ended too.
        let _ended = self.thread.join();
    }
}
