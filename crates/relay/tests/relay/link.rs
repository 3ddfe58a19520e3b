//! A client and a server with a relay between them.

use std::io::{ErrorKind, Read};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::panic::resume_unwind;
use std::sync::OnceLock;

use tokio::net;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use waylay_relay::{Observer, RelayError, Transfer, arm, relay_observed};

pub(crate) struct Link {
    pub(crate) client: TcpStream,
    pub(crate) server: TcpStream,
    pub(crate) relay: Relay,
}

/// A relay under way.
pub(crate) type Relay = JoinHandle<Result<Transfer, RelayError>>;

impl Link {
    pub(crate) fn new() -> Self {
        Self::observed(())
    }

    pub(crate) fn observed(observer: impl Observer + Send + Sync + 'static) -> Self {
        let (client, application) = pair();
        let (destination, server) = pair();
        Self { client, server, relay: relay(application, destination, observer) }
    }
}

/// All relays of a test process share a runtime, as those of a service do.
pub(crate) fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| Runtime::new().unwrap())
}

/// Starts a relay between two connected sockets.
pub(crate) fn relay(
    application: TcpStream,
    destination: TcpStream,
    mut observer: impl Observer + Send + Sync + 'static,
) -> Relay {
    let [application, destination] = [application, destination].map(ours);
    runtime().spawn(async move { relay_observed(application, destination, &mut observer).await })
}

/// A socket as the runtime has it.
pub(crate) fn ours(socket: impl Into<OwnedFd>) -> net::TcpStream {
    let socket = TcpStream::from(socket.into());
    socket.set_nonblocking(true).unwrap();
    let _context = runtime().enter();
    net::TcpStream::from_std(socket).unwrap()
}

/// What the relay returned.
pub(crate) fn outcome(relay: Relay) -> Result<Transfer, RelayError> {
    runtime().block_on(relay).unwrap_or_else(|error| resume_unwind(error.into_panic()))
}

/// The dialling and the accepted end of a connection.
pub(crate) fn pair() -> (TcpStream, TcpStream) {
    thread_local! {
        static LISTENER: TcpListener = TcpListener::bind("127.0.0.1:0").unwrap();
    }
    LISTENER.with(|listener| {
        let dialled = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (dialled, listener.accept().unwrap().0)
    })
}

/// Closes a socket by a reset.
pub(crate) fn reset(socket: TcpStream) {
    arm(&socket).unwrap();
    drop(socket);
}

/// Reads what is left, and insists that it ends in a reset.
pub(crate) fn read_to_reset(mut socket: TcpStream) -> Vec<u8> {
    let mut received = Vec::new();
    let error = socket.read_to_end(&mut received).expect_err("a reset, not a clean end");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    received
}
