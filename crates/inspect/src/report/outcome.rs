//! How a connection ended, and the system's reason in words.

use std::io;

use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use waylay_relay::RelayError;

/// How a connection ended.
///
/// # Example
///
/// ```
/// use waylay_inspect::report::Outcome;
///
/// assert_eq!(Outcome::Unreachable.name(), "unreachable");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Both directions ended in order.
    Forwarded,
    /// A peer reset its connection or was lost; both have been reset.
    Reset,
    /// The destination could not be connected to.
    Unreachable,
    /// The inspector ended it; both peers have been reset.
    Stopped,
    /// The service itself failed, through no fault of the peers; both have been reset.
    Failed,
}

impl Outcome {
    /// The name by which reports call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Forwarded => "forwarded",
            Self::Reset => "reset",
            Self::Unreachable => "unreachable",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
        }
    }
}

impl From<&RelayError> for Outcome {
    fn from(error: &RelayError) -> Self {
        match error {
            RelayError::Socket { .. } => Self::Reset,
            RelayError::Wait { .. } => Self::Failed,
            RelayError::Stopped { .. } => Self::Stopped,
        }
    }
}

/// A system error as reports word it: its symbol, if it is one that connections end with, and the system's
/// text.
///
/// # Example
///
/// ```
/// let error = std::io::Error::from_raw_os_error(104);
/// let words = waylay_inspect::report::describe(&error);
/// assert_eq!(words, "ECONNRESET: Connection reset by peer (os error 104)");
/// ```
pub fn describe(error: &io::Error) -> String {
    match Errno::from_io_error(error).and_then(symbol) {
        Some(symbol) => format!("{symbol}: {error}"),
        None => error.to_string(),
    }
}

fn symbol(errno: Errno) -> Option<&'static str> {
    let symbol = match errno {
        Errno::ACCESS => "EACCES",
        Errno::ADDRNOTAVAIL => "EADDRNOTAVAIL",
        Errno::BADF => "EBADF",
        Errno::CONNABORTED => "ECONNABORTED",
        Errno::CONNREFUSED => "ECONNREFUSED",
        Errno::CONNRESET => "ECONNRESET",
        Errno::HOSTUNREACH => "EHOSTUNREACH",
        Errno::INVAL => "EINVAL",
        Errno::IO => "EIO",
        Errno::MFILE => "EMFILE",
        Errno::NETDOWN => "ENETDOWN",
        Errno::NETUNREACH => "ENETUNREACH",
        Errno::NFILE => "ENFILE",
        Errno::NOBUFS => "ENOBUFS",
        Errno::NOMEM => "ENOMEM",
        Errno::NOTCONN => "ENOTCONN",
        Errno::NOTSOCK => "ENOTSOCK",
        Errno::PERM => "EPERM",
        Errno::PIPE => "EPIPE",
        Errno::STALE => "ESTALE",
        Errno::TIMEDOUT => "ETIMEDOUT",
        _ => return None,
    };
    Some(symbol)
}
