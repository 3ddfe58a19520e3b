//! What happens, told to those who have asked for it.

use std::{
    fs,
    os::unix::process::ExitStatusExt,
    path::Path,
    process::ExitStatus,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    time::Duration,
};

use waylay_core::{Event, FailurePolicy};
use waylay_host::{Observer, PastFlow, ResidentError, Step, Swept};

use crate::{
    authority::prefix,
    history::History,
    ledger::{ROOT, SessionId},
    protocol::Happening,
};

/// What one observer may leave unread before lines are left out.
const LONGEST_QUEUE: usize = 4_096;

/// Tells the daemon's own observer and all who have asked. Clones are one and the same.
#[derive(Clone)]
pub struct Feed {
    inner: Arc<dyn Observer>,
    history: History,
    listeners: Arc<Mutex<Vec<Listener>>>,
}

struct Listener {
    session: SessionId,
    uid: u32,
    lines: SyncSender<Happening>,
    /// Of a run alone.
    run: Option<Watched>,
    /// Lines that were left out and not yet told of.
    missed: u64,
}

/// What a run is told of.
#[derive(Clone, Debug)]
pub struct Watched {
    /// Services and filters whose names begin so.
    pub prefix: String,
    /// Processes in this cgroup, a path below the root of the hierarchy.
    pub cgroup: String,
}

/// What is told of besides a service.
#[derive(Default)]
struct Subject {
    pid: Option<u32>,
    /// What the names of the run begin with whose filter it was.
    run: Option<String>,
}

impl Watched {
    fn is_about(&self, happening: &Happening, subject: &Subject) -> bool {
        let own = |name: &String| name.starts_with(&self.prefix);
        happening.service.as_ref().is_some_and(own)
            || subject.run.as_ref() == Some(&self.prefix)
            || subject.pid.is_some_and(|pid| self.holds(pid))
    }

    fn holds(&self, pid: u32) -> bool {
        let membership = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        let path = membership.lines().find_map(|line| line.strip_prefix("0::"));
        path.is_some_and(|path| Path::new(path).starts_with(&self.cgroup))
    }
}

impl Listener {
    fn is_meant(&self, happening: &Happening, subject: &Subject) -> bool {
        match &self.run {
            Some(run) => run.is_about(happening, subject),
            None => {
                let own = |name: &String| name.starts_with(&prefix(self.uid));
                self.uid == ROOT || happening.service.as_ref().is_some_and(own)
            }
        }
    }

    /// Whether it is there still. Whoever reads too slowly misses lines; what is told must not hold up what happens.
    fn tell(&mut self, happening: &Happening) -> bool {
        if self.missed > 0 {
            let text = format!("{} lines were left out, for nobody read them", self.missed);
            match self.lines.try_send(self::happening("missed", None, text)) {
                Ok(()) => self.missed = 0,
                Err(TrySendError::Full(_)) => {}
                Err(TrySendError::Disconnected(_)) => return false,
            }
        }
        match self.lines.try_send(happening.clone()) {
            Ok(()) => true,
            Err(TrySendError::Full(_)) => {
                self.missed += 1;
                true
            }
            Err(TrySendError::Disconnected(_)) => false,
        }
    }
}

impl Feed {
    /// Tells this one, whoever else asks.
    #[must_use]
    pub fn new(inner: Arc<dyn Observer>, history: History) -> Self {
        Self { inner, history, listeners: Arc::default() }
    }

    /// Tells a user from here on: root of everything, others of their own services. `None` if the connection is told already.
    #[must_use]
    pub fn listen(&self, session: SessionId, uid: u32) -> Option<Receiver<Happening>> {
        self.add(session, uid, None)
    }

    /// Tells a connection of its run alone. `None` if it is told already.
    #[must_use]
    pub fn watch(&self, session: SessionId, uid: u32, run: Watched) -> Option<Receiver<Happening>> {
        self.add(session, uid, Some(run))
    }

