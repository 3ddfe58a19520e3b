use std::net::SocketAddr;

use waylay_core::RedirectState;

use crate::{
    context::{ChainHop, RedirectContext},
    error::{QueryError, SetError},
    platform,
    socket::AsSocket,
};

/// The opaque bytes that take a chain from an accepted socket to an outbound one.
///
/// They name a chain that stays in the kernel. On Linux they are worthless to
/// any process but the service they were given to, and once the inbound
/// connection ends; Windows does not say for how long they hold. There their
/// size grows with the chain.
///
/// # Example
/// ```
/// use waylay::RedirectRecords;
///
/// let records = RedirectRecords::from_bytes(&[0; 48]);
/// assert_eq!(records.as_bytes().len(), 48);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedirectRecords(Vec<u8>);

impl RedirectRecords {
    /// The bytes, to hand them to another process of the same service.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Bytes that came from [`as_bytes`](Self::as_bytes). Nothing is checked
    /// here: the kernel refuses what it did not give out.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }
}

/// Asks an accepted socket for its redirect records.
///
/// # Errors
/// See [`QueryError`]; [`QueryError::NotRedirected`] means that somebody
/// connected straight to the listener.
///
/// # Example
/// ```no_run
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
/// let (accepted, _) = listener.accept()?;
/// let records = waylay::query_redirect_records(&accepted)?;
/// # Ok(())
/// # }
/// ```
pub fn query_redirect_records(socket: &impl AsSocket) -> Result<RedirectRecords, QueryError> {
    let records = platform::query_records(socket)?;
    Ok(RedirectRecords(records))
}

/// Asks an accepted socket who is behind it and where it was going.
///
/// A connection to which nothing was attached has a context all the same.
///
/// # Errors
/// See [`QueryError`].
///
/// # Example
/// ```no_run
/// # fn look(accepted: std::net::TcpStream) -> Result<(), waylay::QueryError> {
/// let context = waylay::query_redirect_context(&accepted)?;
/// println!("{} -> {}", context.application(), context.original_destination());
/// # Ok(())
/// # }
/// ```
pub fn query_redirect_context(socket: &impl AsSocket) -> Result<RedirectContext, QueryError> {
    platform::query_context(socket)
}

/// Asks an accepted socket which services have had the connection, oldest
/// first; the last is the one asking. A socket that redirect records were set
/// on answers with the chain they stand for. On Windows the chain is empty:
/// there the records are opaque.
///
/// # Errors
/// See [`QueryError`].
///
/// # Example
/// ```no_run
/// # fn look(accepted: std::net::TcpStream) -> Result<(), waylay::QueryError> {
/// let chain = waylay::query_redirect_chain(&accepted)?;
/// let names: Vec<&str> = chain.iter().map(|hop| hop.service.as_str()).collect();
/// println!("via {}", names.join(" › "));
/// # Ok(())
/// # }
/// ```
pub fn query_redirect_chain(socket: &impl AsSocket) -> Result<Vec<ChainHop>, QueryError> {
    platform::query_chain(socket)
}

/// How a service stands to the connection behind a socket: an accepted one, or
/// one that redirect records were set on. It is what the kernel goes by when the
/// latter connects.
///
/// # Errors
/// See [`QueryError`]. A socket without records is no error, but
/// [`RedirectState::NotRedirected`]. On Windows that is the only answer: with
/// records it is [`QueryError::NotSupported`], as the state is for drivers alone.
///
/// # Example
/// ```no_run
/// use waylay::RedirectState;
///
/// # fn look(accepted: std::net::TcpStream) -> Result<(), waylay::QueryError> {
/// let me = waylay::query_redirect_context(&accepted)?.service_id();
/// assert_eq!(waylay::redirect_state(&accepted, me)?, RedirectState::RedirectedBySelf);
/// # Ok(())
/// # }
/// ```
pub fn redirect_state(socket: &impl AsSocket, service_id: u32) -> Result<RedirectState, QueryError> {
    platform::redirect_state(socket, service_id)
}

/// Asks an accepted socket where the connection was going.
///
/// The cheapest query, and the one unmodified transparent proxies make as
/// `SO_ORIGINAL_DST`.
///
/// # Errors
/// See [`QueryError`].
///
/// # Example
/// ```
/// use waylay::{QueryError, query_original_destination};
///
/// // On the sockets of a process that is no service the option does not exist.
/// let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
/// assert!(matches!(query_original_destination(&listener), Err(QueryError::NotRegistered)));
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn query_original_destination(socket: &impl AsSocket) -> Result<SocketAddr, QueryError> {
    platform::query_original_destination(socket)
}

/// Sets redirect records on a socket that will connect on.
///
/// # Errors
/// See [`SetError`]. After an error the socket carries no records: do not dial.
///
/// # Example
/// ```no_run
/// # use std::{error::Error, net::{SocketAddr, TcpStream}};
/// # use socket2::{Domain, Socket, Type};
/// /// What `Inbound::connect_to` does, on any socket.
/// fn carry_on(accepted: &TcpStream, to: SocketAddr) -> Result<TcpStream, Box<dyn Error>> {
///     let records = waylay::query_redirect_records(accepted)?;
///     let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
///     waylay::set_redirect_records(&socket, &records)?;
///     socket.connect(&to.into())?;
///     Ok(socket.into())
/// }
/// ```
pub fn set_redirect_records(socket: &impl AsSocket, records: &RedirectRecords) -> Result<(), SetError> {
    platform::set_records(socket, records.as_bytes())
}
