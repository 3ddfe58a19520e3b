//! How tables take the place of those in force.
//!
//! Filters' words are written where no program looks, and then the tables are replaced, which name the places. The kernel waits with
//! each replacement for the programs that are running: none of them sees the words of two policies.
//!
//! A replacement takes the kernel some ten milliseconds. So what amends a whole is written into maps that stay, of which the tables
//! in force name one at most, and then there is one replacement only.

use std::os::fd::{AsFd, AsRawFd};

use libbpf_rs::{MapCore, MapFlags, MapHandle};
use waylay_abi as abi;
use waylay_core::Tables;
use zerocopy::IntoBytes;

use crate::{
    error::EbpfError,
    load::{Loaded, filters_map, tables_map, write_chunks},
};

const FILTERS: &str = "filters";
const TABLES: &str = "tables";
/// Where words of wholes may be; those of amendments are at the places after these.
const WHOLES: u32 = 2;
/// Chunks for amendments, to begin with.
const ROOM: usize = 8;

/// The maps that the programs look at.
#[derive(Debug)]
pub(crate) struct InForce {
    filters: MapHandle,
    tables: MapHandle,
    installed: Option<MapHandle>,
    /// At which of the two places the words of the whole are.
    whole_at: u32,
    /// In which of the two rooms those are that amend it.
    room: Option<usize>,
    rooms: [Option<Room>; 2],
}

/// A map that stays at its place.
#[derive(Debug)]
struct Room {
    map: MapHandle,
    chunks: usize,
}

impl InForce {
    pub(crate) fn new(loaded: &Loaded) -> Result<Self, EbpfError> {
        Ok(Self {
            filters: loaded.map(FILTERS)?,
            tables: loaded.map(TABLES)?,
            installed: None,
            whole_at: 0,
            room: None,
            rooms: [None, None],
        })
    }

    /// The tables in force, without their filters.
    pub(crate) const fn tables(&self) -> Option<&MapHandle> {
        self.installed.as_ref()
    }

    /// Puts tables in force, given those that are and how the new ones are encoded.
    pub(crate) fn replace(
        &mut self,
        former: &Tables,
        next: &Tables,
        mut encoded: Box<abi::Tables>,
    ) -> Result<(), EbpfError> {
        let has_whole = self.installed.is_some() && next.share_whole_with(former);
        let place = if has_whole { self.whole_at } else { 1 - self.whole_at };
        if !has_whole {
            let map = filters_map(next.index().words(), 1).map_err(failed(FILTERS))?;
            put(&self.filters, FILTERS, place, &map)?;
        }
        let room = match next.amendments() {
            Some(amendments) => Some(self.write_amendments(amendments.words())?),
            None => None,
        };
        encoded.filters = place;
        encoded.amendments = room.map_or(0, |room| (WHOLES as usize + room) as u8);
        let inner = tables_map(&encoded).map_err(failed(TABLES))?;
        put(&self.tables, TABLES, 0, &inner)?;
        (self.installed, self.whole_at, self.room) = (Some(inner), place, room);
        if !has_whole {
            // They only take room until the next ones take their place.
            let _stay = self.filters.delete((1 - place).as_bytes());
        }
        Ok(())
    }

    /// Into the room that is not in use: no program has looked there since the tables were last replaced.
    fn write_amendments(&mut self, words: &[u64]) -> Result<usize, EbpfError> {
        let room = self.room.map_or(0, |room| 1 - room);
        let chunks = words.len().div_ceil(abi::CHUNK);
        match &self.rooms[room] {
            Some(found) if found.chunks >= chunks => {
                write_chunks(&found.map, words).map_err(failed(FILTERS))?;
            }
            Some(_) | None => {
                let chunks = chunks.next_power_of_two().max(ROOM);
                let map = filters_map(words, chunks).map_err(failed(FILTERS))?;
                put(&self.filters, FILTERS, WHOLES + room as u32, &map)?;
                self.rooms[room] = Some(Room { map, chunks });
            }
        }
        Ok(room)
    }
}

pub(crate) fn put(
    outer: &MapHandle,
    name: &'static str,
    place: u32,
    inner: &MapHandle,
) -> Result<(), EbpfError> {
    let inner = inner.as_fd().as_raw_fd().to_ne_bytes();
    outer.update(place.as_bytes(), &inner, MapFlags::ANY).map_err(failed(name))
}

fn failed(map: &'static str) -> impl Fn(libbpf_rs::Error) -> EbpfError {
    move |source| EbpfError::Map { map, source }
}
