//! Windows Sockets' shape of the redirect records, as a library for C and C++:
//! `WSAIoctl` with `SIO_QUERY_WFP_CONNECTION_REDIRECT_RECORDS`, `…_CONTEXT` and
//! `SIO_SET_WFP_CONNECTION_REDIRECT_RECORDS`, and what belongs to it: events,
//! completion routines, last errors. The headers are in `include/waylay`, and
//! `docs/control-codes.md` says parameter by parameter what holds.
//!
//! It never decides anything about records or connections, nor believes that a
//! pointer leads somewhere: `waylay` asks the kernel, and the kernel reads and
//! writes the caller's memory, but for the calling thread's own stack.
//!
//! A SOCKET is a file descriptor. What is not here (`bind`, `accept`, `recv`…)
//! is the C library's.

pub mod abi;
mod announced;
mod code;
mod completion;
mod control_data;
mod event;
mod ioctl;
mod last_error;
mod message;
mod outcome;
mod pending;
mod question;
mod socket;
mod startup;
mod sys;
mod thread;
mod wait;

#[cfg(fuzzing)]
pub use control_data::check as control_data;
pub use sys::exports::*;
