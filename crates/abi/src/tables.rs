use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{Address, LINEAGE, MAX_BANK, MAX_LISTENERS, MAX_SERVICES, NAME_LEN, Process};

/// What makes an instance's handles its own.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct HandleKey {
    /// Of the running kernel.
    pub boot: u64,
    /// Of the engine.
    pub instance: u64,
    /// The secret's first half.
    pub k0: u64,
    /// The secret's second half.
    pub k1: u64,
}

/// What one instance is told about its surroundings.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Config {
    /// Cookie of the network namespace the services listen in.
    pub netns: u64,
    /// Depth of the services' cgroups, the root being 0.
    pub service_level: u32,
    /// Depth of the scope.
    pub scope_level: u32,
    /// Flows at one time.
    pub max_flows: u64,
    /// Flows at one time that one cgroup may open.
    pub max_flows_per_cgroup: u64,
    /// The same of datagram flows.
    pub max_datagram_flows: u64,
    /// The same of datagram flows.
    pub max_datagram_flows_per_cgroup: u64,
    /// How long a datagram flow is kept without a datagram, in nanoseconds.
    pub datagram_idle_ns: u64,
}

/// Of [`Service::flags`]: getsockname(2) on the service's accepted sockets says the original destination.
pub const SHOWS_DESTINATION: u32 = 1 << 0;
/// In [`Service::flags`]: it runs by itself, in [`Service::resident_cgroup`] or below.
pub const IS_RESIDENT: u32 = 1 << 1;
/// In [`Service::flags`]: such a one is told from others there by its executable.
pub const RESIDENT_BY_EXE: u32 = 1 << 2;
/// In [`Service::flags`]: or by its user.
pub const RESIDENT_BY_UID: u32 = 1 << 3;
/// In [`Service::flags`]: datagrams show it the original destination too, instead of a token.
pub const IN_PACKETS: u32 = 1 << 4;

/// A service's place in the tables.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Service {
    /// Slots up to and including this one in the solved order.
    pub prefix_mask: u64,
    /// In which its sockets are made.
    pub cgroup: u64,
    /// Never reused.
    pub id: u32,
    /// 0 open, 1 closed.
    pub on_failure: u32,
    /// Address of its listeners for IPv4, mapped.
    pub listen4: [u8; 16],
    /// Address of its listeners for IPv6.
    pub listen6: [u8; 16],
    /// Ports of its listeners for IPv4, in host order.
    pub ports4: [u16; MAX_LISTENERS],
    /// Ports of its listeners for IPv6, in host order.
    pub ports6: [u16; MAX_LISTENERS],
    /// How many of `ports4` count.
    pub count4: u16,
    /// How many of `ports6` count.
    pub count6: u16,
    /// [`SHOWS_DESTINATION`], [`IS_RESIDENT`], [`RESIDENT_BY_EXE`], [`RESIDENT_BY_UID`], [`IN_PACKETS`].
    pub flags: u32,
    /// Port of its UDP socket for IPv4; 0 if it has none.
    pub udp4: u16,
    /// How many of `udp6` count.
    pub bank: u16,
    /// Of a resident: how many cgroups are above its own.
    pub resident_level: u32,
    /// Of a resident: its cgroup.
    pub resident_cgroup: u64,
    /// Of one that is told from others by its executable: the file's device, as the kernel has it.
    pub resident_exe_device: u64,
    /// And its inode.
    pub resident_exe_inode: u64,
    /// Of one that is told from others by its user.
    pub resident_uid: u32,
    /// Of a resident: depth of the innermost cgroup that is around it and the scope.
    pub resident_shared_level: u32,
    /// Ports of its UDP sockets for IPv6, all of one address.
    pub udp6: [u16; MAX_BANK],
    /// Port of its UDP socket for IPv6, if datagrams to `udp6` are handed to that ([`IN_PACKETS`]); else 0.
    pub behind6: u16,
    /// Zero.
    pub reserved: [u16; 3],
    /// Ended by a zero.
    pub name: [u8; NAME_LEN],
}

/// How one listener of a service gets on; what is neither taken nor lost waits for the service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Progress {
    /// Redirected connections that were established.
    pub arrived: u64,
    /// Those the service has asked about or closed.
    pub taken: u64,
    /// Those that the client ended before.
    pub lost: u64,
}

/// A prefix of the host's routes.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RouteKey {
    /// Bits of `ip` that count.
    pub length: u32,
    /// As in [`Address::ip`].
    pub ip: [u8; 16],
}

/// How far the host gets towards a prefix.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Route {
    /// Where connections start from, as in [`Address::ip`]; all zero if not known.
    pub source: [u8; 16],
    /// What connect() fails with; 0 if there is a route.
    pub error: u32,
    /// 1 if it leads to this host itself.
    pub here: u8,
    /// 1 if it leads to many hosts, to which datagrams go.
    pub group: u8,
    /// Zero.
    pub reserved: [u8; 2],
}

/// One policy, but for its filters: those are the words of `waylay_core::Index`, in chunks of [`CHUNK`](crate::CHUNK).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Tables {
    /// How many of `services` count.
    pub service_count: u32,
    /// At which place their words are: 0 or 1.
    pub filters: u32,
    /// Whether legs of other namespaces are permitted (0) or blocked (1).
    pub foreign_namespace: u8,
    /// Whether what cannot be redirected is permitted (0) or blocked (1), where a redirect filter covers the application.
    pub unredirectable: u8,
    /// 1 if a service listens on every address of the host.
    pub any_address: u8,
    /// 1 if a service runs by itself ([`IS_RESIDENT`]).
    pub residents: u8,
    /// 1 if legs from sandboxes are redirected.
    pub override_sandboxes: u8,
    /// At which place the words are that amend them: 2 or 3; 0 if none do.
    pub amendments: u8,
    /// 1 if some filter asks for names of hosts.
    pub asks_for_hosts: u8,
    /// Zero.
    pub reserved: u8,
    /// By slot.
    pub services: [Service; MAX_SERVICES],
}

