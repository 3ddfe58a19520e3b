//! The Linux engine: loads the eBPF programs of `bpf/`, attaches them to a
//! scope, and puts compiled tables into them.
//!
//! It takes no policy decision: what the programs do is what
//! `waylay_core::decide` says, and tests compare the two. It knows nothing of
//! processes or users: `waylay-host` makes the cgroups and runs the services.
//!
//! ```text
//! Tables ─ encode ─▶ abi::Tables ─┬─ install ─▶ maps ◀─ programs (bpf/waylay.bpf.c)
//!    └────── its index, as it is ─┘
//! ```

mod admitted;
mod bpffs;
mod capabilities;
mod carried;
mod claims;
mod cost;
mod encode;
mod endpoints;
mod engine;
mod error;
mod event;
mod families;
mod flows;
mod holder;
mod hooks;
mod in_force;
mod learning;
mod liveness;
mod load;
mod loopback;
mod packets;
mod past;
mod probe;
mod progress;
mod registry;
mod residents;
mod routes;
mod scope;
mod slots;
#[cfg(any(test, fuzzing))]
mod strange;
mod sweep;
mod sys;
mod unreachable;

pub use bpffs::{bpf_file_system, bpf_file_system_is_mounted};
pub use capabilities::capabilities;
pub use cost::{Cost, STACK_UNIT, measure_programs};
pub use encode::{encode, encode_residence};
pub use engine::EbpfEngine;
pub use error::{EbpfError, in_initial_user_namespace};
pub use event::EventSource;
pub use families::asks_about_every_family;
pub use flows::{FlowApplication, LiveFlow};
pub use holder::{Held, Holder};
pub use hooks::{Below, Hook, Hooked, HookedProgram, hooked};
pub use learning::KnownNames;
pub use liveness::LivenessMarks;
pub use load::OBJECT;
pub use loopback::LoopbackMark;
pub use packets::{hooked_to_loopback, shown_in_packets_here};
pub use past::{PastFlow, PastSource};
pub use probe::{Probed, probe_programs};
pub use progress::{Progress, ProgressReader};
pub use registry::{LAYOUT as REGISTRY_LAYOUT, forget_instance, forget_other_layouts};
pub use residents::{Residence, ResidentFlows};
pub use routes::RoutePublisher;
pub use scope::{Limits, Scope, unpin};
#[cfg(fuzzing)]
pub use strange::frames;
pub use sweep::FlowSweeper;
pub use sys::netns_cookie;
pub use unreachable::{Unreachable, UnreachableSource};
