//! The engine as others see it.

use std::{
    collections::BTreeSet,
    io,
    net::SocketAddr,
    os::fd::OwnedFd,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use thiserror::Error;
use waylay_core::{Event, Routes, ServiceId, SlotInUse, Slots};
use waylay_engine::{
    Capabilities, Capability, CapabilityState, Engine, Feature, Installation, Liveness, LocalName,
    memory::SocketId,
};

use crate::{
    flows::Open,
    shared::Shared,
    supervisor::{Dialler, Watch},
};

/// How often there are events to be asked for.
const STEP: Duration = Duration::from_millis(20);

/// Why the engine could not do what it was asked.
#[derive(Debug, Error)]
pub enum SeccompError {
    /// A slot that is in use was given away.
    #[error(transparent)]
    Slots(#[from] SlotInUse),
    /// Something that every machine has is missing: a socket, random numbers, a thread.
    #[error("cannot start to supervise")]
    Start(#[source] io::Error),
    /// A service's datagrams are to say themselves where they were going.
    #[error(
        "the service {service:?} is to be shown in datagrams where these were going, which takes a program on the loopback and so root"
    )]
    Packets {
        /// The service's name.
        service: String,
    },
}

/// The engine without privileges, of one process tree.
pub struct SeccompEngine {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for SeccompEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SeccompEngine").finish_non_exhaustive()
    }
}

impl SeccompEngine {
    /// An engine with nothing installed: every connection is direct. `cgroups` is where their unified hierarchy is mounted.
    ///
    /// # Errors
    /// [`SeccompError::Start`].
    pub fn new(cgroups: PathBuf) -> Result<Self, SeccompError> {
        Ok(Self { shared: Arc::new(Shared::new(cgroups).map_err(SeccompError::Start)?) })
    }

    /// What getsockname(2) will say of a service's accepted sockets, which it may ask about before anything is installed.
    pub fn expect(&self, service: ServiceId, local_name: LocalName) {
        self.shared.lock().local_names.insert(service, local_name);
    }

    /// Answers the calls of a part of the tree, of which [`crate::supervise`] gave the descriptor, until no process of it is left.
    ///
    /// # Errors
    /// [`SeccompError::Start`] without a thread to do so.
    pub fn watch(&self, listener: OwnedFd, dialler: Dialler) -> Result<Watch, SeccompError> {
        Watch::start(&self.shared, listener, dialler).map_err(SeccompError::Start)
    }

    /// Ends the flows of which neither end is open, and forgets the sockets of services that are gone. To be called every few seconds.
    pub fn sweep(&self, open: &Open) {
        self.shared.threads.sweep();
        let mut state = self.shared.lock();
        for socket in state.flows.sweep(open) {
            state.engine.close(SocketId(socket));
            state.unanswered.remove(&socket);
        }
    }

    /// The listeners of a service for TCP, as connections are led to them, and how many that came by each it has asked about.
    #[must_use]
    pub fn taken(&self, service: ServiceId) -> Vec<(SocketAddr, u64)> {
        let state = self.shared.lock();
        let listeners = state.listeners_of(service);
        listeners.into_iter().map(|listener| (listener, state.flows.taken_by(listener))).collect()
    }

    /// Ends the flows of datagrams that have been idle for a minute; of a connected socket, once that is gone. `open` are the UDP sockets of this
    /// network namespace that have a port, by their cookies. To be called every few seconds.
    pub fn sweep_datagrams(&self, open: &BTreeSet<u64>) {
        let mut state = self.shared.lock();
        for name in state.datagrams.sweep(open, Instant::now()) {
            state.engine.close(name);
        }
    }
}

