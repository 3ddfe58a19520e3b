//! A policy in force, with its services: what there is between "the services are ready" and "the services have stopped", and
//! what changes meanwhile.

mod change;
mod enclosure;
mod in_force;

use std::{
    collections::BTreeSet,
    fmt,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
};

use waylay_core::{Existing, Limit, LimitError, Policy, ServiceId, Tables};
use waylay_engine::{Endpoint, Engine};
use waylay_engine_ebpf::{EbpfEngine, EbpfError, LiveFlow, bpf_file_system, in_initial_user_namespace};

use crate::{
    assignment::{Assignment, Condition, Ground, ServiceState, StationSpec},
    background::{Background, SharedEngine},
    boot::Former,
    caller::Caller,
    cgroup::Cgroup,
    crew::{Crew, Leaving, Profile},
    error::RunError,
    existing::{self, Past},
    instance::{Instance, clean_up, take_over},
    place::Place,
    roll::Roll,
    spawner::Spawner,
    spec::{Observer, Step},
    surroundings::{Around, Surroundings},
    user::UIDS_OF_A_RUN,
};
use change::Change;
pub use enclosure::{Enclosure, EnclosureError};
use in_force::InForce;

/// A scope with a policy in force, and the services of that policy.
///
/// One that is dropped and not closed leaves what it has pinned in force, as a process does that is killed; its services end.
pub struct Station {
    spec: StationSpec,
    observer: Arc<dyn Observer>,
    place: Place,
    engine: SharedEngine,
    background: Background,
    roll: Roll,
    spawner: Spawner,
    crew: Crew,
    leaving: Vec<Leaving>,
    in_force: InForce,
    /// The services in the order of the policy in force.
    order: Vec<ServiceId>,
    is_attached: bool,
    /// What is in force until the first policy is.
    former: Option<Former>,
}

impl fmt::Debug for Station {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Station")
            .field("spec", &self.spec)
            .field("order", &self.order)
            .finish_non_exhaustive()
    }
}

/// # Errors
/// [`RunError::NotRoot`]; [`EbpfError::NotPermitted`] of the root of another user namespace, who is nobody here and would fail
/// later, for reasons that are none.
pub(crate) fn require_root() -> Result<(), RunError> {
    if !rustix::process::geteuid().is_root() {
        return Err(RunError::NotRoot);
    }
    if in_initial_user_namespace() { Ok(()) } else { Err(EbpfError::NotPermitted.into()) }
}

impl Station {
    /// Takes the ground and loads the programs. Nothing is in force before the first [`Station::apply`] but what [`crate::boot()`] has
    /// put there, which that apply ends.
    ///
    /// What a station of a dead process has left on the same ground is removed.
    ///
    /// # Errors
    /// [`RunError`]; nothing is left behind then. [`EbpfError::Overlap`] in it if another station has this ground.
    pub fn open(spec: StationSpec, observer: Arc<dyn Observer>) -> Result<Self, RunError> {
        require_root()?;
        let pin_root = bpf_file_system()?;
        let (parent, mut removed, former) = match &spec.ground {
            Ground::Own => (Cgroup::for_runs()?, 0, None),
            Ground::Existing(scope) => {
                let former = Former::on(scope, &pin_root);
                (scope.clone(), take_over(scope, &pin_root), Some(former))
            }
        };
        Instance::see_versions_around(&parent)?;
        removed += clean_up(&pin_root);
        if removed > 0 {
            observer.cleaned_up(removed);
        }
        let place = Place::new(&spec.ground, &parent, &pin_root, spec.residents)?;
        let roll = Roll::default();
        observer.step(Step::LoadingPrograms);
        let instances = former.as_ref().map(Former::instances).unwrap_or_default();
        let loaded = EbpfEngine::load_beside(place.scope.clone(), &instances);
        let loaded = loaded.map_err(RunError::from).and_then(|engine| {
            let engine = SharedEngine::new(engine);
            let in_force = InForce::start(&engine).map_err(RunError::Thread)?;
            match Background::start(&engine, &spec, parent.with_those_above(), &roll, &observer) {
                Ok(background) => Ok((engine, in_force, background)),
                Err(error) => {
                    in_force.stop();
                    Err(error)
                }
            }
        });
        let (engine, in_force, background) = match loaded {
            Ok(loaded) => loaded,
            Err(error) => {
                place.leave();
                return Err(error);
            }
        };
        Ok(Self {
            spec,
            observer,
            place,
            engine,
            background,
            roll,
            spawner: Spawner::start(),
            crew: Crew::default(),
            leaving: Vec::new(),
            in_force,
            order: Vec::new(),
            is_attached: false,
            former,
        })
    }

