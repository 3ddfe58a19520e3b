//! getpeername(2) and getsockname(2): a redirected connection has the addresses that it would have without waylay.

use std::{io, net::SocketAddr, os::fd::AsFd};

use rustix::net::sockopt;
use socket2::SockRef;

use crate::{
    call::{Call, write_address},
    shared::Shared,
    supervisor::Answer,
};

pub(crate) fn peer(shared: &Shared, call: &Call) -> io::Result<Answer> {
    show(shared, call, |socket, destination| {
        // What it is connected to does not matter; whether it is does.
        socket.peer_addr().ok().map(|_listener| destination)
    })
}

pub(crate) fn local(shared: &Shared, call: &Call) -> io::Result<Answer> {
    show(shared, call, |socket, destination| {
        let bound = socket.local_addr().ok()?.as_socket()?;
        let is_own_choice = !bound.ip().to_canonical().is_loopback();
        let source = shared.scout.source_towards(destination).ok()?;
        (!is_own_choice).then(|| SocketAddr::new(source, bound.port()))
    })
}

fn show(
    shared: &Shared,
    call: &Call,
    address: impl FnOnce(SockRef<'_>, SocketAddr) -> Option<SocketAddr>,
) -> io::Result<Answer> {
    // Of what is no socket the kernel knows what to say.
    let Ok(socket) = call.descriptor(&shared.threads) else { return Ok(Answer::Continue) };
    let Ok(cookie) = sockopt::socket_cookie(socket.as_fd()) else { return Ok(Answer::Continue) };
    let Some(destination) = shared.lock().destination_of(cookie) else { return Ok(Answer::Continue) };
    let Some(shown) = address(SockRef::from(&socket), destination) else { return Ok(Answer::Continue) };
    let is_v6 = sockopt::socket_domain(&socket)? == rustix::net::AddressFamily::INET6;
    call.write_cut(call.arguments[1], call.arguments[2], &write_address(shown, is_v6))?;
    Ok(Answer::Value(0))
}
