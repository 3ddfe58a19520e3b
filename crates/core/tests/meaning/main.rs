//! What `waylay-core` promises, rule by rule, and what follows from the rules for whole chains.

mod amendments;
mod arbitration;
mod chains;
mod fixtures;
mod index;
mod mix;
mod policies;
mod rules;
mod sockets;
mod tables;
mod updates;
