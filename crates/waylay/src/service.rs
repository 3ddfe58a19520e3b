use std::{
    io, mem,
    net::{SocketAddr, TcpListener, UdpSocket},
    sync::Arc,
    time::Duration,
};

use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::{
    accept::serve_streams,
    datagrams::DatagramService,
    error::{ServeError, StartError},
    inbound::Inbound,
    platform::{self, Sockets},
    pool::Pooling,
    shutdown::Shutdown,
};

/// Pending connections a listener made by [`RedirectService::bind`] holds; the
/// kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// A redirect service: its listening sockets, and the loop over them.
///
/// # Example
/// ```no_run
/// use waylay::{Inbound, RedirectService};
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// RedirectService::from_env()?.serve(handle).await?;
/// # Ok(())
/// # }
///
/// async fn handle(inbound: Inbound) {
///     println!("{} -> {}", inbound.context().application(), inbound.original_destination());
///     if let Ok(outbound) = inbound.connect().await {
///         // waylay_relay::relay(inbound, outbound).await
///     }
/// }
/// ```
#[derive(Debug)]
pub struct RedirectService {
    listeners: Vec<TcpListener>,
    datagrams: Vec<UdpSocket>,
    pooling: Pooling,
    shutdown: Shutdown,
}

impl RedirectService {
    /// Takes the listening sockets the starter passed by `LISTEN_FDS`
    /// (`sd_listen_fds(3)`): descriptors 3 and up.
    ///
    /// With `LISTEN_FDNAMES` it takes those named `tcp4` and `tcp6`; each name
    /// may occur several times; and those named `udp4` and `udp6` for
    /// [`take_datagrams`](Self::take_datagrams). Others stay open and untouched.
    /// Without names it takes all for listeners. Every passed descriptor is
    /// closed in the programs that this process starts.
    ///
    /// `LISTEN_PID` must name this process if it is set.
    ///
    /// Windows passes no sockets. There it listens on the addresses in
    /// `WAYLAY_LISTEN`, with commas between them, as [`bind`](Self::bind) does.
    ///
    /// # Errors
    /// [`StartError`] says what was not passed, was passed before or to somebody
    /// else, or is not a listener; and [`StartError::NotRegistered`] if the
    /// listeners are not those of a registered service. On Windows those of
    /// [`bind`](Self::bind), or [`StartError::NotAnAddress`].
    pub fn from_env() -> Result<Self, StartError> {
        let Sockets { listeners, datagrams } = platform::sockets_from_env(listen)?;
        let service = Self::with_listeners(listeners)?;
        Ok(Self { datagrams, ..service })
    }

