//! What services say of destinations that could not be reached, for whoever tells the applications.

use std::{net::SocketAddr, time::Duration};

use libbpf_rs::{MapHandle, RingBufferBuilder};
use waylay_abi as abi;
use zerocopy::FromBytes;

use crate::error::EbpfError;

const MAP: &str = "unreachable";

/// A destination of datagrams could not be reached: the application's socket is to see this error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreachable {
    /// The address that stands for the destination, to which the application's datagrams went.
    pub token: SocketAddr,
    /// The application's socket.
    pub application: SocketAddr,
    /// The error.
    pub errno: u32,
    /// With `EMSGSIZE` the MTU in bytes.
    pub info: u32,
}

/// The programs' ring buffer of them. It may be read from any one thread.
#[derive(Debug)]
pub struct UnreachableSource {
    map: MapHandle,
}

impl UnreachableSource {
    pub(crate) fn new(map: MapHandle) -> Self {
        Self { map }
    }

    pub(crate) const MAP: &str = MAP;

    /// What was said since the last call; waits for it no longer than `timeout`.
    ///
    /// # Errors
    /// [`EbpfError::Map`] if the buffer cannot be read.
    pub fn poll(&mut self, timeout: Duration) -> Result<Vec<Unreachable>, EbpfError> {
        let error = |source| EbpfError::Map { map: MAP, source };
        let mut said = Vec::new();
        let mut builder = RingBufferBuilder::new();
        let collect = |bytes: &[u8]| {
            said.extend(decode(bytes));
            0
        };
        builder.add(&self.map, collect).map_err(error)?;
        builder.build().and_then(|ring| ring.poll(timeout)).map_err(error)?;
        Ok(said)
    }
}

fn decode(bytes: &[u8]) -> Option<Unreachable> {
    let said = abi::Unreachable::read_from_bytes(bytes).ok()?;
    Some(Unreachable {
        token: said.path.local.into(),
        application: said.path.peer.into(),
        errno: said.error,
        info: said.info,
    })
}
