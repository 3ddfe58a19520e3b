use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    time::Duration,
};

use libbpf_rs::{Link, MapCore, MapFlags};
use waylay_abi as abi;
use waylay_core::{Event, Routes, ServiceId, Slots, TableService, Tables};
use waylay_engine::{Capabilities, Endpoint, Engine, Installation, Liveness};
use zerocopy::IntoBytes;

use crate::{
    capabilities::capabilities,
    carried::carried_slots,
    claims::Claims,
    encode::{encode, encode_residence},
    endpoints::{check_endpoint, registered},
    error::EbpfError,
    event::EventSource,
    families,
    flows::{self, LiveFlow},
    in_force::InForce,
    liveness::{ALIVE, DEAD, LivenessMarks},
    load::{
        LEARNING_PROGRAMS, Loaded, RESIDENT_PROGRAMS, RESIDENT_PROGRAMS_IN_SCOPE, SCOPE_PROGRAMS,
        SERVICE_PROGRAMS,
    },
    loopback::{self, LoopbackMark},
    packets::OnLoopback,
    past::{self, PastSource},
    progress::{self, ProgressReader},
    registry::Registry,
    residents::{self, Residence, ResidentFlows},
    routes::RoutePublisher,
    scope::{Scope, cgroup_id},
    slots::SharedSlots,
    sweep::FlowSweeper,
    unreachable::UnreachableSource,
};

const TRANSPARENT: &str = "told_transparent";

/// The eBPF engine of one scope.
///
/// Dropping it leaves its pinned programs in force; [`EbpfEngine::remove`] ends them.
#[derive(Debug)]
pub struct EbpfEngine {
    pub(crate) loaded: Loaded,
    pub(crate) links: Vec<Link>,
    registry: Registry,
    claims: Claims,
    pub(crate) scope: Scope,
    pub(crate) tables: Tables,
    in_force: InForce,
    slots: SharedSlots,
    pub(crate) endpoints: BTreeMap<ServiceId, Endpoint>,
    /// The program there, while a service needs it.
    pub(crate) on_loopback: Option<OnLoopback>,
    events: Option<EventSource>,
    guards_families: bool,
    /// Whether names of hosts are learned.
    pub(crate) learns: bool,
    residences: BTreeMap<ServiceId, Residence>,
    /// The cgroups that were claimed for services.
    served: BTreeMap<ServiceId, u64>,
}

impl EbpfEngine {
    /// Claims the scope and loads the programs. They take effect with [`EbpfEngine::attach`].
    ///
    /// # Errors
    /// [`EbpfError`] says what this kernel or process lacks; [`EbpfError::Overlap`] if another engine is in the way.
    pub fn load(scope: Scope) -> Result<Self, EbpfError> {
        Self::load_beside(scope, &[])
    }

    /// The same where others have the scope that are to go: both are in force until [`EbpfEngine::take_scope`], and whatever one
    /// of them refuses is refused. `former` are their instances, which have no services.
    ///
    /// # Errors
    /// As [`EbpfEngine::load`].
    pub fn load_beside(scope: Scope, former: &[u64]) -> Result<Self, EbpfError> {
        let loaded = Loaded::new(&scope)?;
        let in_force = InForce::new(&loaded)?;
        let registry = Registry::new(loaded.map("listeners")?, loaded.netns, &scope)?;
        let claims = Claims::new(loaded.map("holders")?, &scope);
        claims.claim_scope(former)?;
        fs::create_dir_all(&scope.pins).map_err(|source| {
            claims.release_scope();
            EbpfError::FileSystem { path: scope.pins.clone(), source }
        })?;
        Ok(Self {
            loaded,
            links: Vec::new(),
            registry,
            claims,
            scope,
            tables: Tables::default(),
            in_force,
            slots: SharedSlots::default(),
            endpoints: BTreeMap::new(),
            on_loopback: None,
            events: None,
            guards_families: false,
            learns: false,
            residences: BTreeMap::new(),
            served: BTreeMap::new(),
        })
    }

