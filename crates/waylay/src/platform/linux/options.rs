//! The socket options of the level of our own, and what an errno of theirs means on the socket in question.

use std::{
    io,
    net::{SocketAddr, SocketAddrV6},
    os::fd::{AsFd, BorrowedFd},
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{Protocol, SockRef, Socket};
use waylay_abi as abi;
use waylay_core::{Chain, ChainError, MAX_HOPS, RedirectState, ServiceId, ServiceSet, state};
use zerocopy::{FromZeros, IntoBytes};

use super::sys;
use crate::{
    context::{ChainHop, RedirectContext},
    error::{QueryError, SetError},
};

pub(crate) fn query_records(socket: &impl AsFd) -> Result<Vec<u8>, QueryError> {
    let mut handle = [0; size_of::<abi::Handle>()];
    query(socket.as_fd(), abi::QUERY_RECORDS, &mut handle)?;
    Ok(handle.to_vec())
}

pub(crate) fn query_context(socket: &impl AsFd) -> Result<RedirectContext, QueryError> {
    let mut context = abi::Context::new_zeroed();
    query(socket.as_fd(), abi::QUERY_CONTEXT, context.as_mut_bytes())?;
    Ok(context.into())
}

pub(crate) fn query_chain(socket: &impl AsFd) -> Result<Vec<ChainHop>, QueryError> {
    let mut chain = abi::NamedChain::new_zeroed();
    query(socket.as_fd(), abi::QUERY_CHAIN, chain.as_mut_bytes())?;
    Ok(chain.hops().iter().map(ChainHop::from).collect())
}

pub(crate) fn redirect_state(socket: &impl AsFd, service_id: u32) -> Result<RedirectState, QueryError> {
    let hops = match query_chain(socket) {
        Ok(hops) => hops,
        Err(QueryError::NotRedirected | QueryError::NotConnected) => Vec::new(),
        Err(error) => return Err(error),
    };
    let hops = hops.iter().map(ChainHop::id).collect();
    let chain =
        Chain::new(hops, ServiceSet::default(), None).map_err(|ChainError::TooManyHops { hops }| {
            QueryError::OtherVersion { expected: MAX_HOPS, got: hops }
        })?;
    Ok(state(ServiceId(service_id), &chain))
}

pub(crate) fn query_original_destination(socket: &impl AsFd) -> Result<SocketAddr, QueryError> {
    let mut answer = [0; SOCKADDR_IN6];
    let (fd, name) = (socket.as_fd(), abi::QUERY_ORIGINAL_DST);
    let len =
        sys::get_option(fd, abi::SOL_WAYLAY, name, &mut answer).map_err(|error| explain(fd, name, error))?;
    read_sockaddr(&answer[..len]).ok_or(QueryError::OtherVersion { expected: SOCKADDR_IN6, got: len })
}

pub(crate) fn set_records(socket: &impl AsFd, records: &[u8]) -> Result<(), SetError> {
    sys::set_option(socket.as_fd(), abi::SOL_WAYLAY, abi::SET_RECORDS, records)?;
    Ok(())
}

/// Bytes of a `sockaddr_in6`.
const SOCKADDR_IN6: usize = 28;

/// A `sockaddr_in` or `sockaddr_in6` (ip(7), ipv6(7)): family, port, then the address.
pub(super) fn read_sockaddr(bytes: &[u8]) -> Option<SocketAddr> {
    let family = u16::from_ne_bytes(*bytes.first_chunk()?);
    let port = u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?);
    match i32::from(family) {
        libc::AF_INET => {
            let ip = *bytes.get(4..)?.first_chunk::<4>()?;
            Some(SocketAddr::new(ip.into(), port))
        }
        libc::AF_INET6 => {
            let ip = *bytes.get(8..)?.first_chunk::<16>()?;
            let scope = u32::from_ne_bytes(*bytes.get(24..)?.first_chunk()?);
            Some(SocketAddrV6::new(ip.into(), port, 0, scope).into())
        }
        _ => None,
    }
}

fn query(fd: BorrowedFd<'_>, name: i32, answer: &mut [u8]) -> Result<(), QueryError> {
    let expected = answer.len();
    match sys::get_option(fd, abi::SOL_WAYLAY, name, answer).map_err(|error| explain(fd, name, error)) {
        Ok(got) if got == expected => Ok(()),
        Ok(got) | Err(QueryError::ShortBuffer { needed: got }) => {
            Err(QueryError::OtherVersion { expected, got })
        }
        Err(error) => Err(error),
    }
}

/// The cause behind an errno, as far as the socket itself tells.
pub(crate) fn explain(fd: BorrowedFd<'_>, name: i32, error: io::Error) -> QueryError {
    match error.raw_os_error() {
        Some(libc::ENOBUFS) => match sys::option_size(fd, abi::SOL_WAYLAY, name) {
            Ok(needed) => QueryError::ShortBuffer { needed },
            Err(error) => error.into(),
        },
        Some(libc::ENOENT) => without_record(fd),
        // Which of the two depends on how far the kernel looked for the level.
        Some(libc::ENOPROTOOPT | libc::EOPNOTSUPP) => {
            never_or_not_yet(SockRef::from(&fd)).unwrap_or(QueryError::NotRegistered)
        }
        Some(_) | None => error.into(),
    }
}

fn without_record(fd: BorrowedFd<'_>) -> QueryError {
    let socket = SockRef::from(&fd);
    if let Some(error) = never_or_not_yet(SockRef::from(&fd)) {
        return error;
    }
    if socket.is_listener().unwrap_or(false) {
        return QueryError::Listening;
    }
    if socket.peer_addr().is_ok() { QueryError::NotRedirected } else { QueryError::NotConnected }
}

/// What is wrong with the socket whichever service it belongs to.
fn never_or_not_yet(socket: SockRef<'_>) -> Option<QueryError> {
    let streams = [Some(Protocol::TCP), Some(Protocol::MPTCP)];
    if !socket.protocol().is_ok_and(|protocol| streams.contains(&protocol)) {
        return Some(QueryError::NotSupported);
    }
    is_connecting(&socket).then_some(QueryError::Connecting)
}

/// Whether connect(2) has been called, with no result yet. A socket that was
/// never connected polls as hung up (poll(2), tcp(7)); one that is connecting
/// polls as nothing.
fn is_connecting(socket: &Socket) -> bool {
    let mut polled = [PollFd::new(socket, PollFlags::OUT)];
    let no_peer = socket.peer_addr().is_err() && !socket.is_listener().unwrap_or(false);
    no_peer && poll(&mut polled, Some(&Timespec::default())).is_ok_and(|ready| ready == 0)
}
