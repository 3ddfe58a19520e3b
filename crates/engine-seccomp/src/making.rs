//! socket(2), bind(2) and listen(2), which are asked about where sockets are given (`given.rs`).

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
};

use crate::{
    call::{Call, Named, errno, parse_address},
    given::{Given, Identity},
    pool::Turn,
    shared::Shared,
    supervisor::Answer,
    sys,
    threads::Thread,
};

/// Makes a socket and gives it. `None` if that is the answer.
pub(crate) fn socket(shared: &Shared, call: &Call, turn: &Turn<'_>) -> io::Result<Option<Answer>> {
    let Some(given) = shared.threads.given() else { return Ok(Some(Answer::Continue)) };
    // One that was made here would be of this network namespace.
    if !shared.threads.is_here(call.tid)? {
        return Ok(Some(Answer::Continue));
    }
    let (domain, kind, protocol) = (call.number_at(0), call.number_at(1), call.number_at(2));
    let socket = sys::socket(domain, kind, protocol)?;
    let inode = given.keep(&socket)?;
    match turn.give(socket.as_fd(), kind & libc::SOCK_CLOEXEC != 0) {
        Ok(_number) => Ok(None),
        Err(error) => {
            given.forget(inode);
            Err(error)
        }
    }
}

/// An address that a socket had which is closed by now is free.
pub(crate) fn bind(shared: &Shared) -> io::Result<Answer> {
    shared.threads.given().into_iter().for_each(|given| given.sweep());
    Ok(Answer::Continue)
}

/// It will not dial.
pub(crate) fn listen(shared: &Shared, call: &Call) -> io::Result<Answer> {
    if let Some(given) = shared.threads.given()
        && let Ok(inode) = shared.threads.inode(call.tid, call.number_at(0))
    {
        given.let_go(inode);
    }
    Ok(Answer::Continue)
}

/// Whoever connects, and the socket that is to be connected. `None` if that is for the kernel: where it was not given and the address is none of IP, and where
/// a connection is there or under way, of which the kernel says how it gets on.
pub(crate) fn to_connect(
    shared: &Shared,
    call: &Call,
    address: &[u8],
    turn: &Turn<'_>,
) -> io::Result<Option<(Arc<Thread>, OwnedFd)>> {
    let refused = match (shared.threads.copy_of(call.tid, call.number_at(0)), shared.threads.given()) {
        (Err(error), Some(given)) if error.raw_os_error() == Some(libc::EACCES) => (error, given),
        (found, _) => return found.map(Some),
    };
    let (error, given) = refused;
    let named = parse_address(address);
    if named == Named::Other {
        return Ok(None);
    }
    let (thread, inode) = shared.threads.holder(call.tid, call.number_at(0))?;
    let identity = given.identity(inode);
    if named == Named::Nothing {
        // What is disconnected is at its beginning, and nothing holds that was told of it.
        identity.into_iter().for_each(|identity| shared.lock().end_flow_of(identity.cookie));
        given.hearsay.forget(inode);
        return Ok(None);
    }
    let Some(identity) = identity else { return Err(error) };
    let path = shared.lock().flows.of_outgoing(identity.cookie).map(|flow| flow.path);
    match given.hearsay.anew(inode, || Vec::from_iter(path))? {
        Some(_under_way) => Ok(None),
        None => Ok(Some((thread, renew(shared, given, call, turn, (inode, identity))?))),
    }
}

/// Another one in the place of a socket that was let go and is connected to nobody any more: all that it has of the other is whether it blocks.
fn renew(
    shared: &Shared,
    given: &Given,
    call: &Call,
    turn: &Turn<'_>,
    (inode, identity): (u64, Identity),
) -> io::Result<OwnedFd> {
    let number = call.number_at(0);
    let flags = shared.threads.flags(call.tid, number)?;
    if !turn.is_waited_for() {
        return Err(errno(libc::EINTR));
    }
    let domain = if identity.is_v6 { libc::AF_INET6 } else { libc::AF_INET };
    let kind = libc::SOCK_STREAM | flags & libc::O_NONBLOCK;
    let socket = sys::socket(domain, kind, 0)?;
    given.keep(&socket)?;
    turn.replace(socket.as_fd(), number, flags & libc::O_CLOEXEC != 0)?;
    // Its number is another's by now, unless there are copies of that descriptor.
    given.forget(inode);
    Ok(socket)
}
