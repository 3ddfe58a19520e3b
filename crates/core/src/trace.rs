//! How a decision came about, step by step, as data; `why` and `filter test` print it.

use std::fmt;

use crate::chain::{Hop, RedirectState};
use crate::ids::{FilterId, ServiceId, SublayerId};
use crate::model::Action;
use crate::policy::Policy;
use crate::verdict::Refusal;
use crate::world::{ForeignNamespace, Resource};

/// The steps of one decision, in the order they were taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    steps: Vec<TraceStep>,
}

/// One step of a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TraceStep {
    /// The kernel's own socket is left alone.
    KernelSocket,
    /// A bystander has dialled it, or a resident on its own account: it is left alone.
    OutsideOfTheSphere,
    /// The leg is of another network namespace, and the policy has one answer for all of them.
    ForeignNamespace(ForeignNamespace),
    /// The destination is a listener of this service, dialled past the engine.
    ListenerDialled {
        /// The service.
        service: ServiceId,
    },
    /// The destination is a listener of another instance, which we leave to it.
    ListenerOfOtherInstance,
    /// A service dials without records, so it and every earlier one are excluded.
    RecordsForgotten {
        /// The service that dials.
        service: ServiceId,
    },
    /// The destination is a group of hosts, which no service can stand in for, and it is permitted.
    Unredirectable,
    /// The socket is kept to a device, over which no service is reached, and it is permitted.
    KeptToDevice,
    /// The service does not get the connection, and the next one is tried.
    Skipped {
        /// The service.
        service: ServiceId,
        /// Why not.
        reason: SkipReason,
    },
    /// The service gets the connection.
    Chosen(Hop),
    /// The service should have got the connection and cannot.
    RedirectRefused(Refusal),
    /// A service is wanted, but the socket is in somebody's sandbox: it is not redirected.
    SandboxStays,
    /// A matching auth filter was heard.
    AuthFilter {
        /// The filter.
        filter: FilterId,
        /// Its sublayer.
        sublayer: SublayerId,
        /// What it said.
        action: Action,
        /// What came of it.
        effect: AuthEffect,
    },
    /// A service was chosen, but another flow cannot be taken on.
    Shortage(Resource),
}

/// Why a service does not get a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SkipReason {
    /// The chain excludes it; the state says how it stands to the hops.
    Excluded(RedirectState),
    /// It is the caller.
    IsCaller,
    /// None of its filters matches.
    NoFilterMatches,
    /// The chain is full, and the service fails open.
    HopLimit,
    /// It is absent, and fails open.
    Absent,
}

/// What came of an auth filter's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AuthEffect {
    /// It said nothing; the next filter is asked.
    None,
    /// It decides for its sublayer, and over softer decisions of higher sublayers.
    Decides,
    /// It decides for its sublayer, but a higher sublayer's hard decision stands.
    Overruled,
}

impl Trace {
    /// The steps.
    #[must_use]
    pub fn steps(&self) -> &[TraceStep] {
        &self.steps
    }

    /// The trace with names, as a policy gives them.
    pub fn explain<'a>(&'a self, naming: &'a dyn Naming) -> impl fmt::Display + 'a {
        fmt::from_fn(move |f| self.write(f, naming))
    }

    pub(crate) fn push(&mut self, step: TraceStep) {
        self.steps.push(step);
    }

    fn write(&self, f: &mut fmt::Formatter<'_>, naming: &dyn Naming) -> fmt::Result {
        for (index, step) in self.steps.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            step.write(f, naming)?;
        }
        Ok(())
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, &Ids)
    }
}

impl fmt::Display for TraceStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, &Ids)
    }
}

impl TraceStep {
    fn write(&self, f: &mut fmt::Formatter<'_>, naming: &dyn Naming) -> fmt::Result {
        match self {
            Self::KernelSocket => f.write_str("the kernel's own socket: left alone"),
            Self::OutsideOfTheSphere => {
                f.write_str("dialled beside a resident service, or by it on its own account: left alone")
            }
            Self::ForeignNamespace(ForeignNamespace::Permit) => {
                f.write_str("another network namespace: the policy permits")
            }
            Self::ForeignNamespace(ForeignNamespace::Block) => {
                f.write_str("another network namespace: the policy blocks")
            }
            Self::ListenerDialled { service } => {
                write!(
                    f,
                    "the destination is a listener of {}: reached through the engine only",
                    naming.service(*service)
                )
            }
            Self::ListenerOfOtherInstance => {
                f.write_str("the destination is a listener of another instance: left to it")
            }
            Self::RecordsForgotten { service } => {
                write!(
                    f,
                    "{} dials without records: it and every earlier service are excluded",
                    naming.service(*service)
                )
            }
            Self::Unredirectable => f.write_str("the destination is a group of hosts: not redirected"),
            Self::KeptToDevice => f.write_str("the socket is bound to a device: not redirected"),
            Self::Skipped { service, reason } => write!(f, "{}: skipped, {reason}", naming.service(*service)),
            Self::Chosen(hop) => {
                write!(f, "{}: chosen by {}", naming.service(hop.service), naming.filter(hop.filter))
            }
            Self::SandboxStays => f.write_str("in somebody's sandbox: not redirected"),
            Self::RedirectRefused(refusal) => write!(f, "not redirected: {}", refusal.explain(naming)),
            Self::AuthFilter { filter, sublayer, action, effect } => {
                write!(f, "{}, {}: {action}{effect}", naming.sublayer(*sublayer), naming.filter(*filter))
            }
            Self::Shortage(resource) => write!(f, "no {resource} left for another flow"),
        }
    }
}

impl fmt::Display for SkipReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Excluded(RedirectState::RedirectedBySelf) => "it redirected this connection last",
            Self::Excluded(RedirectState::PreviouslyRedirectedBySelf) => {
                "it has redirected this connection before"
            }
            Self::Excluded(RedirectState::NotRedirected | RedirectState::RedirectedByOther) => {
                "a service that forgot its records stands at or after it"
            }
            Self::IsCaller => "it is the caller",
            Self::NoFilterMatches => "none of its filters matches",
            Self::HopLimit => "the chain is full and it fails open",
            Self::Absent => "it is absent and fails open",
        })
    }
}

impl fmt::Display for AuthEffect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None | Self::Decides => "",
            Self::Overruled => ", overruled by a harder decision above",
        })
    }
}

/// What things are called.
pub trait Naming {
    /// A service.
    fn service(&self, id: ServiceId) -> String {
        id.to_string()
    }

    /// A sublayer.
    fn sublayer(&self, id: SublayerId) -> String {
        id.to_string()
    }

    /// A filter.
    fn filter(&self, id: FilterId) -> String {
        id.to_string()
    }
}

/// By their ids.
pub(crate) struct Ids;

impl Naming for Ids {}

/// Services and sublayers have names there.
impl Naming for Policy {
    fn service(&self, id: ServiceId) -> String {
        let named = Self::service(self, id);
        named.map_or_else(|| id.to_string(), |service| format!("service {:?}", service.name))
    }

    fn sublayer(&self, id: SublayerId) -> String {
        let named = self.sublayers().iter().find(|sublayer| sublayer.id == id);
        named.map_or_else(|| id.to_string(), |sublayer| format!("sublayer {:?}", sublayer.name))
    }
}
