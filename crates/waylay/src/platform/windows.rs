//! The backend for Windows 8 and later: three control codes and a socket option of Winsock.
//!
//! Only a callout driver at the connect-redirect layer can redirect, and user
//! mode is told less than on Linux: not the application, not the chain behind
//! the records, no ids. What is not known stays empty here and is never made up.

mod context;
mod datagrams;
mod error;
mod handover;
mod query;
mod sys;

use std::{io, net::SocketAddr, os::windows::io::AsRawSocket};

use socket2::{Domain, Protocol, Socket, Type};
use windows_sys::Win32::{
    Foundation::{ERROR_NO_SYSTEM_RESOURCES, ERROR_NOT_ENOUGH_MEMORY},
    Networking::WinSock::{
        WSAECONNABORTED, WSAECONNRESET, WSAEINTR, WSAEMFILE, WSAENOBUFS, WSAENOTCONN, WSAEPROCLIM,
    },
};

use super::Trouble;
use crate::{
    context::RedirectContext,
    error::{QueryError, StartError},
    socket::{AsSocket, RawSocket},
};

pub(crate) use datagrams::{
    MOST_IN_A_BATCH, Readiness, datagram_socket, datagram_sockets_from_env, enlarge_buffers,
    loopback_hop_limit, open_reply, prepare_inbound, prepare_outbound, receive, report_error, select_flow,
    selected_destination, selected_path, send, take_unreachable, traffic_class,
};
pub(crate) use handover::sockets_from_env;
pub(crate) use query::{
    query_chain, query_context, query_original_destination, query_records, redirect_state, set_records,
};

pub(crate) fn number(socket: &impl AsRawSocket) -> RawSocket {
    socket.as_raw_socket()
}

/// Asks the provider whether it knows the control codes at all: a new socket
/// has no records, and has to be told so.
pub(crate) fn check_registration(socket: &impl AsSocket) -> Result<(), StartError> {
    match query_records(socket) {
        Ok(_)
        | Err(
            QueryError::NotRedirected
            | QueryError::FlowEnded
            | QueryError::NotConnected
            | QueryError::Connecting
            | QueryError::Listening,
        ) => Ok(()),
        Err(QueryError::NotSupported) => Err(StartError::NotSupported),
        Err(error) => Err(StartError::Registration(error)),
    }
}

/// Windows lets any process bind the address as well, if the first does not object.
pub(crate) fn claim_address(socket: &Socket) -> io::Result<()> {
    sys::exclude_others(socket.as_socket())
}

pub(crate) fn stream_socket(domain: Domain) -> io::Result<Socket> {
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// None is known.
pub(crate) fn apply_wishes(_: &Socket, _: SocketAddr, _: &RedirectContext) -> io::Result<()> {
    Ok(())
}

/// There is none but memory.
pub(crate) fn raise_descriptor_limit() {}

pub(crate) fn trouble(error: &io::Error) -> Trouble {
    match error.raw_os_error() {
        // The client has gone before it was accepted: see accept(), "Return value".
        Some(WSAEINTR | WSAECONNRESET | WSAECONNABORTED | WSAENOTCONN) => Trouble::Connection,
        Some(WSAEMFILE | WSAENOBUFS | WSAEPROCLIM | NO_MEMORY | NO_RESOURCES) => Trouble::Shortage,
        Some(_) | None => Trouble::Listener,
    }
}

const NO_MEMORY: i32 = ERROR_NOT_ENOUGH_MEMORY.cast_signed();
const NO_RESOURCES: i32 = ERROR_NO_SYSTEM_RESOURCES.cast_signed();

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use tokio::{net::TcpListener, runtime::Runtime};

    use super::*;
    use crate::{
        inbound::Inbound,
        service::RedirectService,
        testing::{is_wine, was_reset},
    };

    /// Under Wine; Windows knows the codes, and then it is a service.
    #[test]
    fn where_the_control_codes_are_not_known_no_service_starts() {
        match RedirectService::bind("127.0.0.1:0".parse().unwrap()) {
            Err(StartError::NotSupported) => {}
            other => assert!(!is_wine() && other.is_ok(), "{other:?}"),
        }
    }

    #[test]
    fn a_connection_that_nobody_redirected_is_reset() {
        Runtime::new().unwrap().block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let mut connected = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            assert!(Inbound::identify(listener.accept().await.unwrap().0).is_err());
            assert!(was_reset(&mut connected));
        });
    }

    #[test]
    fn an_address_that_is_claimed_is_nobody_elses() {
        let socket = || Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).unwrap();
        let (first, second) = (socket(), socket());
        claim_address(&first).unwrap();
        first.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        second.set_reuse_address(true).unwrap();
        assert!(second.bind(&first.local_addr().unwrap()).is_err());
    }

    #[test]
    fn trouble_is_told_apart_by_whose_it_is() {
        let of = |code| trouble(&io::Error::from_raw_os_error(code));
        assert_eq!(of(WSAECONNRESET), Trouble::Connection);
        assert_eq!(of(WSAEMFILE), Trouble::Shortage);
        assert_eq!(of(crate::winsock::WSAENOTSOCK), Trouble::Listener);
        assert_eq!(of(crate::winsock::WSAEINVAL), Trouble::Listener);
    }
}
