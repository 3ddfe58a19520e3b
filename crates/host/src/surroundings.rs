//! What is around a process and its destination that a connection of its would meet, as far as it can be seen without making one.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    net::IpAddr,
    path::{Path, PathBuf},
};

use waylay_core::{Confinement, HostPattern, Policy, Process, Reach, Resident, ServiceId};
use waylay_engine_ebpf::{Hook, KnownNames, hooked};

use crate::caller::Caller;

/// The kernel side's program for packets, which is nobody's sandbox.
const OURS: &str = "wl_hear_names";

/// What a connection would meet, and which service would make it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// The service that the process is of.
    pub service: Option<ServiceId>,
    /// Whether the process is in somebody's sandbox.
    pub confinement: Confinement,
    /// How far the host gets towards the destination, as is published to the programs.
    pub reach: Reach,
    /// What is known of the names by which the process's application has asked for the destination.
    pub hosts: Vec<HostPattern>,
}

/// The services of a scope; its sandboxes, each looked at once; and what is known of names that a policy asks for. Where nobody can
/// say a process is free and nothing is known, as it is for the programs.
pub(crate) struct Around<'a> {
    scope: &'a Path,
    services: Vec<(ServiceId, Resident)>,
    sandboxes: RefCell<BTreeMap<PathBuf, bool>>,
    asked: BTreeMap<u64, &'a HostPattern>,
    known: Option<KnownNames>,
}

impl<'a> Around<'a> {
    pub(crate) fn new(
        scope: &'a Path,
        services: Vec<(ServiceId, Resident)>,
        policy: &'a Policy,
        known: Option<KnownNames>,
    ) -> Self {
        Self { scope, services, sandboxes: RefCell::default(), asked: policy.host_patterns(), known }
    }

    /// Which service a process is of.
    pub(crate) fn service(&self, caller: &Caller) -> Option<ServiceId> {
        let line = caller.cgroups.lineage(caller.process.cgroup);
        let is_of =
            |resident: &Resident| resident.recognises(&caller.process, line.contains(&resident.cgroup));
        self.services.iter().find(|(_, resident)| is_of(resident)).map(|&(service, _)| service)
    }

    /// Whether somebody has attached programs for packets to a cgroup or above it, within the scope: those at the scope and above
    /// hold for services too.
    pub(crate) fn confinement(&self, cgroup: &Path) -> Confinement {
        let is_within = cgroup.starts_with(self.scope);
        let mut within = cgroup.ancestors().take_while(|path| is_within && *path != self.scope);
        if within.any(|path| self.is_sandbox(path)) { Confinement::Sandboxed } else { Confinement::Free }
    }

    /// What covers the names by which an application has asked for an address.
    pub(crate) fn hosts(&self, application: &Process, address: IpAddr) -> Vec<HostPattern> {
        let known = self.known.as_ref().filter(|_| !self.asked.is_empty());
        let keys = known.and_then(|known| known.keys(application, address).ok()).unwrap_or_default();
        keys.iter().filter_map(|key| self.asked.get(key).copied().cloned()).collect()
    }

    fn is_sandbox(&self, cgroup: &Path) -> bool {
        *self.sandboxes.borrow_mut().entry(cgroup.to_owned()).or_insert_with(|| {
            let attached = hooked(cgroup).unwrap_or_default();
            let packets = attached
                .into_iter()
                .filter(|hooked| matches!(hooked.hook, Hook::InetIngress | Hook::InetEgress));
            packets.flat_map(|hooked| hooked.programs).any(|program| program.name.as_deref() != Some(OURS))
        })
    }
}
