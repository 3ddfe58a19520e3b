//! The meaning of a policy, as one plain function. Every engine is compared with it.
//!
//! A leg is judged in this order, and every engine keeps it:
//!
//! 1. The kernel's own sockets pass untouched, and so does what is dialled outside of the policy's sphere. Legs of a foreign network namespace
//!    are never redirected: the auth filters that ask for that namespace are heard, and where none of them speaks the policy has one answer for all.
//! 2. A registered listener is reached through the engine only: dialling one of ours is refused. Else an application could make a
//!    service dial for it, past all earlier services. A leg within another instance's scope that goes to one of its listeners is
//!    left to that instance, which has led it there.
//! 3. The leg gets its [`Chain`]: the one it carries, or, where a service dials without records, one that excludes that service
//!    and every earlier one.
//! 4. The redirect is chosen, purely: the first service in order that the chain does not exclude, that is not the caller and
//!    that has a matching filter. Absence asks its failure policy, a full backlog refuses, and so does a full chain in front of a
//!    service that fails closed. A leg from somebody's sandbox goes on its own way whatever is wanted, unless the policy overrides sandboxes: a
//!    service would dial where the sandbox does not let the application. If that layer wants anything at all of a destination without a route, the leg is refused with the
//!    error the kernel has for it: an engine may learn of a new route late, and what is refused too long has not got past anybody.
//!    A group of hosts no service can stand in for: if one is wanted there, the policy's switch for that answers.
//! 5. The *original* destination is authorised. A block wins over everything that the redirect layer decided, refusals included, so
//!    the application sees the errno of the filter that blocks it.
//! 6. If a service was chosen there must be room for a flow. No shortage becomes a direct connection.

use crate::chain::{Chain, Hop, Records, ServiceSet, state};
use crate::ids::{FilterId, SublayerId};
use crate::leg::{Facts, Flags, Leg};
use crate::model::{Action, FailurePolicy, Filter, Right, Service};
use crate::policy::Policy;
use crate::trace::{AuthEffect, SkipReason, Trace, TraceStep};
use crate::verdict::{Refusal, Verdict};
use crate::world::{
    Availability, Confinement, ForeignNamespace, ListenerOwner, Namespace, Obstacle, Room, Route, Sandboxes,
    SocketOwner, Sphere, Unredirectable, World,
};

/// What becomes of a leg, and how that came about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What becomes of it.
    pub verdict: Verdict,
    /// How that came about.
    pub trace: Trace,
}

/// What becomes of a leg under a policy, in the world as it stands.
///
/// ```
/// use waylay_core::*;
///
/// let log = Service { id: ServiceId(1), name: "log".into(), before: vec![], after: vec![], on_failure: FailurePolicy::Closed };
/// let all = Filter {
///     id: FilterId(7),
///     weight: 0,
///     conditions: Conditions::default(),
///     layer: Layer::Redirect { service: log.id },
/// };
/// let policy = Policy::new(vec![log], vec![], vec![all])?;
///
/// let curl = Process { pid: 42, uid: 1000, cgroup: 1, ..Process::default() };
/// let leg = Leg { protocol: Protocol::Tcp, local: None, remote: "192.0.2.1:443".parse()?, caller: curl };
///
/// // The service is absent and fails closed.
/// let decision = decide(&policy, &leg, &Records::None, &World::default());
/// assert_eq!(decision.verdict, Verdict::Refuse(Refusal::ServiceAbsent { service: ServiceId(1) }));
///
/// // Now it is there.
/// let mut world = World::default();
/// world.availability.insert(ServiceId(1), Availability::Available);
/// let decision = decide(&policy, &leg, &Records::None, &world);
/// assert!(matches!(decision.verdict, Verdict::Redirect { service: ServiceId(1), .. }));
/// assert_eq!(decision.trace.to_string(), "service 1: chosen by filter 7");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use]
pub fn decide(policy: &Policy, leg: &Leg, records: &Records, world: &World) -> Decision {
    let mut trace = Trace::default();
    let verdict = judge(policy, leg, records, world, &mut trace);
    Decision { verdict, trace }
}

