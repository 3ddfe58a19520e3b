use std::{
    io,
    net::{SocketAddr, UdpSocket},
};

use super::{DatagramBatch, FlowFacts, FlowPath, Header, Outgoing, batch::UNKNOWN};
use crate::{
    error::{QueryError, StartError},
    options::{query_redirect_chain, query_redirect_context, query_redirect_records},
    platform,
    socket::AsSocket,
};

/// A socket that applications' datagrams are redirected to, of a service that keeps its own account of flows.
///
/// # Example
/// ```no_run
/// use waylay::datagrams::{DatagramBatch, DatagramSocket};
///
/// /// Whom the datagrams that wait are from.
/// fn look(socket: &DatagramSocket, batch: &mut DatagramBatch) -> std::io::Result<()> {
///     socket.receive(batch)?;
///     for datagram in batch.iter() {
///         // Asked once for each flow, not for each datagram, by a real service.
///         if let Ok(facts) = socket.identify(datagram.path) {
///             println!("{} -> {}", facts.context().application(), facts.original_destination());
///         }
///     }
///     Ok(())
/// }
/// ```
#[derive(Debug)]
pub struct DatagramSocket {
    socket: UdpSocket,
    bound: SocketAddr,
    /// What datagrams of the loopback have unless somebody has chosen.
    usual: Header,
}

impl DatagramSocket {
    /// Takes over a socket of this service's that is bound already.
    ///
    /// # Errors
    /// [`StartError::NotADatagramSocket`] if it is none, or cannot be told to say where datagrams were going.
    pub fn new(socket: UdpSocket) -> Result<Self, StartError> {
        let refused = |source| StartError::NotADatagramSocket { fd: platform::number(&socket), source };
        platform::prepare_inbound(&socket).map_err(refused)?;
        platform::enlarge_buffers(&socket);
        let bound = socket.local_addr().map_err(refused)?;
        let usual = Header { hop_limit: platform::loopback_hop_limit(&socket), ..Header::usual(&socket) };
        Ok(Self { socket, bound, usual })
    }

    /// Where it is bound.
    #[must_use]
    pub fn local_address(&self) -> SocketAddr {
        self.bound
    }

    /// Receives what waits, some 30 datagrams at most, without waiting; whether there may be more.
    ///
    /// # Errors
    /// `WouldBlock` if nothing waits; what the system said.
    pub fn receive(&self, batch: &mut DatagramBatch) -> io::Result<bool> {
        // A traffic class of 0 may have been chosen, where the socket to send on from has another.
        let usual = Header { traffic_class: None, ..self.usual };
        batch.fill(&self.socket, self.bound, usual)
    }

    /// Asks the kernel about a flow.
    ///
    /// # Errors
    /// [`QueryError::NotRedirected`] if there is none: somebody has sent to the socket directly, or the flow has
    /// ended. Drop its datagrams.
    pub fn identify(&self, path: FlowPath) -> Result<FlowFacts, QueryError> {
        platform::select_flow(&self.socket, path)?;
        self.selected()
    }

    /// Where a flow is going. The ports that stand for flows of IPv6 are used again: a service that remembers one
    /// asks before it goes by what it remembers.
    ///
    /// # Errors
    /// [`QueryError::NotRedirected`] if there is no such flow.
    pub fn destination(&self, path: FlowPath) -> Result<SocketAddr, QueryError> {
        platform::select_flow(&self.socket, path)?;
        platform::selected_destination(&self.socket)
    }

    /// Whether a flow of the same path may be another one tomorrow: see [`destination`](Self::destination).
    #[must_use]
    pub fn reuses_paths(&self) -> bool {
        self.bound.is_ipv6()
    }

    /// For an answer from another address than the flow's destination: the flow that the application's socket has
    /// with that address, new if there was none.
    ///
    /// # Errors
    /// [`QueryError::NotRedirected`] if the flow has ended; others if there is no room for one more.
    pub fn open_reply(&self, path: FlowPath, from: SocketAddr) -> Result<FlowFacts, QueryError> {
        platform::open_reply(&self.socket, path, from)?;
        self.selected()
    }

    /// Has the application told what became of a datagram that it sent: `error` as the network reported it, `info`
    /// the MTU in bytes with EMSGSIZE and 0 otherwise.
    ///
    /// # Errors
    /// [`QueryError::NotRedirected`] if the flow has ended.
    pub fn report_error(&self, path: FlowPath, error: &io::Error, info: u32) -> Result<(), QueryError> {
        platform::report_error(&self.socket, path, error, info)
    }

    /// Sends answers, made by [`Outgoing::answer`], without waiting; `sent` is told of each what became of it.
    pub fn send(&self, datagrams: &[Outgoing<'_>], sent: impl FnMut(usize, io::Result<()>)) {
        platform::send(&self.socket, datagrams, self.usual, sent);
    }

    fn selected(&self) -> Result<FlowFacts, QueryError> {
        let records = query_redirect_records(&self.socket)?;
        let context = query_redirect_context(&self.socket)?;
        let chain = query_redirect_chain(&self.socket)?;
        let (path, connected) = platform::selected_path(&self.socket)?;
        Ok(FlowFacts { path, connected, records, context, chain })
    }
}

#[cfg(target_os = "linux")]
impl std::os::fd::AsFd for DatagramSocket {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(windows)]
impl AsSocket for DatagramSocket {
    fn as_socket(&self) -> std::os::windows::io::BorrowedSocket<'_> {
        self.socket.as_socket()
    }
}

/// Receives on an outbound socket without waiting; whether there may be more. In the paths only `peer` has a meaning.
///
/// # Errors
/// `WouldBlock` if nothing waits; what the system said.
pub fn receive(socket: &impl AsSocket, batch: &mut DatagramBatch) -> io::Result<bool> {
    batch.fill(socket, UNKNOWN, Header::default())
}

/// Sends on an outbound socket without waiting, with what their headers say, of which [`Header::besides`] leaves out
/// what need not be said; `sent` is told of each datagram what became of it.
pub fn send(socket: &impl AsSocket, datagrams: &[Outgoing<'_>], sent: impl FnMut(usize, io::Result<()>)) {
    platform::send(socket, datagrams, Header::default(), sent);
}
