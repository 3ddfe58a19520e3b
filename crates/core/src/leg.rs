//! A leg: one socket-to-socket connection.

use std::fmt;
use std::net::{Ipv6Addr, SocketAddr};

use crate::address::normal_form;
use crate::chain::Chain;
use crate::host::HostPattern;
use crate::process::{Cgroups, CommandName, FileId, Process};
use crate::world::{Namespace, World};

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
    /// The destination the caller asked for. For the unspecified address an engine puts what connect() takes for it: of IPv4 the address
    /// that the socket has, and the loopback's if it has none; of IPv6 the loopback's, of IPv4 where the socket has an address of that.
    pub remote: SocketAddr,
    /// Who dials.
    pub caller: Process,
}

/// What conditions are asked of: a leg and its original application, flat and in normal form, as engines have it at hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The transport protocol.
    pub protocol: Protocol,
    /// The original destination's address in normal form.
    pub remote: Ipv6Addr,
    /// The original destination's port.
    pub remote_port: u16,
    /// The source address the caller bound, in normal form; a port alone is none.
    pub local: Option<Ipv6Addr>,
    /// What covers the names by which the original application has asked for the destination.
    pub hosts: Vec<HostPattern>,
    /// The network namespace that the leg is in.
    pub namespace: Namespace,
    /// The original application.
    pub application: ProcessFacts,
    /// The process that dials this leg.
    pub via: ProcessFacts,
}

/// What conditions are asked of a process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessFacts {
    /// Its executable.
    pub exe: FileId,
    /// Its user, the real one.
    pub uid: u32,
    /// Its group, the real one.
    pub gid: u32,
    /// Its command name.
    pub command: CommandName,
    /// Its cgroup and all above it.
    pub cgroups: Vec<u64>,
}

impl Facts {
    /// The facts of a leg; the chain knows the original application, and without one the caller is it.
    #[must_use]
    pub fn new(leg: &Leg, chain: &Chain, world: &World) -> Self {
        Self {
            protocol: leg.protocol,
            remote: normal_form(leg.remote.ip()),
            remote_port: leg.remote.port(),
            local: leg.local.map(|local| local.ip()).filter(|ip| !ip.is_unspecified()).map(normal_form),
            hosts: world.hosts.clone(),
            namespace: world.namespace,
            application: ProcessFacts::new(chain.origin().unwrap_or(&leg.caller), &world.cgroups),
            via: ProcessFacts::new(&leg.caller, &world.cgroups),
        }
    }
}

impl ProcessFacts {
    /// The facts of a process, given what is above its cgroup.
    #[must_use]
    pub fn new(process: &Process, cgroups: &Cgroups) -> Self {
        Self {
            exe: process.exe,
            uid: process.uid,
            gid: process.gid,
            command: process.command,
            cgroups: cgroups.lineage(process.cgroup),
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
