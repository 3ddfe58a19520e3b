//! The whole life of a run without privileges: the command and the services, each supervised (`waylay-engine-seccomp`).
//!
//! What a run by the engine on eBPF has of its cgroup (to know who is whose, to wait for all, to end all) is had by the filters here.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::net::UnixStream,
    },
    process::{Child, ExitStatus},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{self, RecvTimeoutError, Sender},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use waylay_core::{Event, FailurePolicy, Protocol, ServiceId, Tables, Unredirectable};
use waylay_engine::{Endpoint, Engine, Installation, Liveness, LocalName};
use waylay_engine_seccomp::{Dialler, Open, Path, SeccompEngine, SeccompError, Watch, home_of};

use crate::{
    assignment::Interruption,
    cgroup::Cgroup,
    deadline::Deadline,
    error::RunError,
    foundling, handover,
    hung::{self, Wards},
    launch::{Families, Launch, Role, Supervision},
    limits, processes,
    refusals::concerned,
    run::refuse_inherited_sockets,
    service::{Running, STOP_PATIENCE, Waiting, launcher},
    signals::Signals,
    sockets,
    spawner::Spawner,
    spec::{Adoption, Ended, Observer, RunSpec, ServiceSpec, Step},
    user::Identity,
};

/// Between two looks at what is open and what has been refused.
const LOOK_PAUSE: Duration = Duration::from_millis(50);
/// Between two looks at what a service has still to do.
const DRAIN_STEP: Duration = Duration::from_millis(20);
/// Between two looks at who has ended and been left by its parent.
const REAP_PAUSE: Duration = Duration::from_secs(2);
/// Looks at refusals for one at connections.
const LOOKS_A_SWEEP: u32 = 40;

/// Runs a command, its connections redirected through services, without any privilege: those of programs that do not try
/// to get around it.
///
/// # Errors
/// [`RunError`] if it could not start; nothing is left behind then.
pub fn run_supervised(spec: &RunSpec, observer: &Arc<dyn Observer>) -> Result<Ended, RunError> {
    refuse_what_needs_root(spec)?;
    if !spec.keep_sockets {
        refuse_inherited_sockets()?;
    }
    // Whoever of the command's processes goes into the background stays below this one, as looking at it takes (ptrace(2)).
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .map_err(|errno| RunError::CommandStart(errno.into()))?;
    let signals = Signals::watch(Interruption::default()).map_err(RunError::CommandStart)?;
    let descriptors = limits::raise_descriptors();
    let mut engine = new_engine()?;
    let tables = Tables::compile(&spec.policy)?;
    if tables.ask_for_hosts() {
        return Err(RunError::NeedsRoot { what: "a filter that asks for names of hosts".into() });
    }
    // To learn which one a path stands for takes to enter it.
    if tables.ask_for_namespaces() && !rustix::process::geteuid().is_root() {
        return Err(RunError::NeedsRoot { what: "a filter that asks for network namespaces".into() });
    }
    let judges_datagrams = tables.concern_datagrams();
    let spawner = Spawner::start();
    let mut starting = Starting {
        engine: &engine,
        spawner: &spawner,
        signals: &signals,
        observer,
        start_patience: spec.start_patience,
        identity: spec.identity.clone(),
        judges_datagrams,
        descriptors,
        waiting: BTreeMap::new(),
    };
    let started = starting.start_all(spec);
    let waiting = std::mem::take(&mut starting.waiting);
    if let Err(error) = started {
        waiting.into_values().for_each(Waiting::give_up);
        return Err(error);
    }
    let endpoints = waiting.iter().map(|(id, waiting)| endpoint(*id, waiting, spec)).collect();
    engine.install(&Installation { tables, endpoints })?;
    let engine = Shared(Arc::new(Mutex::new(engine)));
    let crew = Arc::new(Crew::release(waiting, spec, &engine, observer)?);
    let looking = Looking::start(engine.clone(), spec, Arc::clone(&crew), observer);
    let supervision = |socket: &OwnedFd| Supervision {
        socket: socket.as_raw_fd(),
        any_socket: spec.policy.unredirectable() == Unredirectable::Permit,
        judges_datagrams,
        descriptors,
    };
    let outcome = run_command(spec, supervision, &engine, &crew, &signals, observer);
    observer.step(Step::StoppingServices);
    looking.stop();
    Arc::into_inner(crew).into_iter().for_each(|crew| crew.stop(&engine));
    tell(&engine, &names_of(spec), observer);
    outcome
}

pub(crate) fn new_engine() -> Result<SeccompEngine, SeccompError> {
    // Without one no cgroup is known by what is above it.
    SeccompEngine::new(Cgroup::root().map(|root| root.path().to_owned()).unwrap_or_default())
}

