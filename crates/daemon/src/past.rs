//! Connections that were redirected and have ended, for whoever asks why they went as they did.

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use waylay_core::{FilterId, Protocol};
use waylay_host::PastFlow;

/// How many legs are remembered, of all connections together.
const REMEMBERED: usize = 4_096;
/// How many bytes they take, with what their services and filters are called.
const BYTES: usize = 1 << 20;
/// Filters whose descriptions are kept at hand.
const AT_HAND: usize = 1_024;

/// Clones are one and the same.
#[derive(Clone, Default)]
pub(crate) struct Past(Arc<Mutex<Remembered>>);

#[derive(Default)]
struct Remembered {
    legs: VecDeque<PastLeg>,
    bytes: usize,
    filters: BTreeMap<FilterId, Arc<str>>,
}

/// A leg that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PastLeg {
    pub(crate) id: u64,
    pub(crate) protocol: Protocol,
    /// That of the connection's first leg.
    pub(crate) first: u64,
    pub(crate) pid: u32,
    pub(crate) uid: u32,
    pub(crate) application: String,
    pub(crate) from: Option<SocketAddr>,
    pub(crate) to: SocketAddr,
    /// The service it was led to.
    pub(crate) service: String,
    /// By which filter, as that was called then.
    pub(crate) filter: Arc<str>,
    pub(crate) began: Duration,
    pub(crate) ended: Duration,
    pub(crate) noticed: Instant,
}

impl PastLeg {
    fn bytes(&self) -> usize {
        size_of::<Self>() + self.application.len() + self.service.len() + self.filter.len()
    }
}

impl Past {
    /// Remembers a leg; `describe` is asked about filters that have not been met lately.
    pub(crate) fn add(&self, past: &PastFlow, service: Option<&str>, describe: impl Fn(FilterId) -> String) {
        let flow = &past.flow;
        let Some(hop) = flow.hops.last() else { return };
        let mut remembered = self.lock();
        if remembered.legs.iter().rev().take(AT_HAND).any(|leg| leg.id == flow.id) {
            return;
        }
        if remembered.filters.len() >= AT_HAND {
            remembered.filters.clear();
        }
        let filter = remembered.filters.entry(hop.filter).or_insert_with(|| describe(hop.filter).into());
        let filter = Arc::clone(filter);
        remembered.push(PastLeg {
            id: flow.id,
            protocol: flow.protocol,
            first: flow.first,
            pid: flow.application.pid,
            uid: flow.application.uid,
            application: flow.application.comm.clone(),
            from: flow.source,
            to: flow.destination,
            service: service.map_or_else(|| hop.service.to_string(), str::to_owned),
            filter,
            began: flow.began,
            ended: past.ended,
            noticed: Instant::now(),
        });
    }

    /// The legs of the last connections, at most so many, of which a leg is meant; of each in the order in which they were made,
    /// the latest connection first.
    pub(crate) fn find(&self, most: usize, is_meant: impl Fn(&PastLeg) -> bool) -> Vec<Vec<PastLeg>> {
        let remembered = self.lock();
        let mut found: Vec<(Protocol, u64)> = Vec::new();
        for leg in remembered.legs.iter().rev().filter(|leg| is_meant(leg)) {
            let connection = (leg.protocol, leg.first);
            if found.len() < most && !found.contains(&connection) {
                found.push(connection);
            }
        }
        let mut all: BTreeMap<(Protocol, u64), Vec<PastLeg>> = BTreeMap::new();
        for leg in remembered.legs.iter().filter(|leg| found.contains(&(leg.protocol, leg.first))) {
            all.entry((leg.protocol, leg.first)).or_default().push(leg.clone());
        }
        all.values_mut().for_each(|legs| legs.sort_by_key(|leg| leg.began));
        found.iter().filter_map(|connection| all.remove(connection)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Remembered> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Remembered {
    fn push(&mut self, leg: PastLeg) {
        self.bytes += leg.bytes();
        self.legs.push_back(leg);
        while self.legs.len() > REMEMBERED || self.bytes > BYTES {
            let Some(oldest) = self.legs.pop_front() else { return };
            self.bytes -= oldest.bytes();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use waylay_core::{Hop, ServiceId};
    use waylay_host::{FlowApplication, LiveFlow};

    use super::*;

    fn leg(id: u64, first: u64, comm: &str) -> PastFlow {
        let application =
            FlowApplication { pid: 7, uid: 1000, gid: 0, comm: comm.to_owned(), exe: "/x".into(), cgroup: 1 };
        let flow = LiveFlow {
            id,
            first,
            began: Duration::from_millis(id),
            protocol: Protocol::Tcp,
            accepted: true,
            application,
            source: None,
            destination: "192.0.2.1:1".parse().unwrap(),
            hops: vec![Hop { service: ServiceId(1), filter: FilterId(3) }],
        };
        PastFlow { flow, ended: Duration::from_secs(9) }
    }

    #[test]
    fn connections_are_told_whole_the_latest_first_and_each_leg_once() {
        let (past, asked) = (Past::default(), Cell::new(0));
        let describe = |filter: FilterId| {
            asked.set(asked.get() + 1);
            filter.to_string()
        };
        for (id, first) in [(2, 1), (1, 1), (1, 1), (5, 5)] {
            past.add(&leg(id, first, "x"), Some("log"), describe);
        }
        let ids = |found: Vec<Vec<PastLeg>>| {
            found.iter().map(|legs| legs.iter().map(|leg| leg.id).collect::<Vec<_>>()).collect::<Vec<_>>()
        };
        assert_eq!(ids(past.find(9, |_| true)), [vec![5], vec![1, 2]]);
        assert_eq!(ids(past.find(1, |_| true)), [vec![5]]);
        assert_eq!(ids(past.find(9, |leg| leg.id == 2)), [vec![1, 2]]);
        assert_eq!(asked.get(), 1, "what a filter is called is looked up once");
    }

    #[test]
    fn what_is_remembered_is_bounded_in_count_and_bytes() {
        let past = Past::default();
        let add = |id, comm: &str| past.add(&leg(id, id, comm), None, |_| "f".to_owned());
        (0..REMEMBERED as u64 + 10).for_each(|id| add(id, "x"));
        assert_eq!(past.find(usize::MAX, |_| true).len(), REMEMBERED);
        assert!(past.find(1, |leg| leg.id == 9).is_empty() && !past.find(1, |leg| leg.id == 10).is_empty());
        let long = "x".repeat(BYTES / 10);
        (10_000..10_020).for_each(|id| add(id, &long));
        let left = past.find(usize::MAX, |_| true).len();
        assert!((5..10).contains(&left) && past.lock().bytes <= BYTES, "{left}");
    }
}