    fn add(&self, session: SessionId, uid: u32, run: Option<Watched>) -> Option<Receiver<Happening>> {
        let mut listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        if listeners.iter().any(|listener| listener.session == session) {
            return None;
        }
        let (lines, receiver) = sync_channel(LONGEST_QUEUE);
        listeners.push(Listener { session, uid, lines, run, missed: 0 });
        Some(receiver)
    }

    /// Tells a connection nothing more: it has ended. That would not be noticed by telling, where nothing is for this user.
    pub fn forget(&self, session: SessionId) {
        let mut listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        listeners.retain(|listener| listener.session != session);
    }

    /// Tells a connection, as the last thing, that its run has ended.
    pub fn finish(&self, session: SessionId) {
        let mut listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(index) = listeners.iter().position(|listener| listener.session == session) else { return };
        let listener = listeners.swap_remove(index);
        drop(listeners);
        // Whoever does not read has gone.
        let _gone = listener.lines.send(happening("finished", None, "the run has ended".to_owned()));
    }

    /// Tells that the policy has changed.
    pub fn changed(&self, text: String) {
        self.tell(&happening("policy", None, text));
    }

    fn tell(&self, happening: &Happening) {
        self.tell_about(happening, &Subject::default());
    }

    fn tell_about(&self, happening: &Happening, subject: &Subject) {
        let mut listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        listeners.retain_mut(|listener| !listener.is_meant(happening, subject) || listener.tell(happening));
    }

    fn tell_of(&self, service: &str, text: String) {
        self.tell(&happening("service", Some(service), text));
    }
}

fn happening(about: &str, service: Option<&str>, text: String) -> Happening {
    Happening { about: about.to_owned(), service: service.map(str::to_owned), text, report: None }
}

impl Observer for Feed {
    fn report(&self, service: &str, line: &str) {
        self.inner.report(&self.history.in_words(service), line);
        let report = serde_json::from_str(line).ok().filter(serde_json::Value::is_object);
        self.tell(&Happening { report, ..happening("report", Some(service), line.to_owned()) });
    }

    fn refused(&self, event: &Event, service: Option<&str>) {
        let called = service.map(|service| self.history.in_words(service));
        self.inner.refused(event, called.as_deref());
        let filter = event.blocked_by().map(|filter| format!(" ({})", self.history.describe(filter)));
        let by = called.map(|service| format!(" ({service})"));
        let text = format!("{event}{}", filter.or(by).unwrap_or_default());
        self.history.1.add(event, &text);
        let pid = event.process().map(|(pid, _uid)| pid);
        let run = event.blocked_by().and_then(|filter| self.history.run_of(filter));
        self.tell_about(&happening("refused", service, text), &Subject { pid, run });
    }

    fn service_hung(&self, service: &str, waited: Duration) {
        self.inner.service_hung(&self.history.in_words(service), waited);
        self.tell_of(service, format!("has taken no connection for {} s; it is ended", waited.as_secs()));
    }

    fn service_died(&self, service: &str, status: ExitStatus, on_failure: FailurePolicy) {
        self.inner.service_died(&self.history.in_words(service), status, on_failure);
        let how = match (status.code(), status.signal()) {
            (Some(code), _) => format!("exit status {code}"),
            (None, Some(signal)) => format!("signal {signal}"),
            (None, None) => "an unknown status".to_owned(),
        };
        self.tell_of(service, format!("ended with {how}; {}", on_failure.consequence()));
    }

    fn adopted_ended(&self, service: &str, on_failure: FailurePolicy) {
        self.inner.adopted_ended(&self.history.in_words(service), on_failure);
        self.tell_of(service, format!("all processes have ended; {}", on_failure.consequence()));
    }

    fn resident_listens(&self, service: &str, listens: bool, on_failure: FailurePolicy) {
        self.inner.resident_listens(&self.history.in_words(service), listens, on_failure);
        self.tell_of(
            service,
            match listens {
                true => "listens now".to_owned(),
                false => format!("does not listen any more; {}", on_failure.consequence()),
            },
        );
    }

