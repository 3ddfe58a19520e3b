//! Scopes, service processes and the ownership of an engine: what stands
//! between the `waylay` command and the kernel.
//!
//! It decides nothing about connections; `waylay-core` does, and the engine
//! carries that out. It prints nothing: whoever calls it is told by
//! [`Observer`].
//!
//! Reading order: [`run()`] (the whole life of one run), `service` (one service's
//! process), `crew` (all of them, and their order), `place` (the run's cgroups and pins), `adopted` (one that knows nothing of waylay), `resident` and `processes` (one that runs already), [`launch`] (what happens
//! in a service's process before its program), `health` (a service that hangs; `hung` without privileges), `sweep` (flows whose end was missed),
//! `icmp` (errors of destinations, for applications), `sockets` and `routes` (the host's; the latter for the engine),
//! [`cgroup`], [`names`] (who is who, for policy files), [`instance`] (what stays on the host and how it is cleaned up),
//! [`doctor`] (what a machine offers).

mod adopted;
mod assignment;
mod background;
mod bank;
mod boot;
mod caller;
pub mod cgroup;
mod crew;
mod deadline;
pub mod doctor;
mod error;
mod existing;
mod families;
mod foundling;
mod handover;
mod health;
mod hung;
mod icmp;
pub mod instance;
pub mod launch;
mod limits;
mod loopback;
pub mod names;
mod netns;
mod past;
mod place;
mod processes;
mod refusals;
mod resident;
mod residents;
mod roll;
mod routes;
mod run;
mod service;
mod signals;
mod sockets;
mod spawner;
mod spec;
mod station;
#[cfg(any(test, fuzzing))]
mod strange;
mod supervised;
mod surroundings;
mod sweep;
mod sys;
pub mod user;

pub use assignment::{Assignment, Condition, Ground, Interruption, ServiceState, StationSpec};
pub use boot::{boot, lift_boot};
pub use caller::Caller;
pub use error::RunError;
pub use existing::{ExistingConnection, Swept};
pub use resident::{Found, KnownBy, KnownByError, ResidentError};
pub use run::{Enclosed, run, run_enclosed};
pub use spec::{Adoption, Ended, Observer, RunSpec, ServiceSpec, Step, Transports, chain_policy};
pub use station::{Enclosure, EnclosureError, Station};
#[cfg(fuzzing)]
pub use strange::{files, routes as route_messages, sockets as socket_messages};
pub use supervised::run_supervised;
pub use surroundings::Surroundings;
pub use sys::give_back_free_memory;
pub use waylay_engine::LocalName;
pub use waylay_engine_ebpf::{FlowApplication, LiveFlow, PastFlow};