    /// Takes the scope over from those beside whom it was loaded. They are to be removed next.
    ///
    /// # Errors
    /// [`EbpfError::Map`].
    pub fn take_scope(&self) -> Result<(), EbpfError> {
        self.claims.take_scope()
    }

    /// Attaches the programs that answer a service's questions to its cgroup.
    ///
    /// # Errors
    /// [`EbpfError::Attach`] or [`EbpfError::Pin`]; [`EbpfError::Overlap`] if the cgroup is in another engine's
    /// scope within this one's, [`EbpfError::ServiceOutside`] if it is not in this one's.
    pub fn serve_cgroup(&mut self, service: ServiceId, cgroup: &Path) -> Result<(), EbpfError> {
        self.claims.claim_service(cgroup)?;
        self.served.insert(service, cgroup_id(cgroup)?);
        for program in SERVICE_PROGRAMS {
            self.attach_program(program, cgroup, &service_pin(program, service))?;
        }
        Ok(())
    }

    /// Has the service told that it has `IP_TRANSPARENT`, if it asks for that, as proxies do to which TPROXY shows destinations
    /// (`Documentation/networking/tproxy.rst` of the kernel): at their start already, when they are not installed yet.
    ///
    /// # Errors
    /// [`EbpfError::Map`].
    pub fn tell_transparent(&mut self, service: ServiceId) -> Result<(), EbpfError> {
        let Some(cgroup) = self.served.get(&service) else { return Ok(()) };
        self.loaded
            .map(TRANSPARENT)?
            .update(&cgroup.to_ne_bytes(), &[1], MapFlags::ANY)
            .map_err(|source| EbpfError::Map { map: TRANSPARENT, source })
    }

    /// Attaches the programs to where a service is that runs already, in the scope or elsewhere. It is installed like others, with its
    /// listeners; its endpoint's cgroup is that in which they were made.
    ///
    /// # Errors
    /// [`EbpfError::Attach`] or [`EbpfError::Pin`]; [`EbpfError::Overlap`] if another engine watches a cgroup of its, or
    /// has adopted it, [`EbpfError::ResidentAround`] if this engine's scope is in it,
    /// [`EbpfError::NoResidents`] if the engine was loaded without the programs for it.
    pub fn adopt_resident(&mut self, service: ServiceId, residence: &Residence) -> Result<(), EbpfError> {
        if !self.scope.residents {
            return Err(EbpfError::NoResidents);
        }
        for (number, cgroup) in residence.hooked.iter().enumerate() {
            self.claims
                .claim_resident(cgroup)
                .inspect_err(|_| self.let_go(service, &residence.hooked[..number]))?;
        }
        self.residences.insert(service, residence.clone());
        self.attach_for(service, residence).or_else(|error| {
            self.let_go(service, &residence.hooked);
            self.stop_serving(service)?;
            Err(error)
        })
    }

    /// Takes back what was done for a service that has not been installed, by [`EbpfEngine::serve_cgroup`] or
    /// [`EbpfEngine::adopt_resident`]. One that has been keeps it until its slot is free.
    ///
    /// # Errors
    /// [`EbpfError::Pin`] if a pin stays.
    pub fn withdraw(&mut self, service: ServiceId) -> Result<(), EbpfError> {
        if self.slots.get().of(service).is_some() {
            return Ok(());
        }
        if let Some(cgroup) = self.served.get(&service) {
            self.claims.release_service(*cgroup);
        }
        if let Some(residence) = self.residences.get(&service) {
            self.let_go(service, &residence.hooked);
        }
        self.stop_serving(service)
    }

    /// Says how many flows residents have; it can go to another thread.
    ///
    /// # Errors
    /// [`EbpfError::Map`].
    pub fn resident_flows(&self) -> Result<ResidentFlows, EbpfError> {
        Ok(ResidentFlows::new(self.loaded.map(residents::FLOWS)?, self.slots.clone()))
    }

