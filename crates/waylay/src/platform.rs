//! What differs between the systems; everything else in this crate is the same
//! on all of them, tests apart.
//!
//! A backend supplies
//!
//! * a socket's `number`;
//! * the questions: `query_records`, `query_context`, `query_chain`,
//!   `query_original_destination`, `redirect_state`; and `set_records`. What a
//!   system does not tell is left empty, and said so in the public types;
//! * what the system's errors mean: [`QueryError`](crate::QueryError) and
//!   [`SetError`](crate::SetError) from an `io::Error`, and `trouble` (of
//!   accepting);
//! * how a service gets its listeners: `listeners_from_env`, `check_registration`
//!   before the first, `claim_address` before one is bound;
//! * what a socket that dials needs besides: `stream_socket`, which does not
//!   block, and `apply_wishes`; and `raise_descriptor_limit`.

#[cfg(target_os = "linux")]
mod linux;
#[cfg(windows)]
mod windows;

#[cfg(target_os = "linux")]
pub use linux::control;
#[cfg(all(fuzzing, target_os = "linux"))]
pub use linux::strange::{answers, environment};

#[cfg(target_os = "linux")]
use linux as system;
#[cfg(windows)]
use windows as system;

pub(crate) use system::{
    apply_wishes, check_registration, claim_address, listeners_from_env, number, query_chain, query_context,
    query_original_destination, query_records, raise_descriptor_limit, redirect_state, set_records,
    stream_socket, trouble,
};

/// Who has a problem when accepting fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// The connection that was to be accepted; there are others.
    Connection,
    /// The machine, for a while.
    Shortage,
    /// The listener.
    Listener,
}
