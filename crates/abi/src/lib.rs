//! The bytes shared with the kernel programs: the Rust twin of `bpf/abi.h`.
//!
//! Plain data with explicit padding and asserted sizes, and the two conversions
//! everybody needs: addresses and names. It never interprets what it carries;
//! meaning is in `waylay-core`, installation in `waylay-engine-ebpf`, and the
//! service's side of the socket options in `waylay`. A test in
//! `tests/differential` compares every offset with the object's BTF.
//!
//! Addresses are 16 bytes in network order, IPv4 as `::ffff:a.b.c.d`; every
//! integer, ports too, is in host order.

mod address;
mod datagrams;
mod options;
mod records;
mod tables;

pub use address::{Address, Process, comm_to_string, path_to_string};
pub use datagrams::{
    Datagram, DatagramFlag, DatagramFlow, DatagramPath, Reply, Told, Unreachable, UnreachableReport,
};
pub use options::{
    ABI_VERSION, OPEN_REPLY, QUERY_CHAIN, QUERY_CONTEXT, QUERY_DATAGRAM, QUERY_ORIGINAL_DST, QUERY_RECORDS,
    REPORT_ERROR, SELECT_FLOW, SET_RECORDS, SOL_WAYLAY,
};
pub use records::{Chain, Context, Ends, Flow, Handle, Hop, NamedChain, NamedHop, SocketWishes};
pub use tables::{
    Asker, Config, Event, HandleKey, Holder, IN_PACKETS, IS_RESIDENT, Known, Listener, ListenerOwner, Names,
    PASSED_FOREIGN_NAMESPACE, PASSED_SANDBOX, Progress, RESIDENT_BY_EXE, RESIDENT_BY_UID, Refusal, Resolver,
    Route, RouteKey, SHOWS_DESTINATION, Service, SocketEvent, Tables,
};

/// Slots for services in one policy.
pub const MAX_SERVICES: usize = 64;
/// Words of compiled filters that the programs look up at once.
pub const CHUNK: usize = 512;
/// Cgroups that the programs know of a process, from the root down.
pub const LINEAGE: usize = 12;
/// Hops of one chain.
pub const MAX_HOPS: usize = 16;
/// Listeners of one service in one family.
pub const MAX_LISTENERS: usize = 16;
/// UDP sockets of one service for IPv6.
pub const MAX_BANK: usize = 64;
/// Bytes of a service's name, the terminating zero included.
pub const NAME_LEN: usize = 32;
/// Bytes of a process's command name, the terminating zero included.
pub const COMM_LEN: usize = 16;
/// Bytes of an executable's path, the terminating zero included.
pub const EXE_LEN: usize = 384;
