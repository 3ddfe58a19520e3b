//! What a station does on threads of its own while it lasts.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use waylay_core::Reach;
use waylay_engine_ebpf::EbpfEngine;

use crate::{
    assignment::{Ground, StationSpec},
    cgroup::Cgroup,
    error::RunError,
    health::HealthWatch,
    icmp::Messenger,
    loopback::LoopbackWatch,
    past::PastReader,
    refusals::RefusalReader,
    roll::Roll,
    routes::RouteWatcher,
    spec::Observer,
    sweep::Sweeping,
};

/// The engine, for those who work with it on several threads.
#[derive(Clone, Debug)]
pub(crate) struct SharedEngine(Arc<Mutex<EbpfEngine>>);

impl SharedEngine {
    pub(crate) fn new(engine: EbpfEngine) -> Self {
        Self(Arc::new(Mutex::new(engine)))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, EbpfEngine> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The engine, when nobody else has it any more.
    pub(crate) fn into_inner(self) -> Option<EbpfEngine> {
        Arc::into_inner(self.0).map(|engine| engine.into_inner().unwrap_or_else(PoisonError::into_inner))
    }
}

pub(crate) struct Background {
    routes: RouteWatcher,
    loopback: LoopbackWatch,
    health: HealthWatch,
    refusals: RefusalReader,
    messenger: Messenger,
    sweeping: Sweeping,
    past: Option<PastReader>,
}

impl Background {
    /// `above` are the cgroups whose programs are asked after the scope's.
    pub(crate) fn start(
        engine: &SharedEngine,
        spec: &StationSpec,
        above: Vec<Cgroup>,
        roll: &Roll,
        observer: &Arc<dyn Observer>,
    ) -> Result<Self, RunError> {
        let mut locked = engine.lock();
        let (events, unreachable) = (locked.event_source()?, locked.unreachable_source()?);
        let (sweeper, progress) = (locked.flow_sweeper()?, locked.progress_reader()?);
        let (loopback, past) = (locked.loopback_mark()?, locked.past_source()?);
        let routes = RouteWatcher::start(locked.route_publisher()?).map_err(RunError::Routes)?;
        drop(locked);
        let past = match spec.ground {
            Ground::Own => None,
            Ground::Existing(_) => {
                Some(PastReader::start(past, roll.clone(), observer).map_err(RunError::Thread)?)
            }
        };
        Ok(Self {
            past,
            routes,
            loopback: LoopbackWatch::start(loopback, above),
            health: HealthWatch::start(progress, spec.patience, observer),
            refusals: RefusalReader::start(events, roll.clone(), observer),
            messenger: Messenger::start(unreachable),
            sweeping: Sweeping::start(sweeper, engine.clone()),
        })
    }

    /// What the programs know of the way to a destination.
    pub(crate) fn reach(&self, destination: IpAddr) -> Reach {
        self.routes.reach(destination)
    }

    /// Who looks at the services, as long as they are there.
    pub(crate) fn health(&self) -> &HealthWatch {
        &self.health
    }

    /// What services end for, or are ended by, is of no interest once they are told to end; what they still report is.
    pub(crate) fn stop_around(self, stop_services: impl FnOnce()) {
        self.routes.stop();
        self.loopback.stop();
        self.health.stop();
        stop_services();
        self.refusals.stop();
        self.past.into_iter().for_each(PastReader::stop);
        self.messenger.stop();
        self.sweeping.stop();
    }
}
