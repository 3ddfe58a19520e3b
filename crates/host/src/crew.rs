//! The services that are at work, and those that leave: who they are, and how they are stopped.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use waylay_core::{Protocol, Resident, ServiceId};
use waylay_engine::{Endpoint, LocalName};

use crate::{
    adopted::Working,
    background::SharedEngine,
    bank::Bank,
    cgroup::Cgroup,
    deadline::Deadline,
    health::Patient,
    instance::RecordedResident,
    launch::Listening,
    residents::{AtWork, Awaited},
    service::{Running, STOP_PATIENCE},
};

/// Between looks whether what was led to a service has arrived there.
const ARRIVAL_STEP: Duration = Duration::from_millis(5);

/// Who a service is.
#[derive(Clone)]
pub(crate) struct Profile {
    pub(crate) id: ServiceId,
    pub(crate) name: String,
    /// Of the users that are set aside for services, which one is its.
    pub(crate) seat: u32,
    /// Its own, in which nobody is if it runs already.
    pub(crate) cgroup: Cgroup,
    pub(crate) resident: Option<RecordedResident>,
    /// Which processes are its.
    pub(crate) processes: Resident,
    pub(crate) endpoint: Endpoint,
    pub(crate) bank: Option<Arc<Bank>>,
    pub(crate) leave_within: Option<Duration>,
    /// Until it has ended, or listens no longer.
    pub(crate) alive: Arc<AtomicBool>,
}

/// A service at work.
pub(crate) struct Member {
    pub(crate) profile: Profile,
    pub(crate) process: Process,
}

pub(crate) enum Process {
    Cooperating(Running),
    Adopted(Working),
    Resident(Box<AtWork>),
    /// Nobody yet.
    Awaited(Box<Awaited>),
}

impl Profile {
    /// The cgroup in which its processes are.
    pub(crate) fn home(&self) -> Cgroup {
        let hooked = self.resident.as_ref().and_then(|resident| resident.hooked.first());
        hooked.map_or_else(|| self.cgroup.clone(), |path| Cgroup::from((path.clone(), 0)))
    }

    pub(crate) fn listening(&self) -> Listening {
        let Endpoint { tcp4, tcp6, udp4, udp6, behind6, .. } = self.endpoint.clone();
        Listening { tcp4, tcp6, udp4, udp6: behind6.map_or(udp6, |port| vec![port]) }
    }

    /// One that is told the destination in packets has one port of `::1`, and what stands for destinations is held here.
    pub(crate) fn listens_at(&mut self, listening: Listening) {
        let Listening { tcp4, tcp6, udp4, mut udp6 } = listening;
        let mut behind6 = None;
        if self.endpoint.local_name == LocalName::Packet && !udp6.is_empty() {
            let bank = Bank::open();
            behind6 = udp6.pop();
            udp6 = bank.ports().unwrap_or_default();
            self.bank = Some(Arc::new(bank));
        }
        self.endpoint = Endpoint { tcp4, tcp6, udp4, udp6, behind6, ..self.endpoint.clone() };
    }
}

impl Member {
    /// What is to be watched of it.
    pub(crate) fn patient(&self) -> Option<Patient> {
        let Profile { id, name, cgroup, .. } = self.profile.clone();
        let door = match &self.process {
            Process::Cooperating(_) => None,
            Process::Adopted(service) => Some(service.door().clone()),
            // It serves others too, and is not for waylay to end.
            Process::Resident(_) | Process::Awaited(_) => return None,
        };
        Some(Patient { id, name, cgroup, door })
    }

    /// Lets it finish what was led to it.
    fn stop(self, engine: &SharedEngine, deadline: &Deadline) {
        match self.process {
            Process::Cooperating(service) => {
                // It may be about to start, and not yet know what the signal means.
                let is_alive = || self.profile.alive.load(Ordering::Acquire);
                wait_while(deadline, || is_alive() && has_waiting(engine, self.profile.id));
                service.tell_to_stop();
                service.wait(deadline);
            }
            Process::Adopted(service) => {
                service.tell_to_stop(deadline);
                service.wait();
            }
            Process::Resident(service) => service.leave(deadline),
            Process::Awaited(_) => {}
        }
    }
}

impl Process {
    /// Ends it at once, `cgroup` being its own.
    pub(crate) fn give_up(self, cgroup: &Cgroup) {
        cgroup.kill();
        match self {
            Self::Cooperating(service) => service.give_up(),
            Self::Adopted(service) => service.give_up(),
            Self::Resident(service) => service.give_up(),
            Self::Awaited(_) => {}
        }
    }

    /// Whether it is to be had in another way now, although nobody wished for that: one that runs by itself.
    fn has_moved(&self) -> bool {
        match self {
            Self::Cooperating(_) | Self::Adopted(_) => false,
            Self::Resident(service) => service.has_moved(),
            Self::Awaited(service) => service.has_come(),
        }
    }
}

