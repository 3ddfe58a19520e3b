//! How services get on with the connections that wait for them.

use std::ops::Range;

use libbpf_rs::{MapCore, MapFlags, MapHandle};
use waylay_abi as abi;
use waylay_core::ServiceId;
use zerocopy::{FromBytes, IntoBytes};

use crate::{error::EbpfError, slots::SharedSlots};

pub(crate) const NAME: &str = "progress";
/// Of both families.
const LISTENERS_OF_A_SERVICE: u32 = 2 * abi::MAX_LISTENERS as u32;

/// How one listener of a service gets on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Connections that the service has not asked about yet.
    pub waiting: u64,
    /// Connections that it has, since it was installed.
    pub taken: u64,
    /// All that were established, since it was installed.
    pub arrived: u64,
}

/// Of the listeners of a slot's service.
pub(crate) fn indices_of(slot: u8) -> Range<u32> {
    let first = u32::from(slot) * LISTENERS_OF_A_SERVICE;
    first..first + LISTENERS_OF_A_SERVICE
}

/// Reads how services get on.
#[derive(Debug)]
pub struct ProgressReader {
    map: MapHandle,
    slots: SharedSlots,
}

impl ProgressReader {
    pub(crate) fn new(map: MapHandle, slots: SharedSlots) -> Self {
        Self { map, slots }
    }

    /// Of each possible listener of a service, in the order of the programs:
    /// those for IPv4, then those for IPv6. Nothing for a service that was not
    /// installed.
    ///
    /// # Errors
    /// [`EbpfError::Map`].
    pub fn of(&self, service: ServiceId) -> Result<Vec<Progress>, EbpfError> {
        let read = |slot| indices_of(slot).map(|index| self.read(index)).collect();
        self.slots.with(service, read).unwrap_or_else(|| Ok(Vec::new()))
    }

    fn read(&self, index: u32) -> Result<Progress, EbpfError> {
        let bytes = self
            .map
            .lookup(index.as_bytes(), MapFlags::ANY)
            .map_err(|source| EbpfError::Map { map: NAME, source })?;
        let counts = bytes.and_then(|bytes| abi::Progress::read_from_bytes(&bytes).ok()).unwrap_or_default();
        // The three are counted one after the other, not at one moment.
        let waiting = counts.arrived.saturating_sub(counts.taken).saturating_sub(counts.lost);
        Ok(Progress { waiting, taken: counts.taken, arrived: counts.arrived })
    }
}
