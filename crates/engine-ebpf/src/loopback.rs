use libbpf_rs::{MapCore, MapFlags, MapHandle};
use zerocopy::IntoBytes;

use crate::error::EbpfError;

pub(crate) const NAME: &str = "plain_loopback";

/// Says whether an address of the loopback where nobody listens leads nowhere.
#[derive(Debug)]
pub struct LoopbackMark {
    map: MapHandle,
}

impl LoopbackMark {
    pub(crate) fn new(map: MapHandle) -> Self {
        Self { map }
    }

    /// If it does, connections to it are refused as the kernel would have; at first they are led to services.
    ///
    /// # Errors
    /// [`EbpfError::Map`].
    pub fn set(&self, is_plain: bool) -> Result<(), EbpfError> {
        self.map
            .update(0_u32.as_bytes(), u32::from(is_plain).as_bytes(), MapFlags::ANY)
            .map_err(|source| EbpfError::Map { map: NAME, source })
    }
}
