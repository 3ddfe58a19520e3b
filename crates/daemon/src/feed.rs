//! What happens, told to those who have asked for it.

use std::{
    os::unix::process::ExitStatusExt,
    process::ExitStatus,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    time::Duration,
};

use waylay_core::{Event, FailurePolicy, FilterId, Refusal};
use waylay_host::{Observer, Step, Swept};

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
        let mut listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        if listeners.iter().any(|listener| listener.session == session) {
            return None;
        }
        let (lines, receiver) = sync_channel(LONGEST_QUEUE);
        listeners.push(Listener { session, uid, lines });
        Some(receiver)
    }

    /// Tells a connection nothing more: it has ended. That would not be noticed by telling, where nothing is for this user.
    pub fn forget(&self, session: SessionId) {
        let mut listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        listeners.retain(|listener| listener.session != session);
    }

    /// Tells that the policy has changed.
    pub fn changed(&self, text: String) {
        self.tell(&happening("policy", None, text));
    }

    fn tell(&self, happening: &Happening) {
        let mut listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        listeners.retain(|listener| {
            let is_meant = listener.uid == ROOT
                || happening.service.as_ref().is_some_and(|name| name.starts_with(&prefix(listener.uid)));
            let sent = if is_meant { listener.lines.try_send(happening.clone()) } else { Ok(()) };
            // Whoever reads too slowly misses lines; what is told must not hold up what happens.
            !matches!(sent, Err(TrySendError::Disconnected(_)))
        });
    }

    fn tell_of(&self, service: &str, text: String) {
        self.tell(&happening("service", Some(service), text));
    }
}

fn happening(about: &str, service: Option<&str>, text: String) -> Happening {
    Happening { about: about.to_owned(), service: service.map(str::to_owned), text, report: None }
}

const fn gone(on_failure: FailurePolicy) -> &'static str {
    match on_failure {
        FailurePolicy::Open => "connections go on without it (open)",
        FailurePolicy::Closed => "connections are refused (closed)",
    }
}

const fn blocked_by(event: &Event) -> Option<FilterId> {
    match event {
        Event::Refused { refusal: Refusal::Blocked { filter, .. }, .. } => Some(*filter),
        Event::Refused { .. }
        | Event::SocketRefused { .. }
        | Event::LeftAlone { .. }
        | Event::Redirected { .. }
        | Event::Ended { .. }
        | Event::Dropped { .. }
        | Event::Lost { .. } => None,
    }
}

impl Observer for Feed {
    fn report(&self, service: &str, line: &str) {
        self.inner.report(service, line);
        let report = serde_json::from_str(line).ok().filter(serde_json::Value::is_object);
        self.tell(&Happening { report, ..happening("report", Some(service), line.to_owned()) });
    }

    fn refused(&self, event: &Event, service: Option<&str>) {
        self.inner.refused(event, service);
        let filter = blocked_by(event).map(|filter| format!(" ({})", self.history.describe(filter)));
        let by = service.map(|service| format!(" ({service})"));
        let text = format!("{event}{}", filter.or(by).unwrap_or_default());
        self.history.1.add(event, &text);
        self.tell(&happening("refused", service, text));
    }

    fn service_hung(&self, service: &str, waited: Duration) {
        self.inner.service_hung(service, waited);
        self.tell_of(service, format!("has taken no connection for {} s; it is ended", waited.as_secs()));
    }

    fn service_died(&self, service: &str, status: ExitStatus, on_failure: FailurePolicy) {
        self.inner.service_died(service, status, on_failure);
        let how = match (status.code(), status.signal()) {
            (Some(code), _) => format!("exit status {code}"),
            (None, Some(signal)) => format!("signal {signal}"),
            (None, None) => "an unknown status".to_owned(),
        };
        self.tell_of(service, format!("ended with {how}; {}", gone(on_failure)));
    }

    fn adopted_ended(&self, service: &str, on_failure: FailurePolicy) {
        self.inner.adopted_ended(service, on_failure);
        self.tell_of(service, format!("all processes have ended; {}", gone(on_failure)));
    }

    fn resident_listens(&self, service: &str, listens: bool, on_failure: FailurePolicy) {
        self.inner.resident_listens(service, listens, on_failure);
        self.tell_of(
            service,
            match listens {
                true => "listens again".to_owned(),
                false => format!("does not listen any more; {}", gone(on_failure)),
            },
        );
    }

    fn family_missing(&self, service: &str, family: &str, on_failure: FailurePolicy) {
        self.inner.family_missing(service, family, on_failure);
        self.tell_of(service, format!("no {family} gets to it; over it, {}", gone(on_failure)));
    }

    fn existing_ended(&self, swept: &Swept) {
        self.inner.existing_ended(swept);
        for connection in &swept.reset {
            let text = format!("{connection} is older than the policy and was reset");
            self.tell(&happening("policy", None, text));
        }
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

    use waylay_host::Swept;

    use super::*;

    struct Nobody;

    impl Observer for Nobody {
        fn report(&self, _service: &str, _line: &str) {}
        fn refused(&self, _event: &Event, _service: Option<&str>) {}
        fn service_hung(&self, _service: &str, _waited: Duration) {}
        fn service_died(&self, _service: &str, _status: ExitStatus, _on_failure: FailurePolicy) {}
        fn adopted_ended(&self, _service: &str, _on_failure: FailurePolicy) {}
        fn resident_listens(&self, _service: &str, _listens: bool, _on_failure: FailurePolicy) {}
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