fn judge(policy: &Policy, leg: &Leg, records: &Records, world: &World, trace: &mut Trace) -> Verdict {
    if let Some(verdict) = settle_outside_policy(world, trace) {
        return verdict;
    }
    if let Namespace::Foreign(_) = world.namespace {
        return judge_visitor(policy, leg, world, trace);
    }
    let dialled_by = leg.caller.service.and_then(|service| policy.up_to(service));
    let from_service = dialled_by.is_some();
    let chain = effective_chain(leg, records, dialled_by, trace);
    let facts = Facts::new(leg, &chain, world);
    let choice = Chooser { policy, leg, chain: &chain, facts: &facts, world }.choose(trace);
    let flags = Flags { redirected: choice.redirects(), proxied: from_service || !chain.hops().is_empty() };
    if let Some(refusal) = authorise(policy, &facts, flags, trace).and_then(|standing| standing.refusal) {
        return Verdict::Refuse(refusal);
    }
    conclude(choice, chain, leg, world, trace)
}

/// Steps 1 and 2: what is settled before any filter is asked.
pub(crate) fn settle_outside_policy(world: &World, trace: &mut Trace) -> Option<Verdict> {
    let (step, verdict) = match (world.socket_owner, world.sphere, world.namespace, world.listener) {
        (SocketOwner::Kernel, _, _, _) => (TraceStep::KernelSocket, Verdict::Direct),
        (SocketOwner::Process, Sphere::Outside, _, _) => (TraceStep::OutsideOfTheSphere, Verdict::Direct),
        (SocketOwner::Process, Sphere::Inside, Namespace::Foreign(_), _) => return None,
        (SocketOwner::Process, Sphere::Inside, Namespace::Own, Some(ListenerOwner::OwnInstance(service))) => {
            (TraceStep::ListenerDialled { service }, Verdict::Refuse(Refusal::ListenerDialled { service }))
        }
        (SocketOwner::Process, Sphere::Inside, Namespace::Own, Some(ListenerOwner::OtherInstance)) => {
            (TraceStep::ListenerOfOtherInstance, Verdict::Direct)
        }
        (SocketOwner::Process, Sphere::Inside, Namespace::Own, None) => return None,
    };
    trace.push(step);
    Some(verdict)
}

/// A leg of another network namespace, where neither services nor listeners are: whoever dials there is an application.
fn judge_visitor(policy: &Policy, leg: &Leg, world: &World, trace: &mut Trace) -> Verdict {
    let facts = Facts::new(leg, &Chain::default(), world);
    match authorise(policy, &facts, Flags::default(), trace) {
        Some(Standing { refusal: Some(refusal), .. }) => Verdict::Refuse(refusal),
        Some(Standing { refusal: None, .. }) => Verdict::Direct,
        None => {
            let answer = policy.foreign_namespace();
            trace.push(TraceStep::ForeignNamespace(answer));
            answer_foreign(answer)
        }
    }
}

pub(crate) const fn stays_in_sandbox(confinement: Confinement, sandboxes: Sandboxes) -> bool {
    matches!((confinement, sandboxes), (Confinement::Sandboxed, Sandboxes::Stay))
}

/// Whether a service can stand in for the destination, and be reached by the socket.
pub(crate) fn is_redirectable(leg: &Leg, world: &World) -> bool {
    !leg.is_to_a_group() && world.obstacle.is_none()
}

pub(crate) fn answer_foreign(foreign: ForeignNamespace) -> Verdict {
    match foreign {
        ForeignNamespace::Permit => Verdict::Direct,
        ForeignNamespace::Block => Verdict::Refuse(Refusal::ForeignNamespace),
    }
}

