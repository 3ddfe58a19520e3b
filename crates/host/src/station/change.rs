//! One change of what is in force: carried out, and then settled or undone.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::ExitStatus,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use waylay_core::{Mark, Resident, ServiceId, Tables};
use waylay_engine::{Endpoint, Engine, Installation, Liveness, LocalName};

use super::Station;
use crate::{
    adopted::{Adopted, Ending},
    assignment::{Assignment, Ground},
    crew::{Leaving, Member, Process, Profile},
    error::RunError,
    launch::Listening,
    resident::{Found, ResidentError},
    residents::{self, AtWork, Awaited, Presence},
    service::Waiting,
    spec::{Adoption, ServiceSpec, Step},
};

pub(super) struct Change<'s> {
    station: &'s mut Station,
    assignment: &'s Assignment,
    tables: Tables,
    newcomers: BTreeMap<ServiceId, Newcomer<'s>>,
    /// What was in force, if something else is already.
    former: Option<Installation>,
}

/// A service that is to come.
struct Expected<'s> {
    id: ServiceId,
    spec: &'s ServiceSpec,
    presence: Presence,
}

/// A service that was not there before.
struct Newcomer<'s> {
    spec: &'s ServiceSpec,
    profile: Profile,
    stage: Stage,
}

/// How far one has come.
enum Stage {
    Nothing,
    /// It listens and does not accept yet.
    Waiting(Waiting),
    AtWork(Process),
}

impl Newcomer<'_> {
    /// Whether it takes what is led to it.
    fn listens(&self) -> bool {
        match &self.stage {
            Stage::Nothing | Stage::AtWork(Process::Awaited(_)) => false,
            Stage::Waiting(_)
            | Stage::AtWork(Process::Cooperating(_) | Process::Adopted(_) | Process::Resident(_)) => true,
        }
    }
}

impl<'s> Change<'s> {
    pub(super) fn new(station: &'s mut Station, assignment: &'s Assignment, tables: Tables) -> Self {
        Self { station, assignment, tables, newcomers: BTreeMap::new(), former: None }
    }

    pub(super) fn carry_out(&mut self) -> Result<(), RunError> {
        let expected = self.expected()?;
        self.record_residents(&expected)?;
        for service in &expected {
            self.prepare(service)?;
        }
        let is_first = !self.station.is_attached;
        if is_first {
            self.put_in_force()?;
            self.station.engine.lock().attach()?;
            self.release()?;
        }
        // What one of them dials at its start goes through those after it.
        for Expected { id, spec, presence } in expected.iter().rev() {
            let Some(adoption) = &spec.adoption else { continue };
            match presence {
                Presence::Here(found) => self.take_on(*id, spec, found)?,
                Presence::Started => self.adopt(*id, spec, adoption)?,
                Presence::Awaited(why) => {
                    self.wait_for(*id, spec, why);
                    continue;
                }
            }
            if is_first {
                self.put_in_force()?;
                self.station.engine.lock().set_liveness(*id, Liveness::Alive)?;
            }
        }
        if !is_first {
            self.put_in_force()?;
            self.release()?;
        }
        Ok(())
    }

    /// Takes note of it: from here on nothing of it is undone.
    pub(super) fn settle(self) {
        let Self { station, assignment, newcomers, .. } = self;
        let services = assignment.policy.services();
        for service in services {
            station.roll.enter(service);
        }
        let members = newcomers.into_values().filter_map(|newcomer| {
            if newcomer.listens() {
                station.tell_of_families(newcomer.spec, &newcomer.profile);
                station.tell_if_it_was_gone(&newcomer.profile);
            }
            match newcomer.stage {
                Stage::AtWork(process) => Some(Member { profile: newcomer.profile, process }),
                Stage::Nothing | Stage::Waiting(_) => None,
            }
        });
        for member in members.collect::<Vec<_>>() {
            if let Some(patient) = member.patient() {
                station.background.health().watch(patient);
            }
            station.crew.join(member);
        }
        let is_of_use = |id| assignment.policy.service(id).is_some();
        let left_over = station.crew.dismiss(&station.order, is_of_use);
        if !left_over.is_empty() {
            station.leaving.push(Leaving::begin(left_over, station.engine.clone()));
        }
        station.order = services.iter().map(|service| service.id).collect();
        let endpoints = station.crew.profiles().map(|profile| profile.endpoint.clone()).collect();
        station.in_force.keep(endpoints);
        station.is_attached = true;
    }

