//! What is in force, as it is shown: to root all of it, to others their own.

use std::collections::BTreeMap;

use waylay_config::{
    Names, Span,
    declaration::{ActionDeclaration, FilterDeclaration, FilterLifetime, LayerDeclaration},
};
use waylay_core::{FailurePolicy, Protocol, ServiceId};
use waylay_host::{Condition, LiveFlow, ServiceState};

use crate::{
    force::Force,
    keeper::{Keeper, Peer},
    ledger::{Lifetime, Origin, ROOT},
    protocol::{Answer, Failure, Filter, Flow, Hop, Lasting, Service, Source, Status, Sublayer},
};

impl<F: Force, N: Names> Keeper<F, N> {
    /// Who is there; `scope` is whose connections are redirected.
    pub fn status(&self, scope: &std::path::Path) -> Answer {
        let policy = self.state().standing.as_ref().map(|standing| &standing.policy);
        let services = policy.map(|policy| policy.services()).unwrap_or_default();
        Answer::Status(Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            policy: self.settings().policy.clone(),
            scope: scope.to_owned(),
            order: services.iter().map(|service| service.name.clone()).collect(),
            filters: policy.map_or(0, |policy| policy.filters().len()),
            sublayers: policy.map_or(0, |policy| policy.sublayers().len()),
            changes: self.changes(),
            amended: self.force().is_amended(),
            overdue: self.overdue().map(str::to_owned),
        })
    }

    /// The services, to everybody: whose connections pass them may know.
    pub fn services(&self) -> Answer {
        let states = self.force().services();
        // One that leaves may have the name of one that has come.
        let there = states.iter().filter(|state| state.condition != Condition::Leaving);
        let states: BTreeMap<&str, &ServiceState> = there.map(|state| (state.name.as_str(), state)).collect();
        let mut services = Vec::new();
        for service in self.state().standing.iter().flat_map(|standing| standing.policy.services()) {
            let declared = self.state().standing.iter().flat_map(|standing| &standing.declarations.services);
            let Some(declared) = declared.into_iter().find(|declared| declared.name.value == service.name)
            else {
                continue;
            };
            let state = states.get(service.name.as_str());
            services.push(Service {
                name: service.name.clone(),
                state: condition(state.map(|state| state.condition)).to_owned(),
                on_failure: match service.on_failure {
                    FailurePolicy::Open => "open".to_owned(),
                    FailurePolicy::Closed => "closed".to_owned(),
                },
                listens: state.map(|state| listens(state)).unwrap_or_default(),
                processes: state.map(|state| state.processes.clone()).unwrap_or_default(),
                source: self.source(&declared.name.span),
            });
        }
        Answer::Services { services }
    }

    /// The filters that somebody may see.
    pub fn filters(&self, peer: &Peer) -> Answer {
        let declared = self.state().standing.iter().flat_map(|standing| &standing.declarations.filters);
        let seen = declared.filter(|filter| self.may_see(peer, &filter.span));
        Answer::Filters { filters: seen.map(|filter| self.filter(filter)).collect() }
    }

    /// The sublayers that somebody may see.
    pub fn sublayers(&self, peer: &Peer) -> Answer {
        let declared = self.state().standing.iter().flat_map(|standing| &standing.declarations.sublayers);
        let seen = declared.filter(|sublayer| self.may_see(peer, &sublayer.name.span));
        let sublayer = |declared: &waylay_config::declaration::SublayerDeclaration| Sublayer {
            name: declared.name.value.clone(),
            weight: declared.weight,
            source: self.source(&declared.name.span),
        };
        let mut sublayers: Vec<Sublayer> = seen.map(sublayer).collect();
        sublayers.sort_by_key(|sublayer| std::cmp::Reverse(sublayer.weight));
        Answer::Sublayers { sublayers }
    }

    /// The legs that somebody may see.
    ///
    /// # Errors
    /// [`Failure`] if nobody can say.
    pub fn flows(&self, peer: &Peer) -> Result<Answer, Failure> {
        let names: BTreeMap<ServiceId, String> =
            self.force().services().into_iter().map(|state| (state.id, state.name)).collect();
        let flows = self.force().flows()?;
        let seen = flows.iter().filter(|flow| peer.uid == ROOT || peer.uid == flow.application.uid);
        Ok(Answer::Flows { flows: seen.map(|flow| self.flow(flow, &names)).collect() })
    }

    fn flow(&self, flow: &LiveFlow, names: &BTreeMap<ServiceId, String>) -> Flow {
        let application = &flow.application;
        let exe = application.exe.display().to_string();
        let hop = |hop: &waylay_core::Hop| Hop {
            service: names.get(&hop.service).cloned().unwrap_or_else(|| hop.service.to_string()),
            filter: self.history().describe(hop.filter),
        };
        Flow {
            id: flow.id,
            protocol: match flow.protocol {
                Protocol::Tcp => "tcp".to_owned(),
                Protocol::Udp => "udp".to_owned(),
            },
            pid: application.pid,
            uid: application.uid,
            application: if exe.is_empty() { application.comm.clone() } else { exe },
            from: flow.source.map(|source| source.to_string()),
            to: flow.destination.to_string(),
            chain: flow.hops.iter().map(hop).collect(),
        }
    }

    fn may_see(&self, peer: &Peer, span: &Span) -> bool {
        peer.uid == ROOT || self.origin(span).owner() == peer.uid
    }

    fn origin(&self, span: &Span) -> Origin {
        self.state().ledger.piece_at(span).map_or(Origin::File, |piece| piece.origin)
    }

    fn source(&self, span: &Span) -> Source {
        let origin = self.origin(span);
        Source {
            place: self
                .state()
                .standing
                .as_ref()
                .map(|standing| standing.sources.place(span))
                .unwrap_or_default(),
            number: origin.number().map(|number| number.0),
            owner: origin.owner(),
            lifetime: match origin.lifetime() {
                Lifetime::Session(_) => Lasting::Session,
                Lifetime::Daemon => Lasting::Daemon,
                Lifetime::Persistent => Lasting::Persistent,
                Lifetime::Boot => Lasting::Boot,
            },
        }
    }

    fn filter(&self, declared: &FilterDeclaration) -> Filter {
        let (action, target) = match &declared.layer {
            LayerDeclaration::Redirect { service } => ("redirect", &service.value),
            LayerDeclaration::Auth { sublayer, action, .. } => {
                let action = match action {
                    ActionDeclaration::Permit(_) => "permit",
                    ActionDeclaration::Block(..) => "block",
                    ActionDeclaration::Continue => "continue",
                };
                (action, &sublayer.value)
            }
        };
        Filter {
            name: declared.name.as_ref().map(|name| name.value.clone()),
            action: action.to_owned(),
            target: target.clone(),
            weight: declared.weight,
            source: match declared.lifetime {
                FilterLifetime::Persistent => self.source(&declared.span),
                FilterLifetime::Boot => Source { lifetime: Lasting::Boot, ..self.source(&declared.span) },
            },
        }
    }
}

const fn condition(condition: Option<Condition>) -> &'static str {
    match condition {
        Some(Condition::Serving) => "serving",
        Some(Condition::Gone) => "gone",
        Some(Condition::Leaving) => "leaving",
        None => "unknown",
    }
}

fn listens(state: &ServiceState) -> Vec<String> {
    let listening = &state.listening;
    let udp = |port: &u16| format!("udp port {port}");
    let tcp4 = listening.tcp4.iter().map(ToString::to_string);
    let tcp6 = listening.tcp6.iter().map(ToString::to_string);
    tcp4.chain(tcp6).chain(listening.udp4.iter().map(udp)).collect()
}
