//! How often those may change something who are not root: each change has the whole policy put together anew.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// Changes that one user may make at once.
pub const BURST: u32 = 20;
/// After each of these there may be another one.
pub const EVERY: Duration = Duration::from_millis(500);

/// Counts what users have changed.
#[derive(Clone, Debug, Default)]
pub struct Pace {
    /// Of each user the moment at which all changes will be free again.
    free_at: BTreeMap<u32, Instant>,
}

impl Pace {
    /// Counts a change of a user at this moment.
    ///
    /// # Errors
    /// How long it takes until there can be one.
    pub fn count(&mut self, uid: u32, now: Instant) -> Result<(), Duration> {
        self.free_at.retain(|_, free_at| *free_at > now);
        let free_at = self.free_at.get(&uid).copied().unwrap_or(now) + EVERY;
        let over = free_at.saturating_duration_since(now).saturating_sub(EVERY * BURST);
        if over.is_zero() {
            self.free_at.insert(uid, free_at);
            return Ok(());
        }
        Err(over)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_changes_come_at_once_and_the_others_at_a_pace_of_each_user() {
        let (mut pace, begin) = (Pace::default(), Instant::now());
        for _ in 0..BURST {
            assert_eq!(pace.count(1000, begin), Ok(()));
        }
        assert_eq!(pace.count(1000, begin), Err(EVERY));
        assert_eq!(pace.count(1001, begin), Ok(()));
        assert_eq!(pace.count(1000, begin + EVERY / 2), Err(EVERY / 2));
        assert_eq!(pace.count(1000, begin + EVERY), Ok(()));
        assert_eq!(pace.count(1000, begin + EVERY), Err(EVERY));
        let rested = begin + EVERY * (BURST + 1);
        for _ in 0..BURST {
            assert_eq!(pace.count(1000, rested), Ok(()));
        }
        assert_eq!(pace.count(1000, rested), Err(EVERY));
    }
}