/// Step 3. `dialled_by` holds the caller's service and every earlier one, if the caller is of a service.
fn effective_chain(leg: &Leg, records: &Records, dialled_by: Option<ServiceSet>, trace: &mut Trace) -> Chain {
    match (records, leg.caller.service, dialled_by) {
        (Records::Carried(chain), _, _) => chain.clone(),
        (Records::None, Some(service), Some(excluded)) => {
            trace.push(TraceStep::RecordsForgotten { service });
            Chain::forgotten(excluded, leg.caller)
        }
        (Records::None, _, _) => Chain::default(),
    }
}

/// What the redirect layer wants.
enum Choice {
    Direct,
    Redirect(Hop),
    Refuse(Refusal),
}

impl Choice {
    const fn redirects(&self) -> bool {
        match self {
            Self::Redirect(_) => true,
            Self::Direct | Self::Refuse(_) => false,
        }
    }
}

/// What one service makes of a leg.
enum Answer {
    Takes(Hop),
    Refuses(Refusal),
    Passes(SkipReason),
}

/// Step 4.
struct Chooser<'a> {
    policy: &'a Policy,
    leg: &'a Leg,
    chain: &'a Chain,
    facts: &'a Facts,
    world: &'a World,
}

impl Chooser<'_> {
    fn choose(&self, trace: &mut Trace) -> Choice {
        let is_redirectable = is_redirectable(self.leg, self.world);
        let wanted =
            if is_redirectable { self.ask_services(trace) } else { self.judge_unredirectable(trace) };
        match (wanted, self.stays_in_sandbox(), self.world.route) {
            (Choice::Direct, _, _) => Choice::Direct,
            (Choice::Redirect(_) | Choice::Refuse(_), true, _) => {
                trace.push(TraceStep::SandboxStays);
                Choice::Direct
            }
            (wanted, false, Route::Exists) => wanted,
            (wanted, false, Route::Missing(_)) if !is_redirectable => wanted,
            (Choice::Redirect(_) | Choice::Refuse(_), false, Route::Missing(errno)) => {
                let refusal = Refusal::NoRoute { errno };
                trace.push(TraceStep::RedirectRefused(refusal));
                Choice::Refuse(refusal)
            }
        }
    }

    fn stays_in_sandbox(&self) -> bool {
        stays_in_sandbox(self.world.confinement, self.policy.sandboxes())
    }

    fn ask_services(&self, trace: &mut Trace) -> Choice {
        for service in self.policy.services() {
            match self.consider(service) {
                Answer::Takes(hop) => {
                    trace.push(TraceStep::Chosen(hop));
                    return Choice::Redirect(hop);
                }
                Answer::Refuses(refusal) => {
                    trace.push(TraceStep::RedirectRefused(refusal));
                    return Choice::Refuse(refusal);
                }
                Answer::Passes(reason) => trace.push(TraceStep::Skipped { service: service.id, reason }),
            }
        }
        Choice::Direct
    }

    /// No service can stand in for a group of hosts, or be reached over another device: if one is wanted, the policy's switch answers.
    fn judge_unredirectable(&self, trace: &mut Trace) -> Choice {
        let is_wanted = self.policy.services().iter().any(|service| self.match_filter(service).is_ok());
        match (is_wanted, self.policy.unredirectable()) {
            (true, Unredirectable::Block) => {
                trace.push(TraceStep::RedirectRefused(Refusal::Unredirectable));
                Choice::Refuse(Refusal::Unredirectable)
            }
            (true, Unredirectable::Permit) | (false, _) => {
                trace.push(match self.world.obstacle {
                    Some(Obstacle::Device) => TraceStep::KeptToDevice,
                    Some(Obstacle::Broadcast) | None => TraceStep::Unredirectable,
                });
                Choice::Direct
            }
        }
    }

    fn consider(&self, service: &Service) -> Answer {
        let filter = match self.match_filter(service) {
            Ok(filter) => filter,
            Err(reason) => return Answer::Passes(reason),
        };
        let id = service.id;
        match (self.chain.is_full(), self.world.availability_of(id), service.on_failure) {
            (true, _, FailurePolicy::Open) => Answer::Passes(SkipReason::HopLimit),
            (true, _, FailurePolicy::Closed) => Answer::Refuses(Refusal::HopLimit { service: id }),
            (false, Availability::Available, _) => Answer::Takes(Hop { service: id, filter: filter.id }),
            (false, Availability::Absent, FailurePolicy::Open) => Answer::Passes(SkipReason::Absent),
            (false, Availability::Absent, FailurePolicy::Closed) => {
                Answer::Refuses(Refusal::ServiceAbsent { service: id })
            }
            (false, Availability::BacklogFull, _) => Answer::Refuses(Refusal::BacklogFull { service: id }),
        }
    }

    fn match_filter(&self, service: &Service) -> Result<&Filter, SkipReason> {
        if self.chain.excluded().contains(service.id) {
            return Err(SkipReason::Excluded(state(service.id, self.chain)));
        }
        if self.leg.caller.service == Some(service.id) {
            return Err(SkipReason::IsCaller);
        }
        let mut filters = self.policy.redirect_filters(service.id);
        filters.find(|filter| filter.conditions.match_facts(self.facts)).ok_or(SkipReason::NoFilterMatches)
    }
}

