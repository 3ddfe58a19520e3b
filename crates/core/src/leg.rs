//! A leg: one socket-to-socket connection.

use std::fmt;
use std::net::{Ipv6Addr, SocketAddr};

use crate::address::normal_form;
use crate::chain::Chain;
use crate::process::{FileId, Process};

/// The transport protocol of a leg.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP, MPTCP included.
    Tcp,
    /// UDP.
    Udp,
}

/// One socket-to-socket connection as it is dialled. A connection through n services has n + 1 of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leg {
    /// Its transport protocol.
    pub protocol: Protocol,
    /// The source the caller bound, if it did.
    pub local: Option<SocketAddr>,
    /// The destination the caller asked for. For the unspecified address an engine puts the loopback one, as connect() does.
    pub remote: SocketAddr,
    /// Who dials.
    pub caller: Process,
}

/// What conditions are asked of: a leg and its original application, flat and in normal form, as engines have it at hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The transport protocol.
    pub protocol: Protocol,
    /// The original destination's address in normal form.
    pub remote: Ipv6Addr,
    /// The original destination's port.
    pub remote_port: u16,
    /// Executable of the original application.
    pub exe: FileId,
    /// User of the original application.
    pub uid: u32,
    /// Cgroup of the original application.
    pub cgroup: u64,
    /// Executable of the process that dials this leg.
    pub via_exe: FileId,
}

impl Facts {
    /// The facts of a leg; the chain knows the original application, and without one the caller is it.
    #[must_use]
    pub fn new(leg: &Leg, chain: &Chain) -> Self {
        let origin = chain.origin().unwrap_or(&leg.caller);
        Self {
            protocol: leg.protocol,
            remote: normal_form(leg.remote.ip()),
            remote_port: leg.remote.port(),
            exe: origin.exe,
            uid: origin.uid,
            cgroup: origin.cgroup,
            via_exe: leg.caller.exe,
        }
    }
}

/// What the redirect layer has made of a leg, as the auth layer sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// A service was chosen: the leg will go there.
    pub redirected: bool,
    /// The leg comes from a registered service, or carries a chain with hops.
    pub proxied: bool,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}
