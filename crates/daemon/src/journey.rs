//! What becomes of a connection, leg by leg, as data: for `waylay filter test`, which asks files, and `waylay why`, which asks a
//! daemon.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use waylay_core::{Naming, ServiceId, Stage, Verdict};

/// A connection from its application to its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Journey {
    /// Whether it gets to its destination.
    pub permitted: bool,
    /// What connect() returns, where it is refused.
    pub errno: Option<String>,
    /// The services it goes through from here on, in order.
    pub services: Vec<String>,
    /// Its legs.
    pub stages: Vec<JourneyStage>,
}

/// A leg.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JourneyStage {
    /// The application, or the service, that dials.
    pub from: String,
    /// The destination.
    pub to: String,
    /// `tcp` or `udp`.
    pub protocol: String,
    /// `direct`, `redirect` or `refuse`.
    pub verdict: String,
    /// Of a redirect: where to.
    pub service: Option<String>,
    /// Of a redirect: by which filter.
    pub filter: Option<String>,
    /// Of a refusal: what connect() returns.
    pub errno: Option<String>,
    /// Of a refusal: why.
    pub reason: Option<String>,
    /// What each service and each sublayer said.
    pub trace: Vec<String>,
}

impl Journey {
    /// What became of each leg; `called` says what a service is called.
    #[must_use]
    pub fn new(
        application: &str,
        stages: &[Stage],
        called: &dyn Fn(ServiceId) -> String,
        names: &dyn Naming,
    ) -> Self {
        let teller = Teller { application, called, names };
        let stages: Vec<JourneyStage> = stages.iter().map(|stage| teller.stage(stage)).collect();
        let errno = stages.last().and_then(|last| last.errno.clone());
        let mut seen = BTreeSet::new();
        let taken = stages.iter().filter_map(|stage| stage.service.clone());
        let services = taken.filter(|service| seen.insert(service.clone())).collect();
        Self { permitted: errno.is_none(), errno, services, stages }
    }

    /// Why it is refused, if it is.
    #[must_use]
    pub fn refusal(&self) -> Option<&str> {
        self.stages.last().and_then(|last| last.reason.as_deref())
    }
}

struct Teller<'a> {
    application: &'a str,
    called: &'a dyn Fn(ServiceId) -> String,
    names: &'a dyn Naming,
}

impl Teller<'_> {
    fn stage(&self, stage: &Stage) -> JourneyStage {
        let leg = stage.leg;
        let told = JourneyStage {
            from: leg.caller.service.map_or_else(|| self.application.to_owned(), self.called),
            to: leg.remote.to_string(),
            protocol: leg.protocol.to_string(),
            verdict: "direct".to_owned(),
            service: None,
            filter: None,
            errno: None,
            reason: None,
            trace: stage.decision.trace.explain(self.names).to_string().lines().map(str::to_owned).collect(),
        };
        match &stage.decision.verdict {
            Verdict::Direct => told,
            Verdict::Redirect { service, filter, .. } => JourneyStage {
                verdict: "redirect".to_owned(),
                service: Some((self.called)(*service)),
                filter: Some(self.names.filter(*filter)),
                ..told
            },
            Verdict::Refuse(refusal) => JourneyStage {
                verdict: "refuse".to_owned(),
                errno: Some(refusal.errno().to_string()),
                reason: Some(refusal.explain(self.names).to_string()),
                ..told
            },
        }
    }
}
