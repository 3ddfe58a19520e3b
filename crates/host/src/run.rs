//! The whole life of one run: a command, watched by a chain of services.

use std::{
    collections::BTreeMap,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use waylay_core::{Event, Refusal, ServiceId, Tables, Unredirectable};
use waylay_engine::{Endpoint, Engine, Installation, Liveness};
use waylay_engine_ebpf::{EbpfEngine, EbpfError, bpf_file_system, in_initial_user_namespace};

use crate::{
    cgroup::Cgroup,
    crew::{Adopting, Crew},
    error::RunError,
    health::HealthWatch,
    icmp::Messenger,
    instance::{APPLICATIONS, Instance, clean_up},
    launch::{Families, Launch, Role},
    loopback::LoopbackWatch,
    place::Place,
    residents::Residents,
    routes::RouteWatcher,
    service::{Waiting, launcher},
    signals::Signals,
    spec::{Ended, Observer, RunSpec, Step},
    sweep::Sweeping,
    sys,
};

/// How long reports of refusals may be under way when a run ends.
const EVENT_PATIENCE: Duration = Duration::from_millis(50);
const BACKGROUND_STEP: Duration = Duration::from_millis(20);

/// Runs a command, its connections redirected through services, until it and
/// all processes it started have ended.
///
/// # Errors
/// [`RunError`] if it could not start; nothing is left behind then.
pub fn run(spec: &RunSpec, observer: &Arc<dyn Observer>) -> Result<Ended, RunError> {
    if !rustix::process::geteuid().is_root() {
        return Err(RunError::NotRoot);
    }
    // Root of another is nobody here, and would fail later, for reasons that are none.
    if !in_initial_user_namespace() {
        return Err(EbpfError::NotPermitted.into());
    }
    if !spec.keep_sockets {
        refuse_inherited_sockets()?;
    }
    let signals = Signals::watch().map_err(RunError::CommandStart)?;
    let tables = Tables::compile(&spec.policy)?;
    let line = Cgroup::line_of_the_caller()?;
    let residents = Residents::find(spec, &line)?;
    let parent = line.place().clone();
    Instance::see_versions_around(&parent)?;
    let pin_root = bpf_file_system()?;
    match clean_up(&pin_root) {
        0 => {}
        runs => observer.cleaned_up(runs),
    }
    let place = Place::new(&parent, &pin_root, residents.records(spec))?;
    let outcome = place.run(spec, &residents, &tables, &signals, observer);
    place.leave();
    outcome
}

fn refuse_inherited_sockets() -> Result<(), RunError> {
    let open = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let numbers = open.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let mut descriptors: Vec<i32> = numbers.filter(|&fd| sys::passes_network_socket_on(fd)).collect();
    descriptors.sort_unstable();
    if descriptors.is_empty() { Ok(()) } else { Err(RunError::InheritedSockets { descriptors }) }
}

impl Place {
    fn run(
        &self,
        spec: &RunSpec,
        residents: &Residents,
        tables: &Tables,
        signals: &Signals,
        observer: &Arc<dyn Observer>,
    ) -> Result<Ended, RunError> {
        observer.step(Step::LoadingPrograms);
        let mut engine = EbpfEngine::load(self.scope.clone())?;
        let waiting = self.start_services(spec, &mut engine, observer)?;
        let endpoints = self.endpoints(spec, residents, &waiting)?;
        engine.install(&Installation { tables: tables.clone(), endpoints: endpoints.clone() })?;
        for id in waiting.keys() {
            engine.set_liveness(*id, Liveness::Alive)?;
        }
        let routes = RouteWatcher::start(engine.route_publisher()?).map_err(RunError::Routes)?;
        let loopback = LoopbackWatch::start(engine.loopback_mark()?);
        engine.attach()?;
        let refusals = RefusalReader::start(&engine, tables, observer)?;
        let messenger = Messenger::start(engine.unreachable_source()?);
        let sweeping = Sweeping::start(engine.flow_sweeper()?);
        let mut crew = Crew::release(waiting, spec, &engine, observer)?;
        let adopting = Adopting { place: self, spec, residents, tables, signals, observer };
        let outcome = adopting.adopt_all(&mut engine, endpoints, &mut crew).and_then(|()| {
            let health = HealthWatch::new(&engine, spec, crew.patients(), observer)?.start();
            let outcome = self.run_command(spec, families(spec, &engine), signals, observer);
            health.stop();
            outcome
        });
        routes.stop();
        loopback.stop();
        observer.step(Step::StoppingServices);
        crew.stop();
        refusals.stop();
        messenger.stop();
        sweeping.stop();
        engine.remove()?;
        outcome
    }

    /// Those that cooperate listen when this returns.
    fn start_services(
        &self,
        spec: &RunSpec,
        engine: &mut EbpfEngine,
        observer: &Arc<dyn Observer>,
    ) -> Result<BTreeMap<ServiceId, Waiting>, RunError> {
        let mut waiting = BTreeMap::new();
        for (index, service) in (0..).zip(&spec.services) {
            let (id, cgroup) = (ServiceId(index + 1), self.cgroup_of(service));
            cgroup.create()?;
            // Of one that runs already the cgroup is only a place-holder.
            if service.adoption.as_ref().is_none_or(|adoption| adoption.known_by.is_none()) {
                engine.serve_cgroup(id, cgroup.path())?;
            }
            if service.adoption.is_none() {
                observer.step(Step::StartingService { name: &service.name });
                waiting.insert(id, Waiting::start(service, cgroup, self.identity_of(service, index))?);
            }
        }
        Ok(waiting)
    }

    /// Where the services are; adopted ones nowhere yet.
    fn endpoints(
        &self,
        spec: &RunSpec,
        residents: &Residents,
        waiting: &BTreeMap<ServiceId, Waiting>,
    ) -> Result<Vec<Endpoint>, RunError> {
        let mut endpoints = Vec::new();
        for (id, service) in (1..).map(ServiceId).zip(&spec.services) {
            let failed = |source| RunError::ServiceStart { service: service.name.clone(), source };
            let listening = waiting.get(&id).map(|waiting| waiting.listening.clone()).unwrap_or_default();
            endpoints.push(Endpoint {
                service: id,
                cgroup: match residents.get(id) {
                    Some(found) => found.listener_cgroup,
                    None => self.cgroup_of(service).id().map_err(failed)?,
                },
                tcp4: listening.tcp4,
                tcp6: listening.tcp6,
                udp4: listening.udp4,
                udp6: listening.udp6,
                local_name: service.adoption.as_ref().map(|adoption| adoption.local_name).unwrap_or_default(),
            });
        }
        Ok(endpoints)
    }

    fn run_command(
        &self,
        spec: &RunSpec,
        families: Families,
        signals: &Signals,
        observer: &Arc<dyn Observer>,
    ) -> Result<Ended, RunError> {
        if let Some(signal) = signals.take() {
            return Err(RunError::Interrupted { signal });
        }
        let app = self.cgroup.child(APPLICATIONS);
        let launch = Launch {
            cgroup: app.path().into(),
            identity: spec.identity.clone(),
            role: Role::Command,
            own_binary: false,
            families,
        };
        observer.step(Step::Command);
        let mut child = launcher(&launch, &spec.command)
            .and_then(|mut launcher: Command| launcher.spawn())
            .map_err(RunError::CommandStart)?;
        signals.pass_to(child.id());
        let status = child.wait().map_err(RunError::CommandStart)?;
        signals.keep();
        wait_for_background(&app, signals, observer);
        Ok(Ended { status })
    }
}

/// Whom the kernel does not ask about sockets of every family, a filter keeps from them.
fn families(spec: &RunSpec, engine: &EbpfEngine) -> Families {
    match (spec.policy.unredirectable(), engine.guards_every_family()) {
        (Unredirectable::Permit, _) | (Unredirectable::Block, true) => Families::Any,
        (Unredirectable::Block, false) => Families::Filtered,
    }
}

/// Like `strace -f`: the run lasts as long as anything it started.
fn wait_for_background(app: &Cgroup, signals: &Signals, observer: &Arc<dyn Observer>) {
    if !app.is_populated() {
        return;
    }
    observer.waiting_for_background();
    while app.is_populated() {
        observer.step(Step::Background { processes: app.processes().len() });
        if signals.take().is_some() {
            app.kill();
        }
        thread::sleep(BACKGROUND_STEP);
    }
}

/// Reads what the kernel refuses, on a thread of its own.
struct RefusalReader {
    stop: Arc<AtomicBool>,
    thread: thread::JoinHandle<()>,
}

impl RefusalReader {
    fn start(engine: &EbpfEngine, tables: &Tables, observer: &Arc<dyn Observer>) -> Result<Self, RunError> {
        let mut source = engine.event_source()?;
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, tables, observer) = (Arc::clone(&stop), tables.clone(), Arc::clone(observer));
        let thread = thread::spawn(move || {
            // A buffer that cannot be read loses log lines, not connections.
            while let Ok(events) = source.poll(EVENT_PATIENCE) {
                for event in &events {
                    observer.refused(event, concerned(event, &tables));
                }
                if events.is_empty() && stopped.load(Ordering::Acquire) {
                    break;
                }
            }
        });
        Ok(Self { stop, thread })
    }

    fn stop(self) {
        self.stop.store(true, Ordering::Release);
        // A reader that panicked has ended too.
        let _ended = self.thread.join();
    }
}

fn concerned<'t>(event: &Event, tables: &'t Tables) -> Option<&'t str> {
    let Event::Refused { refusal, .. } = event else { return None };
    let service = match *refusal {
        Refusal::ServiceAbsent { service }
        | Refusal::BacklogFull { service }
        | Refusal::HopLimit { service }
        | Refusal::ListenerDialled { service } => service,
        Refusal::Blocked { .. }
        | Refusal::ForeignNamespace
        | Refusal::Unredirectable
        | Refusal::NoRoute { .. }
        | Refusal::Shortage(_) => return None,
    };
    tables.service(service).map(|service| service.name.as_str())
}
