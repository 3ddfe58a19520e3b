//! Datagrams, of which there are none: what Windows says of a flow comes beside its first datagram, in a shape that
//! nobody has tried this library with. Everything fails, and no service of datagrams starts.

use std::{
    convert::Infallible,
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
};

use socket2::{Domain, Socket};

use crate::{
    datagrams::{FlowPath, Header, Outgoing, Ready, Unreachable},
    error::{QueryError, StartError},
    socket::AsSocket,
};

pub(crate) const MOST_IN_A_BATCH: usize = 1;

/// One message that came.
pub(crate) struct Arrived {
    pub(crate) slot: usize,
    pub(crate) length: usize,
    pub(crate) peer: SocketAddr,
    pub(crate) to: Option<IpAddr>,
    pub(crate) header: Header,
    pub(crate) segment: Option<usize>,
    pub(crate) truncated: bool,
}

fn unsupported() -> io::Error {
    io::ErrorKind::Unsupported.into()
}

pub(crate) fn datagram_sockets_from_env() -> Result<Vec<UdpSocket>, StartError> {
    Ok(Vec::new())
}

pub(crate) fn prepare_inbound(_: &UdpSocket) -> io::Result<()> {
    Err(unsupported())
}

pub(crate) fn prepare_outbound(_: &UdpSocket) -> io::Result<()> {
    Err(unsupported())
}

pub(crate) fn enlarge_buffers(_: &UdpSocket) {}

pub(crate) fn datagram_socket(_: Domain) -> io::Result<Socket> {
    Err(unsupported())
}

pub(crate) fn receive(
    _: &impl AsSocket,
    _: &mut [u8],
    _: usize,
    _: impl FnMut(Arrived),
) -> io::Result<usize> {
    Err(unsupported())
}

pub(crate) fn send(
    _: &impl AsSocket,
    datagrams: &[Outgoing<'_>],
    _: Header,
    mut sent: impl FnMut(usize, io::Result<()>),
) {
    (0..datagrams.len()).for_each(|index| sent(index, Err(unsupported())));
}

pub(crate) fn traffic_class(_: &impl AsSocket) -> Option<u8> {
    None
}

pub(crate) fn loopback_hop_limit(_: &impl AsSocket) -> Option<u8> {
    None
}

pub(crate) fn take_unreachable(_: &impl AsSocket) -> Option<Unreachable> {
    None
}

pub(crate) fn select_flow(_: &impl AsSocket, _: FlowPath) -> Result<(), QueryError> {
    Err(QueryError::NotSupported)
}

pub(crate) fn selected_destination(_: &impl AsSocket) -> Result<SocketAddr, QueryError> {
    Err(QueryError::NotSupported)
}

pub(crate) fn selected_path(_: &impl AsSocket) -> Result<(FlowPath, bool), QueryError> {
    Err(QueryError::NotSupported)
}

pub(crate) fn open_reply(_: &impl AsSocket, _: FlowPath, _: SocketAddr) -> Result<(), QueryError> {
    Err(QueryError::NotSupported)
}

pub(crate) fn report_error(_: &impl AsSocket, _: FlowPath, _: &io::Error, _: u32) -> Result<(), QueryError> {
    Err(QueryError::NotSupported)
}

/// There is none.
#[derive(Debug)]
pub(crate) struct Readiness(Infallible);

impl Readiness {
    pub(crate) fn new() -> io::Result<Self> {
        Err(unsupported())
    }

    pub(crate) fn add(&self, _: &impl AsSocket, _: u64) -> io::Result<()> {
        match self.0 {}
    }

    pub(crate) fn wait(&mut self, _: &mut Vec<Ready>) -> std::future::Ready<io::Result<()>> {
        match self.0 {}
    }
}