    fn resident_awaited(&self, service: &str, why: &ResidentError, on_failure: FailurePolicy) {
        self.inner.resident_awaited(&self.history.in_words(service), why, on_failure);
        self.tell_of(service, format!("is not there yet: {why}; until it is, {}", on_failure.consequence()));
    }

    fn family_missing(&self, service: &str, family: &str, on_failure: FailurePolicy) {
        self.inner.family_missing(&self.history.in_words(service), family, on_failure);
        self.tell_of(service, format!("no {family} gets to it; over it, {}", on_failure.consequence()));
    }

    fn existing_ended(&self, swept: &Swept) {
        self.inner.existing_ended(swept);
        for connection in &swept.reset {
            let text = format!("{connection} is older than the policy and was reset");
            self.tell(&happening("policy", None, text));
        }
    }

    fn leg_ended(&self, past: &PastFlow, service: Option<&str>) {
        let called = service.map(|service| self.history.in_words(service));
        self.history.2.add(past, called.as_deref(), |filter| self.history.describe(filter));
    }

    fn waiting_for_background(&self) {
        self.inner.waiting_for_background();
    }

    fn step(&self, step: Step<'_>) {
        self.inner.step(step);
    }

    fn cleaned_up(&self, runs: usize) {
        self.inner.cleaned_up(runs);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{RecvTimeoutError, TryRecvError};

    use waylay_host::{ResidentError, Swept};

    use super::*;

    struct Nobody;

    impl Observer for Nobody {
        fn report(&self, _service: &str, _line: &str) {}
        fn refused(&self, _event: &Event, _service: Option<&str>) {}
        fn service_hung(&self, _service: &str, _waited: Duration) {}
        fn service_died(&self, _service: &str, _status: ExitStatus, _on_failure: FailurePolicy) {}
        fn adopted_ended(&self, _service: &str, _on_failure: FailurePolicy) {}
        fn resident_listens(&self, _service: &str, _listens: bool, _on_failure: FailurePolicy) {}
        fn resident_awaited(&self, _service: &str, _why: &ResidentError, _on_failure: FailurePolicy) {}
        fn family_missing(&self, _service: &str, _family: &str, _on_failure: FailurePolicy) {}
        fn existing_ended(&self, _swept: &Swept) {}
        fn waiting_for_background(&self) {}
        fn step(&self, _step: Step<'_>) {}
        fn cleaned_up(&self, _runs: usize) {}
    }

    #[test]
    fn users_are_told_of_their_own_services_and_root_of_all() {
        let feed = Feed::new(Arc::new(Nobody), History::default());
        let [root, alice] = [(1, ROOT), (2, 1000)].map(|(id, uid)| feed.listen(SessionId(id), uid).unwrap());
        feed.report("log", "{}");
        feed.report("u10001.other", "{}");
        feed.report("u1000.mine", "{}");
        let told = |receiver: &Receiver<Happening>| {
            receiver.try_iter().filter_map(|happening| happening.service).collect::<Vec<_>>()
        };
        assert_eq!(told(&root), ["log", "u10001.other", "u1000.mine"]);
        assert_eq!(told(&alice), ["u1000.mine"]);
    }

    #[test]
    fn whoever_has_gone_is_forgotten_also_if_nothing_was_ever_told() {
        let feed = Feed::new(Arc::new(Nobody), History::default());
        let receiver = feed.listen(SessionId(1), 1000).unwrap();
        assert!(feed.listen(SessionId(1), 1000).is_none(), "a connection is told once");
        assert_eq!(receiver.try_recv(), Err(TryRecvError::Empty));
        feed.forget(SessionId(1));
        assert_eq!(receiver.recv_timeout(Duration::ZERO), Err(RecvTimeoutError::Disconnected));
        assert!(feed.listen(SessionId(1), 1000).is_some());
    }
}