/// A resolver, whose answers names of hosts are learned from.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Resolver {
    /// As in [`Address::ip`].
    pub ip: [u8; 16],
    /// Host order.
    pub port: u16,
    /// Zero.
    pub reserved: u16,
}

/// An application that asks resolvers, in whichever process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Asker {
    /// As in [`Process::exe_device`](crate::Process::exe_device).
    pub exe_device: u64,
    /// As in [`Process::exe_inode`](crate::Process::exe_inode).
    pub exe_inode: u64,
    /// Id of its cgroup.
    pub cgroup: u64,
    /// Its user, the real one.
    pub uid: u32,
    /// Zero.
    pub reserved: u32,
}

/// An address that an application has had for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Known {
    /// Who has asked.
    pub by: Asker,
    /// As in [`Address::ip`].
    pub ip: [u8; 16],
}

/// What covers the names by which it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Names {
    /// Keys of patterns; 0: none.
    pub keys: [u64; LINEAGE],
    /// Until when each counts, in seconds since boot.
    pub until: [u32; LINEAGE],
}

/// Key of the registry of listeners all instances of a host share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Listener {
    /// Cookie of the network namespace it listens in.
    pub netns: u64,
    /// As in [`Address::ip`].
    pub ip: [u8; 16],
    /// Host order.
    pub port: u16,
    /// Number of the IP protocol. A UDP socket for IPv4 has every address of the host, written as 0.0.0.0.
    pub protocol: u8,
    /// Zero.
    pub reserved: [u8; 5],
}

/// Whose listener it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ListenerOwner {
    /// The engine's instance.
    pub instance: u64,
    /// The cgroup that it watches: only what is made in there it can have led to the listener.
    pub scope: u64,
    /// How many cgroups are above that.
    pub scope_level: u32,
    /// The service's id there.
    pub service: u32,
}

/// An engine that has something in a cgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Holder {
    /// The engine's instance.
    pub instance: u64,
    /// The process that loaded it.
    pub pid: u32,
    /// 0 if the cgroup is its scope, 1 if a service of its is in it, 2 if that is outside of its scope.
    pub held: u32,
}

/// Why a connect was refused, as the kernel reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Refusal {
    /// By an auth filter.
    Blocked = 1,
    /// The service is gone and its policy is `closed`.
    ServiceAbsent = 2,
    /// The service does not keep up.
    BacklogFull = 3,
    /// A `closed` service would have stayed unvisited.
    HopLimit = 4,
    /// Straight to a service's listener.
    ListenerDialled = 5,
    /// From another network namespace.
    ForeignNamespace = 6,
    /// No room for a flow.
    NoFlows = 7,
    /// This cgroup has its share of flows.
    NoFlowsOfCgroup = 8,
    /// The kernel gave the socket no storage.
    NoSocketStorage = 9,
    /// No policy is installed.
    NoTables = 10,
    /// The destination has no route.
    NoRoute = 11,
    /// No token for a datagram flow, or no local port.
    NoPorts = 12,
    /// It cannot be redirected.
    Unredirectable = 13,
}

impl Refusal {
    /// The kernel's number as a reason; `None` for one this version lacks.
    #[must_use]
    pub fn from_code(code: u32) -> Option<Self> {
        [
            Self::Blocked,
            Self::ServiceAbsent,
            Self::BacklogFull,
            Self::HopLimit,
            Self::ListenerDialled,
            Self::ForeignNamespace,
            Self::NoFlows,
            Self::NoFlowsOfCgroup,
            Self::NoSocketStorage,
            Self::NoTables,
            Self::NoRoute,
            Self::NoPorts,
            Self::Unredirectable,
        ]
        .into_iter()
        .find(|refusal| *refusal as u32 == code)
    }
}

/// A refused connect.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Event {
    /// A [`Refusal`].
    pub refusal: u32,
    /// The errno the application got.
    pub error: u32,
    /// Id of the service concerned, 0 if none.
    pub service: u32,
    /// Id of the filter concerned, 0 if none.
    pub filter: u32,
    /// Where the leg was going.
    pub destination: Address,
    /// Who called `connect`.
    pub process: Process,
    /// Number of the IP protocol.
    pub protocol: u32,
    /// Zero.
    pub reserved: u32,
}

/// What the kernel reports although nothing was refused: in place of a [`Refusal`], with the errno 0.
pub const PASSED_FOREIGN_NAMESPACE: u32 = 64;
/// Likewise: from a sandbox.
pub const PASSED_SANDBOX: u32 = 65;

/// A socket that was not made. Events are told apart by their size.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SocketEvent {
    /// A [`Refusal`].
    pub refusal: u32,
    /// The errno the application got.
    pub error: u32,
    /// Address family.
    pub family: u16,
    /// `SOCK_STREAM` and the like.
    pub socket_type: u16,
    /// Number of the protocol.
    pub protocol: u32,
    /// Who called `socket`.
    pub process: Process,
}

const _: () = {
    assert!(size_of::<SocketEvent>() != size_of::<Event>());
    assert!(size_of::<Service>() == 208 + 2 * MAX_BANK);
    assert!(size_of::<Tables>() == 16 + size_of::<Service>() * MAX_SERVICES);
    assert!(size_of::<Event>() == 16 + 24 + 56 + 8);
};
