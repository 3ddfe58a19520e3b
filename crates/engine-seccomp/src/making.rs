//! socket(2), bind(2) and listen(2), which are asked about where sockets are given (`given.rs`).

use std::{io, os::fd::AsFd};

use crate::{call::Call, pool::Turn, shared::Shared, supervisor::Answer, sys};

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
