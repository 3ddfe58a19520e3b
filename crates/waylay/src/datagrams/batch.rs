use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::{FlowPath, Header};
use crate::platform;

/// Bytes of a slot: more than any datagram has.
const SLOT: usize = 65_536;

/// Room for the datagrams of one call, and what is known of them.
///
/// It has 2 MiB, of which the system backs what is used; one is enough for all sockets of a task.
///
/// # Example
/// ```
/// let batch = waylay::datagrams::DatagramBatch::new();
/// assert_eq!(batch.iter().count(), 0);
/// ```
#[derive(Debug)]
pub struct DatagramBatch {
    buffer: Vec<u8>,
    received: Vec<Received>,
}

#[derive(Clone, Copy, Debug)]
struct Received {
    at: usize,
    length: usize,
    path: FlowPath,
    header: Header,
    truncated: bool,
}

/// One that was received.
#[derive(Clone, Copy, Debug)]
pub struct Datagram<'a> {
    /// What is in it; it may be empty.
    pub bytes: &'a [u8],
    /// Where it was going and where it comes from.
    pub path: FlowPath,
    /// What its header said; of what came to a [`DatagramSocket`](super::DatagramSocket) without a hop limit that
    /// nobody has chosen.
    pub header: Header,
    /// Whether it was longer than a datagram can be, and has been cut: not to be passed on.
    pub truncated: bool,
}

impl DatagramBatch {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        let buffer = vec![0; SLOT * platform::MOST_IN_A_BATCH];
        Self { buffer, received: Vec::with_capacity(platform::MOST_IN_A_BATCH) }
    }

    /// What the last call received, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Datagram<'_>> {
        self.received.iter().map(|received| Datagram {
            bytes: &self.buffer[received.at..received.at + received.length],
            path: received.path,
            header: received.header,
            truncated: received.truncated,
        })
    }

    /// Whether the last call received nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.received.is_empty()
    }

    /// Receives on a socket of that address, where this much of headers is usual; whether there may be more.
    pub(crate) fn fill(
        &mut self,
        socket: &impl crate::socket::AsSocket,
        bound: SocketAddr,
        usual: Header,
    ) -> std::io::Result<bool> {
        self.received.clear();
        let received = &mut self.received;
        let count = platform::receive(socket, &mut self.buffer, SLOT, |arrived| {
            let ip = arrived.to.unwrap_or(bound.ip());
            let path = FlowPath::new(SocketAddr::new(ip, bound.port()), arrived.peer);
            let header = arrived.header.besides(usual);
            let Some(size) = arrived.segment.filter(|size| *size < arrived.length) else {
                let (at, length, truncated) = (arrived.slot * SLOT, arrived.length, arrived.truncated);
                received.push(Received { at, length, path, header, truncated });
                return;
            };
            for start in (0..arrived.length).step_by(size) {
                let length = size.min(arrived.length - start);
                let at = arrived.slot * SLOT + start;
                received.push(Received { at, length, path, header, truncated: arrived.truncated });
            }
        })?;
        Ok(count == platform::MOST_IN_A_BATCH)
    }
}

impl Default for DatagramBatch {
    fn default() -> Self {
        Self::new()
    }
}

/// Of a socket that does not say.
pub(super) const UNKNOWN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