/// The services of the policy in force.
#[derive(Default)]
pub(crate) struct Crew {
    members: BTreeMap<ServiceId, Member>,
}

impl Crew {
    pub(crate) fn join(&mut self, member: Member) {
        self.members.insert(member.profile.id, member);
    }

    pub(crate) fn has(&self, service: ServiceId) -> bool {
        self.members.contains_key(&service)
    }

    pub(crate) fn profiles(&self) -> impl Iterator<Item = &Profile> {
        self.members.values().map(|member| &member.profile)
    }

    /// Those that run by themselves and are not where they were.
    pub(crate) fn moved(&self) -> BTreeSet<ServiceId> {
        let moved = self.members.iter().filter(|(_, member)| member.process.has_moved());
        moved.map(|(id, _)| *id).collect()
    }

    /// Those of `order` for whom there is no use, in that order.
    pub(crate) fn dismiss(
        &mut self,
        order: &[ServiceId],
        is_of_use: impl Fn(ServiceId) -> bool,
    ) -> Vec<Member> {
        let useless = order.iter().filter(|&&id| !is_of_use(id));
        useless.filter_map(|id| self.members.remove(id)).collect()
    }

    /// In the chain's order: what one service has accepted it carries on to the next.
    pub(crate) fn stop(mut self, order: &[ServiceId], engine: &SharedEngine) {
        for member in self.dismiss(order, |_| false) {
            member.stop(engine, &Deadline::within(STOP_PATIENCE));
        }
    }
}

/// Services to which nothing is led any more, one after the other in the chain's order: each is told to end when those
/// before it have. They take as long as what they have accepted takes.
pub(crate) struct Leaving {
    leavers: Vec<(Profile, Arc<AtomicBool>)>,
    deadline: Deadline,
    thread: JoinHandle<()>,
}

impl Leaving {
    pub(crate) fn begin(members: Vec<Member>, engine: SharedEngine) -> Self {
        let with_mark = |member: &Member| (member.profile.clone(), Arc::new(AtomicBool::new(false)));
        let leavers: Vec<(Profile, Arc<AtomicBool>)> = members.iter().map(with_mark).collect();
        let (deadline, marks) = (Deadline::default(), leavers.clone());
        let until = deadline.clone();
        let thread = thread::spawn(move || {
            for (member, (profile, has_ended)) in members.into_iter().zip(marks) {
                let until = match profile.leave_within {
                    Some(patience) => until.or_within(patience),
                    None => until.clone(),
                };
                wait_while(&until, || is_awaited(&engine, profile.id));
                member.stop(&engine, &until);
                // What stays goes with the station.
                let _stays = profile.cgroup.remove();
                has_ended.store(true, Ordering::Release);
            }
        });
        Self { leavers, deadline, thread }
    }

    /// Those who have not ended yet.
    pub(crate) fn profiles(&self) -> impl Iterator<Item = &Profile> {
        let leavers = self.leavers.iter().filter(|(_, has_ended)| !has_ended.load(Ordering::Acquire));
        leavers.map(|(profile, _)| profile)
    }

    /// All of them.
    pub(crate) fn ids(&self) -> impl Iterator<Item = ServiceId> {
        self.leavers.iter().map(|(profile, _)| profile.id)
    }

    pub(crate) fn is_over(&self) -> bool {
        self.thread.is_finished()
    }

    /// Gives them no more than they would have at the station's end.
    pub(crate) fn hurry(&self) {
        self.deadline.set_within(STOP_PATIENCE);
    }

    /// Until they have ended.
    pub(crate) fn wait(self) {
        // One that panicked has ended too.
        let _ended = self.thread.join();
    }
}

/// Whether the former policy has led something to a service that has not arrived: it must not find the listeners closed.
fn is_awaited(engine: &SharedEngine, service: ServiceId) -> bool {
    let flows = engine.lock().live_flows().unwrap_or_default();
    flows.iter().any(|flow| {
        let leads_there = flow.hops.last().is_some_and(|hop| hop.service == service);
        leads_there && flow.protocol == Protocol::Tcp && !flow.accepted
    })
}

/// Whether something has arrived that a service has not asked about.
fn has_waiting(engine: &SharedEngine, service: ServiceId) -> bool {
    let progress = engine.lock().progress_reader().and_then(|reader| reader.of(service));
    progress.is_ok_and(|listeners| listeners.iter().any(|listener| listener.waiting > 0))
}

fn wait_while(deadline: &Deadline, is_so: impl Fn() -> bool) {
    while !deadline.is_over() && is_so() {
        thread::sleep(ARRIVAL_STEP);
    }
}
