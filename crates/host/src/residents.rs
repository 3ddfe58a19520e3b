//! The services of a run that run already: found before it begins, watched while it lasts, left as they were.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        mpsc::{self, RecvTimeoutError, Sender},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use waylay_core::{FailurePolicy, Protocol, ServiceId};
use waylay_engine_ebpf::ResidentFlows;

use crate::{
    cgroup::Line,
    error::RunError,
    instance::RecordedResident,
    launch::Listening,
    resident::Found,
    service::STOP_PATIENCE,
    sockets,
    spec::{Observer, RunSpec, ServiceSpec},
};

/// Between looks whether a resident listens. The kernel's programs see it at once; this is for people.
const LOOK_PAUSE: Duration = Duration::from_millis(500);
/// Between looks at the flows that a resident has.
const DRAIN_STEP: Duration = Duration::from_millis(20);

/// Those of a run.
#[derive(Debug, Default)]
pub(crate) struct Residents(BTreeMap<ServiceId, Found>);

impl Residents {
    /// Finds them all, or says which cannot be adopted and why.
    pub(crate) fn find(spec: &RunSpec, line: &Line) -> Result<Self, RunError> {
        let mut found = BTreeMap::new();
        for (id, service) in (1..).map(ServiceId).zip(&spec.services) {
            let Some(adoption) = &service.adoption else { continue };
            let Some(known_by) = &adoption.known_by else { continue };
            let failed = |source| RunError::Resident { service: service.name.clone(), source };
            found.insert(id, known_by.find(&adoption.listens, service.transports, line).map_err(failed)?);
        }
        Ok(Self(found))
    }

    pub(crate) fn get(&self, service: ServiceId) -> Option<&Found> {
        self.0.get(&service)
    }

    /// What whoever looks at the host is told of them.
    pub(crate) fn records(&self, spec: &RunSpec) -> Vec<RecordedResident> {
        let record = |(id, service): (ServiceId, &ServiceSpec)| {
            let found = self.get(id)?;
            let known_by = service.adoption.as_ref()?.known_by.clone()?;
            let hooked = found.residence.hooked.clone();
            Some(RecordedResident { service: service.name.clone(), known_by, hooked })
        };
        (1..).map(ServiceId).zip(&spec.services).filter_map(record).collect()
    }
}

/// One that is at work for the run.
pub(crate) struct AtWork {
    id: ServiceId,
    flows: ResidentFlows,
    stop: Sender<()>,
    watch: JoinHandle<()>,
}

impl AtWork {
    pub(crate) fn begin(
        id: ServiceId,
        name: String,
        found: &Found,
        flows: ResidentFlows,
        on_failure: FailurePolicy,
        observer: &Arc<dyn Observer>,
    ) -> Self {
        let (stop, stopped) = mpsc::channel::<()>();
        let door = Door { cgroup: found.listener_cgroup, listening: found.listening.clone() };
        let observer = Arc::clone(observer);
        let watch = thread::spawn(move || {
            let mut listened = true;
            while stopped.recv_timeout(LOOK_PAUSE) == Err(RecvTimeoutError::Timeout) {
                let listens = door.is_open().unwrap_or(listened);
                if listens != listened {
                    observer.resident_listens(&name, listens, on_failure);
                }
                listened = listens;
            }
        });
        Self { id, flows, stop, watch }
    }

    /// Lets it carry on what it was led, for a while: services after it are there as long. It is not told to end.
    pub(crate) fn leave(self) {
        drop(self.stop);
        let give_up = Instant::now() + STOP_PATIENCE;
        while self.flows.of(self.id).is_ok_and(|flows| flows > 0) && Instant::now() < give_up {
            thread::sleep(DRAIN_STEP);
        }
        // One that panicked has ended too.
        let _ended = self.watch.join();
    }
}

/// Where a resident listens.
struct Door {
    cgroup: u64,
    listening: Listening,
}

impl Door {
    /// Whether it listens at every place where it did; `None` if that cannot be seen now.
    fn is_open(&self) -> Option<bool> {
        let tcp4 = self.listening.tcp4.iter().map(|address| (Protocol::Tcp, address.port()));
        let tcp6 = self.listening.tcp6.iter().map(|address| (Protocol::Tcp, address.port()));
        let udp4 = self.listening.udp4.iter().map(|&port| (Protocol::Udp, port));
        let wanted: Vec<(Protocol, u16)> = tcp4.chain(tcp6).chain(udp4).collect();
        let open = [Protocol::Tcp, Protocol::Udp].map(sockets::listeners);
        let [Ok(tcp), Ok(udp)] = open else { return None };
        Some(wanted.into_iter().all(|(protocol, port)| {
            let sockets = match protocol {
                Protocol::Tcp => &tcp,
                Protocol::Udp => &udp,
            };
            sockets.iter().any(|socket| socket.cgroup == self.cgroup && socket.local.port() == port)
        }))
    }
}
