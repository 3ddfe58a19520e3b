//! The codes that calls fail with.

use std::io;

use waylay::{QueryError, SetError, winsock};

/// What `WSAGetLastError` says of a call that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Code(pub(crate) i32);

pub(crate) const FAULT: Code = Code(winsock::WSAEFAULT);
pub(crate) const INVALID: Code = Code(winsock::WSAEINVAL);
pub(crate) const NOT_A_SOCKET: Code = Code(winsock::WSAENOTSOCK);
pub(crate) const NOT_SUPPORTED: Code = Code(winsock::WSAEOPNOTSUPP);
pub(crate) const PENDING: Code = Code(winsock::WSA_IO_PENDING);
pub(crate) const ABORTED: Code = Code(winsock::WSA_OPERATION_ABORTED);
pub(crate) const INCOMPLETE: Code = Code(winsock::WSA_IO_INCOMPLETE);
pub(crate) const INTERRUPTED: Code = Code(winsock::WSAEINTR);
pub(crate) const IN_PROGRESS: Code = Code(winsock::WSAEINPROGRESS);
pub(crate) const WOULD_BLOCK: Code = Code(winsock::WSAEWOULDBLOCK);
pub(crate) const INVALID_HANDLE: Code = Code(winsock::WSA_INVALID_HANDLE);
pub(crate) const INVALID_PARAMETER: Code = Code(winsock::WSA_INVALID_PARAMETER);
pub(crate) const INSUFFICIENT_BUFFER: Code = Code(winsock::ERROR_INSUFFICIENT_BUFFER);
pub(crate) const NOT_INITIALISED: Code = Code(winsock::WSANOTINITIALISED);
pub(crate) const VERSION: Code = Code(winsock::WSAVERNOTSUPPORTED);

/// Of 64-bit programs the same bits as `DWORD`.
impl From<Code> for u32 {
    fn from(code: Code) -> Self {
        code.0.cast_unsigned()
    }
}

impl From<io::Error> for Code {
    fn from(error: io::Error) -> Self {
        Self(error.raw_os_error().map_or(winsock::WSASYSCALLFAILURE, winsock::code_of_errno))
    }
}

impl From<rustix::io::Errno> for Code {
    fn from(errno: rustix::io::Errno) -> Self {
        Self(winsock::code_of_errno(errno.raw_os_error()))
    }
}

impl From<&QueryError> for Code {
    fn from(error: &QueryError) -> Self {
        Self(error.winsock_code())
    }
}

impl From<SetError> for Code {
    fn from(error: SetError) -> Self {
        Self(error.winsock_code())
    }
}
