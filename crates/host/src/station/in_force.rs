//! What is in force: filters change one by one, and the whole is compiled anew behind them, on a thread of its own.

use std::{
    collections::BTreeSet,
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use waylay_core::{Change, ServiceId, UpdateError, Updates};
use waylay_engine::{Endpoint, Engine, Installation};
use waylay_engine_ebpf::EbpfError;

use crate::{background::SharedEngine, error::RunError, sys::give_back_free_memory};

/// From a change until the whole is compiled anew: changes come in crowds.
const PAUSE: Duration = Duration::from_secs(1);

/// The tables that are in force, with the endpoints of their services; and who compiles them anew.
///
/// Whoever installs has this locked, and then the engine: so what has been compiled comes never after what was to replace it.
#[derive(Debug)]
pub(super) struct InForce {
    held: Arc<Mutex<Held>>,
    engine: SharedEngine,
    wanted: Sender<()>,
    renewer: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Held {
    updates: Updates,
    endpoints: Vec<Endpoint>,
}

impl Held {
    fn installation(&self) -> Installation {
        Installation { tables: self.updates.in_force().clone(), endpoints: self.endpoints.clone() }
    }
}

impl InForce {
    /// Nothing is, to begin with.
    pub(super) fn start(engine: &SharedEngine) -> io::Result<Self> {
        let held = Arc::new(Mutex::new(Held::default()));
        let (wanted, wishes) = channel();
        let of_the_renewer = (Arc::clone(&held), engine.clone());
        let renewer = thread::Builder::new().name("renewer".to_owned());
        let renewer = renewer.spawn(move || {
            let (held, engine) = of_the_renewer;
            renew_when_wanted(&held, &engine, &wishes);
        })?;
        Ok(Self { held, engine: engine.clone(), wanted, renewer })
    }

    /// What is in force.
    pub(super) fn installation(&self) -> Installation {
        lock(&self.held).installation()
    }

    /// Whether filters have changed since the whole was compiled.
    pub(super) fn is_amended(&self) -> bool {
        lock(&self.held).updates.in_force().is_amended()
    }

    /// Puts something else altogether in force; of its services those live from the first moment that are said to.
    pub(super) fn replace(
        &self,
        installation: Installation,
        living: &BTreeSet<ServiceId>,
    ) -> Result<(), EbpfError> {
        let Installation { tables, endpoints } = installation;
        let mut held = lock(&self.held);
        held.updates.replace(tables, |tables| {
            let installation = Installation { tables: tables.clone(), endpoints: endpoints.clone() };
            self.engine.lock().install_living(&installation, living)
        })?;
        held.endpoints = endpoints;
        if held.updates.in_force().is_amended() {
            // What was is back.
            let _heard = self.wanted.send(());
        }
        Ok(())
    }

    /// Takes note of who is left of the services: where they are is not said anew.
    pub(super) fn keep(&self, endpoints: Vec<Endpoint>) {
        lock(&self.held).endpoints = endpoints;
    }

    /// Puts a change of filters in force; the whole is compiled anew a little later.
    pub(super) fn change(&self, change: Change) -> Result<(), RunError> {
        let mut held = lock(&self.held);
        let Held { updates, endpoints } = &mut *held;
        updates.change(change, install(&self.engine, endpoints)).map_err(|error| match error {
            UpdateError::Policy(error) => RunError::from(error),
            UpdateError::Install(error) => RunError::from(error),
        })?;
        // Who does not listen has ended with the station.
        let _heard = self.wanted.send(());
        Ok(())
    }

    /// Ends the thread; what it compiles is not installed any more.
    pub(super) fn stop(self) {
        let Self { held, engine, wanted, renewer } = self;
        lock(&held).updates = Updates::default();
        drop((wanted, engine));
        // It has said so by itself if it panicked.
        let _ended = renewer.join();
    }
}

fn lock(held: &Mutex<Held>) -> MutexGuard<'_, Held> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

fn install<'a>(
    engine: &'a SharedEngine,
    endpoints: &'a [Endpoint],
) -> impl FnOnce(&waylay_core::Tables) -> Result<(), EbpfError> + 'a {
    move |tables| {
        let installation = Installation { tables: tables.clone(), endpoints: endpoints.to_vec() };
        engine.lock().install(&installation)
    }
}

/// Until nobody can wish for it any more.
fn renew_when_wanted(held: &Mutex<Held>, engine: &SharedEngine, wishes: &Receiver<()>) {
    while wishes.recv().is_ok() {
        let begin = Instant::now() + PAUSE;
        loop {
            match wishes.recv_timeout(begin.saturating_duration_since(Instant::now())) {
                Ok(()) => {}
                Err(RecvTimeoutError::Timeout) => break,
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
        renew(held, engine);
    }
}

fn renew(held: &Mutex<Held>, engine: &SharedEngine) {
    let Some(renewal) = lock(held).updates.begin_renewal() else { return };
    let renewed = renewal.compile();
    let mut held = lock(held);
    let Held { updates, endpoints } = &mut *held;
    // Then it stays as it is, which holds as well, and the next change wishes for it again.
    let _amended = updates.end_renewal(renewed, install(engine, endpoints));
    drop(held);
    give_back_free_memory();
}
