//! How services get on with the connections that wait for them.

use libbpf_rs::{MapCore, MapFlags, MapHandle};
use waylay_abi as abi;
use waylay_core::{ServiceId, Slots};
use zerocopy::{FromBytes, IntoBytes};

use crate::error::EbpfError;

const NAME: &str = "progress";
/// Of both families.
const LISTENERS_OF_A_SERVICE: u32 = 2 * abi::MAX_LISTENERS as u32;

/// How one listener of a service gets on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Connections that the service has not asked about yet.
    pub waiting: u64,
    /// Connections that it has, since it was installed.
    pub taken: u64,
}

/// Reads how services get on.
#[derive(Debug)]
pub struct ProgressReader {
    map: MapHandle,
    slots: Slots,
}

impl ProgressReader {
    pub(crate) fn new(map: MapHandle, slots: Slots) -> Self {
        Self { map, slots }
    }

    /// Of each possible listener of a service, in the order of the programs:
    /// those for IPv4, then those for IPv6. Nothing for a service that was not
    /// installed.
    ///
    /// # Errors
    /// [`EbpfError::Map`].
    pub fn of(&self, service: ServiceId) -> Result<Vec<Progress>, EbpfError> {
        let Some(slot) = self.slots.of(service) else { return Ok(Vec::new()) };
        let first = u32::from(slot) * LISTENERS_OF_A_SERVICE;
        (first..first + LISTENERS_OF_A_SERVICE).map(|index| self.read(index)).collect()
    }

    fn read(&self, index: u32) -> Result<Progress, EbpfError> {
        let bytes = self
            .map
            .lookup(index.as_bytes(), MapFlags::ANY)
            .map_err(|source| EbpfError::Map { map: NAME, source })?;
        let counts = bytes.and_then(|bytes| abi::Progress::read_from_bytes(&bytes).ok()).unwrap_or_default();
        // The three are counted one after the other, not at one moment.
        let waiting = counts.arrived.saturating_sub(counts.taken).saturating_sub(counts.lost);
        Ok(Progress { waiting, taken: counts.taken })
    }
}