fn refuse_what_needs_root(spec: &RunSpec) -> Result<(), RunError> {
    let needs_root = |what: &str| Err(RunError::NeedsRoot { what: what.to_owned() });
    if spec.identity.is_some() && !rustix::process::geteuid().is_root() {
        return needs_root("another user for the command (--user)");
    }
    let shown = |adoption: &Adoption| adoption.local_name == LocalName::Packet;
    if let Some(service) = spec.services.iter().find(|service| service.adoption.as_ref().is_some_and(shown)) {
        return Err(SeccompError::Packets { service: service.name.clone() }.into());
    }
    for service in &spec.services {
        let runs_already = service.adoption.as_ref().is_some_and(|adoption| adoption.known_by.is_some());
        let takes_datagrams = service.adoption.is_some() && service.transports.include_udp();
        let why = match (service.identity.is_some(), runs_already, takes_datagrams) {
            (true, _, _) => "runs as a user of its own",
            (false, true, _) => "runs already",
            (false, false, true) => "is adopted and takes datagrams",
            (false, false, false) => continue,
        };
        return needs_root(&format!("the service {:?}, which {why},", service.name));
    }
    Ok(())
}

/// The engine, for those who work with it on several threads.
#[derive(Clone)]
struct Shared(Arc<Mutex<SeccompEngine>>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, SeccompEngine> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Services that are on their way.
struct Starting<'s> {
    engine: &'s SeccompEngine,
    spawner: &'s Spawner,
    signals: &'s Signals,
    observer: &'s Arc<dyn Observer>,
    start_patience: Duration,
    identity: Option<Identity>,
    /// What is in force does not change any more.
    judges_datagrams: bool,
    /// As many as this process might have before it was one that supervises.
    descriptors: Option<u64>,
    waiting: BTreeMap<ServiceId, Waiting>,
}

impl Starting<'_> {
    fn start_all(&mut self, spec: &RunSpec) -> Result<(), RunError> {
        for (id, service) in (1..).map(ServiceId).zip(&spec.services) {
            self.observer.step(Step::StartingService { name: &service.name });
            let waiting = self.start(id, service)?;
            self.waiting.insert(id, waiting);
        }
        Ok(())
    }

    fn start(&self, id: ServiceId, spec: &ServiceSpec) -> Result<Waiting, RunError> {
        let failed = |source| RunError::ServiceStart { service: spec.name.clone(), source };
        let (own, passed) = passage().map_err(failed)?;
        let supervision = Supervision {
            socket: passed.as_raw_fd(),
            any_socket: true,
            judges_datagrams: self.judges_datagrams,
            descriptors: self.descriptors,
        };
        if let Some(adoption) = &spec.adoption {
            let waiting = foundling::start(spec, adoption, self.identity.clone(), supervision, self.spawner)?;
            drop(passed);
            return self.adopt(id, adoption, waiting, &own);
        }
        let launch = Launch {
            cgroup: None,
            // Root has no need of being one.
            identity: self.identity.clone(),
            role: Role::Service,
            own_binary: spec.builtin,
            families: Families::Any,
            supervision: Some(supervision),
        };
        let waiting = Waiting::start_as(spec, &launch, self.spawner)?;
        drop(passed);
        let calls = handover::take(&own).map_err(failed)?;
        self.engine.watch(calls, Dialler::Service(id))?;
        Ok(waiting)
    }

    fn adopt(
        &self,
        id: ServiceId,
        adoption: &Adoption,
        mut waiting: Waiting,
        own: &OwnedFd,
    ) -> Result<Waiting, RunError> {
        let started = match handover::take(own) {
            Ok(calls) => {
                self.engine.expect(id, adoption.local_name);
                let watched = self.engine.watch(calls, Dialler::Service(id));
                watched.map(drop).map_err(RunError::from)
            }
            // It has ended before, and that is seen below.
            Err(_no_calls) => Ok(()),
        };
        let started = started.and_then(|()| {
            let interrupted_by = || self.signals.take();
            let (patience, observer) = (self.start_patience, &**self.observer);
            foundling::wait_until_it_listens(&mut waiting, adoption, patience, observer, interrupted_by)
        });
        match started {
            Ok(()) => Ok(waiting),
            Err(error) => {
                waiting.give_up_and_tell(self.observer);
                Err(error)
            }
        }
    }
}

/// A pair of sockets, of which the second is there for a process that is started.
fn passage() -> io::Result<(OwnedFd, OwnedFd)> {
    let (own, passed) = UnixStream::pair()?;
    rustix::io::fcntl_setfd(&passed, rustix::io::FdFlags::empty())?;
    Ok((own.into(), passed.into()))
}

