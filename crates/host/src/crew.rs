//! The services of a run that are at work: let go, adopted, stopped, in their order.

use std::{collections::BTreeMap, sync::Arc};

use waylay_core::{ServiceId, Tables};
use waylay_engine::{Endpoint, Engine, Installation, Liveness};
use waylay_engine_ebpf::EbpfEngine;

use crate::{
    adopted::{Adopted, Ending, Working},
    cgroup::Cgroup,
    error::RunError,
    health::Patient,
    launch::Listening,
    place::Place,
    resident::Found,
    residents::{AtWork, Residents},
    service::{Running, Waiting},
    signals::Signals,
    spec::{Adoption, Observer, RunSpec, ServiceSpec, Step},
};

/// The services that run.
pub(crate) struct Crew {
    members: BTreeMap<ServiceId, Member>,
}

struct Member {
    name: String,
    cgroup: Cgroup,
    process: Process,
}

enum Process {
    Cooperating(Running),
    Adopted(Working),
    Resident(AtWork),
}

impl Crew {
    /// Lets those that cooperate accept.
    pub(crate) fn release(
        waiting: BTreeMap<ServiceId, Waiting>,
        spec: &RunSpec,
        engine: &EbpfEngine,
        observer: &Arc<dyn Observer>,
    ) -> Result<Self, RunError> {
        let mut members = BTreeMap::new();
        for (id, service) in waiting {
            let marks = engine.liveness_marks()?;
            let (name, cgroup) = (service.name.clone(), service.cgroup.clone());
            let (dead, told, on_failure) = (name.clone(), Arc::clone(observer), spec.on_failure(id));
            let on_death = move |status| {
                // Its listener is gone with it, which the programs see without the mark.
                let _seen_anyway = marks.set(id, Liveness::Dead);
                told.service_died(&dead, status, on_failure);
            };
            let process = Process::Cooperating(service.release(observer, on_death)?);
            members.insert(id, Member { name, cgroup, process });
        }
        Ok(Self { members })
    }

    /// What is to be watched of them.
    pub(crate) fn patients(&self) -> Vec<Patient> {
        let patient = |(&id, member): (&ServiceId, &Member)| {
            let door = match &member.process {
                Process::Cooperating(_) => None,
                Process::Adopted(service) => Some(service.door().clone()),
                // It serves others too, and is not for waylay to end.
                Process::Resident(_) => return None,
            };
            Some(Patient { id, name: member.name.clone(), cgroup: member.cgroup.clone(), door })
        };
        self.members.iter().filter_map(patient).collect()
    }

    /// In the chain's order: what one service has accepted it carries on to the next.
    pub(crate) fn stop(self) {
        for member in self.members.into_values() {
            match member.process {
                Process::Cooperating(service) => {
                    service.tell_to_stop();
                    service.wait();
                }
                Process::Adopted(service) => {
                    service.tell_to_stop();
                    service.wait();
                }
                Process::Resident(service) => service.leave(),
            }
        }
    }
}

/// The services of a run that know nothing of it.
pub(crate) struct Adopting<'r> {
    pub(crate) place: &'r Place,
    pub(crate) spec: &'r RunSpec,
    pub(crate) residents: &'r Residents,
    pub(crate) tables: &'r Tables,
    pub(crate) signals: &'r Signals,
    pub(crate) observer: &'r Arc<dyn Observer>,
}

impl Adopting<'_> {
    /// Starts them, the last of the chain first: what one of them dials at its start goes through those after it.
    pub(crate) fn adopt_all(
        &self,
        engine: &mut EbpfEngine,
        mut endpoints: Vec<Endpoint>,
        crew: &mut Crew,
    ) -> Result<(), RunError> {
        for (index, service) in (0..).zip(&self.spec.services).collect::<Vec<(u32, _)>>().into_iter().rev() {
            let Some(adoption) = &service.adoption else { continue };
            let id = ServiceId(index + 1);
            let (process, listening) = match self.residents.get(id) {
                Some(found) => self.take_on(id, service, found, engine)?,
                None => {
                    self.observer.step(Step::StartingService { name: &service.name });
                    let (adopted, listening) = self.start(index, service, adoption)?;
                    (self.begin(id, adopted, engine)?, listening)
                }
            };
            for endpoint in endpoints.iter_mut().filter(|endpoint| endpoint.service == id) {
                endpoint.tcp4.clone_from(&listening.tcp4);
                endpoint.tcp6.clone_from(&listening.tcp6);
                endpoint.udp4 = listening.udp4;
            }
            let member =
                Member { name: service.name.clone(), cgroup: self.place.cgroup_of(service), process };
            crew.members.insert(id, member);
            engine
                .install(&Installation { tables: self.tables.clone(), endpoints: endpoints.clone() })
                .and_then(|()| engine.set_liveness(id, Liveness::Alive))?;
            self.tell_of_families(id, service, &listening);
        }
        Ok(())
    }

    fn take_on(
        &self,
        id: ServiceId,
        service: &ServiceSpec,
        found: &Found,
        engine: &mut EbpfEngine,
    ) -> Result<(Process, Listening), RunError> {
        engine.adopt_resident(id, &found.residence)?;
        let (name, flows) = (service.name.clone(), engine.resident_flows()?);
        let at_work = AtWork::begin(id, name, found, flows, self.spec.on_failure(id), self.observer);
        Ok((Process::Resident(at_work), found.listening.clone()))
    }

    fn start(
        &self,
        index: u32,
        service: &ServiceSpec,
        adoption: &Adoption,
    ) -> Result<(Adopted, Listening), RunError> {
        let (cgroup, identity) = (self.place.cgroup_of(service), self.place.identity_of(service, index));
        let mut adopted = Adopted::start(service, adoption, cgroup, identity, self.observer)?;
        match adopted.wait_until_it_listens(self.spec.start_patience, self.signals, self.observer) {
            Ok(listening) => Ok((adopted, listening)),
            Err(error) => {
                adopted.give_up();
                Err(error)
            }
        }
    }

    fn begin(&self, id: ServiceId, adopted: Adopted, engine: &EbpfEngine) -> Result<Process, RunError> {
        let marks = engine.liveness_marks()?;
        let (name, told) = (adopted.name().to_owned(), Arc::clone(self.observer));
        let on_failure = self.spec.on_failure(id);
        let on_end = move |ending| {
            let _seen_anyway = marks.set(id, Liveness::Dead);
            match ending {
                Ending::First(status) => told.service_died(&name, status, on_failure),
                Ending::Another => told.adopted_ended(&name, on_failure),
            }
        };
        Ok(Process::Adopted(adopted.work(on_end)?))
    }

    /// A family over which nothing gets to a service is one for which it is gone.
    fn tell_of_families(&self, id: ServiceId, service: &ServiceSpec, listening: &Listening) {
        let (tcp, udp) = (service.transports.include_tcp(), service.transports.include_udp());
        let missing = [
            ("IPv4", tcp && listening.tcp4.is_empty()),
            ("IPv6", tcp && listening.tcp6.is_empty()),
            ("UDP over IPv6", udp),
        ];
        for (family, _) in missing.into_iter().filter(|(_, missing)| *missing) {
            self.observer.family_missing(&service.name, family, self.spec.on_failure(id));
        }
    }
}
