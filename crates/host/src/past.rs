//! Legs that have ended, told to the observer.

use std::{
    io,
    sync::{
        Arc,
        mpsc::{RecvTimeoutError, Sender, channel},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use waylay_engine_ebpf::PastSource;

use crate::{roll::Roll, spec::Observer};

/// Between looks. The programs wake nobody: that would cost whoever ends a connection.
const PAUSE: Duration = Duration::from_millis(100);

/// Looks for them on a thread of its own.
pub(crate) struct PastReader {
    stop: Sender<()>,
    thread: JoinHandle<()>,
}

impl PastReader {
    pub(crate) fn start(
        mut source: PastSource,
        roll: Roll,
        observer: &Arc<dyn Observer>,
    ) -> io::Result<Self> {
        let (stop, stopped) = channel();
        let observer = Arc::clone(observer);
        let thread = thread::Builder::new().name("past".to_owned()).spawn(move || {
            // A buffer that cannot be read loses what is remembered, not connections.
            while stopped.recv_timeout(PAUSE) == Err(RecvTimeoutError::Timeout)
                && let Ok(found) = source.take()
            {
                for past in found {
                    let last = past.flow.hops.last().and_then(|hop| roll.name_of(hop.service));
                    observer.leg_ended(&past, last.as_deref());
                }
            }
        })?;
        Ok(Self { stop, thread })
    }

    pub(crate) fn stop(self) {
        drop(self.stop);
        // A reader that panicked has ended too.
        let _ended = self.thread.join();
    }
}
