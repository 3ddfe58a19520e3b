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

use crate::{authority::prefix, history::History, ledger::ROOT, protocol::Happening};

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
    uid: u32,
    lines: SyncSender<Happening>,
}

impl Feed {
    /// Tells this one, whoever else asks.
    #[must_use]
    pub fn new(inner: Arc<dyn Observer>, history: History) -> Self {
        Self { inner, history, listeners: Arc::default() }
    }

    /// Tells a user from here on: root of everything, others of their own services.
    #[must_use]
    pub fn listen(&self, uid: u32) -> Receiver<Happening> {
        let (lines, receiver) = sync_channel(LONGEST_QUEUE);
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner).push(Listener { uid, lines });
        receiver
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