    /// Puts a policy in force, with its services, in the place of what was: all of it or nothing.
    ///
    /// Services with an id that is there already go on as they are. New ones are started before anything changes, those that
    /// know nothing of waylay the last of the chain first; while they start, what they dial goes as that of any process of
    /// the scope does. Those that are left over are told to end when nothing is led to them any more; they finish what they
    /// have accepted, however long that takes, and the caller is not kept waiting for it.
    ///
    /// A service that is to run by itself in a scope that was there before, and does not yet, counts as absent: [`Station::moved`].
    ///
    /// The first policy has nothing in whose place it could come. It is in force as soon as the services listen that cooperate
    /// with waylay, and the others count as absent until they do: so what one of them dials while it starts goes through those
    /// after it.
    ///
    /// # Errors
    /// [`RunError`]; what was in force still is, and what was started for the change has ended.
    pub fn apply(&mut self, assignment: &Assignment) -> Result<(), RunError> {
        self.see_who_has_left();
        let slots = self.engine.lock().slots()?;
        let tables = Tables::compile_keeping(&assignment.policy, slots)?;
        let mut change = Change::new(self, assignment, tables);
        match change.carry_out() {
            Ok(()) => {
                change.settle();
                self.end_former()?;
                self.end_existing(&assignment.policy);
                Ok(())
            }
            Err(error) => {
                change.undo();
                Err(error)
            }
        }
    }

    /// What was in force from boot on goes: from here on the policy alone decides.
    fn end_former(&mut self) -> Result<(), RunError> {
        if let Some(former) = self.former.take() {
            self.engine.lock().take_scope()?;
            former.end();
        }
        Ok(())
    }

    /// Puts a change of filters in force, of a policy whose services stay: `policy` is what it leads to. However many filters
    /// there are it takes some milliseconds; behind it the whole is compiled anew, and nobody is kept waiting for that.
    ///
    /// # Errors
    /// [`RunError`]; what was in force still is.
    pub fn amend(&mut self, change: waylay_core::Change, policy: &Policy) -> Result<(), RunError> {
        self.see_who_has_left();
        self.in_force.change(change)?;
        self.end_existing(policy);
        Ok(())
    }

    /// Whether filters have changed since the whole was compiled, which then is going to be compiled anew.
    #[must_use]
    pub fn is_amended(&self) -> bool {
        self.in_force.is_amended()
    }

    /// What is older than the policy goes on or ends, as that says; the observer is told.
    fn end_existing(&self, policy: &Policy) {
        let scope = match (&self.spec.ground, policy.existing()) {
            // Nothing has been made there before.
            (Ground::Own, _) | (Ground::Existing(_), Existing::Leave) => return,
            (Ground::Existing(scope), Existing::Reset) => scope,
        };
        let leaving = self.leaving.iter().flat_map(Leaving::profiles);
        let endpoints: Vec<&Endpoint> =
            self.crew.profiles().chain(leaving).map(|profile| &profile.endpoint).collect();
        let is_led =
            |protocol, to| endpoints.iter().any(|endpoint| existing::leads_to(endpoint, protocol, to));
        let (around, reach) = (self.around(policy), |to| self.background.reach(to));
        let own = self.cgroup();
        let past = Past { scope, own, policy, is_led: &is_led, reach: &reach, around: &around };
        self.observer.existing_ended(&past.sweep());
    }

    /// The services, those that leave at the end.
    #[must_use]
    pub fn services(&self) -> Vec<ServiceState> {
        let serving = |profile: &Profile| match profile.alive.load(Ordering::Acquire) {
            true => Condition::Serving,
            false => Condition::Gone,
        };
        let of_the_policy = self.crew.profiles().map(|profile| self.state(profile, serving(profile)));
        let leaving = self.leaving.iter().flat_map(Leaving::profiles);
        of_the_policy.chain(leaving.map(|profile| self.state(profile, Condition::Leaving))).collect()
    }

