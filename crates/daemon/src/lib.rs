//! A policy in force for as long as a daemon runs, and who may change it.
//!
//! It prints nothing and parses no command line: `waylay-cli` does, with two binaries, `waylayd` and `waylay`, which talk over a
//! Unix socket. It decides nothing about connections and loads no programs: `waylay-host` is handed a whole policy at each change.
//!
//! ```text
//! files, and what was added ─ ledger ─▶ draft (config, held to what owners may by authority) ─ numbers ─▶ Assignment ─▶ force
//!          ▲ keeper: one change at a time, all of it or nothing                                                         │
//! client ──┴─ protocol ─ server ◀── feed ◀──────────────────────────────── what happens ───────────────────────────────┘
//! ```
//!
//! Everything is text: what is added while the daemon runs is a piece of a policy file, so that it says the same, is checked in
//! the same way, and is named in the same way by events and traces.
//!
//! Reading order: [`ledger`], [`authority`], [`draft`], [`numbers`] (all pure), [`keeper`], [`protocol`], [`server`] and [`client`],
//! [`daemon`] (the whole life of one). [`declared`] and [`files`] serve `waylay run --policy` as well.

pub mod authority;
pub mod boot;
pub mod client;
pub mod daemon;
pub mod declared;
pub mod draft;
mod enclosed;
pub mod feed;
pub mod files;
pub mod force;
pub mod history;
pub mod journey;
pub mod keeper;
mod lately;
pub mod ledger;
mod listing;
pub mod names;
pub mod numbers;
pub mod pace;
mod past;
pub mod protocol;
mod runs;
pub mod server;
mod standing;
pub mod why;
