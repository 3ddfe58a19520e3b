use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use super::FlowPath;

const NONE: u32 = u32::MAX;

/// The flows a service knows: a bounded number, in the order in which they were last used.
///
/// Time is an argument, and nothing is asked of the system.
///
/// # Example
/// ```
/// use std::time::{Duration, Instant};
/// use waylay::datagrams::{FlowPath, FlowTable};
///
/// let (mut table, start) = (FlowTable::new(1000, Duration::from_secs(60)), Instant::now());
/// let path = FlowPath::new("127.128.0.7:4000".parse()?, "127.0.0.1:50000".parse()?);
/// let at = table.insert(path, "a flow", start).at;
/// assert_eq!(table.find(&path), Some(at));
/// assert_eq!(table.expire(start + Duration::from_secs(60)), Some((path, "a flow")));
/// assert_eq!(table.find(&path), None);
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Debug)]
pub struct FlowTable<T> {
    places: HashMap<FlowPath, u32>,
    entries: Vec<Entry<T>>,
    /// The first of those that are free, each leading to the next.
    free: u32,
    newest: u32,
    oldest: u32,
    limit: usize,
    idle: Duration,
}

#[derive(Debug)]
struct Entry<T> {
    content: Option<(FlowPath, T)>,
    used: Instant,
    newer: u32,
    older: u32,
}

/// What came of an insertion.
#[derive(Debug, PartialEq, Eq)]
pub struct Inserted<T> {
    /// Its place.
    pub at: u32,
    /// The flow that had to make room: the one that has been idle for longest.
    pub evicted: Option<(FlowPath, T)>,
}

impl<T> FlowTable<T> {
    /// For so many flows at most, each of which expires when it has been idle for so long.
    #[must_use]
    pub fn new(limit: usize, idle: Duration) -> Self {
        let limit = limit.clamp(1, NONE as usize - 1);
        let (places, entries) = (HashMap::new(), Vec::new());
        Self { places, entries, free: NONE, newest: NONE, oldest: NONE, limit, idle }
    }

    /// How many flows there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The place of a flow, which it keeps.
    #[must_use]
    pub fn find(&self, path: &FlowPath) -> Option<u32> {
        self.places.get(path).copied()
    }

    /// What is at a place.
    pub fn at(&mut self, place: u32) -> Option<(&FlowPath, &mut T)> {
        let content = self.entries.get_mut(place as usize)?.content.as_mut()?;
        Some((&content.0, &mut content.1))
    }

    /// Notes that a flow has been used.
    pub fn touch(&mut self, place: u32, now: Instant) {
        self.entries[place as usize].used = now;
        if self.newest != place {
            self.unlink(place);
            self.link(place);
        }
    }

    /// Adds a flow. Another of its path must have been removed.
    pub fn insert(&mut self, path: FlowPath, value: T, now: Instant) -> Inserted<T> {
        debug_assert!(!self.places.contains_key(&path), "{path:?} is known");
        let evicted = if self.len() == self.limit { self.remove(self.oldest) } else { None };
        let entry = Entry { content: Some((path, value)), used: now, newer: NONE, older: NONE };
        let at = match self.free {
            NONE => {
                self.entries.push(entry);
                (self.entries.len() - 1) as u32
            }
            free => {
                self.free = self.entries[free as usize].older;
                self.entries[free as usize] = entry;
                free
            }
        };
        self.places.insert(path, at);
        self.link(at);
        Inserted { at, evicted }
    }

    /// Takes a flow out.
    pub fn remove(&mut self, place: u32) -> Option<(FlowPath, T)> {
        let content = self.entries.get_mut(place as usize)?.content.take()?;
        self.unlink(place);
        self.entries[place as usize].older = self.free;
        self.free = place;
        self.places.remove(&content.0);
        Some(content)
    }

    /// From now on flows expire when they have been idle for so long, those that are there too.
    pub fn expire_after(&mut self, idle: Duration) {
        self.idle = idle;
    }

    /// Takes out one of those that have been idle for too long.
    pub fn expire(&mut self, now: Instant) -> Option<(FlowPath, T)> {
        let due = self.next_expiry()? <= now;
        if due { self.remove(self.oldest) } else { None }
    }

    /// When the next one expires, if it is not used until then.
    #[must_use]
    pub fn next_expiry(&self) -> Option<Instant> {
        let oldest = self.entries.get(self.oldest as usize)?;
        Some(oldest.used + self.idle)
    }