/// What the sublayers heard so far have come to.
#[derive(Clone, Copy)]
struct Standing {
    right: Right,
    refusal: Option<Refusal>,
}

/// Step 5; nothing if nobody speaks. The rule of arbitration is told at [`Action`].
fn authorise(policy: &Policy, facts: &Facts, flags: Flags, trace: &mut Trace) -> Option<Standing> {
    let mut standing: Option<Standing> = None;
    for sublayer in policy.sublayers() {
        let above = standing.map_or(Right::Soft, |standing| standing.right);
        let said = hear_sublayer(policy, sublayer.id, facts, flags, above, trace);
        match (above, said) {
            (Right::Soft, Some(said)) => standing = Some(said),
            (Right::Soft, None) | (Right::Hard, _) => {}
        }
        if matches!(standing, Some(Standing { right: Right::Hard, refusal: Some(_) })) {
            break;
        }
    }
    standing
}

/// The sublayer's decision; `above` says whether it can still count, and is only for the trace.
fn hear_sublayer(
    policy: &Policy,
    sublayer: SublayerId,
    facts: &Facts,
    flags: Flags,
    above: Right,
    trace: &mut Trace,
) -> Option<Standing> {
    for (filter, rule) in policy.auth_filters(sublayer) {
        if !filter.conditions.match_facts(facts) || !rule.flags.match_flags(flags) {
            continue;
        }
        let said = opinion(filter.id, rule.action);
        let effect = match (said, above) {
            (None, _) => AuthEffect::None,
            (Some(_), Right::Soft) => AuthEffect::Decides,
            (Some(_), Right::Hard) => AuthEffect::Overruled,
        };
        trace.push(TraceStep::AuthFilter { filter: filter.id, sublayer, action: rule.action, effect });
        if said.is_some() {
            return said;
        }
    }
    None
}

fn opinion(filter: FilterId, action: Action) -> Option<Standing> {
    match action {
        Action::Permit(right) => Some(Standing { right, refusal: None }),
        Action::Block { right, errno } => {
            Some(Standing { right, refusal: Some(Refusal::Blocked { filter, errno }) })
        }
        Action::Continue => None,
    }
}

/// Step 6.
fn conclude(choice: Choice, chain: Chain, leg: &Leg, world: &World, trace: &mut Trace) -> Verdict {
    match (choice, world.room) {
        (Choice::Direct, _) => Verdict::Direct,
        (Choice::Refuse(refusal), _) => Verdict::Refuse(refusal),
        (Choice::Redirect(_), Room::Exhausted(resource)) => {
            trace.push(TraceStep::Shortage(resource));
            Verdict::Refuse(Refusal::Shortage(resource))
        }
        (Choice::Redirect(hop), Room::Granted) => Verdict::redirect(hop, chain, leg),
    }
}
