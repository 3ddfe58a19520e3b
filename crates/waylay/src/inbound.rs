mod as_socket;

use std::{net::SocketAddr, time::Duration};

use socket2::{Domain, SockRef, Socket};
use tokio::net::{TcpSocket, TcpStream};

use crate::{
    context::{ChainHop, RedirectContext},
    error::{ConnectError, QueryError},
    options::{
        RedirectRecords, query_redirect_chain, query_redirect_context, query_redirect_records,
        set_redirect_records,
    },
    platform,
    pool::{PoolKey, Pooling},
};

/// An accepted connection, with all that the kernel knows about it.
///
/// Dropping it resets the application's connection: so a handler that gives
/// up, and one that panics, is an error to the application and never a clean
/// end.
///
/// There is no other way to one than from the kernel:
///
/// ```compile_fail,E0451
/// # fn any<T>() -> T { unimplemented!() }
/// let invented = waylay::Inbound {
///     stream: any(), records: any(), context: any(), chain: any(), pooling: any(),
/// };
/// ```
#[derive(Debug)]
pub struct Inbound {
    stream: TcpStream,
    records: RedirectRecords,
    context: RedirectContext,
    chain: Vec<ChainHop>,
    pooling: Pooling,
}

impl Inbound {
    /// Asks the kernel about an accepted connection. [`RedirectService::serve`](crate::RedirectService::serve)
    /// does it; this is for a service that accepts by itself.
    ///
    /// From here on closing the socket resets the connection, so that a service
    /// that dies does not look like an orderly end. Whoever has shut both
    /// directions down in order may switch `SO_LINGER` off again;
    /// `waylay-relay` does.
    ///
    /// # Errors
    /// See [`QueryError`]; the connection is reset.
    ///
    /// # Example
    /// ```no_run
    /// # async fn accept(listener: tokio::net::TcpListener) -> Result<(), Box<dyn std::error::Error>> {
    /// let (stream, _) = listener.accept().await?;
    /// let inbound = waylay::Inbound::identify(stream)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn identify(stream: TcpStream) -> Result<Self, QueryError> {
        SockRef::from(&stream).set_linger(Some(Duration::ZERO)).map_err(QueryError::Os)?;
        let records = query_redirect_records(&stream)?;
        let context = query_redirect_context(&stream)?;
        let chain = query_redirect_chain(&stream)?;
        Ok(Self { stream, records, context, chain, pooling: Pooling::Never })
    }

    pub(crate) fn with_pooling(self, pooling: Pooling) -> Self {
        Self { pooling, ..self }
    }

    /// Who is behind the connection.
    #[must_use]
    pub fn context(&self) -> &RedirectContext {
        &self.context
    }

    /// Where the application, or the service before this one, was going.
    #[must_use]
    pub fn original_destination(&self) -> SocketAddr {
        self.context.original_destination()
    }

    /// The services that have had the connection, oldest first; this one is the last.
    #[must_use]
    pub fn chain(&self) -> &[ChainHop] {
        &self.chain
    }

    /// The number of the flow, unique within a run.
    #[must_use]
    pub fn flow(&self) -> u64 {
        self.context.flow()
    }

    /// Which connections may share an upstream connection with this one: those
    /// with an equal key, if they go to the same place.
    ///
    /// None other has an equal key, unless the service chose another
    /// [`Pooling`]: what goes on over an upstream connection is taken for the
    /// traffic of the application it was dialled for.
    #[must_use]
    pub fn pool_key(&self) -> PoolKey {
        PoolKey::new(self.pooling, &self.context, &self.chain)
    }

    /// Connects on to the original destination.
    ///
    /// # Errors
    /// See [`ConnectError`]. The application still waits then; drop `self` to
    /// reset its connection.
    ///
    /// # Example
    /// ```no_run
    /// # async fn handle(inbound: waylay::Inbound) -> Result<(), waylay::ConnectError> {
    /// let outbound = inbound.connect().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn connect(&self) -> Result<Outbound, ConnectError> {
        let outbound = self.connect_to(self.original_destination()).await?;
        Ok(outbound)
    }

    /// Connects on to another destination. The kernel may still redirect it to
    /// services that have not had the connection.
    ///
    /// The new socket is given what the application asked of its own (source
    /// address, TOS, traffic class), and the records, before it is dialled.
    /// There is no timeout but the kernel's: `net.ipv4.tcp_syn_retries`, about
    /// two minutes.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn connect_to(&self, destination: SocketAddr) -> Result<Outbound, ConnectError> {
        let socket = self.prepare(destination)?;
        let stream = TcpSocket::from_std_stream(socket.into())
            .connect(destination)
            .await
            .map_err(|source| ConnectError::Connect { destination, source })?;
        Ok(Outbound { stream })
    }

    /// The stream from the application.
    #[must_use]
    pub fn into_stream(self) -> TcpStream {
        self.stream
    }

    /// A socket with everything but a connection.
    fn prepare(&self, destination: SocketAddr) -> Result<Socket, ConnectError> {
        let socket = platform::stream_socket(Domain::for_address(destination))
            .map_err(|source| ConnectError::Socket { destination, source })?;
        // Windows wants them before the socket is bound, which a wish may do.
        set_redirect_records(&socket, &self.records)?;
        platform::apply_wishes(&socket, destination, &self.context).map_err(ConnectError::Wishes)?;
        socket.set_linger(Some(Duration::ZERO)).map_err(ConnectError::Wishes)?;
        Ok(socket)
    }
}