    /// Attaches the programs to the scope: from here on the policy is in force.
    ///
    /// # Errors
    /// [`EbpfError::Attach`] or [`EbpfError::Pin`].
    pub fn attach(&mut self) -> Result<(), EbpfError> {
        let cgroup = self.scope.cgroup.clone();
        for program in SCOPE_PROGRAMS {
            self.attach_program(program, &cgroup, program)?;
        }
        self.learn_names(self.tables.ask_for_hosts())?;
        self.guards_families = families::asks_about_every_family()
            && self.attach_program(families::PROGRAM, &cgroup, families::PROGRAM).is_ok();
        Ok(())
    }

    /// Detaches them: from here on nothing is redirected nor refused that was not before.
    ///
    /// # Errors
    /// [`EbpfError::Pin`] if a pin stays.
    pub fn detach(&mut self) -> Result<(), EbpfError> {
        self.guards_families = false;
        self.learns = false;
        let programs = SCOPE_PROGRAMS.into_iter().rev().chain(LEARNING_PROGRAMS).chain([families::PROGRAM]);
        let pins: Vec<PathBuf> = programs.map(|program| self.scope.pins.join(program)).collect();
        self.end_links(&pins)
    }

    /// Installs, as [`Engine::install`] does, and services that were not installed before are alive from the first moment if
    /// they are among `living`.
    ///
    /// # Errors
    /// [`EbpfError`]; what was in force still is.
    pub fn install_living(
        &mut self,
        installation: &Installation,
        living: &BTreeSet<ServiceId>,
    ) -> Result<(), EbpfError> {
        self.free_slots()?;
        self.replace(installation, living).inspect_err(|_| self.retract(installation))
    }

    /// Whether the programs are asked about sockets of every family, and not only of IPv4 and IPv6. Known once they are attached.
    #[must_use]
    pub const fn guards_every_family(&self) -> bool {
        self.guards_families
    }

    /// Says whether services live; it can go to another thread.
    ///
    /// # Errors
    /// [`EbpfError::Map`].
    pub fn liveness_marks(&self) -> Result<LivenessMarks, EbpfError> {
        Ok(LivenessMarks::new(self.loaded.map("service_alive")?, self.slots.clone()))
    }

    /// Says what becomes of connections to addresses of the loopback where nobody listens; it can go to another thread.
    ///
    /// # Errors
    /// [`EbpfError::Map`].
    pub fn loopback_mark(&self) -> Result<LoopbackMark, EbpfError> {
        Ok(LoopbackMark::new(self.loaded.map(loopback::NAME)?))
    }

    /// Publishes the host's routes; it can go to another thread.
    ///
    /// # Errors
    /// [`EbpfError::Map`].
    pub fn route_publisher(&self) -> Result<RoutePublisher, EbpfError> {
        Ok(RoutePublisher::new(self.loaded.map("routes")?))
    }

    /// Says how services get on with what waits for them; it can go to another
    /// thread.
    ///
    /// # Errors
    /// [`EbpfError::Map`].
    pub fn progress_reader(&self) -> Result<ProgressReader, EbpfError> {
        Ok(ProgressReader::new(self.loaded.map("progress")?, self.slots.clone()))
    }

    /// Ends flows whose end no program was told of; it can go to another thread.
    ///
    /// # Errors
    /// [`EbpfError::Map`].
    pub fn flow_sweeper(&mut self) -> Result<FlowSweeper, EbpfError> {
        FlowSweeper::new(&mut self.loaded, &self.scope.cgroup)
    }

    /// The refusals the programs report; it can go to another thread.
    ///
    /// # Errors
    /// [`EbpfError::Map`].
    pub fn event_source(&self) -> Result<EventSource, EbpfError> {
        Ok(EventSource::new(
            self.loaded.map("events")?,
            self.loaded.map("lost_events")?,
            self.loaded.map("dropped_flows")?,
        ))
    }

    /// What services say of destinations of datagrams; it can go to another thread.
    ///
    /// # Errors
    /// [`EbpfError::Map`].
    pub fn unreachable_source(&self) -> Result<UnreachableSource, EbpfError> {
        Ok(UnreachableSource::new(self.loaded.map(UnreachableSource::MAP)?))
    }

