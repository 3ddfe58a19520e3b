//! Relays between real TCP sockets on the loopback interface, with real threads and real processes.

#![expect(clippy::unwrap_used, reason = "a failed set-up is a failed test")]

mod clients;
mod killed;
mod link;
mod media;
mod observed;
mod pattern;
mod resets;
mod transfers;
