//! The control codes. Their buffers have no fixed size: records grow with the chain.

use std::{io, net::SocketAddr, os::windows::io::BorrowedSocket};

use socket2::SockRef;
use waylay_core::RedirectState;
use windows_sys::Win32::Networking::WinSock::{
    IP6T_SO_ORIGINAL_DST, IPPROTO_IP, IPPROTO_IPV6, SIO_QUERY_WFP_CONNECTION_REDIRECT_CONTEXT,
    SIO_QUERY_WFP_CONNECTION_REDIRECT_RECORDS, SIO_SET_WFP_CONNECTION_REDIRECT_RECORDS, SO_ORIGINAL_DST,
    SOCKADDR_IN6,
};

use super::{
    AsSocket, context,
    sys::{self, Answer},
};
use crate::{
    context::{ChainHop, RedirectContext},
    error::{QueryError, SetError},
    winsock,
};

/// Bytes of the first buffer. Microsoft's page calls 1 KiB generous; for Envoy it was too small once
/// (<https://github.com/envoyproxy/envoy/pull/17471>).
const FIRST_BUFFER: usize = 2048;
/// Bytes that no chain comes near: 256 hops of 4 KiB.
const MOST_BYTES: usize = 1 << 20;

pub(crate) fn query_records(socket: &impl AsSocket) -> Result<Vec<u8>, QueryError> {
    let socket = socket.as_socket();
    let records = whole(|answer| sys::ask(socket, SIO_QUERY_WFP_CONNECTION_REDIRECT_RECORDS, answer))?;
    Ok(records)
}

pub(crate) fn query_context(socket: &impl AsSocket) -> Result<RedirectContext, QueryError> {
    let destination = query_original_destination(socket)?;
    match attached(socket.as_socket()) {
        Ok(attached) => Ok(context::new(destination, attached)),
        // A callout need not attach anything, and this is how that shows.
        Err(QueryError::NotRedirected) => Ok(context::new(destination, Vec::new())),
        Err(error) => Err(error),
    }
}

fn attached(socket: BorrowedSocket<'_>) -> Result<Vec<u8>, QueryError> {
    let attached = whole(|answer| sys::ask(socket, SIO_QUERY_WFP_CONNECTION_REDIRECT_CONTEXT, answer))?;
    Ok(attached)
}

/// Empty: the records are opaque to user mode. Fails where they cannot be had.
pub(crate) fn query_chain(socket: &impl AsSocket) -> Result<Vec<ChainHop>, QueryError> {
    query_records(socket)?;
    Ok(Vec::new())
}

pub(crate) fn redirect_state(socket: &impl AsSocket, _service_id: u32) -> Result<RedirectState, QueryError> {
    match query_records(socket) {
        Ok(_) => Err(QueryError::NotSupported),
        Err(QueryError::NotRedirected | QueryError::NotConnected) => Ok(RedirectState::NotRedirected),
        Err(error) => Err(error),
    }
}

pub(crate) fn query_original_destination(socket: &impl AsSocket) -> Result<SocketAddr, QueryError> {
    let socket = socket.as_socket();
    let (level, name) =
        if is_ipv4(socket)? { (IPPROTO_IP, SO_ORIGINAL_DST) } else { (IPPROTO_IPV6, IP6T_SO_ORIGINAL_DST) };
    let address = sys::address_option(socket, level, name.cast_signed())?;
    address.as_socket().ok_or(QueryError::OtherVersion {
        expected: size_of::<SOCKADDR_IN6>(),
        got: usize::try_from(address.len()).unwrap_or(0),
    })
}

pub(crate) fn set_records(socket: &impl AsSocket, records: &[u8]) -> Result<(), SetError> {
    sys::tell(socket.as_socket(), SIO_SET_WFP_CONNECTION_REDIRECT_RECORDS, records)?;
    Ok(())
}

/// Whichever buffer it takes.
fn whole(mut ask: impl FnMut(&mut [u8]) -> io::Result<Answer>) -> Result<Vec<u8>, QueryError> {
    let mut answer = vec![0; FIRST_BUFFER];
    loop {
        match ask(&mut answer)? {
            Answer::Whole(len) => {
                answer.truncate(len);
                return Ok(answer);
            }
            Answer::Longer(needed) if answer.len() < needed && needed <= MOST_BYTES => {
                answer.resize(needed, 0);
            }
            Answer::Longer(needed) => return Err(QueryError::ShortBuffer { needed }),
        }
    }
}

/// The family that the socket was made for. One that has no address yet has no connection either.
fn is_ipv4(socket: BorrowedSocket<'_>) -> Result<bool, QueryError> {
    match SockRef::from(&socket).local_addr() {
        Ok(address) => Ok(address.is_ipv4()),
        Err(error) if error.raw_os_error() == Some(winsock::WSAEINVAL) => Err(QueryError::NotConnected),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests;