    /// The flows that have ended; it can go to another thread.
    ///
    /// # Errors
    /// [`EbpfError::Map`].
    pub fn past_source(&self) -> Result<PastSource, EbpfError> {
        Ok(PastSource::new(self.loaded.map(past::MAP)?))
    }

    /// How many flows are under way.
    ///
    /// # Errors
    /// [`EbpfError::Map`].
    pub fn flow_count(&self) -> Result<usize, EbpfError> {
        flows::count(&self.loaded)
    }

    /// The legs that are redirected at this moment, in the order in which they began.
    ///
    /// # Errors
    /// [`EbpfError::Map`].
    pub fn live_flows(&self) -> Result<Vec<LiveFlow>, EbpfError> {
        flows::live(&self.loaded)
    }

    /// Ends what is in force and removes every trace of it.
    ///
    /// # Errors
    /// [`EbpfError::Pin`] if a pin stays.
    pub fn remove(mut self) -> Result<(), EbpfError> {
        for mut link in self.links.drain(..).rev() {
            let path = link.pin_path().unwrap_or_default();
            link.unpin().map_err(|source| EbpfError::Pin { path, source })?;
        }
        let pins = self.scope.pins.clone();
        fs::remove_dir_all(&pins).map_err(|source| EbpfError::Pin { path: pins, source: source.into() })?;
        crate::registry::forget_instance(&self.scope.pin_root, self.scope.instance)
    }

    /// What a service needs before tables may send connections to it.
    fn admit(&self, service: &TableService, endpoint: &Endpoint) -> Result<(), EbpfError> {
        let slot = u32::from(service.slot);
        check_endpoint(endpoint)?;
        for listener in registered(endpoint) {
            self.registry.register(listener, service.id.0)?;
        }
        // Who else is in a resident's cgroup is not of the service.
        if self.residences.contains_key(&service.id) {
            return Ok(());
        }
        self.write("slot_of_cgroup", endpoint.cgroup.as_bytes(), slot.as_bytes())
    }

    /// Takes back what a service needed where it was, but for what it needs where it is now.
    fn dismiss(&self, former: &Endpoint, now: Option<&Endpoint>) -> Result<(), EbpfError> {
        let stays = now.map(registered).unwrap_or_default();
        for listener in registered(former).into_iter().filter(|listener| !stays.contains(listener)) {
            self.registry.forget(listener, former.service.0)?;
        }
        if now.is_none_or(|now| now.cgroup != former.cgroup) {
            self.delete("slot_of_cgroup", former.cgroup.as_bytes())?;
            self.claims.release_service(former.cgroup);
        }
        if let Some(residence) = self.residences.get(&former.service).filter(|_| now.is_none()) {
            self.let_go(former.service, &residence.hooked);
        }
        Ok(())
    }

    fn replace(
        &mut self,
        installation: &Installation,
        living: &BTreeSet<ServiceId>,
    ) -> Result<(), EbpfError> {
        let Installation { tables: compiled, endpoints } = installation;
        let mut tables = encode(compiled, endpoints);
        let mut slots = self.slots.get();
        slots.take_over(compiled.slots())?;
        for service in compiled.services() {
            if let Some(endpoint) = installation.endpoint(service.id) {
                self.admit(service, endpoint)?;
            }
        }
        for service in compiled.services().iter().filter(|service| self.tables.service(service.id).is_none())
        {
            let mark = if living.contains(&service.id) { ALIVE } else { DEAD };
            self.write("service_alive", u32::from(service.slot).as_bytes(), mark.as_bytes())?;
        }
        for service in compiled.services() {
            if let Some(residence) = self.residences.get(&service.id) {
                let shared = self.scope.level_shared_with(&residence.hooked);
                encode_residence(residence, shared, service.slot, &mut tables);
            }
        }
        self.follow_resolvers(compiled.resolvers())?;
        if compiled.ask_for_hosts() && self.is_attached() {
            self.learn_names(true)?;
        }
        self.show_in_packets(endpoints)?;
        self.in_force.replace(&self.tables, compiled, tables)?;
        self.slots.change(|shared| *shared = slots);
        self.tables = compiled.clone();
        self.learn_names(self.learns && self.tables.ask_for_hosts())?;
        for endpoint in endpoints {
            if let Some(former) = self.endpoints.insert(endpoint.service, endpoint.clone()) {
                self.dismiss(&former, Some(endpoint))?;
            }
        }
        Ok(())
    }

