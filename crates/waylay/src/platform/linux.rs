//! The backend for Linux: socket options of a level of our own, answered by the kernel programs of `waylay-engine-ebpf`.

mod context;
pub mod control;
mod datagrams;
mod error;
mod handover;
mod options;
mod query;
mod registration;
#[cfg(any(test, fuzzing))]
pub(crate) mod strange;
mod sys;

use std::{
    io,
    net::SocketAddr,
    os::fd::{AsFd, AsRawFd},
};

use socket2::{Domain, Protocol, Socket, Type};

use super::Trouble;
use crate::{context::RedirectContext, socket::RawSocket};

pub(crate) use datagrams::{
    MOST_IN_A_BATCH, Readiness, datagram_socket, enlarge_buffers, loopback_hop_limit, open_reply,
    prepare_inbound, prepare_outbound, receive, report_error, select_flow, selected_destination,
    selected_path, send, take_unreachable, traffic_class,
};
pub(crate) use handover::{datagram_sockets_from_env, sockets_from_env};
pub(crate) use options::{
    query_chain, query_context, query_original_destination, query_records, redirect_state, set_records,
};
pub(crate) use registration::{check_registration, raise_descriptor_limit};
pub(crate) fn number(socket: &impl AsRawFd) -> RawSocket {
    socket.as_raw_fd()
}

/// Binds where a service before this one was bound, though its connections are not all gone.
pub(crate) fn claim_address(socket: &Socket) -> io::Result<()> {
    socket.set_reuse_address(true)?;
    Ok(())
}

pub(crate) fn stream_socket(domain: Domain) -> io::Result<Socket> {
    let socket = Socket::new(domain, Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    Ok(socket)
}

/// What the application gave its socket; mark and device the kernel re-applies.
pub(crate) fn apply_wishes(
    socket: &Socket,
    destination: SocketAddr,
    context: &RedirectContext,
) -> io::Result<()> {
    let wishes = context.wishes();
    if destination.is_ipv4() && wishes.type_of_service != 0 {
        socket.set_tos_v4(wishes.type_of_service.into())?;
    }
    if destination.is_ipv6() && wishes.traffic_class != 0 {
        socket.set_tclass_v6(wishes.traffic_class.into())?;
    }
    match context.source() {
        Some(source) if source.is_ipv4() == destination.is_ipv4() => {
            sys::choose_port_at_connect(socket.as_fd())?;
            socket.bind(&SocketAddr::new(source, 0).into())?;
            Ok(())
        }
        Some(_) | None => Ok(()),
    }
}

pub(crate) fn trouble(error: &io::Error) -> Trouble {
    match error.raw_os_error() {
        // Linux passes on what has happened to the new connection: see accept(2), "Error handling".
        Some(
            libc::EINTR
            | libc::ECONNABORTED
            | libc::EPERM
            | libc::EPROTO
            | libc::ENOPROTOOPT
            | libc::EOPNOTSUPP
            | libc::ENETDOWN
            | libc::ENETUNREACH
            | libc::EHOSTDOWN
            | libc::EHOSTUNREACH
            | libc::ENONET,
        ) => Trouble::Connection,
        // ENOSPC is epoll's: too many watches.
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM | libc::ENOSPC) => Trouble::Shortage,
        Some(_) | None => Trouble::Listener,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_is_told_apart_by_whose_it_is() {
        let of = |errno| trouble(&io::Error::from_raw_os_error(errno));
        assert_eq!(of(libc::ECONNABORTED), Trouble::Connection);
        assert_eq!(of(libc::EMFILE), Trouble::Shortage);
        assert_eq!(of(libc::EBADF), Trouble::Listener);
        assert_eq!(of(libc::EINVAL), Trouble::Listener);
    }
}
