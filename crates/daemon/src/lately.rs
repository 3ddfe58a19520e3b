//! What has been refused lately, for whoever asks why.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use waylay_core::Event;

/// How many refusals are remembered, of all processes together.
const REMEMBERED: usize = 1_024;

/// Clones are one and the same.
#[derive(Clone, Default)]
pub(crate) struct Lately(Arc<Mutex<VecDeque<Refused>>>);

struct Refused {
    pid: u32,
    uid: u32,
    at: Instant,
    text: String,
}

impl Lately {
    /// Remembers a refusal, in words.
    pub(crate) fn add(&self, event: &Event, text: &str) {
        let Some((pid, uid)) = event.process() else { return };
        let mut refused = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        refused.push_back(Refused { pid, uid, at: Instant::now(), text: text.to_owned() });
        if refused.len() > REMEMBERED {
            refused.pop_front();
        }
    }

    /// What has been refused to a process of this user, the latest last. The number may have been another process's before; what
    /// was refused to another user's is not told.
    pub(crate) fn refused(&self, pid: u32, uid: u32) -> Vec<String> {
        let refused = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let own = refused.iter().filter(|refused| (refused.pid, refused.uid) == (pid, uid));
        own.map(|refused| format!("{} s ago: {}", refused.at.elapsed().as_secs(), refused.text)).collect()
    }
}

#[cfg(test)]
mod tests {
    use waylay_core::{LegSummary, Protocol, Refusal, ServiceId};

    use super::*;

    #[test]
    fn what_was_refused_to_a_process_is_remembered_and_the_oldest_forgotten() {
        let lately = Lately::default();
        let refused = |pid| Event::Refused {
            refusal: Refusal::ServiceAbsent { service: ServiceId(1) },
            leg: LegSummary {
                protocol: Protocol::Tcp,
                pid,
                uid: 0,
                comm: "x".into(),
                destination: "192.0.2.1:1".parse().unwrap(),
            },
        };
        lately.add(&refused(7), "first");
        lately.add(&Event::Lost { count: 1 }, "lost");
        lately.add(&refused(7), "second");
        assert_eq!(lately.refused(7, 0), ["0 s ago: first", "0 s ago: second"]);
        (0..REMEMBERED - 1).for_each(|_| lately.add(&refused(8), "other"));
        assert_eq!(lately.refused(7, 0), ["0 s ago: second"]);
        assert_eq!(lately.refused(7, 1000), Vec::<String>::new());
    }
}
