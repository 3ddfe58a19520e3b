//! Connections that are older than the policy.

use crate::chain::Records;
use crate::decide::decide;
use crate::leg::Leg;
use crate::policy::Policy;
use crate::verdict::Verdict;
use crate::world::{Availability, Existing, World};

/// What becomes of a connection that was made before the policy was in force, and went straight to its destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExistingVerdict {
    /// It goes on.
    Stays,
    /// It is ended, for this is what would become of it if it were made now.
    Ends(Verdict),
}

/// What becomes of a connection that is older than the policy: where the policy resets such, those end that it would not have
/// let go straight to their destination. Services are taken to be there: a connection must not outlive their absence.
///
/// Of the world only the namespace, the sandbox, the cgroups and the destination's names count: the rest has been settled when the connection was made.
///
/// ```
/// use waylay_core::*;
///
/// let log = Service { id: ServiceId(1), name: "log".into(), before: vec![], after: vec![], on_failure: FailurePolicy::Open };
/// let web = Filter {
///     id: FilterId(7),
///     weight: 0,
///     conditions: Conditions { remote_ports: Some(OneOf::from(PortRange::new(443, 443)?)), ..Conditions::default() },
///     layer: Layer::Redirect { service: log.id },
/// };
/// let policy = Policy::new(vec![log], vec![], vec![web])?;
/// let leg = |to: &str| Leg { protocol: Protocol::Tcp, local: None, remote: to.parse().unwrap(), caller: Process::default() };
/// let judge = |policy: &Policy, to| decide_existing(policy, &leg(to), &World::default());
///
/// assert_eq!(judge(&policy, "192.0.2.1:443"), ExistingVerdict::Stays);
/// let policy = policy.with_existing(Existing::Reset);
/// assert!(matches!(judge(&policy, "192.0.2.1:443"), ExistingVerdict::Ends(Verdict::Redirect { .. })));
/// assert_eq!(judge(&policy, "192.0.2.1:22"), ExistingVerdict::Stays);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use]
pub fn decide_existing(policy: &Policy, leg: &Leg, world: &World) -> ExistingVerdict {
    match policy.existing() {
        Existing::Leave => ExistingVerdict::Stays,
        Existing::Reset => {
            let services = policy.services().iter();
            let now = World {
                namespace: world.namespace,
                confinement: world.confinement,
                obstacle: world.obstacle,
                cgroups: world.cgroups.clone(),
                hosts: world.hosts.clone(),
                availability: services.map(|service| (service.id, Availability::Available)).collect(),
                ..World::default()
            };
            match decide(policy, leg, &Records::None, &now).verdict {
                Verdict::Direct => ExistingVerdict::Stays,
                verdict @ (Verdict::Redirect { .. } | Verdict::Refuse(_)) => ExistingVerdict::Ends(verdict),
            }
        }
    }
}