impl From<Inbound> for TcpStream {
    fn from(inbound: Inbound) -> Self {
        inbound.into_stream()
    }
}

/// A connection that was dialled with records.
///
/// Dropping it resets the connection, as with [`Inbound`].
///
/// [`Inbound::connect`] and [`Inbound::connect_to`] make one, and nothing else does:
///
/// ```
/// async fn dial(inbound: &waylay::Inbound) -> Result<waylay::Outbound, waylay::ConnectError> {
///     inbound.connect().await
/// }
/// ```
///
/// A stream that was dialled otherwise is none and cannot become one:
///
/// ```compile_fail,E0451
/// fn dial(stream: tokio::net::TcpStream) -> waylay::Outbound {
///     waylay::Outbound { stream }
/// }
/// ```
///
/// ```compile_fail,E0277
/// fn dial(stream: tokio::net::TcpStream) -> waylay::Outbound {
///     stream.into()
/// }
/// ```
#[derive(Debug)]
pub struct Outbound {
    stream: TcpStream,
}

impl Outbound {
    /// The stream to the destination, or to the next service before it.
    #[must_use]
    pub fn into_stream(self) -> TcpStream {
        self.stream
    }
}

impl From<Outbound> for TcpStream {
    fn from(outbound: Outbound) -> Self {
        outbound.into_stream()
    }
}

#[cfg(test)]
mod tests {
    use tokio::{net::TcpListener, runtime::Runtime};

    use super::*;
    use crate::testing;

    /// This process is no service, so it is refused, on Linux and under Wine.
    #[test]
    fn nothing_is_dialled_if_the_records_are_refused() {
        Runtime::new().unwrap().block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let inbound = Inbound {
                stream: TcpStream::connect(address).await.unwrap(),
                records: RedirectRecords::from_bytes(&[0x5a; 48]),
                context: testing::context(|context| context.original_destination = address),
                chain: Vec::new(),
                pooling: Pooling::Never,
            };
            let (_accepted, _) = listener.accept().await.unwrap();
            let error = inbound.connect().await.unwrap_err();
            assert!(matches!(error, ConnectError::Records(_)), "{error:?}");
            let another = SockRef::from(&listener).accept().unwrap_err();
            assert_eq!(another.kind(), std::io::ErrorKind::WouldBlock);
        });
    }
}
