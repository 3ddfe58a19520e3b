//! Adopted services of a run without privileges: programs that know nothing of waylay, and are known here by the filter that they are started with.

use std::{
    thread,
    time::{Duration, Instant},
};

use std::io::Write;

use waylay_core::Protocol;

use crate::{
    adopted::{check_address, taking},
    error::RunError,
    launch::{Families, Launch, Listening, Role, Supervision},
    service::{self, Waiting, launcher},
    sockets::{self, Socket},
    spawner::Spawner,
    spec::{Adoption, Observer, ServiceSpec, Step},
    user::Identity,
};

/// Between two looks at whether it listens.
const START_STEP: Duration = Duration::from_millis(10);

/// Starts its process, if nobody is where it is to listen. By `supervision` it gives the descriptor that its calls come by.
pub(crate) fn start(
    spec: &ServiceSpec,
    adoption: &Adoption,
    identity: Option<Identity>,
    supervision: Supervision,
    spawner: &Spawner,
) -> Result<Waiting, RunError> {
    for &address in &adoption.listens {
        check_address(spec, address)?;
    }
    let failed = |source| RunError::ServiceStart { service: spec.name.clone(), source };
    let launch = Launch {
        cgroup: None,
        identity,
        role: Role::Adopted,
        own_binary: false,
        families: Families::Any,
        supervision: Some(supervision),
    };
    let (mut child, mut stdin, stdout) = launcher(&launch, &spec.command)
        .and_then(|command| service::start(command, spawner))
        .map_err(failed)?;
    stdin.write_all(b"go\n").inspect_err(|_| service::end(&mut child)).map_err(failed)?;
    Ok(Waiting::adopted((child, stdin, stdout), spec.name.clone()))
}

/// Waits until it listens at every address where it is to. `is_interrupted` gives the signal that ends the wait.
pub(crate) fn wait_until_it_listens(
    waiting: &mut Waiting,
    adoption: &Adoption,
    patience: Duration,
    observer: &dyn Observer,
    interrupted_by: impl Fn() -> Option<i32>,
) -> Result<(), RunError> {
    let started = Instant::now();
    loop {
        let mut open = sockets::listeners(Protocol::Tcp).map_err(RunError::Sockets)?;
        let own = sockets::of_session(waiting.pid());
        open.retain(|socket| own.contains(&socket.inode));
        let missing = adoption.listens.iter().find(|address| taking(&open, **address).is_none());
        let Some(&address) = missing else {
            let found = adoption.listens.iter().filter_map(|&address| taking(&open, address));
            let mut listening = Listening::default();
            listening.take(found.flat_map(Socket::addresses));
            waiting.listening = listening;
            return Ok(());
        };
        observer.step(Step::WaitingForListener { name: &waiting.name, address });
        if let Some(signal) = interrupted_by() {
            return Err(RunError::Interrupted { signal });
        }
        let service = waiting.name.clone();
        let failed = |source| RunError::ServiceStart { service: service.clone(), source };
        if let Some(status) = waiting.ended().map_err(failed)? {
            let uid = rustix::process::geteuid().as_raw();
            return Err(RunError::AdoptedEnded { service, status, address, uid });
        }
        if started.elapsed() >= patience {
            let elsewhere = open.iter().map(|socket| socket.local).collect();
            return Err(RunError::NotListening { service, address, waited: patience, elsewhere });
        }
        thread::sleep(START_STEP);
    }
}