    /// Takes all out, the one first that has been idle for longest.
    pub fn drain(&mut self) -> impl Iterator<Item = (FlowPath, T)> + '_ {
        std::iter::from_fn(|| self.remove(self.oldest))
    }

    fn link(&mut self, place: u32) {
        let entry = &mut self.entries[place as usize];
        (entry.newer, entry.older) = (NONE, self.newest);
        match self.newest {
            NONE => self.oldest = place,
            newest => self.entries[newest as usize].newer = place,
        }
        self.newest = place;
    }

    fn unlink(&mut self, place: u32) {
        let Entry { newer, older, .. } = self.entries[place as usize];
        match newer {
            NONE => self.newest = older,
            newer => self.entries[newer as usize].older = older,
        }
        match older {
            NONE => self.oldest = newer,
            older => self.entries[older as usize].newer = newer,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    const IDLE: Duration = Duration::from_secs(60);

    fn path(number: u16) -> FlowPath {
        FlowPath::new(SocketAddr::from(([127, 128, 0, 1], 1)), SocketAddr::from(([127, 0, 0, 1], number)))
    }

    #[test]
    fn the_flow_that_has_been_idle_for_longest_makes_room() {
        let (mut table, start) = (FlowTable::new(3, IDLE), Instant::now());
        let places: Vec<u32> = (0..3).map(|number| table.insert(path(number), number, start).at).collect();
        table.touch(places[0], start);
        assert_eq!(table.insert(path(3), 3, start).evicted, Some((path(1), 1)));
        assert_eq!(table.find(&path(1)), None);
        assert_eq!(table.len(), 3);
        assert_eq!(table.drain().map(|(_, number)| number).collect::<Vec<_>>(), [2, 0, 3]);
    }

    #[test]
    fn a_flow_expires_when_it_has_been_idle_and_not_before() {
        let (mut table, start) = (FlowTable::new(10, IDLE), Instant::now());
        let place = table.insert(path(1), 1, start).at;
        table.insert(path(2), 2, start + IDLE / 4);
        table.touch(place, start + IDLE / 2);
        assert_eq!(table.expire(start + IDLE), None);
        assert_eq!(table.next_expiry(), Some(start + IDLE / 4 + IDLE));
        assert_eq!(table.expire(start + IDLE / 4 + IDLE), Some((path(2), 2)));
        assert_eq!(table.expire(start + IDLE / 4 + IDLE), None);
        assert_eq!(table.expire(start + 2 * IDLE), Some((path(1), 1)));
        assert_eq!((table.expire(start + 3 * IDLE), table.next_expiry()), (None, None));
    }

    #[test]
    fn how_long_a_flow_may_be_idle_can_change_while_it_is_there() {
        let (mut table, start) = (FlowTable::new(10, IDLE), Instant::now());
        table.insert(path(1), 1, start);
        assert_eq!(table.expire(start), None);
        table.expire_after(Duration::ZERO);
        assert_eq!(table.expire(start), Some((path(1), 1)));
    }

    /// Against a plain list, the one used last at its end.
    #[test]
    fn it_does_what_a_list_does() {
        let (mut table, mut list, start) = (FlowTable::new(8, IDLE), Vec::<u16>::new(), Instant::now());
        let mut state = 1u32;
        for step in 0..20_000 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let number = (state >> 16) as u16 % 12;
            let known = list.iter().position(|other| *other == number);
            let place = table.find(&path(number));
            assert_eq!(place.is_some(), known.is_some(), "step {step}");
            match (place, known) {
                (Some(place), Some(at)) if state & 0x100 == 0 => {
                    assert_eq!(table.remove(place), Some((path(number), number)));
                    list.remove(at);
                }
                (Some(place), Some(at)) => {
                    table.touch(place, start);
                    list.remove(at);
                    list.push(number);
                }
                (_, _) => {
                    let evicted = table.insert(path(number), number, start).evicted;
                    let expected = (list.len() == 8).then(|| list.remove(0));
                    assert_eq!(evicted.map(|(_, number)| number), expected, "step {step}");
                    list.push(number);
                }
            }
        }
        assert_eq!(table.drain().map(|(_, number)| number).collect::<Vec<_>>(), list);
        assert!(table.entries.len() <= 8);
    }
}