fn endpoint(service: ServiceId, waiting: &Waiting, spec: &RunSpec) -> Endpoint {
    let adoption = spec.services.iter().find(|service| service.name == waiting.name);
    let adoption = adoption.and_then(|service| service.adoption.as_ref());
    let listening = waiting.listening.clone();
    Endpoint {
        service,
        cgroup: home_of(service),
        tcp4: listening.tcp4,
        tcp6: listening.tcp6,
        udp4: listening.udp4,
        udp6: listening.udp6,
        behind6: None,
        local_name: adoption.map_or(LocalName::Listener, |adoption| adoption.local_name),
    }
}

/// Services at work, in the order of the chain.
struct Crew(Vec<Member>);

struct Member {
    id: ServiceId,
    is_adopted: bool,
    running: Running,
}

impl Crew {
    fn release(
        waiting: BTreeMap<ServiceId, Waiting>,
        spec: &RunSpec,
        engine: &Shared,
        observer: &Arc<dyn Observer>,
    ) -> Result<Self, RunError> {
        let mut crew = Self(Vec::new());
        for (id, service) in waiting {
            engine.lock().set_liveness(id, Liveness::Alive)?;
            let (engine, told, name) = (engine.clone(), Arc::clone(observer), service.name.clone());
            let declared = spec.policy.service(id).map(|service| service.on_failure);
            let on_failure = declared.unwrap_or(FailurePolicy::Closed);
            let on_death = move |status| {
                // Of a service that is installed.
                let _said = engine.lock().set_liveness(id, Liveness::Dead);
                told.service_died(&name, status, on_failure);
            };
            let adopted = spec.services.iter().find(|adopted| adopted.name == service.name);
            let is_adopted = adopted.is_some_and(|service| service.adoption.is_some());
            crew.0.push(Member { id, is_adopted, running: service.release(observer, on_death)? });
        }
        Ok(crew)
    }

    /// Each service leads one.
    fn sessions(&self) -> BTreeSet<u32> {
        self.0.iter().filter_map(|member| member.running.leader()).collect()
    }

    fn end_hung(&self, services: &[ServiceId]) {
        let hung = self.0.iter().filter(|member| services.contains(&member.id));
        hung.for_each(|member| member.running.end_hung());
    }

    fn stop(self, engine: &Shared) {
        for Member { id, is_adopted, running } in self.0 {
            if !is_adopted {
                take_what_waits(engine, id, &running);
            }
            let deadline = Deadline::within(STOP_PATIENCE);
            // Programs that were not made for waylay drop what they have when they are told to end.
            while is_adopted && running.has_connections() && !deadline.is_over() {
                thread::sleep(DRAIN_STEP);
            }
            running.tell_to_stop();
            running.wait(&deadline);
        }
    }
}

/// Waits as long as a service takes what waits at its listeners: it may be about to start, and not yet know what a signal means.
fn take_what_waits(engine: &Shared, service: ServiceId, running: &Running) {
    let mut deadline = Deadline::within(STOP_PATIENCE);
    let mut last = 0;
    while !running.has_ended() && !deadline.is_over() {
        // What cannot be looked at is not waited for.
        let Ok(listeners) = sockets::listeners(Protocol::Tcp) else { return };
        let mut progress = Vec::new();
        for (address, taken) in engine.lock().taken(service) {
            progress.push(hung::progress(&listeners, address, taken));
        }
        if progress.iter().all(|listener| listener.waiting == 0) {
            return;
        }
        let taken = progress.iter().map(|listener| listener.taken).sum();
        if taken != last {
            (last, deadline) = (taken, Deadline::within(STOP_PATIENCE));
        }
        thread::sleep(DRAIN_STEP);
    }
}

fn run_command(
    spec: &RunSpec,
    supervision: impl FnOnce(&OwnedFd) -> Supervision,
    engine: &Shared,
    crew: &Crew,
    signals: &Signals,
    observer: &Arc<dyn Observer>,
) -> Result<Ended, RunError> {
    if let Some(signal) = signals.take() {
        return Err(RunError::Interrupted { signal });
    }
    observer.step(Step::Command);
    let (mut child, watch) = start_command(spec, supervision, engine)?;
    signals.pass_to(child.id());
    let status = wait_for(&mut child, crew).map_err(RunError::CommandStart)?;
    signals.keep();
    if let Some(watch) = watch.filter(|watch| !watch.is_over()) {
        wait_for_background(&watch, crew, signals, observer);
    }
    Ok(Ended { status })
}

