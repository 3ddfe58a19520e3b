//! The engine that cases are put to, and where those are who are to dial.

use std::{fmt::Debug, net::SocketAddr, path::PathBuf, process::Child, time::Duration};

use waylay_core::{Errno, Event, Policy, Route, Routes, ServiceId, Slots};
use waylay_engine::{Endpoint, Engine, Installation, Liveness};
use waylay_engine_ebpf::Limits;
use waylay_engine_seccomp::{Dialler, home_of};
use waylay_netlab::{Foreign, Lab, Namespace, Ward, become_user, patiently};

use crate::{
    case::{Party, Place},
    doors::{Door, canonical, is_deserted},
};

/// An address of the loopback that nobody reaches, where the kernel's own routes count.
const UNREACHABLE: &str = "127.1.2.200";

/// Which engine, and as whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Subject {
    Ebpf,
    /// A supervisor of root's.
    Seccomp,
    /// A supervisor of a user's, and everybody who dials is that user.
    SeccompOfAUser,
}

/// The user, whom the cases' filters know.
const USER: Party = Party::Application(2 + 1);

impl Subject {
    pub(crate) const fn uid_of(self, party: Party) -> u32 {
        match self {
            Self::Ebpf | Self::Seccomp => party.uid(),
            Self::SeccompOfAUser => USER.uid(),
        }
    }

    pub(crate) const fn gid_of(self, party: Party) -> u32 {
        match self {
            Self::Ebpf | Self::Seccomp => party.gid(),
            Self::SeccompOfAUser => USER.gid(),
        }
    }

    pub(crate) const fn is_ebpf(self) -> bool {
        match self {
            Self::Ebpf => true,
            Self::Seccomp | Self::SeccompOfAUser => false,
        }
    }
}

/// An engine, and nothing that can fail.
pub(crate) trait Works {
    fn put_in_force(&mut self, installation: &Installation);
    fn mark(&mut self, service: ServiceId, liveness: Liveness);
    fn publish(&mut self, routes: &Routes);
    fn news(&mut self) -> Vec<Event>;
    fn taken(&mut self) -> Slots;
}

impl<E: Engine<Error: Debug>> Works for E {
    fn put_in_force(&mut self, installation: &Installation) {
        self.install(installation).unwrap();
    }

    fn mark(&mut self, service: ServiceId, liveness: Liveness) {
        self.set_liveness(service, liveness).unwrap();
    }

    fn publish(&mut self, routes: &Routes) {
        self.set_routes(routes).unwrap();
    }

    fn news(&mut self) -> Vec<Event> {
        self.events(Duration::ZERO).unwrap()
    }

    fn taken(&mut self) -> Slots {
        self.slots().unwrap()
    }
}

/// One of the engines with its cgroups.
pub(crate) enum Ground {
    Lab(Box<Lab>),
    Ward(Ward, Subject),
}

impl Ground {
    pub(crate) fn new(subject: Subject, namespaces: [&Namespace; 2]) -> Self {
        if subject.is_ebpf() {
            let mut lab = Lab::new("decides", Limits::default());
            for party in [Party::SANDBOXED, Party::VISITOR] {
                lab.add_cgroup(&party.cgroup());
            }
            Foreign::EGRESS.attach(&lab.cgroup(Some(&Party::SANDBOXED.cgroup())), "somebodys");
            lab.install(&Policy::default(), Vec::new());
            return Self::Lab(Box::new(lab));
        }
        for namespace in namespaces {
            namespace.ip(&["route", "add", "unreachable", UNREACHABLE, "table", "local"]);
        }
        let parts: Vec<String> = Party::ALL.iter().map(|party| party.cgroup()).collect();
        Self::Ward(Ward::new("decides", &parts), subject)
    }

    pub(crate) fn subject(&self) -> Subject {
        match self {
            Self::Lab(_) => Subject::Ebpf,
            Self::Ward(_, subject) => *subject,
        }
    }

