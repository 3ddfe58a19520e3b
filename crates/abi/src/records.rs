use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{Address, EXE_LEN, LINEAGE, MAX_HOPS, NAME_LEN, Process, address::until_zero};

/// What `QUERY_RECORDS` answers and `SET_RECORDS` takes: a name for a chain
/// that stays in the kernel, and a tag only that kernel can make.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Handle {
    /// [`ABI_VERSION`](crate::ABI_VERSION).
    pub version: u32,
    /// Bytes of the whole handle.
    pub size: u32,
    /// The boot it belongs to.
    pub boot: u64,
    /// The engine's instance it belongs to.
    pub instance: u64,
    /// The flow it names.
    pub flow: u64,
    /// SipHash-2-4-128 over everything before it.
    pub tag: [u64; 2],
}

/// What the application gave its socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SocketWishes {
    /// The address it bound, as in [`Address::ip`]; all zero if none.
    pub source: [u8; 16],
    /// `SO_MARK`.
    pub mark: u32,
    /// Index of the device it bound, 0 if none.
    pub bound_device: u32,
    /// `IP_TOS`.
    pub tos: u8,
    /// `IPV6_TCLASS`.
    pub tclass: u8,
    /// Zero.
    pub reserved: [u8; 6],
}

/// What `QUERY_CONTEXT` answers.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Context {
    /// [`ABI_VERSION`](crate::ABI_VERSION).
    pub version: u32,
    /// Bytes of the whole answer.
    pub size: u32,
    /// The flow, unique in its instance.
    pub flow: u64,
    /// Id of the service the leg was redirected to.
    pub service: u32,
    /// Id of the filter that did it.
    pub filter: u32,
    /// Where the leg was going.
    pub destination: Address,
    /// The application at the head of the chain.
    pub application: Process,
    /// What that application gave its socket.
    pub wishes: SocketWishes,
    /// Its executable as its mount namespace names it; empty if too deep or long.
    pub exe_path: [u8; EXE_LEN],
}

/// "This service redirected, by this filter."
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Hop {
    /// The service's id.
    pub service: u32,
    /// The filter's id.
    pub filter: u32,
}

/// The hops of a connection, and where it may not go any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Chain {
    /// Slots of the services that may not be visited again.
    pub excluded: u64,
    /// How many of `hops` count.
    pub hop_count: u32,
    /// Zero.
    pub reserved: u32,
    /// Oldest first.
    pub hops: [Hop; MAX_HOPS],
}

/// A redirected leg, as the programs remember it: in the map of flows, and on sockets that records were set on.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Flow {
    /// Unique in its instance.
    pub id: u64,
    /// The cgroup that it counts for.
    pub admitted_cgroup: u64,
    /// 0 until the service's listener has accepted it, then 1.
    pub state: u32,
    /// Of the service it was redirected to.
    pub slot: u32,
    /// Of that service: an index of [`Progress`](crate::Progress).
    pub listener: u32,
    /// Whether the service has asked about it.
    pub taken: u32,
    /// The last sweep that found a socket of its, or began after it; of one that has ended when that was, in nanoseconds of the
    /// monotonic clock.
    pub seen: u64,
    /// Of a flow that is led to a resident: where the programs have counted its destination; else 0.
    pub errand: u64,
    /// The flow of the connection's first leg.
    pub first: u64,
    /// When it began, in nanoseconds of the monotonic clock.
    pub began: u64,
    /// Where the leg was going.
    pub destination: Address,
    /// The application's own, as getsockname shows it; port 0 while that is not known.
    pub source: Address,
    /// With this leg's hop.
    pub chain: Chain,
    /// The application at the head of the chain.
    pub application: Process,
    /// What that application gave its socket.
    pub wishes: SocketWishes,
    /// Its executable.
    pub exe_path: [u8; EXE_LEN],
    /// Its cgroups, from the root down; 0 where there are no more.
    pub lineage: [u64; LINEAGE],
    /// Its group, the real one.
    pub gid: u32,
    /// Zero.
    pub reserved: u32,
    /// Of a connection, as its service has them.
    pub ends: Ends,
}

/// Both ends of a loopback connection, by which they know each other; `wl_tuple` of the programs.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Ends {
    /// The network namespace's cookie.
    pub netns: u64,
    /// As in [`Address::ip`].
    pub client_ip: [u8; 16],
    /// As in [`Address::ip`].
    pub server_ip: [u8; 16],
    /// The port of who connects.
    pub client_port: u32,
    /// The port of who accepts.
    pub server_port: u32,
}

/// A [`Hop`] with its service's name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct NamedHop {
    /// Which hop.
    pub hop: Hop,
    /// The service's name, ended by a zero; empty if its policy is gone.
    pub name: [u8; NAME_LEN],
}

impl NamedHop {
    /// The service's name as text.
    #[must_use]
    pub fn service_name(&self) -> String {
        until_zero(&self.name)
    }
}

/// What `QUERY_CHAIN` answers.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct NamedChain {
    /// [`ABI_VERSION`](crate::ABI_VERSION).
    pub version: u32,
    /// How many of `hops` count.
    pub hop_count: u32,
    /// Oldest first.
    pub hops: [NamedHop; MAX_HOPS],
}

impl NamedChain {
    /// The hops that count, oldest first.
    #[must_use]
    pub fn hops(&self) -> &[NamedHop] {
        &self.hops[..(self.hop_count as usize).min(MAX_HOPS)]
    }
}

const _: () = {
    assert!(size_of::<Handle>() == 48);
    assert!(size_of::<Context>() == 24 + 24 + 56 + 32 + EXE_LEN);
    assert!(size_of::<NamedChain>() == 8 + 40 * MAX_HOPS);
};
