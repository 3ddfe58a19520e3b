//! The services that run already: found before they are led anything, watched, left as they were.

use std::{
    collections::BTreeSet,
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
    resident::{Found, ResidentError},
    roll::Roll,
    sockets::{self, Socket},
    spec::{Observer, ServiceSpec},
};

/// Between looks whether a resident listens. The kernel's programs see it at once; this is for people.
const LOOK_PAUSE: Duration = Duration::from_millis(500);
/// Between looks at the flows that a resident has.
const DRAIN_STEP: Duration = Duration::from_millis(20);

/// How a service of a station is had.
pub(crate) enum Presence {
    /// Waylay starts it.
    Started,
    /// It runs already.
    Here(Found),
    /// It is to run by itself, and does not yet.
    Awaited(ResidentError),
}

impl Presence {
    /// Of one that is not there yet: whether somebody waits for it.
    pub(crate) fn of(service: &ServiceSpec, waits: bool) -> Result<Self, RunError> {
        match find(service)? {
            None => Ok(Self::Started),
            Some(Ok(found)) => Ok(Self::Here(found)),
            Some(Err(absent)) if waits && absent.is_absence() => Ok(Self::Awaited(absent)),
            Some(Err(source)) => Err(RunError::Resident { service: service.name.clone(), source }),
        }
    }

    /// Where it is, if it runs already.
    pub(crate) const fn found(&self) -> Option<&Found> {
        match self {
            Self::Here(found) => Some(found),
            Self::Started | Self::Awaited(_) => None,
        }
    }
}

/// Where one is that is to run by itself; nothing of others.
fn find(service: &ServiceSpec) -> Result<Option<Result<Found, ResidentError>>, RunError> {
    let Some(adoption) = &service.adoption else { return Ok(None) };
    let Some(known_by) = &adoption.known_by else { return Ok(None) };
    let line = Cgroup::line_of_the_caller()?;
    Ok(Some(known_by.find(&adoption.listens, service.transports, &line)))
}

/// One that is to run by itself and does not yet.
pub(crate) struct Awaited {
    service: ServiceSpec,
}

impl Awaited {
    pub(crate) const fn new(service: ServiceSpec) -> Self {
        Self { service }
    }

    /// Whether it is there now.
    pub(crate) fn has_come(&self) -> bool {
        matches!(find(&self.service), Ok(Some(Ok(_))))
    }
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
    service: ServiceSpec,
    found: Found,
    alive: Arc<AtomicBool>,
    /// Other sockets listen than did.
    has_changed: Arc<AtomicBool>,
    flows: ResidentFlows,
    stop: Sender<()>,
    watch: JoinHandle<()>,
}

impl AtWork {
    pub(crate) fn begin(
        id: ServiceId,
        service: &ServiceSpec,
        found: &Found,
        flows: ResidentFlows,
        alive: Arc<AtomicBool>,
        roll: Roll,
        observer: &Arc<dyn Observer>,
    ) -> Self {
        let (stop, stopped) = mpsc::channel::<()>();
        let door = Door { cgroup: found.listener_cgroup, listening: found.listening.clone() };
        let (name, observer) = (service.name.clone(), Arc::clone(observer));
        let has_changed = Arc::new(AtomicBool::new(false));
        let (listens, others) = (Arc::clone(&alive), Arc::clone(&has_changed));
        let watch = thread::spawn(move || {
            let mut before = door.look();
            while stopped.recv_timeout(LOOK_PAUSE) == Err(RecvTimeoutError::Timeout) {
                let Some(now) = door.look() else { continue };
                if now.is_open != listens.load(Ordering::Acquire) {
                    listens.store(now.is_open, Ordering::Release);
                    observer.resident_listens(&name, now.is_open, roll.on_failure(id));
                }
                if before.replace(now.clone()) != Some(now) {
                    others.store(true, Ordering::Release);
                }
            }
        });
        Self { id, service: service.clone(), found: found.clone(), alive, has_changed, flows, stop, watch }
    }

    /// Whether it is now where it would have to be adopted anew: in another cgroup, by another program. That is looked for only if
    /// something has happened to its listeners, for it takes a look at all processes.
    pub(crate) fn has_moved(&self) -> bool {
        let has_changed = self.has_changed.swap(false, Ordering::AcqRel);
        let may_have = has_changed || !self.alive.load(Ordering::Acquire);
        may_have && matches!(find(&self.service), Ok(Some(Ok(found))) if found != self.found)
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

/// What there is to see of that.
#[derive(Clone, PartialEq, Eq)]
struct Look {
    /// Whether it listens at every place where it did.
    is_open: bool,
    /// The sockets that do, by what tells each from all others.
    cookies: BTreeSet<u64>,
}

impl Door {
    /// `None` if it cannot be seen now.
    fn look(&self) -> Option<Look> {
        let tcp4 = self.listening.tcp4.iter().map(|address| (Protocol::Tcp, address.port()));
        let tcp6 = self.listening.tcp6.iter().map(|address| (Protocol::Tcp, address.port()));
        let udp4 = self.listening.udp4.iter().map(|&port| (Protocol::Udp, port));
        let [Ok(tcp), Ok(udp)] = [Protocol::Tcp, Protocol::Udp].map(sockets::listeners) else { return None };
        let mut look = Look { is_open: true, cookies: BTreeSet::new() };
        for (protocol, port) in tcp4.chain(tcp6).chain(udp4) {
            let sockets = match protocol {
                Protocol::Tcp => &tcp,
                Protocol::Udp => &udp,
            };
            let own = |socket: &&Socket| socket.cgroup == self.cgroup && socket.local.port() == port;
            let cookies: Vec<u64> = sockets.iter().filter(own).map(Socket::cookie).collect();
            look.is_open &= !cookies.is_empty();
            look.cookies.extend(cookies);
        }
        Some(look)
    }
}
