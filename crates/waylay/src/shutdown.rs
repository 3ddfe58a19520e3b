use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, time::Instant};

/// Ends a [`RedirectService::serve`](crate::RedirectService::serve), from
/// anywhere: another task, another thread, a signal's handler.
///
/// # Example
/// ```no_run
/// use tokio::signal::unix::{SignalKind, signal};
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let service = waylay::RedirectService::from_env()?;
/// let shutdown = service.shutdown();
/// let mut terminate = signal(SignalKind::terminate())?;
/// tokio::spawn(async move {
///     terminate.recv().await;
///     shutdown.trigger();
/// });
/// service.serve(|inbound| async move { drop(inbound) }).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Shutdown(Arc<watch::Sender<Phase>>);

/// How far a service has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Serving,
    /// Accepts no more; until then, if there is a limit, handlers may go on.
    Ending(Option<Instant>),
    /// Handlers are dropped.
    Over,
}

impl Shutdown {
    pub(crate) fn new() -> Self {
        Self(Arc::new(watch::Sender::new(Phase::Serving)))
    }

    /// Stops accepting; connections being served go on to their end, and so do
    /// those that wait to be accepted.
    pub fn trigger(&self) {
        self.end(None);
    }

    /// Stops accepting; connections being served may go on for as long as
    /// `grace`, then they are reset and their handlers dropped.
    ///
    /// Of several calls the one that ends first holds.
    pub fn trigger_within(&self, grace: Duration) {
        self.end(Instant::now().checked_add(grace));
    }

    /// Waits until the service is to end: for one that has a loop of its own.
    pub async fn triggered(&self) {
        let mut phase = self.0.subscribe();
        // This handle keeps the channel open.
        let _open = phase.wait_for(|phase| *phase != Phase::Serving).await;
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<Phase> {
        self.0.subscribe()
    }

    pub(crate) fn drop_handlers(&self) {
        self.0.send_replace(Phase::Over);
    }

    fn end(&self, limit: Option<Instant>) {
        self.0.send_if_modified(|phase| {
            let next = phase.ending(limit);
            std::mem::replace(phase, next) != next
        });
    }
}

impl Phase {
    fn ending(self, limit: Option<Instant>) -> Self {
        match self {
            Self::Serving => Self::Ending(limit),
            Self::Ending(earlier) => Self::Ending([earlier, limit].into_iter().flatten().min()),
            Self::Over => Self::Over,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_several_triggers_the_one_that_ends_first_holds() {
        let [soon, late] = [1, 2].map(|seconds| Instant::now() + Duration::from_secs(seconds));
        let after = |limits: &[Option<Instant>]| {
            let ending = limits.iter().fold(Phase::Serving, |phase, limit| phase.ending(*limit));
            let Phase::Ending(limit) = ending else { panic!("{ending:?}") };
            limit
        };
        assert_eq!(after(&[None]), None);
        assert_eq!(after(&[None, Some(late)]), Some(late));
        assert_eq!(after(&[Some(late), None]), Some(late));
        assert_eq!(after(&[Some(late), Some(soon), Some(late)]), Some(soon));
        assert_eq!(Phase::Over.ending(Some(soon)), Phase::Over);
    }
}
