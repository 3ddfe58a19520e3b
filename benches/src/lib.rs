//! What the benches share: contests in which the rivals take turns, the tables and raw figures that come
//! of them, and the seats from which clients of every kind are told what to do.
//!
//! It never decides whether a figure is good: it prints medians, their spread and the goals, and
//! `docs/figures.md` explains them. The places are made by `waylay-netlab`.
#![expect(clippy::unwrap_used, reason = "a bench: a failed step must show")]

mod cage;
mod contest;
mod mixes;
mod peer;
mod policies;
mod seat;
mod sys;
mod table;

pub use cage::{Cage, cpu_of};
pub use contest::{Column, Contest, Figures, Rival, Spread, rounds, timed};
pub use mixes::{Mix, mixed, pairs};
pub use peer::{peer, peer_file};
pub use policies::policy_for;
pub use seat::{Seat, drain, raise_descriptor_limit, seat_binary};
pub use sys::{get_option, set_option};
