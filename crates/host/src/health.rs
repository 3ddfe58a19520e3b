//! Services that live but do not serve: nobody waits in a backlog for ever.
//!
//! The kernel's programs count, listener by listener, the connections that have
//! arrived for a service and those it has asked about. Where some wait and none
//! is taken for as long as the run has patience, the service is ended: that
//! resets whoever waits, and from then on its failure policy answers.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{self, RecvTimeoutError, Sender},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use waylay_core::ServiceId;
use waylay_engine_ebpf::{Progress, ProgressReader};

use crate::{adopted::Door, cgroup::Cgroup, spec::Observer};

/// How often services are looked at, in each span of patience.
pub(crate) const LOOKS: u32 = 20;

/// Watches services on a thread of its own.
pub(crate) struct HealthWatch {
    watched: Arc<Mutex<Vec<Watched>>>,
    limit: Duration,
    stop: Sender<()>,
    thread: JoinHandle<()>,
}

struct Watched {
    id: ServiceId,
    name: String,
    cgroup: Cgroup,
    /// Of an adopted service, which asks about nothing: what it takes is seen by what its listeners hold.
    door: Option<Door>,
    patience: Patience,
}

/// What is to be watched of a service.
pub(crate) struct Patient {
    pub(crate) id: ServiceId,
    pub(crate) name: String,
    pub(crate) cgroup: Cgroup,
    pub(crate) door: Option<Door>,
}

impl HealthWatch {
    pub(crate) fn start(reader: ProgressReader, limit: Duration, observer: &Arc<dyn Observer>) -> Self {
        let watched = Arc::new(Mutex::new(Vec::new()));
        let (stop, stopped) = mpsc::channel::<()>();
        let (shared, observer) = (Arc::clone(&watched), Arc::clone(observer));
        let thread = thread::spawn(move || {
            while stopped.recv_timeout(limit / LOOKS) == Err(RecvTimeoutError::Timeout) {
                look(&mut lock(&shared), &reader, limit, &observer);
            }
        });
        Self { watched, limit, stop, thread }
    }

    pub(crate) fn watch(&self, Patient { id, name, cgroup, door }: Patient) {
        let patience = Patience::new(self.limit);
        lock(&self.watched).push(Watched { id, name, cgroup, door, patience });
    }

    pub(crate) fn forget(&self, service: ServiceId) {
        lock(&self.watched).retain(|watched| watched.id != service);
    }

    pub(crate) fn stop(self) {
        drop(self.stop);
        // A watch that panicked has ended too.
        let _ended = self.thread.join();
    }
}

fn lock(watched: &Mutex<Vec<Watched>>) -> MutexGuard<'_, Vec<Watched>> {
    watched.lock().unwrap_or_else(PoisonError::into_inner)
}

fn look(services: &mut Vec<Watched>, reader: &ProgressReader, limit: Duration, observer: &Arc<dyn Observer>) {
    let now = Instant::now();
    services.retain_mut(|service| {
        // What cannot be read now is read at the next look.
        let Some(progress) = progress(reader, service) else { return true };
        let hung = service.patience.is_over(now, &progress);
        if hung {
            observer.service_hung(&service.name, limit);
            service.cgroup.kill();
        }
        !hung
    });
}

/// How the service's listeners get on, one by one; those of an adopted one together.
fn progress(reader: &ProgressReader, service: &Watched) -> Option<Vec<Progress>> {
    let listeners = reader.of(service.id).ok()?;
    let Some(door) = &service.door else { return Some(listeners) };
    let waiting = door.waiting()?;
    let arrived = listeners.iter().map(|listener| listener.arrived).sum::<u64>();
    Some(vec![Progress { waiting, taken: arrived.saturating_sub(waiting), arrived }])
}

/// Since when each listener has kept connections waiting without taking one.
pub(crate) struct Patience {
    limit: Duration,
    stuck: BTreeMap<usize, (u64, Instant)>,
}

impl Patience {
    pub(crate) fn new(limit: Duration) -> Self {
        Self { limit, stuck: BTreeMap::new() }
    }

    pub(crate) fn is_over(&mut self, now: Instant, listeners: &[Progress]) -> bool {
        for (index, listener) in listeners.iter().enumerate() {
            let since = match self.stuck.get(&index) {
                Some(&(taken, since)) if taken == listener.taken => since,
                Some(_) | None => now,
            };
            if listener.waiting == 0 {
                self.stuck.remove(&index);
            } else {
                self.stuck.insert(index, (listener.taken, since));
            }
        }
        self.stuck.values().any(|&(_, since)| now.duration_since(since) >= self.limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    fn progress(waiting: u64, taken: u64) -> Progress {
        Progress { waiting, taken, arrived: waiting + taken }
    }

    /// Looks once a second; the second in which patience was over.
    fn over_at(seconds: impl IntoIterator<Item = [Progress; 2]>) -> Option<usize> {
        let mut patience = Patience::new(LIMIT);
        let start = Instant::now();
        let mut looks = seconds.into_iter().enumerate();
        let over = looks.find(|(second, listeners)| {
            patience.is_over(start + Duration::from_secs(*second as u64), listeners)
        });
        over.map(|(second, _)| second)
    }

    #[test]
    fn a_service_that_takes_nothing_of_what_waits_is_hung() {
        assert_eq!(over_at([[progress(3, 7), progress(0, 0)]; 20]), Some(10));
    }

    #[test]
    fn a_service_for_which_nothing_waits_is_not() {
        assert_eq!(over_at([[progress(0, 7), progress(0, 0)]; 60]), None);
    }

    #[test]
    fn a_slow_service_is_not_hung() {
        assert_eq!(over_at((0..60).map(|second| [progress(5, second / 9), progress(0, 0)])), None);
    }

    #[test]
    fn a_listener_nobody_accepts_from_is_noticed_beside_one_that_is_served() {
        assert_eq!(over_at((0..60).map(|second| [progress(5, second), progress(1, 4)])), Some(10));
    }

    #[test]
    fn clients_that_give_up_and_come_again_do_not_hide_it() {
        assert_eq!(over_at((0..60).map(|second| [progress(1 + second % 2, 4), progress(0, 0)])), Some(10));
    }
}
