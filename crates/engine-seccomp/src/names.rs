//! getpeername(2) and getsockname(2): a redirected connection has the addresses that it would have without waylay.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use waylay_core::ServiceId;
use waylay_engine::LocalName;

use crate::{
    call::{Call, write_address},
    flows::Inbound,
    shared::Shared,
    sight::Sight,
    supervisor::{Answer, Dialler},
};

pub(crate) fn peer(shared: &Shared, call: &Call) -> io::Result<Answer> {
    show(shared, call, |socket, destination| {
        // What it is connected to does not matter; whether it is does.
        socket.peer().map(|_listener| destination)
    })
}

pub(crate) fn local(shared: &Shared, dialler: Dialler, call: &Call) -> io::Result<Answer> {
    if let Some(service) = dialler.service()
        && shared.lock().local_name_of(service) == LocalName::Destination
        && let Some(answer) = destination(shared, dialler, service, call)?
    {
        return Ok(answer);
    }
    show(shared, call, |socket, destination| {
        let bound = socket.local()?;
        // What has chosen nothing has been given one of these.
        let given = [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()];
        let is_own_choice = !given.contains(&bound.ip().to_canonical());
        let source = shared.scout.source_towards(destination).ok()?;
        (!is_own_choice).then(|| SocketAddr::new(source, bound.port()))
    })
}

/// As a transparent proxy hears from its socket where the connection was going.
fn destination(
    shared: &Shared,
    dialler: Dialler,
    service: ServiceId,
    call: &Call,
) -> io::Result<Option<Answer>> {
    let Ok(socket) = call.sight(shared, dialler) else { return Ok(None) };
    let Ok(cookie) = socket.cookie() else { return Ok(None) };
    let path = socket.path();
    let destination = match shared.lock_once_settled(cookie, path).flows.of_inbound(cookie, path) {
        Inbound::Of(flow) if flow.service == service => flow.destination,
        Inbound::Of(_) | Inbound::Ended | Inbound::NotRedirected => return Ok(None),
    };
    let is_v6 = socket.is_v6()?;
    call.write_cut(call.arguments[1], call.arguments[2], &write_address(destination, is_v6))?;
    Ok(Some(Answer::Value(0)))
}

fn show(
    shared: &Shared,
    call: &Call,
    address: impl FnOnce(&Sight, SocketAddr) -> Option<SocketAddr>,
) -> io::Result<Answer> {
    // Of what is no socket the kernel knows what to say. As whoever dials: a service's accepted sockets lead nowhere else.
    let Ok(socket) = call.sight(shared, Dialler::Command) else { return Ok(Answer::Continue) };
    let Ok(cookie) = socket.cookie() else { return Ok(Answer::Continue) };
    let Some(destination) = shared.lock().destination_of(cookie) else { return Ok(Answer::Continue) };
    let Some(shown) = address(&socket, destination) else { return Ok(Answer::Continue) };
    let is_v6 = socket.is_v6()?;
    call.write_cut(call.arguments[1], call.arguments[2], &write_address(shown, is_v6))?;
    Ok(Answer::Value(0))
}
