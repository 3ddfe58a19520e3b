//! A connection on paper, followed through the services to its end.

use crate::chain::{Chain, Records};
use crate::decide::{Decision, decide};
use crate::ids::ServiceId;
use crate::leg::Leg;
use crate::policy::Policy;
use crate::process::Process;
use crate::verdict::Verdict;
use crate::world::World;

/// One leg of a connection, and what becomes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    /// Who dials where.
    pub leg: Leg,
    /// What becomes of it.
    pub decision: Decision,
}

/// Every leg of a connection, if each service dials on to the same destination and keeps its records. `dialler` is the process that
/// does so for a service.
///
/// The last stage is refused or goes to the destination.
///
/// ```
/// use waylay_core::*;
///
/// let service = |id: u32| Service {
///     id: ServiceId(id), name: format!("s{id}"), before: vec![], after: vec![], on_failure: FailurePolicy::Closed,
/// };
/// let all = |id: u32| Filter {
///     id: FilterId(id), weight: 0, conditions: Conditions::default(), layer: Layer::Redirect { service: ServiceId(id) },
/// };
/// let policy = Policy::new(vec![service(1), service(2)], vec![], vec![all(1), all(2)])?;
/// let mut world = World::default();
/// world.availability.extend([1, 2].map(|id| (ServiceId(id), Availability::Available)));
/// let leg = Leg { protocol: Protocol::Tcp, local: None, remote: "192.0.2.1:443".parse()?, caller: Process::default() };
///
/// let dialler = |service| Process { service: Some(service), ..Process::default() };
/// let stages = follow(&policy, &leg, &Records::None, &world, dialler);
/// let verdicts: Vec<String> = stages.iter().map(|stage| stage.decision.verdict.to_string()).collect();
/// assert_eq!(verdicts, ["redirected to service 1 by filter 1", "redirected to service 2 by filter 2", "direct"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use]
pub fn follow(
    policy: &Policy,
    leg: &Leg,
    records: &Records,
    world: &World,
    dialler: impl Fn(ServiceId) -> Process,
) -> Vec<Stage> {
    let mut stages = Vec::new();
    let mut leg = *leg;
    let mut records = records.clone();
    while let Some((service, chain)) = take(&mut stages, policy, &leg, &records, world) {
        leg = Leg { local: None, caller: dialler(service), ..leg };
        records = Records::Carried(chain);
    }
    stages
}

/// Adds a stage; where it leads, if it is not the last.
fn take(
    stages: &mut Vec<Stage>,
    policy: &Policy,
    leg: &Leg,
    records: &Records,
    world: &World,
) -> Option<(ServiceId, Chain)> {
    let decision = decide(policy, leg, records, world);
    let next = match &decision.verdict {
        Verdict::Redirect { service, chain, .. } => Some((*service, chain.clone())),
        Verdict::Direct | Verdict::Refuse(_) => None,
    };
    stages.push(Stage { leg: *leg, decision });
    next
}
