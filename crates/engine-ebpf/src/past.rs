//! Flows that have ended, as the programs tell of them.

use std::time::Duration;

use libbpf_rs::{MapHandle, RingBufferBuilder};
use waylay_abi as abi;
use waylay_core::Protocol;
use zerocopy::FromBytes;

use crate::{
    error::EbpfError,
    flows::{LiveFlow, decode},
};

pub(crate) const MAP: &str = "past";
/// Of the number of a flow of datagrams.
const DATAGRAMS: u64 = 1 << 52;

/// A leg that was redirected, and has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PastFlow {
    /// As it was.
    pub flow: LiveFlow,
    /// When it ended, by the monotonic clock.
    pub ended: Duration,
}

/// The programs' ring buffer of them. It may be read from any one thread.
#[derive(Debug)]
pub struct PastSource {
    map: MapHandle,
}

impl PastSource {
    pub(crate) fn new(map: MapHandle) -> Self {
        Self { map }
    }

    /// Those that have ended since the last call, as many as there was room for ([`Limits::past`](crate::Limits::past)); the same
    /// one may be among them twice. It does not wait.
    ///
    /// # Errors
    /// [`EbpfError::Map`] if the buffer cannot be read.
    pub fn take(&mut self) -> Result<Vec<PastFlow>, EbpfError> {
        let error = |source| EbpfError::Map { map: MAP, source };
        let mut found = Vec::new();
        let mut builder = RingBufferBuilder::new();
        let collect = |bytes: &[u8]| {
            found.extend(past(bytes));
            0
        };
        builder.add(&self.map, collect).map_err(error)?;
        builder.build().and_then(|ring| ring.consume()).map_err(error)?;
        Ok(found)
    }
}

fn past(bytes: &[u8]) -> Option<PastFlow> {
    let flow = abi::Flow::read_from_bytes(bytes).ok()?;
    let protocol = if flow.id & DATAGRAMS == 0 { Protocol::Tcp } else { Protocol::Udp };
    Some(PastFlow { flow: decode(&flow, protocol), ended: Duration::from_nanos(flow.seen) })
}
