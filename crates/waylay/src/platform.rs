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
//! * how a service gets its sockets: `sockets_from_env`, `datagram_sockets_from_env`, `check_registration`
//!   before the first, `claim_address` before one is bound;
//! * datagrams: which flow one belongs to (`select_flow` and what goes by it), how they are received and sent
//!   (`receive`, `send`, `take_unreachable`; `traffic_class`, `loopback_hop_limit`), waited for (`Readiness`), and by which sockets
//!   (`prepare_inbound`, `datagram_socket`);
//! * what a socket that dials needs besides: `stream_socket`, which does not
//!   block, and `apply_wishes`; and `raise_descriptor_limit`.

use std::net::{TcpListener, UdpSocket};

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
    MOST_IN_A_BATCH, Readiness, apply_wishes, check_registration, claim_address, datagram_socket,
    datagram_sockets_from_env, enlarge_buffers, loopback_hop_limit, number, open_reply, prepare_inbound,
    prepare_outbound, query_chain, query_context, query_original_destination, query_records,
    raise_descriptor_limit, receive, redirect_state, report_error, select_flow, selected_destination,
    selected_path, send, set_records, sockets_from_env, stream_socket, take_unreachable, traffic_class,
    trouble,
};

/// The sockets that a service is started with.
#[derive(Debug)]
pub(crate) struct Sockets {
    pub(crate) listeners: Vec<TcpListener>,
    pub(crate) datagrams: Vec<UdpSocket>,
}

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
