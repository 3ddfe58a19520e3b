//! Which services live.

use libbpf_rs::{MapCore, MapFlags, MapHandle};
use waylay_core::ServiceId;
use waylay_engine::Liveness;
use zerocopy::IntoBytes;

use crate::{error::EbpfError, slots::SharedSlots};

pub(crate) const ALIVE: u32 = 1;
pub(crate) const DEAD: u32 = 0;

/// Says whether services live.
#[derive(Debug)]
pub struct LivenessMarks {
    map: MapHandle,
    slots: SharedSlots,
}

impl LivenessMarks {
    pub(crate) fn new(map: MapHandle, slots: SharedSlots) -> Self {
        Self { map, slots }
    }

    /// Marks a service as living or dead; one that was not installed stays absent.
    ///
    /// # Errors
    /// [`EbpfError::Map`].
    pub fn set(&self, service: ServiceId, liveness: Liveness) -> Result<(), EbpfError> {
        let mark = match liveness {
            Liveness::Alive => ALIVE,
            Liveness::Dead => DEAD,
        };
        let write = |slot| self.map.update(u32::from(slot).as_bytes(), mark.as_bytes(), MapFlags::ANY);
        self.slots
            .with(service, write)
            .unwrap_or(Ok(()))
            .map_err(|source| EbpfError::Map { map: "service_alive", source })
    }
}
