//! What engines report: pure data, from which log lines, counters and `observe` derive.

use std::fmt;
use std::net::SocketAddr;

use crate::chain::Hop;
use crate::ids::FilterId;
use crate::leg::Protocol;
use crate::sockets::SocketKind;
use crate::verdict::Refusal;

/// Something an engine did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A leg was redirected to a service.
    Redirected {
        /// The flow that began with it.
        flow: u64,
        /// The service and the filter.
        hop: Hop,
        /// The leg.
        leg: LegSummary,
    },
    /// A leg was refused.
    Refused {
        /// Why; it names the service or filter concerned.
        refusal: Refusal,
        /// The leg.
        leg: LegSummary,
    },
    /// A socket was not made.
    SocketRefused {
        /// Why.
        refusal: Refusal,
        /// The socket.
        socket: SocketSummary,
    },
    /// A leg was left alone that a service is, or may be, wanted for.
    LeftAlone {
        /// Why.
        reason: Reason,
        /// The leg.
        leg: LegSummary,
    },
    /// A flow ended: its inbound leg is gone, and its records are worth nothing any more.
    Ended {
        /// The flow.
        flow: u64,
    },
    /// So many datagram flows, those idle for longest, were dropped because others needed their places.
    Dropped {
        /// How many.
        count: u64,
    },
    /// The reader was too slow, and this many events are lost.
    Lost {
        /// How many.
        count: u64,
    },
}

/// Why a leg was left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// It is of another network namespace; told once of each process and namespace.
    ForeignNamespace,
    /// It is from somebody's sandbox; told once of each cgroup.
    Sandbox,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ForeignNamespace => "another network namespace",
            Self::Sandbox => "it is in somebody's sandbox, which a service would dial out of",
        })
    }
}

/// What an event says of a leg.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LegSummary {
    /// The transport protocol.
    pub protocol: Protocol,
    /// The process that dialled.
    pub pid: u32,
    /// Its user.
    pub uid: u32,
    /// Its command name, which it may have chosen itself: to show, never to judge by.
    pub comm: String,
    /// The destination it asked for.
    pub destination: SocketAddr,
}

/// What an event says of a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketSummary {
    /// What it was to be.
    pub kind: SocketKind,
    /// The process that asked for it.
    pub pid: u32,
    /// Its user.
    pub uid: u32,
    /// Its command name; see [`LegSummary::comm`].
    pub comm: String,
}

impl Event {
    /// The filter that has refused a leg, if one has.
    #[must_use]
    pub const fn blocked_by(&self) -> Option<FilterId> {
        match self {
            Self::Refused { refusal: Refusal::Blocked { filter, .. }, .. } => Some(*filter),
            Self::Refused { .. }
            | Self::SocketRefused { .. }
            | Self::LeftAlone { .. }
            | Self::Redirected { .. }
            | Self::Ended { .. }
            | Self::Dropped { .. }
            | Self::Lost { .. } => None,
        }
    }

    /// The process that was refused something or left alone, and its user.
    #[must_use]
    pub const fn process(&self) -> Option<(u32, u32)> {
        match self {
            Self::Refused { leg, .. } | Self::LeftAlone { leg, .. } => Some((leg.pid, leg.uid)),
            Self::SocketRefused { socket, .. } => Some((socket.pid, socket.uid)),
            Self::Redirected { .. } | Self::Ended { .. } | Self::Dropped { .. } | Self::Lost { .. } => None,
        }
    }
}

impl fmt::Display for SocketSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}] {}", self.comm.escape_debug(), self.pid, self.kind)
    }
}

impl fmt::Display for LegSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}] {} {}", self.comm.escape_debug(), self.pid, self.protocol, self.destination)
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Redirected { flow, hop, leg } => {
                write!(f, "{leg}: redirected to {} by {}, flow {flow:016x}", hop.service, hop.filter)
            }
            Self::Refused { refusal, leg } => write!(f, "{leg}: refused with {}: {refusal}", refusal.errno()),
            Self::SocketRefused { refusal, socket } => {
                write!(f, "{socket}: refused with {}: {refusal}", refusal.errno())
            }
            Self::LeftAlone { reason, leg } => write!(f, "{leg}: left alone: {reason}"),
            Self::Ended { flow } => write!(f, "flow {flow:016x} ended"),
            Self::Dropped { count } => {
                write!(f, "{count} idle UDP flows were dropped to make room for others")
            }
            Self::Lost { count } => write!(f, "{count} events lost"),
        }
    }
}
