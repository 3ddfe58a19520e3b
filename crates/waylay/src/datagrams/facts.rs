use std::net::SocketAddr;

use super::{FlowPath, OutboundSocket};
use crate::{
    context::{ChainHop, RedirectContext},
    error::ConnectError,
    options::RedirectRecords,
};

/// All that the kernel knows about a flow.
///
/// # Example
/// ```no_run
/// # fn look(facts: &waylay::datagrams::FlowFacts) {
/// println!("{} asks {}", facts.context().application(), facts.original_destination());
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct FlowFacts {
    pub(super) path: FlowPath,
    pub(super) connected: bool,
    pub(super) records: RedirectRecords,
    pub(super) context: RedirectContext,
    pub(super) chain: Vec<ChainHop>,
}

impl FlowFacts {
    /// By what its datagrams are known.
    #[must_use]
    pub fn path(&self) -> FlowPath {
        self.path
    }

    /// Who is behind it.
    #[must_use]
    pub fn context(&self) -> &RedirectContext {
        &self.context
    }

    /// Where the application, or the service before this one, is sending to.
    #[must_use]
    pub fn original_destination(&self) -> SocketAddr {
        self.context.original_destination()
    }

    /// The services that have had the flow, oldest first; this one is the last.
    #[must_use]
    pub fn chain(&self) -> &[ChainHop] {
        &self.chain
    }

    /// Whether the application's socket is connected to the destination: then it takes no answers from elsewhere,
    /// and is told of errors.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.connected
    }

    /// A socket to send on from, with this flow's records set. It serves all flows of the application's socket that
    /// have the same [`peer`](FlowPath::peer) and are not [connected](Self::is_connected), so that all
    /// destinations see one source port; one for a connected flow is connected, too.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub fn outbound(&self) -> Result<OutboundSocket, ConnectError> {
        OutboundSocket::prepare(self)
    }
}
