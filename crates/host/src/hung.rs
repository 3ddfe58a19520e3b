//! Services of a run without privileges that live but do not serve: as `health` has it, by what the supervisor and sock_diag(7) tell.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use waylay_core::{Protocol, ServiceId};
use waylay_engine_ebpf::Progress;

use crate::{
    health::{LOOKS, Patience},
    sockets::{self, Socket},
    spec::Observer,
};

/// Services, each with how long it has kept others waiting.
pub(crate) struct Wards {
    wards: Vec<Ward>,
    limit: Duration,
    last: Instant,
}

struct Ward {
    id: ServiceId,
    name: String,
    patience: Patience,
}

impl Wards {
    pub(crate) fn new(services: impl IntoIterator<Item = (ServiceId, String)>, limit: Duration) -> Self {
        let ward = |(id, name)| Ward { id, name, patience: Patience::new(limit) };
        Self { wards: services.into_iter().map(ward).collect(), limit, last: Instant::now() }
    }

    /// Those that are to be ended, each told once. `taken` says of a service's listeners how many connections it has taken by each.
    pub(crate) fn look(
        &mut self,
        observer: &Arc<dyn Observer>,
        taken: impl Fn(ServiceId) -> Vec<(SocketAddr, u64)>,
    ) -> Vec<ServiceId> {
        let now = Instant::now();
        if now.duration_since(self.last) < self.limit / LOOKS {
            return Vec::new();
        }
        self.last = now;
        // What cannot be looked at now is at the next look.
        let Ok(listeners) = sockets::listeners(Protocol::Tcp) else { return Vec::new() };
        let mut hung = Vec::new();
        let limit = self.limit;
        self.wards.retain_mut(|ward| {
            let progress: Vec<Progress> = taken(ward.id)
                .into_iter()
                .map(|(address, taken)| progress(&listeners, address, taken))
                .collect();
            let is_hung = ward.patience.is_over(now, &progress);
            if is_hung {
                observer.service_hung(&ward.name, limit);
                hung.push(ward.id);
            }
            !is_hung
        });
        hung
    }
}

/// How one of a service's listeners gets on by which so many have been taken.
pub(crate) fn progress(listeners: &[Socket], address: SocketAddr, taken: u64) -> Progress {
    let listener = listeners.iter().find(|listener| listener.takes(address));
    let waiting = listener.map_or(0, |listener| u64::from(listener.waiting));
    Progress { waiting, taken, arrived: taken + waiting }
}
