//! The services that run already: found before they are led anything, watched, left as they were.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, RecvTimeoutError, Sender},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use waylay_core::{Protocol, ServiceId};
use waylay_engine_ebpf::ResidentFlows;

use crate::{
    cgroup::Cgroup,
    deadline::Deadline,
    error::RunError,
    instance::RecordedResident,
    launch::Listening,
    resident::Found,
    roll::Roll,
    sockets,
    spec::{Observer, ServiceSpec},
};

/// Between looks whether a resident listens. The kernel's programs see it at once; this is for people.
const LOOK_PAUSE: Duration = Duration::from_millis(500);
/// Between looks at the flows that a resident has.
const DRAIN_STEP: Duration = Duration::from_millis(20);

/// Finds one among a station's services, if it is one that runs already, or says why it cannot be adopted.
pub(crate) fn find(service: &ServiceSpec) -> Result<Option<Found>, RunError> {
    let Some(adoption) = &service.adoption else { return Ok(None) };
    let Some(known_by) = &adoption.known_by else { return Ok(None) };
    let line = Cgroup::line_of_the_caller()?;
    let failed = |source| RunError::Resident { service: service.name.clone(), source };
    known_by.find(&adoption.listens, service.transports, &line).map(Some).map_err(failed)
}

/// What whoever looks at the host is told of it.
pub(crate) fn record(service: &ServiceSpec, found: &Found) -> Option<RecordedResident> {
    let known_by = service.adoption.as_ref()?.known_by.clone()?;
    let hooked = found.residence.hooked.clone();
    Some(RecordedResident { service: service.name.clone(), known_by, hooked })
}

/// One that is at work for a station.
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
        alive: Arc<AtomicBool>,
        roll: Roll,
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
                    alive.store(listens, Ordering::Release);
                    observer.resident_listens(&name, listens, roll.on_failure(id));
                }
                listened = listens;
            }
        });
        Self { id, flows, stop, watch }
    }

    /// Lets it carry on what it was led, until a deadline: services after it are there as long. It is not told to end.
    pub(crate) fn leave(self, deadline: &Deadline) {
        drop(self.stop);
        while self.flows.of(self.id).is_ok_and(|flows| flows > 0) && !deadline.is_over() {
            thread::sleep(DRAIN_STEP);
        }
        // One that panicked has ended too.
        let _ended = self.watch.join();
    }
}

impl AtWork {
    /// Takes no notice of it any more.
    pub(crate) fn give_up(self) {
        drop(self.stop);
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