/// Those that it leaves to this process meanwhile are not left as they are until the end.
fn wait_for(child: &mut Child, crew: &Crew) -> io::Result<ExitStatus> {
    let own: BTreeSet<u32> = crew.sessions().into_iter().chain([child.id()]).collect();
    let (over, is_over) = mpsc::channel::<()>();
    thread::scope(|scope| {
        scope.spawn(move || {
            while is_over.recv_timeout(REAP_PAUSE) == Err(RecvTimeoutError::Timeout) {
                processes::reap_orphans(&own);
            }
        });
        let status = child.wait();
        drop(over);
        status
    })
}

/// As with the engine on eBPF: a signal ends whoever is left. Those whose parents are gone are this process's children; what services have started is in
/// the services' sessions.
fn wait_for_background(watch: &Watch, crew: &Crew, signals: &Signals, observer: &Arc<dyn Observer>) {
    observer.waiting_for_background();
    let mut is_to_end = false;
    while !watch.is_over() {
        is_to_end |= signals.take().is_some();
        let services = crew.sessions();
        if is_to_end {
            processes::kill_descendants(&services);
        }
        // Before Linux 6.11 who has ended counts until somebody has asked how.
        processes::reap_orphans(&services);
        thread::sleep(LOOK_PAUSE);
    }
}

/// Without a watch it has ended before it was supervised, and says why itself.
fn start_command(
    spec: &RunSpec,
    supervision: impl FnOnce(&OwnedFd) -> Supervision,
    engine: &Shared,
) -> Result<(Child, Option<Watch>), RunError> {
    let (own, passed) = passage().map_err(RunError::CommandStart)?;
    let launch = Launch {
        cgroup: None,
        identity: spec.identity.clone(),
        role: Role::Command,
        own_binary: false,
        families: Families::Any,
        supervision: Some(supervision(&passed)),
    };
    let child = launcher(&launch, &spec.command).and_then(|mut command| command.spawn());
    let child = child.map_err(RunError::CommandStart)?;
    drop(passed);
    let watch = match handover::take(&own) {
        Ok(calls) => Some(engine.lock().watch(calls, Dialler::Command)?),
        Err(_ended_before) => None,
    };
    Ok((child, watch))
}

/// Looks now and then at what is open, for flows that are over, and tells what was refused.
struct Looking {
    stop: Sender<()>,
    thread: JoinHandle<()>,
}

impl Looking {
    fn start(engine: Shared, spec: &RunSpec, crew: Arc<Crew>, observer: &Arc<dyn Observer>) -> Self {
        let names = names_of(spec);
        let mut wards = Wards::new(names.clone(), spec.patience);
        let observer = Arc::clone(observer);
        let (stop, stopped) = mpsc::channel::<()>();
        let thread = thread::spawn(move || {
            for look in 1.. {
                let is_over = stopped.recv_timeout(LOOK_PAUSE) != Err(RecvTimeoutError::Timeout);
                tell(&engine, &names, &observer);
                if is_over {
                    break;
                }
                crew.end_hung(&wards.look(&observer, |service| engine.lock().taken(service)));
                if look % LOOKS_A_SWEEP == 0 {
                    sweep(&engine);
                }
            }
        });
        Self { stop, thread }
    }

    fn stop(self) {
        drop(self.stop);
        // One that panicked has ended too.
        let _ended = self.thread.join();
    }
}

fn names_of(spec: &RunSpec) -> BTreeMap<ServiceId, String> {
    (1..).map(ServiceId).zip(spec.services.iter().map(|service| service.name.clone())).collect()
}

fn tell(engine: &Shared, names: &BTreeMap<ServiceId, String>, observer: &Arc<dyn Observer>) {
    let events = engine.lock().events(Duration::ZERO).unwrap_or_default();
    for event in events.iter().filter(|event| is_news(event)) {
        let name = concerned(event).and_then(|service| names.get(&service));
        observer.refused(event, name.map(String::as_str));
    }
}

/// What services report is told by them.
fn is_news(event: &Event) -> bool {
    match event {
        Event::Redirected { .. } | Event::Ended { .. } => false,
        Event::Refused { .. }
        | Event::SocketRefused { .. }
        | Event::LeftAlone { .. }
        | Event::Dropped { .. }
        | Event::Lost { .. } => true,
    }
}

fn sweep(engine: &Shared) {
    // What could not be looked at is looked at the next time.
    let Ok(open) = sockets::every(Protocol::Tcp) else { return };
    engine.lock().sweep(&Open {
        paths: open.iter().map(|socket| Path::new(socket.local, socket.remote)).collect(),
        sockets: open.iter().map(|socket| socket.cookie()).collect(),
    });
    let Ok(open) = sockets::of_datagrams() else { return };
    let open: BTreeSet<u64> = open.iter().map(|socket| socket.cookie()).collect();
    engine.lock().sweep_datagrams(&open);
}
