use std::{io, net::UdpSocket};

use socket2::Domain;

use super::{FlowFacts, Unreachable};
use crate::{error::ConnectError, options::set_redirect_records, platform, socket::AsSocket};

/// A socket for what goes on, which has its flow's records.
///
/// [`FlowFacts::outbound`] makes one, and nothing else does:
///
/// ```compile_fail,E0451
/// fn dial(socket: std::net::UdpSocket) -> waylay::datagrams::OutboundSocket {
///     waylay::datagrams::OutboundSocket { socket }
/// }
/// ```
///
/// ```compile_fail,E0277
/// fn dial(socket: std::net::UdpSocket) -> waylay::datagrams::OutboundSocket {
///     socket.into()
/// }
/// ```
#[derive(Debug)]
pub struct OutboundSocket {
    socket: UdpSocket,
}

impl OutboundSocket {
    pub(super) fn prepare(facts: &FlowFacts) -> Result<Self, ConnectError> {
        let destination = facts.original_destination();
        let socket = platform::datagram_socket(Domain::for_address(destination))
            .map_err(|source| ConnectError::Socket { destination, source })?;
        set_redirect_records(&socket, &facts.records)?;
        platform::apply_wishes(&socket, destination, &facts.context).map_err(ConnectError::Wishes)?;
        if facts.connected {
            let connected = socket.connect(&destination.into());
            connected.map_err(|source| ConnectError::Connect { destination, source })?;
        }
        Ok(Self { socket: socket.into() })
    }

    /// The socket itself, which never waits.
    #[must_use]
    pub fn into_socket(self) -> UdpSocket {
        self.socket
    }
}

impl Unreachable {
    /// The next of what the network has reported to an outbound socket.
    #[must_use]
    pub fn take(socket: &impl AsSocket) -> Option<Self> {
        platform::take_unreachable(socket)
    }

    /// Lets a socket that this library has not made be told of errors; those it has made are.
    ///
    /// # Errors
    /// What the system said.
    pub fn watch(socket: &UdpSocket) -> io::Result<()> {
        socket.set_nonblocking(true)?;
        platform::prepare_outbound(socket)
    }
}
