//! What the kernel refuses, told to the observer.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use waylay_core::{Event, Refusal, ServiceId};
use waylay_engine_ebpf::EventSource;

use crate::{roll::Roll, spec::Observer};

/// How long reports of refusals may be under way when a station ends.
const EVENT_PATIENCE: Duration = Duration::from_millis(50);

/// Reads it on a thread of its own.
pub(crate) struct RefusalReader {
    stop: Arc<AtomicBool>,
    thread: thread::JoinHandle<()>,
}

impl RefusalReader {
    pub(crate) fn start(mut source: EventSource, roll: Roll, observer: &Arc<dyn Observer>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, observer) = (Arc::clone(&stop), Arc::clone(observer));
        let thread = thread::spawn(move || {
            let mut ending: Option<Instant> = None;
            // A buffer that cannot be read loses log lines, not connections.
            while let Ok(events) = source.poll(EVENT_PATIENCE) {
                for event in &events {
                    let name = concerned(event).and_then(|service| roll.name_of(service));
                    observer.refused(event, name.as_deref());
                }
                if !stopped.load(Ordering::Acquire) {
                    continue;
                }
                // Somebody who is refused all the time must not keep a station from ending.
                if events.is_empty() || ending.get_or_insert_with(Instant::now).elapsed() > EVENT_PATIENCE {
                    break;
                }
            }
        });
        Self { stop, thread }
    }

    pub(crate) fn stop(self) {
        self.stop.store(true, Ordering::Release);
        // A reader that panicked has ended too.
        let _ended = self.thread.join();
    }
}

/// The service that a refusal is about.
pub(crate) fn concerned(event: &Event) -> Option<ServiceId> {
    let Event::Refused { refusal, .. } = event else { return None };
    match *refusal {
        Refusal::ServiceAbsent { service }
        | Refusal::BacklogFull { service }
        | Refusal::HopLimit { service }
        | Refusal::ListenerDialled { service } => Some(service),
        Refusal::Blocked { .. }
        | Refusal::ForeignNamespace
        | Refusal::Unredirectable
        | Refusal::NoRoute { .. }
        | Refusal::Shortage(_) => None,
    }
}
