//! The contract an engine fulfils, and the engine in memory.
//!
//! This crate never touches a platform: no sockets, no kernel, no privileges. `waylay-core` says what a policy means;
//! `waylay-engine-ebpf` and its siblings carry that out, and `waylay-host` owns one of them.
//!
//! # What an engine must do
//!
//! * **Install replaces everything, atomically.** Between two installations there is no moment without the old rules or the new ones.
//!   A failed installation leaves the old ones in force.
//! * **Answer as [`waylay_core::decide()`] does**, on the same policy, leg, chain and world. Engines may differ by their
//!   capabilities, never silently in meaning.
//! * **Keep flows across an installation.** A service that stays keeps its liveness, its flows and its slot; chains name services by
//!   ids that are never used again.
//! * **Give a slot to another service only when nothing carries it.** [`Engine::slots`] says which are taken; an installation that
//!   gives one away is refused. Until its slot is free, a service that was removed can carry on what it has received.
//! * **A service is absent until it is said to be alive**, and again as soon as it is said to be dead or goes with an
//!   installation; what is said of one that is not installed counts for nothing. A full backlog the engine finds
//!   out by itself.
//! * **Let no shortage become a connection.** What a flow needs is reserved before an address is rewritten, or the leg is refused.
//! * **Report in order**, and count what it had to drop: [`waylay_core::Event::Lost`].
//! * **Say what is missing.** [`Engine::capabilities`] names, for each thing this machine cannot do, the feature and the remedy.

mod capabilities;
pub mod memory;

use std::net::{SocketAddrV4, SocketAddrV6};
use std::time::Duration;

use waylay_core::{Event, Routes, ServiceId, Slots, Tables};

pub use capabilities::{Capabilities, Capability, CapabilityState, Feature};
pub use memory::MemoryEngine;

/// What carries redirection out. The crate's own page tells what is asked of it.
pub trait Engine {
    /// Why this engine could not do what it was asked.
    type Error: std::error::Error;

    /// Replaces everything that was installed before, atomically.
    fn install(&mut self, installation: &Installation) -> Result<(), Self::Error>;

    /// Says whether a service's process lives.
    fn set_liveness(&mut self, service: ServiceId, liveness: Liveness) -> Result<(), Self::Error>;

    /// Replaces what is known of the host's routes, atomically. Nothing is known at first: every destination counts as reachable.
    fn set_routes(&mut self, routes: &Routes) -> Result<(), Self::Error>;

    /// The events since the last call, oldest first. Waits for the first one at most as long as `timeout`.
    fn events(&mut self, timeout: Duration) -> Result<Vec<Event>, Self::Error>;

    /// The slots that are taken: those of installed services, and those of removed ones as long as a flow or a socket
    /// carries them. The next tables are compiled keeping them.
    fn slots(&mut self) -> Result<Slots, Self::Error>;

    /// What this engine can do on this machine.
    fn capabilities(&self) -> Capabilities;
}

/// Everything that an engine holds at a time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Installation {
    /// The policy in flat form.
    pub tables: Tables,
    /// Where the services are; one without an endpoint is absent.
    pub endpoints: Vec<Endpoint>,
}

impl Installation {
    /// The endpoint of a service.
    #[must_use]
    pub fn endpoint(&self, service: ServiceId) -> Option<&Endpoint> {
        self.endpoints.iter().find(|endpoint| endpoint.service == service)
    }
}

/// Listeners of one service in one family. A connection goes to any of them, so that together they hold as many as there are flows:
/// one alone ends at the number of local ports that are left towards one address and port.
pub const MAX_LISTENERS: usize = 16;

/// UDP sockets of one service for IPv6: what tells one destination from another is the port, for the loopback has one address there.
pub const MAX_BANK: usize = 64;

/// Where a service lives and listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The service.
    pub service: ServiceId,
    /// The cgroup that its sockets are created in, by which it is known. Whoever listens on its addresses with a socket created
    /// elsewhere is somebody else.
    pub cgroup: u64,
    /// Where it takes redirected TCP over IPv4: at most [`MAX_LISTENERS`], of one address. `0.0.0.0` stands for every address of
    /// the host: connections are led there by the loopback, and none of them can be dialled.
    pub tcp4: Vec<SocketAddrV4>,
    /// Where it takes redirected TCP over IPv6: at most [`MAX_LISTENERS`], of one address, `::` likewise.
    pub tcp6: Vec<SocketAddrV6>,
    /// The port at which it takes redirected UDP over IPv4, on every address of the loopback.
    pub udp4: Option<u16>,
    /// The ports of `::1` at which it takes redirected UDP over IPv6: at most [`MAX_BANK`]. One socket of an application can have as
    /// many destinations at a time as there are ports here.
    pub udp6: Vec<u16>,
    /// With [`LocalName::Packet`]: the port of `::1` at which the service itself takes them. Then those of `udp6` are others' sockets,
    /// which get nothing of it.
    pub behind6: Option<u16>,
    /// What its accepted sockets are called.
    pub local_name: LocalName,
}

/// What getsockname(2) says of an accepted socket of a service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LocalName {
    /// The address of the service's listener, as everywhere.
    #[default]
    Listener,
    /// Where the connection was going: what Linux' TPROXY shows, by which some transparent proxies go. Those ask for
    /// `IP_TRANSPARENT` too, which takes a privilege, and are told that they have it.
    Destination,
    /// The same, and datagrams say it themselves, instead of a token: for those that tell it to somebody else. Takes
    /// [`Feature::ShowInPackets`].
    Packet,
}

/// Whether a service's process lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Liveness {
    /// It lives and listens.
    Alive,
    /// It is gone.
    Dead,
}
