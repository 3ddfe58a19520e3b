//! `WSARecvMsg` and `WSASendMsg`, by which records travel with datagrams.
//!
//! Not yet: datagrams are not redirected. The arguments are looked at, so that
//! a mistake in them is told; then the answer is `WSAEOPNOTSUPP`.

use std::os::fd::RawFd;

use crate::{
    abi::Message,
    code::{Code, FAULT, NOT_A_SOCKET, NOT_SUPPORTED},
    socket, startup,
    sys::{caller::Place, descriptor},
};

pub(crate) fn transfer(number: RawFd, message: Place<Message>) -> Result<(), Code> {
    startup::check()?;
    socket::check(descriptor::named(number).ok_or(NOT_A_SOCKET)?)?;
    message.read().map_err(|_fault| FAULT)?;
    Err(NOT_SUPPORTED)
}
