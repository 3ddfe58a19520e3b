//! Why a connection goes as it does: the way that one has taken, and what would become of it if it were made now.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use serde::{Deserialize, Serialize};
use waylay_config::Names;
use waylay_core::{
    Availability, FilterId, Leg, Naming, Policy, Process, Protocol, Records, ServiceId, Sublayer, SublayerId,
    World, follow,
};
use waylay_host::{Caller, Condition, LiveFlow, Surroundings, names::HostNames};

use crate::{
    force::Force,
    history::History,
    journey::Journey,
    keeper::{Keeper, Peer},
    ledger::ROOT,
    past::PastLeg,
    protocol::{Answer, Code, Failure},
};

/// The connection that is asked about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Subject {
    /// One that is redirected now, or was lately, by the number of a flow of its.
    Flow(u64),
    /// The same, by the application's own address, as ss(8) shows it.
    From(SocketAddr),
    /// One that a process would make.
    Process {
        /// The process.
        pid: u32,
        /// Where to.
        to: SocketAddr,
        /// Whether it is UDP.
        #[serde(default)]
        udp: bool,
    },
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Why {
    /// The process, as `curl[123]`.
    pub application: String,
    /// Where it goes.
    pub to: String,
    /// Of one that is there: the services it has been led to, in order.
    pub taken: Vec<Taken>,
    /// Connections that were redirected and have ended: the one that is asked about, or those of late of the process to that
    /// destination, the latest first.
    #[serde(default)]
    pub past: Vec<Ended>,
    /// What would become of it if it were made now; nothing if its process has ended.
    pub now: Option<Journey>,
    /// What has been refused to the process, the latest last.
    pub refused: Vec<String>,
}

/// A step that a connection has taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taken {
    /// The flow's number.
    pub flow: u64,
    /// The service it was led to.
    pub service: String,
    /// By which filter.
    pub filter: String,
    /// After how many microseconds, counted from the first step.
    pub after_us: u64,
}

/// A connection that has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// The application's own address, if it was known.
    pub from: Option<String>,
    /// How many seconds ago its last leg ended.
    pub ago_s: u64,
    /// How many microseconds passed from the first step to the end of the last leg.
    pub lasted_us: u64,
    /// The services it was led to, in order, by filters as they were called then.
    pub taken: Vec<Taken>,
}

/// Past connections of a process that are told of.
const MOST_PAST: usize = 8;

/// Which connection it is.
struct Asked {
    pid: u32,
    /// Nothing if only a process can tell.
    uid: Option<u32>,
    name: Option<String>,
    to: SocketAddr,
    protocol: Protocol,
    taken: Vec<Taken>,
    past: Vec<Ended>,
}

impl<F: Force, N: Names> Keeper<F, N> {
    /// Why a connection goes as it does. Those who are not root may ask about their own.
    ///
    /// # Errors
    /// [`Failure`] if there is no such connection, or it is none of theirs.
    pub fn why(&self, subject: &Subject, peer: &Peer) -> Result<Answer, Failure> {
        let unknown = |what: String| Failure::new(Code::Unknown, what);
        let Asked { pid, uid, name, to, protocol, taken, past } = self.asked(subject)?;
        let caller = Caller::look(pid);
        // The number may be another process's by now.
        let caller =
            caller.filter(|caller| uid.is_none_or(|uid| past.is_empty() || uid == caller.process.uid));
        let uid = uid.or(caller.as_ref().map(|caller| caller.process.uid));
        let past = match (past.is_empty(), uid) {
            (true, Some(uid)) => self.past_of(pid, uid, to, protocol),
            (_, _) => past,
        };
        let uid = uid.ok_or_else(|| unknown(format!("there is no process {pid}")))?;
        if peer.uid != ROOT && peer.uid != uid {
            return Err(Failure::new(Code::NotAllowed, format!("the process {pid} is somebody else's")));
        }
        let command = || caller.as_ref().map(|caller| caller.process.command.to_string());
        let name = name.or_else(command).unwrap_or_default();
        let application = format!("{name}[{pid}]");
        let now = caller.map(|caller| self.judge(&application, caller, to, protocol));
        let refused = self.history().1.refused(pid, uid);
        Ok(Answer::Why(Box::new(Why {
            to: to.to_string(),
            taken,
            past,
            now: now.flatten(),
            refused,
            application,
        })))
    }

    /// One that is there, or else one that was.
    fn asked(&self, subject: &Subject) -> Result<Asked, Failure> {
        if let Subject::Process { pid, to, udp } = *subject {
            let protocol = if udp { Protocol::Udp } else { Protocol::Tcp };
            let (taken, past) = (Vec::new(), Vec::new());
            return Ok(Asked { pid, uid: None, name: None, to, protocol, taken, past });
        }
        let flows = self.legs_of(subject)?;
        if let Some(first) = flows.first() {
            return Ok(Asked {
                pid: first.application.pid,
                uid: Some(first.application.uid),
                name: Some(first.application.comm.clone()),
                to: first.destination,
                protocol: first.protocol,
                taken: self.taken(&flows),
                past: Vec::new(),
            });
        }
        let is_meant = |leg: &PastLeg| match subject {
            Subject::Flow(id) => leg.id == *id,
            Subject::From(address) => leg.from.is_some_and(|from| same(from, *address)),
            Subject::Process { .. } => false,
        };
        let found = self.history().2.find(1, is_meant).into_iter().next().unwrap_or_default();
        let first = found.first().ok_or_else(|| {
            let what =
                "no connection like that is redirected now, or was lately; ask by process and destination";
            Failure::new(Code::Unknown, what)
        })?;
        Ok(Asked {
            pid: first.pid,
            uid: Some(first.uid),
            name: Some(first.application.clone()),
            to: first.to,
            protocol: first.protocol,
            taken: Vec::new(),
            past: ended(&found).into_iter().collect(),
        })
    }