    /// The services that run by themselves and have to be adopted anew, or only now can be: in the place of each, a policy in which it
    /// has another id leads to where it is now.
    #[must_use]
    pub fn moved(&self) -> BTreeSet<ServiceId> {
        self.crew.moved()
    }

    /// What is redirected at this moment.
    ///
    /// # Errors
    /// [`EbpfError::Map`].
    pub fn flows(&self) -> Result<Vec<LiveFlow>, RunError> {
        Ok(self.engine.lock().live_flows()?)
    }

    /// What a connection of a process would meet on its way to a destination, by a policy.
    #[must_use]
    pub fn surroundings(&self, caller: &Caller, to: SocketAddr, policy: &Policy) -> Surroundings {
        let around = self.around(policy);
        Surroundings {
            service: around.service(caller),
            confinement: around.confinement(&caller.cgroup),
            reach: self.background.reach(to.ip()),
            hosts: around.hosts(&caller.process, to.ip()),
        }
    }

    /// Whether sockets of every family are judged, and not only those of IPv4 and IPv6, for which there have to be `bpf` among
    /// the kernel's security modules. Known after the first [`Station::apply`].
    #[must_use]
    pub fn guards_every_family(&self) -> bool {
        self.engine.lock().guards_every_family()
    }

    /// Ends it: services are told to end, in the order of the chain, each with five seconds for what it has accepted, and then the
    /// policy is in force no longer. Cgroups, pins and records are removed; a scope that was there stays.
    ///
    /// # Errors
    /// [`RunError`] if something stays; the next station removes it.
    pub fn close(self) -> Result<(), RunError> {
        let Self { observer, mut place, engine, background, crew, leaving, order, spawner, in_force, .. } =
            self;
        in_force.stop();
        // A command does not go on without the services it was started with.
        place.dissolve_all();
        background.stop_around(|| {
            observer.step(Step::StoppingServices);
            leaving.iter().for_each(Leaving::hurry);
            leaving.into_iter().for_each(Leaving::wait);
            crew.stop(&order, &engine);
        });
        drop(spawner);
        let removed = engine.into_inner().map_or(Ok(()), EbpfEngine::remove);
        place.leave();
        Ok(removed?)
    }

    /// The cgroup of its own.
    pub(crate) fn cgroup(&self) -> &Cgroup {
        &self.place.cgroup
    }

    fn around<'a>(&'a self, policy: &'a Policy) -> Around<'a> {
        let scope = match &self.spec.ground {
            Ground::Own => self.cgroup(),
            Ground::Existing(scope) => scope,
        };
        let leaving = self.leaving.iter().flat_map(Leaving::profiles);
        let services = self.crew.profiles().chain(leaving).map(|profile| (profile.id, profile.processes));
        Around::new(scope.path(), services.collect(), policy, self.engine.lock().known_names().ok())
    }

    fn state(&self, profile: &Profile, condition: Condition) -> ServiceState {
        let home = profile.home();
        ServiceState {
            id: profile.id,
            name: profile.name.clone(),
            condition,
            on_failure: self.roll.on_failure(profile.id),
            processes: home.processes(),
            cgroup: home.path().to_owned(),
            listening: profile.listening(),
        }
    }

    fn see_who_has_left(&mut self) {
        let (over, going_on): (Vec<Leaving>, Vec<Leaving>) =
            std::mem::take(&mut self.leaving).into_iter().partition(Leaving::is_over);
        self.leaving = going_on;
        for id in over.iter().flat_map(Leaving::ids) {
            self.background.health().forget(id);
            self.roll.strike(id);
        }
    }

    /// A user for a service, whom no other has that has not ended.
    fn free_seat(&self, taken_besides: &BTreeSet<u32>) -> Result<u32, RunError> {
        let present = self.crew.profiles().chain(self.leaving.iter().flat_map(Leaving::profiles));
        let taken: BTreeSet<u32> = present.map(|profile| profile.seat).collect();
        let free = (0..UIDS_OF_A_RUN).find(|seat| !taken.contains(seat) && !taken_besides.contains(seat));
        let allowed = UIDS_OF_A_RUN as usize;
        free.ok_or_else(|| LimitError { limit: Limit::Services, need: allowed + 1, allowed }.into())
    }
}