    /// Puts everything back. The error that led here says what is wrong; another one on the way back would not help.
    pub(super) fn undo(self) {
        let Self { station, newcomers, former, .. } = self;
        if let Some(former) = former {
            if !station.is_attached {
                let _stays = station.engine.lock().detach();
            }
            let _stays = station.in_force.replace(former, &BTreeSet::new());
        }
        for (id, Newcomer { profile, stage, .. }) in newcomers {
            match stage {
                Stage::Nothing => profile.cgroup.kill(),
                Stage::Waiting(waiting) => waiting.give_up(),
                Stage::AtWork(process) => process.give_up(&profile.cgroup),
            }
            let _stays = station.engine.lock().withdraw(id);
            let _stays = profile.cgroup.remove();
            station.roll.strike(id);
        }
    }

    /// In the order of the policy, and where those are who run already.
    fn expected(&self) -> Result<Vec<Expected<'s>>, RunError> {
        let services = self.assignment.policy.services().iter();
        let new = services.filter(|service| !self.station.crew.has(service.id));
        // A command that is run once is not worth anything without the services it was to have.
        let waits = match self.station.spec.ground {
            Ground::Own => false,
            Ground::Existing(_) => true,
        };
        new.map(|service| {
            let spec = self.assignment.services.get(&service.id);
            let spec = spec.ok_or_else(|| RunError::NotAssigned { service: service.name.clone() })?;
            Ok(Expected { id: service.id, spec, presence: Presence::of(spec, waits)? })
        })
        .collect()
    }

    /// Before anything is attached to their cgroups.
    fn record_residents(&mut self, expected: &[Expected<'s>]) -> Result<(), RunError> {
        let leaving = self.station.leaving.iter().flat_map(Leaving::profiles);
        let present = self.station.crew.profiles().chain(leaving);
        let present = present.filter_map(|profile| profile.resident.clone());
        let new =
            expected.iter().filter_map(|service| residents::record(service.spec, service.presence.found()?));
        let residents = present.chain(new).collect();
        Ok(self.station.place.record_residents(residents)?)
    }

    /// Gives it a cgroup, and starts its process if it listens for waylay.
    fn prepare(&mut self, expected: &Expected<'s>) -> Result<(), RunError> {
        let &Expected { id, spec, ref presence } = expected;
        let found = presence.found();
        let failed = |source| RunError::ServiceStart { service: spec.name.clone(), source };
        let taken = self.newcomers.values().map(|newcomer| newcomer.profile.seat).collect();
        let seat = self.station.free_seat(&taken)?;
        let cgroup = self.station.place.make_cgroup_of(id, spec)?;
        let endpoint = Endpoint {
            service: id,
            cgroup: match found {
                Some(found) => found.listener_cgroup,
                None => cgroup.id().map_err(failed)?,
            },
            tcp4: Vec::new(),
            tcp6: Vec::new(),
            udp4: None,
            udp6: Vec::new(),
            behind6: None,
            local_name: spec.adoption.as_ref().map(|adoption| adoption.local_name).unwrap_or_default(),
        };
        let profile = Profile {
            id,
            name: spec.name.clone(),
            seat,
            cgroup: cgroup.clone(),
            resident: found.and_then(|found| residents::record(spec, found)),
            processes: found.map_or(Resident { cgroup: endpoint.cgroup, mark: Mark::Cgroup }, |found| {
                found.residence.resident
            }),
            endpoint,
            bank: None,
            leave_within: spec.leave_within,
            alive: Arc::new(AtomicBool::new(!matches!(presence, Presence::Awaited(_)))),
        };
        self.newcomers.insert(id, Newcomer { spec, profile, stage: Stage::Nothing });
        if let Some(service) = self.assignment.policy.service(id) {
            self.station.roll.enter(service);
        }
        // Of one that runs by itself the cgroup is only a place-holder.
        if matches!(presence, Presence::Started) {
            let mut engine = self.station.engine.lock();
            engine.serve_cgroup(id, cgroup.path())?;
            match spec.adoption.as_ref().map(|adoption| adoption.local_name) {
                Some(LocalName::Destination | LocalName::Packet) => engine.tell_transparent(id)?,
                Some(LocalName::Listener) | None => {}
            }
        }
        if spec.adoption.is_none() {
            self.station.observer.step(Step::StartingService { name: &spec.name });
            let identity = self.station.place.identity_of(spec, seat);
            let waiting = Waiting::start(spec, &cgroup, identity, &self.station.spawner)?;
            let listening = waiting.listening.clone();
            self.came_to(id, listening, Stage::Waiting(waiting));
        }
        Ok(())
    }

    fn came_to(&mut self, id: ServiceId, listening: Listening, stage: Stage) {
        if let Some(newcomer) = self.newcomers.get_mut(&id) {
            newcomer.profile.listens_at(listening);
            newcomer.stage = stage;
        }
    }

    fn put_in_force(&mut self) -> Result<(), RunError> {
        let is_of_use = |id| self.assignment.policy.service(id).is_some();
        let stay = self.station.crew.profiles().filter(|profile| is_of_use(profile.id));
        let new = self.newcomers.values().map(|newcomer| &newcomer.profile);
        let endpoints = stay.chain(new).map(|profile| profile.endpoint.clone()).collect();
        let listen = self.newcomers.iter().filter(|(_, newcomer)| newcomer.listens());
        let living: BTreeSet<ServiceId> = listen.map(|(id, _)| *id).collect();
        let installation = Installation { tables: self.tables.clone(), endpoints };
        let former = self.station.in_force.installation();
        self.station.in_force.replace(installation, &living)?;
        self.former.get_or_insert(former);
        Ok(())
    }

    /// Lets those that cooperate accept.
    fn release(&mut self) -> Result<(), RunError> {
        let Self { station, newcomers, .. } = self;
        for newcomer in newcomers.values_mut() {
            match std::mem::replace(&mut newcomer.stage, Stage::Nothing) {
                Stage::Waiting(waiting) => {
                    let on_death = station.on_death(&newcomer.profile)?;
                    let running = waiting.release(&station.observer, on_death)?;
                    newcomer.stage = Stage::AtWork(Process::Cooperating(running));
                }
                stage @ (Stage::Nothing | Stage::AtWork(_)) => newcomer.stage = stage,
            }
        }
        Ok(())
    }

    /// Starts one that knows nothing of waylay, and waits until it listens.
    fn adopt(&mut self, id: ServiceId, spec: &'s ServiceSpec, adoption: &Adoption) -> Result<(), RunError> {
        let Some(profile) = self.newcomers.get(&id).map(|newcomer| newcomer.profile.clone()) else {
            return Ok(());
        };
        let Station { spec: terms, observer, place, spawner, .. } = &*self.station;
        observer.step(Step::StartingService { name: &spec.name });
        let identity = place.identity_of(spec, profile.seat);
        let mut adopted =
            Adopted::start(spec, adoption, profile.cgroup.clone(), identity, spawner, observer)?;
        let listening =
            match adopted.wait_until_it_listens(terms.start_patience, &terms.interruption, observer) {
                Ok(listening) => listening,
                Err(error) => {
                    adopted.give_up();
                    return Err(error);
                }
            };
        let on_end = self.station.on_end(&profile)?;
        let process = Process::Adopted(adopted.work(on_end)?);
        self.came_to(id, listening, Stage::AtWork(process));
        Ok(())
    }

    /// Attaches the programs to where one is that runs already.
    fn take_on(&mut self, id: ServiceId, spec: &ServiceSpec, found: &Found) -> Result<(), RunError> {
        let Some(profile) = self.newcomers.get(&id).map(|newcomer| newcomer.profile.clone()) else {
            return Ok(());
        };
        let mut engine = self.station.engine.lock();
        engine.adopt_resident(id, &found.residence)?;
        let flows = engine.resident_flows()?;
        drop(engine);
        let Station { roll, observer, .. } = &*self.station;
        let at_work = AtWork::begin(id, spec, found, flows, profile.alive, roll.clone(), observer);
        self.came_to(id, found.listening.clone(), Stage::AtWork(Process::Resident(Box::new(at_work))));
        Ok(())
    }

    /// Leaves the place free of one that is to run by itself.
    fn wait_for(&mut self, id: ServiceId, spec: &ServiceSpec, why: &ResidentError) {
        let Station { roll, observer, .. } = &*self.station;
        observer.resident_awaited(&spec.name, why, roll.on_failure(id));
        let awaited = Box::new(Awaited::new(spec.clone()));
        self.came_to(id, Listening::default(), Stage::AtWork(Process::Awaited(awaited)));
    }
}

