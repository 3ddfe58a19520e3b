//! The calls of Winsock that no safe library offers.
//!
//! None of them is overlapped: whatever memory they are given is theirs until
//! they return, and no longer.
#![expect(unsafe_code, reason = "control codes and socket options that no safe library knows")]

use std::{
    io,
    os::windows::io::{AsRawSocket, BorrowedSocket},
    ptr,
};

use socket2::SockAddr;
use windows_sys::Win32::Networking::WinSock::{
    SO_EXCLUSIVEADDRUSE, SOCKET, SOL_SOCKET, WSAGetLastError, WSAIoctl, getsockopt, setsockopt,
};

use crate::winsock;

/// What a control code has to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// All of it; so many bytes.
    Whole(usize),
    /// Nothing: it has so many bytes, and the buffer fewer.
    Longer(usize),
}

/// `WSAIoctl` with a code that only answers.
pub(crate) fn ask(socket: BorrowedSocket<'_>, code: u32, answer: &mut [u8]) -> io::Result<Answer> {
    let mut bytes = 0;
    // SAFETY: nothing is passed in; `answer` is ours alone and writable for its length, as `bytes` is.
    let result = unsafe {
        WSAIoctl(
            raw(socket),
            code,
            ptr::null(),
            0,
            answer.as_mut_ptr().cast(),
            len_of(answer),
            &raw mut bytes,
            ptr::null_mut(),
            None,
        )
    };
    match result {
        0 => Ok(Answer::Whole(bytes as usize)),
        _ => match last_error() {
            error if error.raw_os_error() == Some(winsock::ERROR_INSUFFICIENT_BUFFER) => {
                Ok(Answer::Longer(bytes as usize))
            }
            error => Err(error),
        },
    }
}

/// `WSAIoctl` with a code that is only told something: it has to be given no
/// buffer for an answer.
pub(crate) fn tell(socket: BorrowedSocket<'_>, code: u32, value: &[u8]) -> io::Result<()> {
    let mut bytes = 0;
    // SAFETY: `value` is readable for its length; nothing but `bytes` is written to.
    let result = unsafe {
        WSAIoctl(
            raw(socket),
            code,
            value.as_ptr().cast(),
            len_of(value),
            ptr::null_mut(),
            0,
            &raw mut bytes,
            ptr::null_mut(),
            None,
        )
    };
    if result == 0 { Ok(()) } else { Err(last_error()) }
}

/// `getsockopt` of an option that is an address.
pub(crate) fn address_option(socket: BorrowedSocket<'_>, level: i32, name: i32) -> io::Result<SockAddr> {
    // SAFETY: `storage` is writable for the `len` bytes that `getsockopt` is told of, and it says how many it
    // wrote; storage that was not written to is zero.
    let ((), address) = unsafe {
        SockAddr::try_init(|storage, len| match getsockopt(raw(socket), level, name, storage.cast(), len) {
            0 => Ok(()),
            _ => Err(last_error()),
        })
    }?;
    Ok(address)
}

/// Keeps other sockets from being bound to the address as well, which Windows
/// permits to any process otherwise.
pub(crate) fn exclude_others(socket: BorrowedSocket<'_>) -> io::Result<()> {
    let on = 1_i32.to_ne_bytes();
    // SAFETY: `on` is readable for its length.
    let result = unsafe {
        setsockopt(raw(socket), SOL_SOCKET, SO_EXCLUSIVEADDRUSE, on.as_ptr(), size_of_val(&on) as i32)
    };
    if result == 0 { Ok(()) } else { Err(last_error()) }
}

fn raw(socket: BorrowedSocket<'_>) -> SOCKET {
    socket.as_raw_socket() as SOCKET
}

/// Longer buffers are used as far as Winsock can count.
fn len_of(buffer: &[u8]) -> u32 {
    u32::try_from(buffer.len()).unwrap_or(u32::MAX)
}

fn last_error() -> io::Error {
    // SAFETY: it takes no pointer and has no conditions.
    io::Error::from_raw_os_error(unsafe { WSAGetLastError() })
}

/// A number that is no open socket, nor any other handle: those are given out from the lowest on.
#[cfg(test)]
pub(crate) fn closed() -> BorrowedSocket<'static> {
    // SAFETY: nobody owns the number, so nothing is taken from anybody; that it is not open is what is tested.
    unsafe { BorrowedSocket::borrow_raw(0x00FF_FFFC) }
}
