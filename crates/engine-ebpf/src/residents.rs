//! Services that run already, in cgroups of their own choice: where the programs are attached for their sake.

use std::path::PathBuf;

use libbpf_rs::{MapCore, MapFlags, MapHandle};
use waylay_core::{Resident, ServiceId};
use zerocopy::{FromBytes, IntoBytes};

use crate::{error::EbpfError, slots::SharedSlots};

/// Its values begin with the number of flows.
pub(crate) const FLOWS: &str = "duties";

/// Where a service is that runs already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Residence {
    /// Which processes it has.
    pub resident: Resident,
    /// How many cgroups are above that of [`Residence::resident`].
    pub level: u32,
    /// Directories of the cgroups in which its sockets are made: those that it dials by, and its listeners. None is
    /// below another.
    pub hooked: Vec<PathBuf>,
}

/// Says how many flows residents have that they were led; it can go to another thread.
#[derive(Debug)]
pub struct ResidentFlows {
    map: MapHandle,
    slots: SharedSlots,
}

impl ResidentFlows {
    pub(crate) fn new(map: MapHandle, slots: SharedSlots) -> Self {
        Self { map, slots }
    }

    /// How many a resident has; 0 of a service that is none.
    ///
    /// # Errors
    /// [`EbpfError::Map`].
    pub fn of(&self, service: ServiceId) -> Result<u64, EbpfError> {
        let read = |slot| self.map.lookup(u32::from(slot).as_bytes(), MapFlags::ANY);
        let bytes = self.slots.with(service, read).unwrap_or(Ok(None));
        let bytes = bytes.map_err(|source| EbpfError::Map { map: FLOWS, source })?;
        let flows = |bytes: Vec<u8>| u64::read_from_prefix(&bytes).map(|(flows, _)| flows).ok();
        Ok(bytes.and_then(flows).unwrap_or_default())
    }
}
