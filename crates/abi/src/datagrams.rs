use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{Address, Flow};

/// The two ends of a datagram flow towards its service; what `SELECT_FLOW` takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct DatagramPath {
    /// The token: the address datagrams arrive at, which stands for their destination.
    pub local: Address,
    /// Where they come from.
    pub peer: Address,
}

/// What `OPEN_REPLY` takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Reply {
    /// The flow that is answered.
    pub path: DatagramPath,
    /// Who answers.
    pub from: Address,
}

/// What `REPORT_ERROR` takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct UnreachableReport {
    /// The flow whose destination could not be reached.
    pub path: DatagramPath,
    /// The errno that an application's own socket would have given.
    pub error: u32,
    /// With `EMSGSIZE` the MTU in bytes; else 0.
    pub info: u32,
}

/// Which service has been told that datagrams of whom were going where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Told {
    /// Where to, as in [`Address::ip`].
    pub ip: [u8; 16],
    /// Whose; all zero: of anybody.
    pub peer_ip: [u8; 16],
    /// Host order, as is the next.
    pub port: u16,
    /// Of the peer.
    pub peer_port: u16,
    /// The service's place in the tables; `u32::MAX` for an address that a socket is bound to instead of that it asked for.
    pub slot: u32,
}

/// A bit of [`Datagram::flags`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum DatagramFlag {
    /// The application's socket is connected to the destination.
    Connected = 1 << 0,
    /// That socket is gone, or goes elsewhere by now.
    Closed = 1 << 1,
    /// Datagrams have come from `peer`; before that it is what the kernel expects.
    PeerSeen = 1 << 2,
}

/// What `QUERY_DATAGRAM` answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Datagram {
    /// The token, which answers have to come from.
    pub local: Address,
    /// Where they have to go.
    pub peer: Address,
    /// [`DatagramFlag`]s.
    pub flags: u32,
    /// Zero.
    pub reserved: u32,
}

impl Datagram {
    /// Whether a flag is set.
    #[must_use]
    pub fn has(&self, flag: DatagramFlag) -> bool {
        self.flags & flag as u32 != 0
    }
}

/// A flow of datagrams, as the programs remember it.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct DatagramFlow {
    /// What it has in common with a connection.
    pub flow: Flow,
    /// Its ends at the service.
    pub ends: Datagram,
    /// Of the application's socket.
    pub cookie: u64,
    /// When something last showed that it is of use, in nanoseconds since boot.
    pub last: u64,
}

/// What the programs tell the supervisor of a destination that could not be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Unreachable {
    /// The flow.
    pub path: DatagramPath,
    /// The errno.
    pub error: u32,
    /// With `EMSGSIZE` the MTU in bytes.
    pub info: u32,
}

const _: () = {
    assert!(size_of::<DatagramPath>() == 48);
    assert!(size_of::<Reply>() == 72);
    assert!(size_of::<UnreachableReport>() == 56);
    assert!(size_of::<Datagram>() == 56);
};