    /// From here on this thread is whoever the engine is to be.
    pub(crate) fn begin<'p>(&mut self, parties: impl Iterator<Item = (Party, &'p Child, Option<i32>)>) {
        let Self::Ward(ward, subject) = self else { return };
        if *subject == Subject::SeccompOfAUser {
            become_user(subject.uid_of(USER), subject.gid_of(USER));
        }
        ward.begin();
        for (party, process, listener) in parties {
            ward.watch(process, listener.unwrap(), dialler_of(party));
        }
    }

    pub(crate) fn engine(&mut self) -> &mut dyn Works {
        match self {
            Self::Lab(lab) => &mut lab.engine,
            Self::Ward(ward, _) => ward.engine(),
        }
    }

    /// Waits until nothing is left of what has been closed.
    pub(crate) fn settle(&self) {
        match self {
            Self::Lab(lab) => {
                patiently("the flows end", || (lab.engine.flow_count().unwrap() == 0).then_some(()));
            }
            Self::Ward(ward, _) => ward.sweep(),
        }
    }

    /// The service's own calls are its engine's to answer.
    pub(crate) fn serve(&mut self, service: ServiceId) {
        match self {
            Self::Lab(lab) => {
                let cgroup = lab.cgroup(Some(&Party::Service(service.0).cgroup()));
                lab.engine.serve_cgroup(service, &cgroup).unwrap();
            }
            Self::Ward(..) => {}
        }
    }

    /// Makes listeners as a service does.
    pub(crate) fn make<T>(&self, service: u32, make: impl FnOnce() -> T) -> T {
        match self {
            Self::Lab(lab) => lab.as_service(service, make),
            Self::Ward(..) => make(),
        }
    }

    /// Asks about a connection as the service does that has it.
    pub(crate) fn ask_as<T: Send>(&self, service: u32, ask: impl FnOnce() -> T + Send) -> T {
        match self {
            Self::Lab(_) => ask(),
            Self::Ward(ward, _) => ward.acting_as(dialler_of(Party::Service(service)), ask),
        }
    }

    pub(crate) fn endpoint(&self, service: u32, doors: &[(Door, std::net::TcpListener)]) -> Endpoint {
        let own = doors.iter().filter(|(door, _)| *door == Door::Service(service));
        let cgroup = self.cgroup_id(Place::Of(Party::Service(service)));
        Lab::endpoint_in(cgroup, service, own.map(|(_, listener)| listener))
    }

    /// As the engine knows cgroups: without privileges those of services by who they are.
    pub(crate) fn cgroup_id(&self, place: Place) -> u64 {
        match (self, place) {
            (Self::Lab(lab), Place::Of(party)) => lab.cgroup_id(&party.cgroup()),
            (Self::Lab(lab), Place::Scope) => lab.cgroup_id("."),
            (Self::Ward(..), Place::Of(Party::Service(service))) => home_of(ServiceId(service)),
            (Self::Ward(ward, _), Place::Of(party @ Party::Application(_))) => {
                ward.cgroup_id(Some(&party.cgroup()))
            }
            (Self::Ward(ward, _), Place::Scope) => ward.cgroup_id(None),
        }
    }

    pub(crate) fn procs(&self, party: Party) -> PathBuf {
        match self {
            Self::Lab(lab) => lab.procs(&party.cgroup()),
            Self::Ward(ward, _) => ward.procs(&party.cgroup()),
        }
    }

    /// Whether a party is in a sandbox, as far as the engine knows of any.
    pub(crate) fn is_sandboxed(&self, party: Party) -> bool {
        self.subject().is_ebpf() && party == Party::SANDBOXED
    }

    /// What waits at a destination: what was published, or what there is.
    pub(crate) fn route(&self, published: &Routes, by: Party, to: SocketAddr) -> Route {
        if self.subject().is_ebpf() {
            return published.to(to.ip()).route();
        }
        let (is_visitor, to) = (by == Party::VISITOR, canonical(to));
        let is_asked = ["127.0.0.1", "::1"].contains(&to.ip().to_string().as_str());
        match to.ip().to_string() == UNREACHABLE {
            true => Route::Missing(Errno::EHOSTUNREACH),
            false if is_asked && !is_visitor && is_deserted(to.port(), false) => {
                Route::Missing(Errno::ECONNREFUSED)
            }
            false => Route::Exists,
        }
    }
}

fn dialler_of(party: Party) -> Dialler {
    match party {
        Party::Application(_) => Dialler::Command,
        Party::Service(service) => Dialler::Service(ServiceId(service)),
    }
}
