//! What is around a process and its destination that a connection of its would meet, as far as it can be seen without making one.

use std::path::Path;

use waylay_core::{Confinement, Route};
use waylay_engine_ebpf::{Hook, hooked};

/// The kernel side's program for packets, which is nobody's sandbox.
const OURS: &str = "wl_hear_names";

/// What a connection would meet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// Whether the process is in somebody's sandbox.
    pub confinement: Confinement,
    /// Whether the destination has a route, as is published to the programs.
    pub route: Route,
}

/// Whether somebody has attached programs for packets to a cgroup or above it, within the scope: those at the scope and above hold for
/// services too. Where nobody can say it counts as free, as it does for the programs.
pub(crate) fn confinement(cgroup: &Path, scope: &Path) -> Confinement {
    let within = cgroup.ancestors().take_while(|path| cgroup.starts_with(scope) && *path != scope);
    let is_watched = |path: &Path| {
        let attached = hooked(path).unwrap_or_default();
        let packets =
            attached.into_iter().filter(|hooked| matches!(hooked.hook, Hook::InetIngress | Hook::InetEgress));
        packets.flat_map(|hooked| hooked.programs).any(|program| program.name.as_deref() != Some(OURS))
    };
    if within.into_iter().any(is_watched) { Confinement::Sandboxed } else { Confinement::Free }
}