    /// What has ended of what a process has sent to a destination. Another user's process of that number was another one.
    fn past_of(&self, pid: u32, uid: u32, to: SocketAddr, protocol: Protocol) -> Vec<Ended> {
        let is_meant =
            |leg: &PastLeg| (leg.pid, leg.uid, leg.protocol) == (pid, uid, protocol) && same(leg.to, to);
        self.history().2.find(MOST_PAST, is_meant).iter().filter_map(|legs| ended(legs)).collect()
    }

    /// The legs of the connection that is asked about, as they were made.
    fn legs_of(&self, subject: &Subject) -> Result<Vec<LiveFlow>, Failure> {
        let mut flows = self.force().flows()?;
        let is_meant = |flow: &LiveFlow| match subject {
            Subject::Flow(id) => flow.id == *id,
            Subject::From(address) => flow.source.is_some_and(|source| same(source, *address)),
            Subject::Process { .. } => false,
        };
        let first = flows.iter().filter(|flow| is_meant(flow)).max_by_key(|flow| flow.began);
        let first = first.map(|flow| (flow.protocol, flow.first));
        flows.retain(|flow| Some((flow.protocol, flow.first)) == first);
        flows.sort_by_key(|flow| flow.began);
        Ok(flows)
    }

    fn taken(&self, flows: &[LiveFlow]) -> Vec<Taken> {
        let states = self.force().services();
        let names: BTreeMap<ServiceId, &str> =
            states.iter().map(|state| (state.id, state.name.as_str())).collect();
        let began = flows.first().map_or(Duration::ZERO, |flow| flow.began);
        let step = |flow: &LiveFlow| {
            let hop = flow.hops.last()?;
            let service = names.get(&hop.service);
            let service =
                service.map_or_else(|| hop.service.to_string(), |name| self.history().in_words(name));
            let after = flow.began.saturating_sub(began);
            Some(Taken {
                flow: flow.id,
                service,
                filter: self.history().describe(hop.filter),
                after_us: u64::try_from(after.as_micros()).unwrap_or(u64::MAX),
            })
        };
        flows.iter().filter_map(step).collect()
    }

    /// What the policy in force makes of a connection of a process, with the services as they are.
    fn judge(
        &self,
        application: &str,
        caller: Caller,
        to: SocketAddr,
        protocol: Protocol,
    ) -> Option<Journey> {
        let policy = &self.state().standing.as_ref()?.policy;
        let states = self.force().services();
        let serves = |name: &str| {
            states.iter().any(|state| state.name == name && state.condition == Condition::Serving)
        };
        let availability = policy.services().iter().map(|service| match serves(&service.name) {
            true => (service.id, Availability::Available),
            false => (service.id, Availability::Absent),
        });
        let Surroundings { service, confinement, reach, hosts } =
            self.force().surroundings(&caller, to, policy);
        let namespace = HostNames::new().namespace(&format!("/proc/{}/ns/net", caller.process.pid));
        let world = World {
            availability: availability.collect(),
            cgroups: caller.cgroups,
            namespace: namespace.unwrap_or_default(),
            confinement,
            obstacle: reach.obstacle(protocol),
            route: reach.route(),
            hosts,
            ..World::default()
        };
        let caller = Process { service, ..caller.process };
        let leg = Leg { protocol, local: None, remote: to, caller };
        let dialler = |service| Process { service: Some(service), ..Process::default() };
        let stages = follow(policy, &leg, &Records::None, &world, dialler);
        let names = Known { policy, history: self.history() };
        Some(Journey::new(application, &stages, &|id| names.of_service(id), &names))
    }
}

/// What things are called that are in force.
struct Known<'k> {
    policy: &'k Policy,
    history: &'k History,
}

impl Known<'_> {
    fn of_service(&self, id: ServiceId) -> String {
        let service = self.policy.service(id);
        service.map_or_else(|| id.to_string(), |service| self.history.in_words(&service.name))
    }
}

impl Naming for Known<'_> {
    fn service(&self, id: ServiceId) -> String {
        format!("service {:?}", self.of_service(id))
    }

    fn sublayer(&self, id: SublayerId) -> String {
        let sublayer = self.policy.sublayers().iter().find(|sublayer| sublayer.id == id);
        let named = |sublayer: &Sublayer| format!("sublayer {:?}", self.history.in_words(&sublayer.name));
        sublayer.map_or_else(|| id.to_string(), named)
    }

    fn filter(&self, id: FilterId) -> String {
        self.history.describe(id)
    }
}

/// A connection of these legs, which are in order.
fn ended(legs: &[PastLeg]) -> Option<Ended> {
    let first = legs.first()?;
    let last = legs.iter().map(|leg| leg.ended).max()?;
    let microseconds = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    let taken = |leg: &PastLeg| Taken {
        flow: leg.id,
        service: leg.service.clone(),
        filter: leg.filter.to_string(),
        after_us: microseconds(leg.began.saturating_sub(first.began)),
    };
    Some(Ended {
        from: first.from.map(|from| from.to_string()),
        ago_s: legs.iter().map(|leg| leg.noticed.elapsed().as_secs()).min()?,
        lasted_us: microseconds(last.saturating_sub(first.began)),
        taken: legs.iter().map(taken).collect(),
    })
}

/// An IPv4 address may be written as IPv6 has it.
fn same(one: SocketAddr, other: SocketAddr) -> bool {
    one.port() == other.port() && one.ip().to_canonical() == other.ip().to_canonical()
}