    /// Takes back what an installation that failed has admitted. What stays nevertheless is looked at by nobody.
    fn retract(&self, installation: &Installation) {
        for endpoint in &installation.endpoints {
            let former = self.endpoints.get(&endpoint.service);
            let stays = former.map(registered).unwrap_or_default();
            for listener in registered(endpoint).into_iter().filter(|listener| !stays.contains(listener)) {
                let _stays = self.registry.forget(listener, endpoint.service.0);
            }
            if former.is_none_or(|former| former.cgroup != endpoint.cgroup) {
                let _stays = self.delete("slot_of_cgroup", endpoint.cgroup.as_bytes());
            }
        }
    }

    /// Frees the slots of services that were removed and that nothing carries any more.
    fn free_slots(&mut self) -> Result<(), EbpfError> {
        let leaving: Vec<(ServiceId, u8)> =
            self.slots.get().iter().filter(|&(service, _)| self.tables.service(service).is_none()).collect();
        let Some(tables) = self.in_force.tables().filter(|_| !leaving.is_empty()) else { return Ok(()) };
        let carried = carried_slots(&mut self.loaded, tables)?;
        for (service, slot) in leaving.into_iter().filter(|(_, slot)| carried >> slot & 1 == 0) {
            if let Some(endpoint) = self.endpoints.get(&service) {
                self.dismiss(endpoint, None)?;
            }
            self.stop_serving(service)?;
            self.blank(slot)?;
            self.endpoints.remove(&service);
            self.slots.change(|slots| slots.release(service));
        }
        self.show_in_packets(&[])
    }

    /// As a slot is before anybody has it: its service absent, and nothing waiting for it.
    fn blank(&self, slot: u8) -> Result<(), EbpfError> {
        self.write("service_alive", u32::from(slot).as_bytes(), 0_u32.as_bytes())?;
        for index in progress::indices_of(slot) {
            self.write(progress::NAME, index.as_bytes(), abi::Progress::default().as_bytes())?;
        }
        Ok(())
    }

    fn attach_for(&mut self, service: ServiceId, residence: &Residence) -> Result<(), EbpfError> {
        for (number, cgroup) in residence.hooked.iter().enumerate() {
            for &program in self.programs_at(cgroup) {
                self.attach_program(program, cgroup, &resident_pin(program, service, number))?;
            }
        }
        Ok(())
    }

    /// Cgroups of a resident that is not adopted, or no more. They may be gone, and others of their names be those of `service`'s
    /// successor.
    fn let_go(&self, service: ServiceId, cgroups: &[PathBuf]) {
        let others = self.residences.iter().filter(|(id, _)| **id != service);
        let needed: Vec<&PathBuf> = others.flat_map(|(_, residence)| &residence.hooked).collect();
        let free = cgroups.iter().filter(|cgroup| !needed.contains(cgroup));
        let ids = free.filter_map(|cgroup| cgroup_id(cgroup).ok());
        ids.for_each(|id| self.claims.release_service(id));
    }