/// Of which no supervisor could do anything.
fn refuse_packets(installation: &Installation) -> Result<(), SeccompError> {
    let shown = installation.endpoints.iter().find(|endpoint| match endpoint.local_name {
        LocalName::Packet => true,
        LocalName::Listener | LocalName::Destination => false,
    });
    let Some(endpoint) = shown else { return Ok(()) };
    let named = installation.tables.service(endpoint.service);
    let service = named.map_or_else(|| endpoint.service.to_string(), |service| service.name.clone());
    Err(SeccompError::Packets { service })
}

impl Engine for SeccompEngine {
    type Error = SeccompError;

    fn install(&mut self, installation: &Installation) -> Result<(), Self::Error> {
        refuse_packets(installation)?;
        let mut state = self.shared.lock();
        state.changes += 1;
        state.engine.install(installation)?;
        state.endpoints.clone_from(&installation.endpoints);
        state.datagrams.forget_decisions();
        let services = installation.tables.services();
        state.names.extend(services.iter().map(|service| (service.id, service.name.clone())));
        Ok(())
    }

    fn set_liveness(&mut self, service: ServiceId, liveness: Liveness) -> Result<(), Self::Error> {
        let mut state = self.shared.lock();
        state.datagrams.forget_decisions();
        state.changes += 1;
        Ok(state.engine.set_liveness(service, liveness)?)
    }

    /// Routes are asked for one by one, when somebody dials.
    fn set_routes(&mut self, _routes: &Routes) -> Result<(), Self::Error> {
        Ok(())
    }

    fn events(&mut self, timeout: Duration) -> Result<Vec<Event>, Self::Error> {
        let mut waited = Duration::ZERO;
        loop {
            let mut state = self.shared.lock();
            let mut events = state.engine.events(Duration::ZERO)?;
            let count = state.datagrams.newly_dropped();
            drop(state);
            events.extend((count > 0).then_some(Event::Dropped { count }));
            if !events.is_empty() || waited >= timeout {
                return Ok(events);
            }
            std::thread::sleep(STEP);
            waited += STEP;
        }
    }

    fn slots(&mut self) -> Result<Slots, Self::Error> {
        Ok(self.shared.lock().engine.slots()?)
    }

    fn capabilities(&self) -> Capabilities {
        let available = [
            Feature::RedirectTcp4,
            Feature::RedirectTcp6,
            Feature::RedirectUdp4,
            Feature::RedirectUdp6,
            Feature::Authorise,
            Feature::Records,
            Feature::HideRedirection,
            Feature::RefuseSockets,
            Feature::RefuseFamilies,
        ];
        let missing =
            [Feature::Enforcement, Feature::OutliveOwner, Feature::HostScope, Feature::ShowInPackets];
        let needs_ebpf = CapabilityState::Missing {
            needs: "the engine on eBPF".into(),
            remedy: "run waylay as root".into(),
        };
        let available = available.map(|feature| Capability { feature, state: CapabilityState::Available });
        let missing = missing.map(|feature| Capability { feature, state: needs_ebpf.clone() });
        available.into_iter().chain(missing).collect()
    }
}

#[cfg(test)]
mod tests {
    use waylay_core::ServiceId;
    use waylay_engine::Endpoint;

    use super::*;
    use crate::home_of;

    #[test]
    fn a_service_that_is_shown_in_packets_is_refused_and_nothing_installed() {
        let mut engine = SeccompEngine::new("/sys/fs/cgroup".into()).unwrap();
        let service = ServiceId(7);
        let endpoint = |local_name| Endpoint {
            service,
            cgroup: home_of(service),
            tcp4: Vec::new(),
            tcp6: Vec::new(),
            udp4: Some(5000),
            udp6: Vec::new(),
            behind6: None,
            local_name,
        };
        let with =
            |local_name| Installation { endpoints: vec![endpoint(local_name)], ..Installation::default() };
        let refused = engine.install(&with(LocalName::Packet)).unwrap_err();
        assert!(matches!(refused, SeccompError::Packets { .. }), "{refused}");
        assert!(engine.shared.lock().endpoints.is_empty());
        engine.install(&with(LocalName::Destination)).unwrap();
    }
}
