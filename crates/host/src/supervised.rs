//! The whole life of a run without privileges: the command and the services, each supervised (`waylay-engine-seccomp`).
//!
//! What a run by the engine on eBPF has of its cgroup (to know who is whose, to wait for all, to end all) is had by the filters here.

use std::{
    collections::{BTreeMap, BTreeSet},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::net::UnixStream,
    },
    process::Child,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{self, RecvTimeoutError, Sender},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use waylay_core::{Event, FailurePolicy, Protocol, ServiceId, Tables, Unredirectable};
use waylay_engine::{Endpoint, Engine, Installation, Liveness, LocalName};
use waylay_engine_seccomp::{Dialler, Path, SeccompEngine, SeccompError, Watch, home_of};

use crate::{
    assignment::Interruption,
    deadline::Deadline,
    error::RunError,
    handover,
    launch::{Families, Launch, Role, Supervision},
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
    let interruption = Interruption::default();
    let signals = Signals::watch(interruption).map_err(RunError::CommandStart)?;
    let mut engine = SeccompEngine::new()?;
    let tables = Tables::compile(&spec.policy)?;
    if tables.ask_for_hosts() {
        return Err(RunError::NeedsRoot { what: "a filter that asks for names of hosts".into() });
    }
    // To learn which one a path stands for takes to enter it.
    if tables.ask_for_namespaces() && !rustix::process::geteuid().is_root() {
        return Err(RunError::NeedsRoot { what: "a filter that asks for network namespaces".into() });
    }
    let spawner = Spawner::start();
    let mut starting = Starting {
        engine: &engine,
        spawner: &spawner,
        observer,
        identity: spec.identity.clone(),
        waiting: BTreeMap::new(),
    };
    let started = starting.start_all(spec);
    let waiting = std::mem::take(&mut starting.waiting);
    if let Err(error) = started {
        waiting.into_values().for_each(Waiting::give_up);
        return Err(error);
    }
    let endpoints = waiting.iter().map(|(id, waiting)| endpoint(*id, waiting)).collect();
    engine.install(&Installation { tables, endpoints })?;
    let engine = Shared(Arc::new(Mutex::new(engine)));
    let crew = Crew::release(waiting, spec, &engine, observer)?;
    let looking = Looking::start(engine.clone(), spec, observer);
    let outcome = run_command(spec, &engine, &signals, observer);
    observer.step(Step::StoppingServices);
    crew.stop();
    looking.stop();
    outcome
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
    match spec.services.iter().find(|service| service.adoption.is_some() || service.identity.is_some()) {
        Some(service) => needs_root(&format!(
            "the service {:?}, which is adopted or runs as a user of its own,",
            service.name
        )),
        None => Ok(()),
    }
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
    observer: &'s Arc<dyn Observer>,
    identity: Option<Identity>,
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
        let launch = Launch {
            cgroup: None,
            // Root has no need of being one.
            identity: self.identity.clone(),
            role: Role::Service,
            own_binary: spec.builtin,
            families: Families::Any,
            supervision: Some(Supervision { socket: passed.as_raw_fd(), any_socket: true }),
        };
        let waiting = Waiting::start_as(spec, &launch, self.spawner)?;
        drop(passed);
        let calls = handover::take(&own).map_err(failed)?;
        self.engine.watch(calls, Dialler::Service(id))?;
        Ok(waiting)
    }
}

/// A pair of sockets, of which the second is there for a process that is started.
fn passage() -> std::io::Result<(OwnedFd, OwnedFd)> {
    let (own, passed) = UnixStream::pair()?;
    rustix::io::fcntl_setfd(&passed, rustix::io::FdFlags::empty())?;
    Ok((own.into(), passed.into()))
}

fn endpoint(service: ServiceId, waiting: &Waiting) -> Endpoint {
    let listening = waiting.listening.clone();
    Endpoint {
        service,
        cgroup: home_of(service),
        tcp4: listening.tcp4,
        tcp6: listening.tcp6,
        udp4: listening.udp4,
        udp6: listening.udp6,
        behind6: None,
        local_name: LocalName::Listener,
    }
}

/// Services at work, in the order of the chain.
struct Crew(Vec<Running>);

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
            crew.0.push(service.release(observer, on_death)?);
        }
        Ok(crew)
    }

    fn stop(self) {
        for running in self.0 {
            running.tell_to_stop();
            running.wait(&Deadline::within(STOP_PATIENCE));
        }
    }
}

fn run_command(
    spec: &RunSpec,
    engine: &Shared,
    signals: &Signals,
    observer: &Arc<dyn Observer>,
) -> Result<Ended, RunError> {
    if let Some(signal) = signals.take() {
        return Err(RunError::Interrupted { signal });
    }
    observer.step(Step::Command);
    let (mut child, watch) = start_command(spec, engine)?;
    signals.pass_to(child.id());
    let status = child.wait().map_err(RunError::CommandStart)?;
    signals.keep();
    if let Some(watch) = watch.filter(|watch| !watch.is_over()) {
        observer.waiting_for_background();
        while !watch.is_over() && signals.take().is_none() {
            thread::sleep(LOOK_PAUSE);
        }
    }
    Ok(Ended { status })
}

/// Without a watch it has ended before it was supervised, and says why itself.
fn start_command(spec: &RunSpec, engine: &Shared) -> Result<(Child, Option<Watch>), RunError> {
    let (own, passed) = passage().map_err(RunError::CommandStart)?;
    let any_socket = match spec.policy.unredirectable() {
        Unredirectable::Permit => true,
        Unredirectable::Block => false,
    };
    let launch = Launch {
        cgroup: None,
        identity: spec.identity.clone(),
        role: Role::Command,
        own_binary: false,
        families: Families::Any,
        supervision: Some(Supervision { socket: passed.as_raw_fd(), any_socket }),
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
    fn start(engine: Shared, spec: &RunSpec, observer: &Arc<dyn Observer>) -> Self {
        let names: BTreeMap<ServiceId, String> =
            (1..).map(ServiceId).zip(spec.services.iter().map(|service| service.name.clone())).collect();
        let observer = Arc::clone(observer);
        let (stop, stopped) = mpsc::channel::<()>();
        let thread = thread::spawn(move || {
            for look in 1.. {
                let is_over = stopped.recv_timeout(LOOK_PAUSE) != Err(RecvTimeoutError::Timeout);
                tell(&engine, &names, &observer);
                if is_over {
                    break;
                }
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
    let open: BTreeSet<Path> = open.iter().map(|socket| Path::new(socket.local, socket.remote)).collect();
    engine.lock().sweep(&open);
    let Ok(open) = sockets::of_datagrams() else { return };
    let open: BTreeSet<u64> = open.iter().map(|socket| socket.cookie()).collect();
    engine.lock().sweep_datagrams(&open);
}
