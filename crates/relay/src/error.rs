//! What a relay counts, and the ways in which it fails.

use std::fmt;
use std::io;

/// Which peer of the relay.
///
/// # Example
///
/// ```
/// assert_eq!(waylay_relay::Side::Application.to_string(), "application");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// The application whose connection was redirected.
    Application,
    /// What the connection goes on to: the next service or the real destination.
    Destination,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Application => "application",
            Self::Destination => "destination",
        })
    }
}

/// Which way bytes travel.
///
/// # Example
///
/// ```
/// use waylay_relay::{Direction, Side};
///
/// assert_eq!(Direction::ToDestination.source(), Side::Application);
/// assert_eq!(Direction::ToDestination.sink(), Side::Destination);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the application to the destination.
    ToDestination,
    /// From the destination to the application.
    ToApplication,
}

impl Direction {
    /// The side whose bytes these are.
    pub fn source(self) -> Side {
        match self {
            Self::ToDestination => Side::Application,
            Self::ToApplication => Side::Destination,
        }
    }

    /// The side that gets them.
    pub fn sink(self) -> Side {
        match self {
            Self::ToDestination => Side::Destination,
            Self::ToApplication => Side::Application,
        }
    }
}

/// What the relay was doing with a socket.
///
/// # Example
///
/// ```
/// assert_eq!(waylay_relay::Operation::Read.to_string(), "reading from");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Setting `SO_LINGER` so that a close is a reset.
    Arm,
    /// Setting `O_NONBLOCK` and `TCP_NODELAY`.
    Configure,
    /// Waiting for it: the socket broke while nothing was read from it.
    Watch,
    /// Reading.
    Read,
    /// Writing.
    Write,
    /// Passing an end-of-file on.
    ShutDown,
    /// Clearing `SO_LINGER` after the orderly end of both directions.
    Disarm,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Arm => "arming",
            Self::Configure => "configuring",
            Self::Watch => "watching",
            Self::Read => "reading from",
            Self::Write => "writing to",
            Self::ShutDown => "shutting down",
            Self::Disarm => "disarming",
        })
    }
}

/// Bytes that the kernel took from the relay, in each direction.
///
/// After a success the peers were sent all of them, after a failure perhaps not: a reset discards what is
/// under way.
///
/// # Example
///
/// ```
/// let transfer = waylay_relay::Transfer { to_destination: 78, to_application: 1256 };
/// assert_eq!(transfer.to_destination + transfer.to_application, 1334);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Transfer {
    /// Bytes from the application to the destination.
    pub to_destination: u64,
    /// Bytes from the destination to the application.
    pub to_application: u64,
}

/// Why a relay ended early. Both peers have been sent a reset.
///
/// # Example
///
/// ```
/// use waylay_relay::RelayError;
///
/// fn log(error: &RelayError) -> String {
///     format!("{error} after {} bytes up", error.transfer().to_destination)
/// }
/// ```
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// An operation on one of the two sockets failed; `ECONNRESET` if that peer reset its connection.
    #[error("{operation} the socket of the {side} failed")]
    Socket {
        /// Whose socket.
        side: Side,
        /// What failed.
        operation: Operation,
        /// What had been transferred.
        transfer: Transfer,
        /// The system's answer.
        source: io::Error,
    },
    /// Waiting itself failed, which is neither side's fault.
    #[error("waiting for the sockets failed")]
    Wait {
        /// What had been transferred.
        transfer: Transfer,
        /// The system's answer.
        source: io::Error,
    },
    /// The observer wanted no more.
    #[error("the observer stopped the bytes of the {}", direction.source())]
    Stopped {
        /// Which way the rejected chunk was travelling.
        direction: Direction,
        /// What had been transferred; the rejected chunk isn't part of it.
        transfer: Transfer,
    },
}

impl RelayError {
    /// What had been transferred when it happened.
    pub fn transfer(&self) -> Transfer {
        match self {
            Self::Socket { transfer, .. } => *transfer,
            Self::Wait { transfer, .. } => *transfer,
            Self::Stopped { transfer, .. } => *transfer,
        }
    }

    /// The side whose socket failed, if one did.
    pub fn side(&self) -> Option<Side> {
        match self {
            Self::Socket { side, .. } => Some(*side),
            Self::Wait { .. } => None,
            Self::Stopped { .. } => None,
        }
    }

    /// What the relay was doing with that socket.
    pub fn operation(&self) -> Option<Operation> {
        match self {
            Self::Socket { operation, .. } => Some(*operation),
            Self::Wait { .. } => None,
            Self::Stopped { .. } => None,
        }
    }

    /// The system's answer, unless the observer ended the connection.
    pub fn io_error(&self) -> Option<&io::Error> {
        match self {
            Self::Socket { source, .. } => Some(source),
            Self::Wait { source, .. } => Some(source),
            Self::Stopped { .. } => None,
        }
    }
}

/// A failure below the level that knows the counts.
#[derive(Debug)]
pub(crate) enum Halt {
    Socket { side: Side, operation: Operation, source: io::Error },
    Wait(io::Error),
    Stopped(Direction),
}

impl Halt {
    pub(crate) fn after(self, transfer: Transfer) -> RelayError {
        match self {
            Self::Socket { side, operation, source } => {
                RelayError::Socket { side, operation, transfer, source }
            }
            Self::Wait(source) => RelayError::Wait { transfer, source },
            Self::Stopped(direction) => RelayError::Stopped { direction, transfer },
        }
    }
}
