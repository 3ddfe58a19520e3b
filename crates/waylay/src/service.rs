use std::{
    fs,
    net::{SocketAddr, TcpListener},
    os::fd::{AsFd, AsRawFd},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::{
    accept::serve_streams,
    error::{QueryError, ServeError, StartError},
    handover,
    inbound::Inbound,
    options::query_redirect_records,
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
    pooling: Pooling,
    shutdown: Shutdown,
}

impl RedirectService {
    /// Takes the listening sockets the starter passed by `LISTEN_FDS`
    /// (`sd_listen_fds(3)`): descriptors 3 and up.
    ///
    /// With `LISTEN_FDNAMES` it takes those named `tcp4` and `tcp6`; each name
    /// may occur several times. Others (`udp4`, `udp6`, and whatever else) stay
    /// open and untouched: nothing is redirected to them yet. Without names it
    /// takes all. Every passed descriptor is closed in the programs that this
    /// process starts.
    ///
    /// `LISTEN_PID` must name this process if it is set.
    ///
    /// # Errors
    /// [`StartError`] says what was not passed, was passed before or to somebody
    /// else, or is not a listener; and [`StartError::NotRegistered`] if the
    /// listeners are not those of a registered service.
    pub fn from_env() -> Result<Self, StartError> {
        let listeners = handover::take_listeners()?;
        for listener in &listeners {
            check_registration(listener)?;
        }
        Self::with_listeners(listeners)
    }

    /// Listens on an address. Port 0 stands for any.
    ///
    /// Connections arrive once the address is registered as this service's.
    ///
    /// # Errors
    /// [`StartError::NotRegistered`] if this process is outside every
    /// registered service, [`StartError::Listen`] if the address cannot be had.
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
        let failed = |source| StartError::Listen { address, source };
        let socket =
            Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP)).map_err(failed)?;
        check_registration(&socket)?;
        listen(&socket, address).map_err(failed)?;
        Self::with_listeners(vec![socket.into()])
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
                .map_err(|source| StartError::NotAListener { fd: listener.as_raw_fd(), source })?;
        }
        Ok(Self { listeners, pooling: Pooling::Never, shutdown: Shutdown::new() })
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
    /// raised to the hard one here. Programs that this one starts inherit it;
    /// should one of them use select(2), which is undefined from descriptor
    /// 1024 on, give it a lower limit.
    ///
    /// # Errors
    /// Only a failing listener ends it; see [`ServeError`].
    pub async fn serve<F, H>(self, handler: F) -> Result<(), ServeError>
    where
        F: Fn(Inbound) -> H + Send + Sync + 'static,
        H: Future<Output = ()> + Send + 'static,
    {
        raise_descriptor_limit();
        let Self { listeners, pooling, shutdown } = self;
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

/// Asks the kernel whether the socket was created by a registered service:
/// there the query has an answer, if only that there is no record.
fn check_registration(socket: &impl AsFd) -> Result<(), StartError> {
    match query_redirect_records(socket) {
        Ok(_)
        | Err(
            QueryError::NotRedirected
            | QueryError::FlowEnded
            | QueryError::NotConnected
            | QueryError::Connecting
            | QueryError::Listening,
        ) => Ok(()),
        Err(QueryError::NotRegistered) => Err(StartError::NotRegistered { cgroup: own_cgroup() }),
        Err(error) => Err(StartError::Registration(error)),
    }
}

/// This process's place in the unified hierarchy (cgroups(7)): the line `0::PATH`.
fn own_cgroup() -> PathBuf {
    let lines = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    lines.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("(unknown)").into()
}

fn listen(socket: &Socket, address: SocketAddr) -> std::io::Result<()> {
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(())
}

/// A service needs two descriptors for a connection, and 1024 is the usual soft limit.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    // To be allowed fewer is no reason not to serve.
    let _as_it_was = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outside_of_a_service_it_says_so_and_names_the_cgroup() {
        let error = RedirectService::bind("127.0.0.1:0".parse().unwrap()).unwrap_err();
        let StartError::NotRegistered { cgroup } = error else { panic!("{error:?}") };
        assert!(cgroup.starts_with("/"), "{}", cgroup.display());
    }

    #[test]
    fn without_listeners_there_is_no_service() {
        assert!(matches!(RedirectService::with_listeners(Vec::new()), Err(StartError::NoListeners)));
    }

    #[test]
    fn serving_raises_the_limit_of_descriptors_as_far_as_it_may() {
        let before = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: Some(64), maximum: before.maximum }).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let service = RedirectService::with_listeners(vec![listener]).unwrap();
        service.shutdown().trigger();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(service.serve(|_| async {})).unwrap();
        assert_eq!(getrlimit(Resource::Nofile).current, before.maximum);
    }
}