    /// What serves the datagrams that are redirected to this service, if any are: the policy says so. It ends by
    /// the same [`Shutdown`]. Who does not take it before [`serve`](Self::serve) closes its sockets, and then
    /// datagrams are refused or go on, as the failure policy has it.
    ///
    /// # Errors
    /// [`StartError::NotADatagramSocket`].
    ///
    /// # Example
    /// ```no_run
    /// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
    /// let mut service = waylay::RedirectService::from_env()?;
    /// if let Some(datagrams) = service.take_datagrams()? {
    ///     tokio::spawn(datagrams.serve(|flow| async move { println!("{}", flow.original_destination()) }));
    /// }
    /// service.serve(|inbound| async move { drop(inbound) }).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn take_datagrams(&mut self) -> Result<Option<DatagramService>, StartError> {
        let sockets = mem::take(&mut self.datagrams);
        if sockets.is_empty() {
            return Ok(None);
        }
        DatagramService::with_shutdown(sockets, self.shutdown.clone()).map(Some)
    }

    /// Listens on an address. Port 0 stands for any.
    ///
    /// Connections arrive once the address is registered as this service's.
    ///
    /// # Errors
    /// [`StartError::NotRegistered`] if this process is outside every
    /// registered service, [`StartError::NotSupported`] on a Windows that knows
    /// nothing of redirection, [`StartError::Listen`] if the address cannot be had.
    ///
    /// # Example
    /// ```
    /// use waylay::{RedirectService, StartError};
    ///
    /// // This example is no service:
    /// let error = RedirectService::bind("127.0.0.1:0".parse()?).unwrap_err();
    /// assert!(matches!(error, StartError::NotRegistered { .. }));
    /// # Ok::<(), std::net::AddrParseError>(())
    /// ```
    pub fn bind(address: SocketAddr) -> Result<Self, StartError> {
        let listener = listen(address)?;
        Self::with_listeners(vec![listener])
    }

    /// A service on sockets that are listening already. They must have been
    /// created by a process of the registered service, which is not checked
    /// here: what arrives at others carries no record and is reset.
    ///
    /// From here on what they accept is reset when it is closed, the death of
    /// this process included: see [`Inbound::identify`].
    ///
    /// # Errors
    /// [`StartError::NoListeners`] if there is none,
    /// [`StartError::NotAListener`] if an option cannot be set on one.
    ///
    /// # Example
    /// ```
    /// let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    /// let service = waylay::RedirectService::with_listeners(vec![listener])?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn with_listeners(listeners: Vec<TcpListener>) -> Result<Self, StartError> {
        if listeners.is_empty() {
            return Err(StartError::NoListeners);
        }
        for listener in &listeners {
            SockRef::from(listener)
                .set_linger(Some(Duration::ZERO))
                .and_then(|()| listener.set_nonblocking(true))
                .map_err(|source| StartError::NotAListener { fd: platform::number(listener), source })?;
        }
        let (datagrams, shutdown) = (Vec::new(), Shutdown::new());
        Ok(Self { listeners, datagrams, pooling: Pooling::Never, shutdown })
    }

    /// Which connections may share an upstream connection: what
    /// [`Inbound::pool_key`] answers. [`Pooling::Never`] unless said otherwise.
    ///
    /// # Example
    /// ```no_run
    /// use waylay::{Pooling, RedirectService};
    ///
    /// let service = RedirectService::from_env()?.pooling(Pooling::SameApplication);
    /// # Ok::<(), waylay::StartError>(())
    /// ```
    #[must_use]
    pub fn pooling(self, pooling: Pooling) -> Self {
        Self { pooling, ..self }
    }

    /// A handle that makes [`serve`](Self::serve) end.
    #[must_use]
    pub fn shutdown(&self) -> Shutdown {
        self.shutdown.clone()
    }

    /// Accepts connections and gives each to `handler`, in a task of its own
    /// on the current runtime of tokio, which needs I/O and time enabled.
    ///
    /// Connections that carry no record (somebody dialled the listener
    /// directly, or left before they were accepted) are reset and never reach
    /// the handler. A handler that panics resets its connection and no other.
    /// When descriptors or memory run out, accepting pauses. All listeners get
    /// their turns.
    ///
    /// Returns when [`Shutdown::trigger`] was called and every handler has
    /// returned. If the future is dropped, accepting stops and the handlers go
    /// on for as long as the runtime does.
    ///
    /// For many connections the process's soft limit of open descriptors is
    /// raised to the hard one here; Windows has no such limit. Programs that
    /// this one starts inherit it; should one of them use select(2), which is
    /// undefined from descriptor 1024 on, give it a lower limit.
    ///
    /// # Errors
    /// Only a failing listener ends it; see [`ServeError`].
    pub async fn serve<F, H>(self, handler: F) -> Result<(), ServeError>
    where
        F: Fn(Inbound) -> H + Send + Sync + 'static,
        H: Future<Output = ()> + Send + 'static,
    {
        platform::raise_descriptor_limit();
        let Self { listeners, datagrams: _closed, pooling, shutdown } = self;
        let handler = Arc::new(handler);
        let identify_and_handle = move |stream| {
            let handler = Arc::clone(&handler);
            async move {
                if let Ok(inbound) = Inbound::identify(stream) {
                    handler(inbound.with_pooling(pooling)).await;
                }
            }
        };
        serve_streams(listeners, &shutdown, identify_and_handle).await?;
        Ok(())
    }
}

fn listen(address: SocketAddr) -> Result<TcpListener, StartError> {
    let failed = |source| StartError::Listen { address, source };
    let socket =
        Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP)).map_err(failed)?;
    platform::check_registration(&socket)?;
    start_listening(&socket, address).map_err(failed)?;
    Ok(socket.into())
}

fn start_listening(socket: &Socket, address: SocketAddr) -> io::Result<()> {
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    platform::claim_address(socket)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_listeners_there_is_no_service() {
        assert!(matches!(RedirectService::with_listeners(Vec::new()), Err(StartError::NoListeners)));
    }
}
