//! A client and a server with a relay between them.

use std::io::{ErrorKind, Read};
use std::net::{TcpListener, TcpStream};
use std::panic::resume_unwind;
use std::thread::{JoinHandle, spawn};

use waylay_relay::{Observer, RelayError, Transfer, arm, relay};

pub(crate) struct Link {
    pub(crate) client: TcpStream,
    pub(crate) server: TcpStream,
    pub(crate) relay: JoinHandle<Result<Transfer, RelayError>>,
}

impl Link {
    pub(crate) fn new() -> Self {
        Self::observed(())
    }

    pub(crate) fn observed(mut observer: impl Observer + Send + 'static) -> Self {
        let (client, application) = pair();
        let (destination, server) = pair();
        let relay = spawn(move || relay(application, destination, &mut observer));
        Self { client, server, relay }
    }
}

/// What the relay returned.
pub(crate) fn outcome(relay: JoinHandle<Result<Transfer, RelayError>>) -> Result<Transfer, RelayError> {
    relay.join().unwrap_or_else(|panic| resume_unwind(panic))
}

/// The dialling and the accepted end of a connection.
pub(crate) fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let dialled = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (dialled, listener.accept().unwrap().0)
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
