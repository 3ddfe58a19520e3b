//! Datagrams that are redirected: one flow for each destination of an application's socket.
//!
//! [`DatagramService::serve`] gives each flow to a handler, a task of its own. Below it, for services with very many
//! flows: [`DatagramService::into_parts`] and what is made of them, which `waylay-relay` is built on. Both know a
//! flow by its [`FlowPath`], ask the kernel about it when its first datagram arrives, and cannot send on without the
//! flow's records.
//!
//! A flow is over after it has been idle ([`DatagramService::idle_after`], 60 s unless said otherwise). What comes
//! for it later is announced as a new one, with its context.

mod batch;
mod facts;
mod flow;
mod header;
mod outbound;
mod readiness;
mod serve;
mod service;
mod socket;
mod table;

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

pub use batch::{Datagram, DatagramBatch};
pub use facts::FlowFacts;
pub use flow::{FlowEvent, InboundFlow, OutboundFlow, ReplyError};
pub use header::{Content, Header, Message};
pub use outbound::OutboundSocket;
pub use readiness::{Readiness, Ready};
pub use service::{DatagramService, Parts};
pub use socket::{DatagramSocket, receive, send};
pub use table::{FlowTable, Inserted};

/// By what a service knows a flow: the token that the application's datagrams are sent to, and where they come from.
///
/// # Example
/// ```
/// use waylay::datagrams::FlowPath;
///
/// let path = FlowPath::new("127.128.0.7:4000".parse()?, "127.0.0.1:50000".parse()?);
/// assert_eq!(path.peer().port(), 50000);
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlowPath {
    local: SocketAddr,
    peer: SocketAddr,
}

impl FlowPath {
    /// Of these ends.
    #[must_use]
    pub fn new(local: SocketAddr, peer: SocketAddr) -> Self {
        Self { local, peer }
    }

    /// The token: an address or port of the loopback that stands for the flow.
    #[must_use]
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// The application's socket, as the service sees it.
    #[must_use]
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }
}

/// A datagram to be sent.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a> {
    /// What is in it; it may be empty.
    pub bytes: &'a [u8],
    /// Where to; `None` on a connected socket.
    pub to: Option<SocketAddr>,
    /// Which of the socket's addresses it is to come from.
    pub from: Option<IpAddr>,
    /// What its header is to say.
    pub header: Header,
}

impl<'a> Outgoing<'a> {
    /// An answer to the application, which shows it as coming from the flow's destination.
    #[must_use]
    pub fn answer(path: FlowPath, bytes: &'a [u8]) -> Self {
        Self { bytes, to: Some(path.peer), from: Some(path.local.ip()), header: Header::default() }
    }

    /// The same with another header.
    #[must_use]
    pub fn with_header(self, header: Header) -> Self {
        Self { header, ..self }
    }
}

/// What the network has reported of a datagram that was sent.
#[derive(Debug)]
pub struct Unreachable {
    /// Where it was going.
    pub destination: Option<SocketAddr>,
    /// What is wrong: ECONNREFUSED, EHOSTUNREACH, EMSGSIZE and the like.
    pub error: io::Error,
    /// The path's MTU in bytes, with EMSGSIZE.
    pub info: u32,
}
