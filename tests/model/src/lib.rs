//! Every way a connection can take through a few services, tried out one by one, with `waylay_core::decide` itself for the rules.
//!
//! Nothing here says what becomes of a leg: the model only knows what services and the host may do next, and keeps its own account
//! of what has happened, with which the promises are compared. Whether an engine does the same is compared in `tests/`.
//!
//! # Why every chain ends
//!
//! Each [`Dial`] is a step, and each step adds a hop or ends the chain. Hops are counted in the state, so a chain that never ended
//! would be an infinite number of states, and one that goes round would break the bound on hops. The bound is thus a plain
//! invariant. Stateright's own `eventually` is not used: it takes a path that closes a cycle for one that it has seen.
//! No boundary cuts the states short.

mod account;
mod chains;
mod declaration;

pub use account::Account;
pub use chains::{
    ALL_CARRY, BOLD_ONE_DESTINATION, BOLD_RELOAD, BOUND, CLOSED, FULL, ONE_DESTINATION, TWICE, all_mixes,
};
pub use chains::{Begin, Chains, Defect, Dial, End, Habit, Kind, State};
pub use declaration::{
    Declaration, FIRST_PORT, Set, app, cgroup_of, contains, leg_from, members, only, process_of, subsets,
    world_of,
};
