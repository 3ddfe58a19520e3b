//! Why a connection goes as it does: the way that one has taken, and what would become of it if it were made now.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use serde::{Deserialize, Serialize};
use waylay_config::{FileNames, Names};
use waylay_core::{Availability, Leg, Process, Protocol, Records, ServiceId, World, follow};
use waylay_host::{Caller, Condition, LiveFlow, Surroundings, names::HostNames};

use crate::{
    force::Force,
    journey::Journey,
    keeper::{Keeper, Peer},
    ledger::ROOT,
    protocol::{Answer, Code, Failure},
};

/// The connection that is asked about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Subject {
    /// One that is redirected now, by the number of a flow of its.
    Flow(u64),
    /// One that is redirected now, by the application's own address, as ss(8) shows it.
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

impl<F: Force, N: Names> Keeper<F, N> {
    /// Why a connection goes as it does. Those who are not root may ask about their own.
    ///
    /// # Errors
    /// [`Failure`] if there is no such connection, or it is none of theirs.
    pub fn why(&self, subject: &Subject, peer: &Peer) -> Result<Answer, Failure> {
        let unknown = |what: String| Failure::new(Code::Unknown, what);
        let (pid, to, protocol, flows) = match subject {
            Subject::Process { pid, to, udp } => {
                (*pid, *to, if *udp { Protocol::Udp } else { Protocol::Tcp }, Vec::new())
            }
            Subject::Flow(_) | Subject::From(_) => {
                let flows = self.legs_of(subject)?;
                let first = flows.first().ok_or_else(|| {
                    unknown(
                        "no connection like that is redirected now; ask by process and destination"
                            .to_owned(),
                    )
                })?;
                (first.application.pid, first.destination, first.protocol, flows)
            }
        };
        let of_a_flow = flows.first().map(|flow| flow.application.uid);
        let caller = Caller::look(pid);
        let uid = of_a_flow.or(caller.as_ref().map(|caller| caller.process.uid));
        let uid = uid.ok_or_else(|| unknown(format!("there is no process {pid}")))?;
        if peer.uid != ROOT && peer.uid != uid {
            return Err(Failure::new(Code::NotAllowed, format!("the process {pid} is somebody else's")));
        }
        let name = match (&caller, flows.first()) {
            (_, Some(flow)) => flow.application.comm.clone(),
            (Some(caller), None) => caller.process.command.to_string(),
            (None, None) => String::new(),
        };
        let application = format!("{name}[{pid}]");
        let now = caller.map(|caller| self.judge(&application, caller, to, protocol));
        let refused = self.history().1.refused(pid, uid);
        Ok(Answer::Why(Box::new(Why {
            to: to.to_string(),
            taken: self.taken(&flows),
            now: now.flatten(),
            refused,
            application,
        })))
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
            let service =
                names.get(&hop.service).map_or_else(|| hop.service.to_string(), |&name| name.to_owned());
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
        let draft = self.state().draft.as_ref()?;
        let policy = &draft.lowered.policy;
        let states = self.force().services();
        let serves = |name: &str| {
            states.iter().any(|state| state.name == name && state.condition == Condition::Serving)
        };
        let availability = policy.services().iter().map(|service| match serves(&service.name) {
            true => (service.id, Availability::Available),
            false => (service.id, Availability::Absent),
        });
        let Surroundings { confinement, route } = self.force().surroundings(&caller, to);
        let namespace = HostNames::new().namespace(&format!("/proc/{}/ns/net", caller.process.pid));
        let world = World {
            availability: availability.collect(),
            cgroups: caller.cgroups,
            namespace: namespace.unwrap_or_default(),
            confinement,
            route,
            ..World::default()
        };
        let leg = Leg { protocol, local: None, remote: to, caller: caller.process };
        let dialler = |service| Process { service: Some(service), ..Process::default() };
        let stages = follow(policy, &leg, &Records::None, &world, dialler);
        let names = FileNames { lowered: &draft.lowered, sources: &draft.sources };
        Some(Journey::new(application, &stages, policy, &names))
    }
}

/// An IPv4 address may be written as IPv6 has it.
fn same(one: SocketAddr, other: SocketAddr) -> bool {
    one.port() == other.port() && one.ip().to_canonical() == other.ip().to_canonical()
}
