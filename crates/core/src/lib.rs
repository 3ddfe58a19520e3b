//! What a policy means: the nouns of waylay and [`decide()`], the definition every engine is compared with.
//!
//! This crate never does I/O, never reads a clock, never blocks and holds no `unsafe`: everything it knows enters as an argument.
//! `waylay-config` turns files into a [`Policy`]; `waylay-engine` states what carries its [`Tables`] out.
//!
//! ```text
//! services, sublayers, filters ─▶ Policy ─▶ decide(policy, leg, records, world) ─▶ Decision
//!                                   └─────▶ Tables ─▶ installed into an engine, which must answer the same
//! ```
//!
//! Reading order: [`model`] and [`conditions`] (what people write), [`leg`] and [`chain`] (what a connection brings with it),
//! [`world`], [`resident`] and [`routes`] (how things stand), [`mod@decide`] and [`verdict`] (what follows), [`mod@follow`] (through all services), [`sockets`] (what becomes of those that can't be redirected),
//! [`tables`] (the same in flat form), [`change`] and [`updates`] (how filters change one by one),
//! [`event`] (what engines report). The small nouns are in [`ids`], [`address`] and [`process`].

pub mod address;
pub mod chain;
pub mod change;
pub mod conditions;
pub mod decide;
pub mod event;
pub mod existing;
pub mod follow;
pub mod host;
pub mod ids;
pub mod leg;
pub mod model;
pub mod order;
pub mod policy;
pub mod process;
pub mod resident;
pub mod routes;
pub mod slots;
pub mod sockets;
pub mod tables;
pub mod trace;
pub mod updates;
pub mod verdict;
pub mod world;

pub use address::{Family, PortRange, PortRangeError, Prefix, PrefixError, normal_form};
pub use chain::{Chain, ChainError, Hop, MAX_HOPS, Records, RedirectState, ServiceSet, state};
pub use change::Change;
pub use conditions::{Conditions, FlagConditions, OneOf, ProcessConditions};
pub use decide::{Decision, decide};
pub use event::{Event, LegSummary, Reason, SocketSummary};
pub use existing::{ExistingVerdict, decide_existing};
pub use follow::{Stage, follow};
pub use host::{HostName, HostNameError, HostPattern};
pub use ids::{FilterId, ServiceId, SublayerId};
pub use leg::{Facts, Flags, Leg, ProcessFacts, Protocol};
pub use model::{Action, AuthRule, Errno, FailurePolicy, Filter, Layer, Right, Service, Sublayer};
pub use order::{OrderError, solve};
pub use policy::{Limit, LimitError, MAX_SERVICES, Policy, PolicyError};
pub use process::{Cgroups, CommandName, FileId, Process};
pub use resident::{Asked, Errand, Mark, Resident};
pub use routes::{Reach, Routes};
pub use slots::{SlotError, SlotInUse, Slots};
pub use sockets::{NewSocket, SocketKind, SocketReach, SocketVerdict, decide_socket};
pub use tables::{
    AuthOutcome, CHUNK, Index, MAX_FILTERS, MAX_STEPS, MAX_SUBLAYERS, MAX_WORDS, Report, TableAuthFilter,
    TableFilter, TableService, Tables, Warning,
};
pub use trace::{AuthEffect, Naming, SkipReason, Trace, TraceStep};
pub use updates::{Renewal, Renewed, UpdateError, Updates};
pub use verdict::{Refusal, Verdict};
pub use world::{
    Availability, Confinement, Existing, ForeignNamespace, ListenerOwner, Namespace, Obstacle, Resource,
    Room, Route, Sandboxes, SocketOwner, Sphere, Unredirectable, World,
};