    /// Those that a resident needs in a cgroup: in the scope its own are asked already.
    fn programs_at(&self, cgroup: &Path) -> &'static [&'static str] {
        if cgroup.starts_with(&self.scope.cgroup) { &RESIDENT_PROGRAMS_IN_SCOPE } else { &RESIDENT_PROGRAMS }
    }

    fn stop_serving(&mut self, service: ServiceId) -> Result<(), EbpfError> {
        let mut pins: Vec<PathBuf> =
            SERVICE_PROGRAMS.map(|program| self.scope.pins.join(service_pin(program, service))).into();
        let hooked = self.residences.remove(&service).map_or_else(Vec::new, |residence| residence.hooked);
        for (number, cgroup) in hooked.iter().enumerate() {
            let programs = self.programs_at(cgroup).iter();
            pins.extend(programs.map(|program| self.scope.pins.join(resident_pin(program, service, number))));
        }
        if let Some(cgroup) = self.served.remove(&service) {
            // Of most services there is nothing.
            let _absent = self.loaded.map(TRANSPARENT)?.delete(&cgroup.to_ne_bytes());
        }
        self.end_links(&pins)
    }

    /// The latest first.
    pub(crate) fn end_links(&mut self, pins: &[PathBuf]) -> Result<(), EbpfError> {
        let (ended, stay): (Vec<Link>, Vec<Link>) =
            self.links.drain(..).partition(|link| link.pin_path().is_some_and(|path| pins.contains(&path)));
        self.links = stay;
        for mut link in ended.into_iter().rev() {
            let path = link.pin_path().unwrap_or_default();
            link.unpin().map_err(|source| EbpfError::Pin { path, source })?;
        }
        Ok(())
    }

    fn delete(&self, map: &'static str, key: &[u8]) -> Result<(), EbpfError> {
        match self.loaded.map(map)?.delete(key) {
            Err(source) if source.kind() != libbpf_rs::ErrorKind::NotFound => {
                Err(EbpfError::Map { map, source })
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn write(&self, map: &'static str, key: &[u8], value: &[u8]) -> Result<(), EbpfError> {
        self.loaded
            .map(map)?
            .update(key, value, MapFlags::ANY)
            .map_err(|source| EbpfError::Map { map, source })
    }

    pub(crate) fn attach_program(
        &mut self,
        program: &'static str,
        cgroup: &Path,
        pin: &str,
    ) -> Result<(), EbpfError> {
        let failed = |source| EbpfError::Attach { program, cgroup: cgroup.into(), source };
        let directory = fs::File::open(cgroup).map_err(|source| failed(source.into()))?;
        let loaded = self.loaded.program(program);
        let loaded =
            loaded.ok_or_else(|| failed(std::io::Error::from(std::io::ErrorKind::NotFound).into()))?;
        let mut link = loaded.attach_cgroup(directory.as_raw_fd()).map_err(failed)?;
        let path = self.scope.pins.join(pin);
        link.pin(&path).map_err(|source| EbpfError::Pin { path, source })?;
        self.links.push(link);
        Ok(())
    }
}

impl Engine for EbpfEngine {
    type Error = EbpfError;

    fn install(&mut self, installation: &Installation) -> Result<(), EbpfError> {
        self.install_living(installation, &BTreeSet::new())
    }

    fn set_liveness(&mut self, service: ServiceId, liveness: Liveness) -> Result<(), EbpfError> {
        self.liveness_marks()?.set(service, liveness)
    }

    fn set_routes(&mut self, routes: &Routes) -> Result<(), EbpfError> {
        self.route_publisher()?.publish(routes)
    }

    fn events(&mut self, timeout: Duration) -> Result<Vec<Event>, EbpfError> {
        if self.events.is_none() {
            self.events = Some(self.event_source()?);
        }
        self.events.as_mut().map_or_else(|| Ok(Vec::new()), |source| source.poll(timeout))
    }

    fn slots(&mut self) -> Result<Slots, EbpfError> {
        self.free_slots()?;
        Ok(self.slots.get())
    }

    fn capabilities(&self) -> Capabilities {
        capabilities()
    }
}

/// Not by the service's name: a pin's may not contain a dot.
fn service_pin(program: &str, service: ServiceId) -> String {
    format!("{program}-{}", service.0)
}

fn resident_pin(program: &str, service: ServiceId, number: usize) -> String {
    format!("{program}-{}-at-{number}", service.0)
}
