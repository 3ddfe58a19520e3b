//! Sockets: making and closing them, and which of them are overlapped.

use std::{
    collections::HashSet,
    os::fd::{BorrowedFd, IntoRawFd, RawFd},
    sync::{LazyLock, Mutex, MutexGuard, PoisonError},
};

use rustix::{
    fs::{FileType, fstat},
    io::{FdFlags, fcntl_setfd, ioctl_fionbio, ioctl_fionread},
};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::{
    abi::{WSA_FLAG_NO_HANDLE_INHERIT, WSA_FLAG_OVERLAPPED},
    announced,
    code::{Code, FAULT, INVALID, NOT_A_SOCKET, NOT_SUPPORTED},
    pending, startup,
    sys::{caller::Place, descriptor},
};

/// The cookies (socket(7), `SO_COOKIE`) of sockets made without the attribute.
/// A descriptor's number would not do: it is used again.
static NOT_OVERLAPPED: LazyLock<Mutex<HashSet<u64>>> = LazyLock::new(Mutex::default);

/// What `WSASocket` was asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    pub(crate) family: i32,
    pub(crate) kind: i32,
    pub(crate) protocol: i32,
    /// A `WSAPROTOCOL_INFO` or a group was given, of which there are none here.
    pub(crate) has_more: bool,
    pub(crate) flags: u32,
}

pub(crate) fn open(wanted: Wanted) -> Result<RawFd, Code> {
    startup::check()?;
    if wanted.has_more || wanted.flags & !(WSA_FLAG_OVERLAPPED | WSA_FLAG_NO_HANDLE_INHERIT) != 0 {
        return Err(INVALID);
    }
    let protocol = (wanted.protocol != 0).then(|| Protocol::from(wanted.protocol));
    let socket = Socket::new_raw(Domain::from(wanted.family), Type::from(wanted.kind), protocol)?;
    if wanted.flags & WSA_FLAG_NO_HANDLE_INHERIT != 0 {
        fcntl_setfd(&socket, FdFlags::CLOEXEC)?;
    }
    if wanted.flags & WSA_FLAG_OVERLAPPED == 0 {
        not_overlapped().insert(socket.cookie()?);
    }
    Ok(socket.into_raw_fd())
}

/// Ends what is pending on it, then closes it.
pub(crate) fn close(number: RawFd) -> Result<(), Code> {
    startup::check()?;
    let socket = descriptor::named(number).ok_or(NOT_A_SOCKET)?;
    check(socket)?;
    pending::abort(|operation| operation.socket() == number);
    if let Ok(cookie) = SockRef::from(&socket).cookie() {
        not_overlapped().remove(&cookie);
        announced::forget(cookie);
    }
    // Another thread may have closed it since.
    descriptor::close(number).map_err(Code::from)
}

/// `ioctlsocket`: `FIONBIO` and `FIONREAD`, by Linux' numbers.
pub(crate) fn control(number: RawFd, command: i64, argument: Place<u64>) -> Result<(), Code> {
    startup::check()?;
    let socket = descriptor::named(number).ok_or(NOT_A_SOCKET)?;
    check(socket)?;
    match command.cast_unsigned() {
        libc::FIONBIO => ioctl_fionbio(socket, argument.read().map_err(|_fault| FAULT)? != 0)?,
        libc::FIONREAD => argument.write(&ioctl_fionread(socket)?).map_err(|_fault| FAULT)?,
        _ => return Err(NOT_SUPPORTED),
    }
    Ok(())
}

/// That the descriptor is open, and a socket's.
pub(crate) fn check(socket: BorrowedFd<'_>) -> Result<(), Code> {
    match fstat(socket) {
        Ok(status) if FileType::from_raw_mode(status.st_mode) == FileType::Socket => Ok(()),
        Ok(_) | Err(_) => Err(NOT_A_SOCKET),
    }
}

/// Whether it has the overlapped attribute: all have that `WSASocket` did not make without.
pub(crate) fn is_overlapped(socket: BorrowedFd<'_>) -> Result<bool, Code> {
    let sockets = not_overlapped();
    if sockets.is_empty() {
        return Ok(true);
    }
    Ok(!sockets.contains(&SockRef::from(&socket).cookie()?))
}

fn not_overlapped() -> MutexGuard<'static, HashSet<u64>> {
    NOT_OVERLAPPED.lock().unwrap_or_else(PoisonError::into_inner)
}
