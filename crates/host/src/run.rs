//! The whole life of one run: a command, watched by a chain of services.

use std::{collections::BTreeMap, path::PathBuf, process::Command, sync::Arc, thread, time::Duration};

use waylay_core::{ServiceId, Unredirectable};

use crate::{
    assignment::{Assignment, Ground, Interruption, StationSpec},
    cgroup::Cgroup,
    error::RunError,
    instance::APPLICATIONS,
    launch::{Families, Launch, Role},
    service::launcher,
    signals::Signals,
    spec::{Ended, Observer, RunSpec, ServiceSpec, Step},
    station::{Station, require_root},
    sys,
};

const BACKGROUND_STEP: Duration = Duration::from_millis(20);

/// Runs a command, its connections redirected through services, until it and
/// all processes it started have ended.
///
/// # Errors
/// [`RunError`] if it could not start; nothing is left behind then.
pub fn run(spec: &RunSpec, observer: &Arc<dyn Observer>) -> Result<Ended, RunError> {
    require_root()?;
    if !spec.keep_sockets {
        refuse_inherited_sockets()?;
    }
    let interruption = Interruption::default();
    let signals = Signals::watch(interruption.clone()).map_err(RunError::CommandStart)?;
    let runs_already =
        |service: &ServiceSpec| service.adoption.as_ref().is_some_and(|adoption| adoption.known_by.is_some());
    let terms = StationSpec {
        ground: Ground::Own,
        patience: spec.patience,
        start_patience: spec.start_patience,
        residents: spec.services.iter().any(runs_already),
        interruption,
    };
    let services: BTreeMap<ServiceId, ServiceSpec> =
        (1..).map(ServiceId).zip(spec.services.iter().cloned()).collect();
    let assignment = Assignment { policy: spec.policy.clone(), services };
    let mut station = Station::open(terms, Arc::clone(observer))?;
    let outcome = station.apply(&assignment).and_then(|()| run_command(&station, spec, &signals, observer));
    let closed = station.close();
    let ended = outcome?;
    closed.map(|()| ended)
}

/// A command whose services another process has, in a cgroup which that has made for it.
#[derive(Debug)]
pub struct Enclosed {
    /// What becomes the command in that cgroup.
    pub launcher: Command,
    /// The cgroup's directory.
    pub cgroup: PathBuf,
    /// Whether the command may inherit network sockets, which are not inspected.
    pub keep_sockets: bool,
}

/// Runs a command in a cgroup that is there, until it and all processes it started have ended. Needs no privilege; `end` ends
/// all who are in that cgroup.
///
/// # Errors
/// [`RunError`] if it could not start.
pub fn run_enclosed(
    enclosed: Enclosed,
    observer: &Arc<dyn Observer>,
    end: &dyn Fn(),
) -> Result<Ended, RunError> {
    let Enclosed { launcher, cgroup, keep_sockets } = enclosed;
    if !keep_sockets {
        refuse_inherited_sockets()?;
    }
    let signals = Signals::watch(Interruption::default()).map_err(RunError::CommandStart)?;
    let app = Cgroup::from((cgroup, 0));
    watch(launcher, &app, &signals, observer, end)
}

pub(crate) fn refuse_inherited_sockets() -> Result<(), RunError> {
    let open = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let numbers = open.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let mut descriptors: Vec<i32> = numbers.filter(|&fd| sys::passes_network_socket_on(fd)).collect();
    descriptors.sort_unstable();
    if descriptors.is_empty() { Ok(()) } else { Err(RunError::InheritedSockets { descriptors }) }
}

fn run_command(
    station: &Station,
    spec: &RunSpec,
    signals: &Signals,
    observer: &Arc<dyn Observer>,
) -> Result<Ended, RunError> {
    if let Some(signal) = signals.take() {
        return Err(RunError::Interrupted { signal });
    }
    let app = station.cgroup().child(APPLICATIONS);
    let launch = Launch {
        cgroup: Some(app.path().into()),
        identity: spec.identity.clone(),
        role: Role::Command,
        own_binary: false,
        families: families(spec, station),
        supervision: None,
    };
    let launcher = launcher(&launch, &spec.command).map_err(RunError::CommandStart)?;
    watch(launcher, &app, signals, observer, &|| app.kill())
}

fn watch(
    mut launcher: Command,
    app: &Cgroup,
    signals: &Signals,
    observer: &Arc<dyn Observer>,
    end: &dyn Fn(),
) -> Result<Ended, RunError> {
    observer.step(Step::Command);
    let mut child = launcher.spawn().map_err(RunError::CommandStart)?;
    signals.pass_to(child.id());
    let status = child.wait().map_err(RunError::CommandStart)?;
    signals.keep();
    wait_for_background(app, signals, observer, end);
    Ok(Ended { status })
}

/// Whom the kernel does not ask about sockets of every family, a filter keeps from them.
fn families(spec: &RunSpec, station: &Station) -> Families {
    match (spec.policy.unredirectable(), station.guards_every_family()) {
        (Unredirectable::Permit, _) | (Unredirectable::Block, true) => Families::Any,
        (Unredirectable::Block, false) => Families::Filtered,
    }
}

/// Like `strace -f`: the run lasts as long as anything it started.
fn wait_for_background(app: &Cgroup, signals: &Signals, observer: &Arc<dyn Observer>, end: &dyn Fn()) {
    if !app.is_populated() {
        return;
    }
    observer.waiting_for_background();
    while app.is_populated() {
        observer.step(Step::Background { processes: app.processes().len() });
        if signals.take().is_some() {
            end();
        }
        thread::sleep(BACKGROUND_STEP);
    }
}