impl Station {
    /// What becomes known when a service's process ends before it is told to.
    fn on_death(&self, profile: &Profile) -> Result<impl FnOnce(ExitStatus) + Send + 'static, RunError> {
        let marks = self.engine.lock().liveness_marks()?;
        let (roll, told, profile) = (self.roll.clone(), Arc::clone(&self.observer), profile.clone());
        Ok(move |status| {
            // Its listener is gone with it, which the programs see without the mark.
            let _seen_anyway = marks.set(profile.id, Liveness::Dead);
            profile.alive.store(false, Ordering::Release);
            told.service_died(&profile.name, status, roll.on_failure(profile.id));
        })
    }

    /// The same of one that knows nothing of waylay.
    fn on_end(&self, profile: &Profile) -> Result<impl FnOnce(Ending) + Send + 'static, RunError> {
        let on_death = self.on_death(profile)?;
        let marks = self.engine.lock().liveness_marks()?;
        let (roll, told, profile) = (self.roll.clone(), Arc::clone(&self.observer), profile.clone());
        Ok(move |ending| match ending {
            Ending::First(status) => on_death(status),
            Ending::Another => {
                let _seen_anyway = marks.set(profile.id, Liveness::Dead);
                profile.alive.store(false, Ordering::Release);
                told.adopted_ended(&profile.name, roll.on_failure(profile.id));
            }
        })
    }

    /// The one in whose place it comes had not listened any more, or not yet.
    fn tell_if_it_was_gone(&self, newcomer: &Profile) {
        let is_it =
            |profile: &Profile| profile.name == newcomer.name && !profile.alive.load(Ordering::Acquire);
        if newcomer.resident.is_some() && self.crew.profiles().any(is_it) {
            self.observer.resident_listens(&newcomer.name, true, self.roll.on_failure(newcomer.id));
        }
    }

    /// A family over which nothing gets to a service is one for which it is gone.
    fn tell_of_families(&self, spec: &ServiceSpec, profile: &Profile) {
        if spec.adoption.is_none() {
            return;
        }
        let (tcp, udp) = (spec.transports.include_tcp(), spec.transports.include_udp());
        let missing = [
            ("IPv4", tcp && profile.endpoint.tcp4.is_empty()),
            ("IPv6", tcp && profile.endpoint.tcp6.is_empty()),
            ("UDP over IPv4", udp && profile.endpoint.udp4.is_none()),
            ("UDP over IPv6", udp && profile.endpoint.udp6.is_empty()),
        ];
        for (family, _) in missing.into_iter().filter(|(_, missing)| *missing) {
            self.observer.family_missing(&spec.name, family, self.roll.on_failure(profile.id));
        }
    }
}
