use std::{net::UdpSocket, time::Duration};

use super::{DatagramSocket, InboundFlow, serve};
use crate::{
    error::{ServeError, StartError},
    platform,
    shutdown::Shutdown,
};

/// How long a flow is kept without a datagram; the kernel side keeps them as long.
const IDLE: Duration = Duration::from_secs(60);
/// Flows at a time; the kernel side has fewer.
const MOST_FLOWS: usize = 1 << 20;

/// The sockets that datagrams are redirected to, and the loop over them.
///
/// # Example
/// ```no_run
/// use waylay::datagrams::{DatagramService, FlowEvent, InboundFlow};
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// DatagramService::from_env()?.serve(handle).await?;
/// # Ok(())
/// # }
///
/// async fn handle(mut flow: InboundFlow) {
///     println!("{} -> {}", flow.context().application(), flow.original_destination());
///     let Ok(mut outbound) = flow.connect() else { return };
///     while let Some(event) = flow.next(&mut outbound).await {
///         // A datagram that is lost is what datagrams are for.
///         let _lost = match event {
///             FlowEvent::Datagram(datagram) => outbound.send(&datagram).is_err(),
///             FlowEvent::Answer { datagram, from } => flow.reply_from(from, &datagram).is_err(),
///             FlowEvent::Unreachable(lost) => flow.report_error(&lost.error, lost.info).is_err(),
///         };
///     }
/// }
/// ```
#[derive(Debug)]
pub struct DatagramService {
    parts: Parts,
}

/// What a service is made of, for one that does without [`DatagramService::serve`].
#[derive(Debug)]
pub struct Parts {
    /// One for IPv4, and several for IPv6.
    pub sockets: Vec<DatagramSocket>,
    /// After how long without a datagram a flow ends.
    pub idle: Duration,
    /// Flows at a time.
    pub most_flows: usize,
    /// When the service is to end.
    pub shutdown: Shutdown,
}

impl DatagramService {
    /// Takes the sockets that the starter passed by `LISTEN_FDS` under the names `udp4` and `udp6`, for a service of
    /// datagrams alone. Others that were passed are closed. One that has connections as well begins with
    /// [`RedirectService::from_env`](crate::RedirectService::from_env), and takes these by
    /// [`take_datagrams`](crate::RedirectService::take_datagrams).
    ///
    /// # Errors
    /// [`StartError::NoDatagrams`] if none was passed, or on Windows; the others of
    /// [`RedirectService::from_env`](crate::RedirectService::from_env).
    pub fn from_env() -> Result<Self, StartError> {
        let sockets = platform::datagram_sockets_from_env()?;
        if sockets.is_empty() {
            return Err(StartError::NoDatagrams);
        }
        Self::with_sockets(sockets)
    }

    /// A service on sockets that are bound already, by a process of the registered service.
    ///
    /// # Errors
    /// [`StartError::NoDatagrams`] if there is none, [`StartError::NotADatagramSocket`].
    pub fn with_sockets(sockets: Vec<UdpSocket>) -> Result<Self, StartError> {
        Self::with_shutdown(sockets, Shutdown::new())
    }

    pub(crate) fn with_shutdown(sockets: Vec<UdpSocket>, shutdown: Shutdown) -> Result<Self, StartError> {
        let sockets: Vec<_> = sockets.into_iter().map(DatagramSocket::new).collect::<Result<_, _>>()?;
        if sockets.is_empty() {
            return Err(StartError::NoDatagrams);
        }
        Ok(Self { parts: Parts { sockets, idle: IDLE, most_flows: MOST_FLOWS, shutdown } })
    }

    /// Ends flows that have had no datagram for so long. What comes later is announced as a new flow.
    #[must_use]
    pub fn idle_after(mut self, idle: Duration) -> Self {
        self.parts.idle = idle;
        self
    }

    /// Keeps so many flows at most. One more ends that which has been idle for longest.
    #[must_use]
    pub fn most_flows(mut self, most_flows: usize) -> Self {
        self.parts.most_flows = most_flows;
        self
    }

    /// A handle that makes [`serve`](Self::serve) end.
    #[must_use]
    pub fn shutdown(&self) -> Shutdown {
        self.parts.shutdown.clone()
    }

    /// The sockets and settings.
    #[must_use]
    pub fn into_parts(self) -> Parts {
        self.parts
    }

    /// Gives each flow to `handler`, in a task of its own on the current runtime of tokio, which needs I/O and time
    /// enabled.
    ///
    /// A flow has a queue of 64 datagrams: of one whose handler is slow, the datagrams that come when it is full are
    /// dropped, and nobody else waits. Datagrams that belong to no flow (somebody has sent to the socket directly)
    /// never reach the handler. A handler that returns ends its flow: what comes for it later is dropped, until it
    /// has been idle.
    ///
    /// Returns when [`Shutdown::trigger`] was called and every handler has returned; their flows get no more
    /// datagrams then.
    ///
    /// # Errors
    /// Only a failing socket ends it; see [`ServeError`].
    pub async fn serve<F, H>(self, handler: F) -> Result<(), ServeError>
    where
        F: Fn(InboundFlow) -> H + Send + Sync + 'static,
        H: Future<Output = ()> + Send + 'static,
    {
        platform::raise_descriptor_limit();
        serve::serve_flows(self.parts, handler).await.map_err(ServeError::Listener)?;
        Ok(())
    }
}
