//! From [`Declarations`] to a [`Policy`], once it is known who is who.

use std::collections::BTreeMap;
use std::iter;
use std::net::SocketAddr;

use waylay_core::{
    Action, AuthRule, Conditions, Filter, FilterId, FlagConditions, Layer, Namespace, Naming, OneOf,
    OrderError, Policy, PolicyError, ProcessConditions, Protocol, Service, ServiceId, Sublayer, SublayerId,
    solve,
};

use crate::boot;
use crate::declaration::{
    Account, ActionDeclaration, CgroupName, ConditionDeclarations, Declarations, FilterDeclaration,
    FilterLifetime, LayerDeclaration, NamespaceName, ProcessDeclarations,
};
use crate::meant::did_you_mean;
use crate::names::{Names, Nobody};
use crate::problem::{Diagnostic, Problem, Severity};
use crate::source::{Located, Sources, Span};
use crate::subset::{Difference, without};

/// A policy, and where its parts come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lowered {
    /// The policy.
    pub policy: Policy,
    /// Where its filters come from.
    pub origins: Origins,
}

/// Where the filters of a policy come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origins {
    filters: BTreeMap<FilterId, (Option<String>, Span)>,
}

impl Origins {
    /// Where a filter is declared.
    #[must_use]
    pub fn span(&self, filter: FilterId) -> Option<&Span> {
        self.filters.get(&filter).map(|(_, span)| span)
    }

    /// A filter as people know it: by its name if it has one, and its place.
    #[must_use]
    pub fn describe(&self, filter: FilterId, sources: &Sources) -> String {
        match self.filters.get(&filter) {
            Some((name, span)) => called(name.as_deref(), &sources.place(span)),
            None => filter.to_string(),
        }
    }
}

/// What a filter is called that is declared at a place.
#[must_use]
pub fn called(name: Option<&str>, place: &str) -> String {
    match name {
        Some(name) => format!("filter {name:?} ({place})"),
        None => format!("the filter at {place}"),
    }
}

/// What things are called in files.
pub struct FileNames<'a> {
    /// The policy.
    pub lowered: &'a Lowered,
    /// The files.
    pub sources: &'a Sources,
}

impl Naming for FileNames<'_> {
    fn service(&self, id: ServiceId) -> String {
        Naming::service(&self.lowered.policy, id)
    }

    fn sublayer(&self, id: SublayerId) -> String {
        Naming::sublayer(&self.lowered.policy, id)
    }

    fn filter(&self, id: FilterId) -> String {
        self.lowered.origins.describe(id, self.sources)
    }
}

/// The policy that is declared, its services with ids in their solved order, without the filters that are in force before it is;
/// nothing if all of it does not hold together, and then the diagnostics say why.
#[must_use]
pub fn lower(
    declarations: &Declarations,
    names: &dyn Names,
    diagnostics: &mut Vec<Diagnostic>,
) -> Option<Lowered> {
    let (services, filters) = parts(declarations, FilterLifetime::Persistent, names, diagnostics)?;
    assemble(declarations, services, filters, diagnostics)
        .map(|lowered| Lowered { policy: with_switches(lowered.policy, declarations, names), ..lowered })
}

/// The filters that are in force before the policy is, as a policy of their own, which has no services; nothing if what is
/// declared does not hold together, those filters or anything else.
#[must_use]
pub fn lower_boot(
    declarations: &Declarations,
    names: &dyn Names,
    diagnostics: &mut Vec<Diagnostic>,
) -> Option<Lowered> {
    let (_services, filters) = parts(declarations, FilterLifetime::Boot, names, diagnostics)?;
    assemble(declarations, Vec::new(), filters, diagnostics)
}

/// The services, and the filters of a lifetime; names are looked up of these only.
fn parts(
    declarations: &Declarations,
    lifetime: FilterLifetime,
    names: &dyn Names,
    diagnostics: &mut Vec<Diagnostic>,
) -> Option<(Vec<Service>, Vec<Filter>)> {
    let services = services(declarations, diagnostics);
    let lowering = Lowering { declarations, services: &services, names };
    let unnamed = Lowering { names: &Nobody, ..lowering };
    let mut filters = Vec::new();
    for (id, filter) in (1..).map(FilterId).zip(&declarations.filters) {
        boot::refuse(filter, diagnostics);
        if filter.lifetime == lifetime {
            filters.extend(lowering.filter(id, filter, diagnostics));
        } else {
            let mut found = Vec::new();
            let _not_now = unnamed.filter(id, filter, &mut found);
            // What else is said of it depends on names.
            diagnostics.extend(found.into_iter().filter(|it| it.severity() == Severity::Error));
        }
    }
    let is_wrong = diagnostics.iter().any(|diagnostic| diagnostic.severity() == Severity::Error);
    // What is wrong with a service is said there, and not again wherever somebody names it.
    diagnostics.retain(|diagnostic| !names_one_of(&declarations.unreadable_services, diagnostic));
    (!is_wrong).then_some((services, filters))
}

fn names_one_of(unreadable: &[Located<String>], diagnostic: &Diagnostic) -> bool {
    let Problem::Unknown { what: "service", name } = &diagnostic.problem else { return false };
    unreadable.iter().any(|service| service.value == *name)
}

fn assemble(
    declarations: &Declarations,
    services: Vec<Service>,
    filters: Vec<Filter>,
    diagnostics: &mut Vec<Diagnostic>,
) -> Option<Lowered> {
    let places = (1..).map(FilterId).zip(&declarations.filters);
    let origin = |filter: &FilterDeclaration| (filter.name.clone().map(|name| name.value), filter.span);
    let origins = Origins { filters: places.map(|(id, filter)| (id, origin(filter))).collect() };
    match Policy::new(services, sublayers(declarations), filters) {
        Ok(policy) => Some(Lowered { policy, origins }),
        Err(error) => {
            diagnostics.push(refused(error, declarations));
            None
        }
    }
}

fn with_switches(policy: Policy, declarations: &Declarations, names: &dyn Names) -> Policy {
    let namespaces = declarations.other_namespaces.as_ref().map_or_else(Default::default, |it| it.value);
    let unredirectable = declarations.unredirectable.as_ref().map_or_else(Default::default, |it| it.value);
    let sandboxes = declarations.override_sandbox.as_ref().map_or_else(Default::default, |it| it.value);
    let existing = declarations.existing.as_ref().map_or_else(Default::default, |it| it.value);
    policy
        .with_foreign_namespace(namespaces)
        .with_unredirectable(unredirectable)
        .with_sandboxes(sandboxes)
        .with_existing(existing)
        .with_resolvers(resolvers(declarations, names))
}

/// Nobody is looked up for a policy that asks for no names.
fn resolvers(declarations: &Declarations, names: &dyn Names) -> Vec<SocketAddr> {
    let mut asked = declarations.filters.iter().flat_map(|filter| [&filter.wanted, &filter.excluded]);
    match &declarations.resolvers {
        _ if asked.all(|lists| lists.host.is_none()) => Vec::new(),
        Some(resolvers) => resolvers.value.clone(),
        None => names.resolvers(),
    }
}

fn services(declarations: &Declarations, diagnostics: &mut Vec<Diagnostic>) -> Vec<Service> {
    let known = || declarations.services.iter().map(|service| service.name.value.as_str());
    let declared = || known().chain(unreadable(declarations));
    let asked = declarations.services.iter().flat_map(|service| service.before.iter().chain(&service.after));
    for name in asked.chain(declarations.orders.iter().flatten()) {
        if !known().any(|known| known == name.value) {
            let problem = Problem::Unknown { what: "service", name: name.value.clone() };
            diagnostics.push(problem.at(&name.span).help(did_you_mean(&name.value, declared())));
        }
    }
    let texts = |names: &[Located<String>]| names.iter().map(|name| name.value.clone()).collect();
    let mut services: Vec<Service> = declarations
        .services
        .iter()
        .map(|service| Service {
            id: ServiceId(0),
            name: service.name.value.clone(),
            before: texts(&service.before),
            after: texts(&service.after),
            on_failure: service.on_failure,
        })
        .collect();
    for pair in declarations.orders.iter().flat_map(|order| order.windows(2)) {
        let first = services.iter_mut().find(|service| service.name == pair[0].value);
        first.into_iter().for_each(|service| service.before.push(pair[1].value.clone()));
    }
    // Where there is no order the policy says so, and the ids do not matter.
    let order = solve(&services).unwrap_or_else(|_no_order| (0..services.len()).collect());
    (1..).map(ServiceId).zip(order).for_each(|(id, index)| services[index].id = id);
    services
}

fn sublayers(declarations: &Declarations) -> Vec<Sublayer> {
    let declared = (1..).map(SublayerId).zip(&declarations.sublayers);
    declared
        .map(|(id, sublayer)| Sublayer { id, name: sublayer.name.value.clone(), weight: sublayer.weight })
        .collect()
}

/// What the whole does not hold together by. Names have been checked before, where their places are known.
fn refused(error: PolicyError, declarations: &Declarations) -> Diagnostic {
    match error {
        PolicyError::Order(OrderError::Cycle { names }) => {
            let first =
                declarations.services.iter().find(|service| names.first() == Some(&service.name.value));
            let problem = Problem::OrderCycle { names };
            first
                .map_or_else(|| problem.clone().somewhere(), |service| problem.clone().at(&service.name.span))
        }
        PolicyError::Limit(limit) => Problem::Limit(limit).somewhere(),
        PolicyError::Order(OrderError::UnknownName { .. } | OrderError::DuplicateName { .. })
        | PolicyError::DuplicateService { .. }
        | PolicyError::DuplicateSublayer { .. }
        | PolicyError::DuplicateFilter { .. }
        | PolicyError::UnknownService { .. }
        | PolicyError::UnknownSublayer { .. }
        | PolicyError::UnknownFilter { .. }
        | PolicyError::PassesByName { .. } => Problem::Policy(error).somewhere(),
    }
}

#[derive(Clone, Copy)]
struct Lowering<'a> {
    declarations: &'a Declarations,
    services: &'a [Service],
    names: &'a dyn Names,
}

impl Lowering<'_> {
    fn filter(
        &self,
        id: FilterId,
        filter: &FilterDeclaration,
        diagnostics: &mut Vec<Diagnostic>,
    ) -> Option<Filter> {
        let mut conditions = self.conditions(filter, diagnostics);
        let layer = self.layer(&filter.layer, diagnostics)?;
        if let LayerDeclaration::Redirect { service } = &filter.layer {
            conditions.protocol = self.taken(conditions.protocol, service, diagnostics);
        }
        Some(Filter { id, weight: filter.weight, conditions, layer })
    }

    /// Of the protocols that a filter asks for those that the service takes: what it does not take goes past it.
    fn taken(
        &self,
        asked: Option<OneOf<Protocol>>,
        service: &Located<String>,
        diagnostics: &mut Vec<Diagnostic>,
    ) -> Option<OneOf<Protocol>> {
        let declared =
            self.declarations.services.iter().find(|declared| declared.name.value == service.value)?;
        let wanted =
            |protocol: &Protocol| asked.as_ref().is_none_or(|asked| asked.holds(|it| it == protocol));
        let all = [Protocol::Tcp, Protocol::Udp];
        let taken =
            all.into_iter().filter(|protocol| declared.transports.contains(protocol) && wanted(protocol));
        let taken: Vec<Protocol> = taken.collect();
        if taken.is_empty() && all.iter().any(wanted) {
            let help = "say with `protocol` at the service what it takes".to_owned();
            diagnostics.push(Problem::NotTaken(service.value.clone()).at(&service.span).help(help));
        }
        (taken.len() < all.len()).then(|| OneOf::these(taken))
    }

    fn layer(&self, layer: &LayerDeclaration, diagnostics: &mut Vec<Diagnostic>) -> Option<Layer> {
        match layer {
            LayerDeclaration::Redirect { service } => {
                let names: Vec<&str> = self.services.iter().map(|known| known.name.as_str()).collect();
                let others = unreadable(self.declarations);
                let index = position("service", service, &names, others, diagnostics)?;
                Some(Layer::Redirect { service: self.services[index].id })
            }
            LayerDeclaration::Auth { sublayer, action, redirected, proxied } => {
                let names: Vec<&str> =
                    self.declarations.sublayers.iter().map(|it| it.name.value.as_str()).collect();
                let index = position("sublayer", sublayer, &names, iter::empty(), diagnostics)?;
                let flags = FlagConditions { redirected: *redirected, proxied: *proxied };
                let action = match *action {
                    ActionDeclaration::Permit(right) => Action::Permit(right),
                    ActionDeclaration::Block(right, errno) => Action::Block { right, errno },
                    ActionDeclaration::Continue => Action::Continue,
                };
                let sublayer = SublayerId(u32::try_from(index + 1).ok()?);
                Some(Layer::Auth(AuthRule { sublayer, flags, action }))
            }
        }
    }

    fn conditions(&self, filter: &FilterDeclaration, diagnostics: &mut Vec<Diagnostic>) -> Conditions {
        let (wanted, excluded) = (&filter.wanted, &filter.excluded);
        let namespaces = |list: &ConditionDeclarations| {
            resolve(list.namespace.as_deref(), |name| self.namespace(name).into_iter().collect())
        };
        let mut merge = Merge { diagnostics };
        Conditions {
            protocol: merge.values("protocol", said(&wanted.protocol), said(&excluded.protocol)),
            family: merge.values("family", said(&wanted.family), said(&excluded.family)),
            remote: merge.values("remote", said(&wanted.remote), said(&excluded.remote)),
            remote_ports: merge.values("port", said(&wanted.port), said(&excluded.port)),
            local: merge.values("local", said(&wanted.local), said(&excluded.local)),
            host: merge.either("host", said(&wanted.host), said(&excluded.host)),
            namespace: merge.values("network_namespace", namespaces(wanted), namespaces(excluded)),
            application: self.process(&wanted.application, &excluded.application, &mut merge),
            via: self.process(&wanted.via, &excluded.via, &mut merge),
        }
    }

    fn process(
        &self,
        wanted: &ProcessDeclarations,
        excluded: &ProcessDeclarations,
        merge: &mut Merge<'_>,
    ) -> ProcessConditions {
        let files =
            |list: &ProcessDeclarations| resolve(list.exe.as_deref(), |exe| self.names.executables(exe));
        let accounts = |what, list: &Option<Box<Located<Vec<Located<Account>>>>>| {
            resolve(list.as_deref(), |account| self.account(what, account).into_iter().collect())
        };
        let users = [accounts("user", &wanted.user), accounts("user", &excluded.user)];
        let groups = [accounts("group", &wanted.group), accounts("group", &excluded.group)];
        let cgroups = |list: &ProcessDeclarations| resolve(list.cgroup.as_deref(), |name| self.cgroups(name));
        let [wanted_users, excluded_users] = users;
        let [wanted_groups, excluded_groups] = groups;
        ProcessConditions {
            exe: merge.values("exe", files(wanted), files(excluded)),
            uid: merge.values("user", wanted_users, excluded_users),
            gid: merge.values("group", wanted_groups, excluded_groups),
            command: merge.values("command", said(&wanted.command), said(&excluded.command)),
            cgroup: merge.either("cgroup", cgroups(wanted), cgroups(excluded)),
        }
    }

    fn account(&self, what: &str, account: &Account) -> Option<u32> {
        match (account, what) {
            (Account::Number(number), _) => Some(*number),
            (Account::Named(name), "group") => self.names.group(name),
            (Account::Named(name), _) => self.names.user(name),
        }
    }

    fn namespace(&self, name: &NamespaceName) -> Option<Namespace> {
        match name {
            NamespaceName::Own => Some(Namespace::Own),
            NamespaceName::Path(path) => self.names.namespace(path),
        }
    }

    fn cgroups(&self, name: &CgroupName) -> Vec<u64> {
        match name {
            CgroupName::Path(path) => self.names.cgroup(path).into_iter().collect(),
            CgroupName::Unit(unit) => self.names.unit(unit),
            CgroupName::Container(id) => self.names.container(id),
        }
    }
}

fn said<T: Clone>(list: &Option<Box<Located<Vec<T>>>>) -> Option<Located<Vec<T>>> {
    list.as_deref().cloned()
}

/// The values that names come to.
fn resolve<N, T>(
    list: Option<&Located<Vec<Located<N>>>>,
    values_of: impl Fn(&N) -> Vec<T>,
) -> Option<Located<Vec<T>>> {
    let list = list?;
    let values = list.value.iter().flat_map(|name| values_of(&name.value)).collect();
    Some(Located { value: values, span: list.span })
}

/// Services of which it is known only what they are called.
fn unreadable(declarations: &Declarations) -> impl Iterator<Item = &str> {
    declarations.unreadable_services.iter().map(|name| name.value.as_str())
}

/// The place of a name in a list of them. There are others, which have no place and may be meant.
fn position<'n>(
    what: &'static str,
    name: &Located<String>,
    names: &[&'n str],
    others: impl Iterator<Item = &'n str>,
    diagnostics: &mut Vec<Diagnostic>,
) -> Option<usize> {
    let index = names.iter().position(|known| *known == name.value);
    if index.is_none() {
        let problem = Problem::Unknown { what, name: name.value.clone() };
        let help = did_you_mean(&name.value, names.iter().copied().chain(others));
        diagnostics.push(problem.at(&name.span).help(help));
    }
    index
}

/// What is wanted of a fact and what is excluded, as the one condition that a filter has on it.
struct Merge<'a> {
    diagnostics: &'a mut Vec<Diagnostic>,
}

impl Merge<'_> {
    /// Of facts of which what is excluded can be taken from what is wanted.
    fn values<T: Difference>(
        &mut self,
        key: &'static str,
        wanted: Option<Located<Vec<T>>>,
        excluded: Option<Located<Vec<T>>>,
    ) -> Option<OneOf<T>> {
        match (wanted, excluded) {
            (Some(wanted), Some(excluded)) => {
                let had = !wanted.value.is_empty();
                let left = without(wanted.value, &excluded.value);
                if had && left.is_empty() {
                    self.diagnostics.push(Problem::NeverMatches(key).at(&excluded.span));
                }
                Some(OneOf::these(left))
            }
            (wanted, excluded) => self.either(key, wanted, excluded),
        }
    }

    /// Of facts of which it cannot.
    fn either<T>(
        &mut self,
        key: &'static str,
        wanted: Option<Located<Vec<T>>>,
        excluded: Option<Located<Vec<T>>>,
    ) -> Option<OneOf<T>> {
        match (wanted, excluded) {
            (None, None) => None,
            (Some(wanted), None) => Some(OneOf::these(wanted.value)),
            (None, Some(excluded)) => Some(OneOf::none_of(excluded.value)),
            (Some(_), Some(excluded)) => {
                self.diagnostics.push(Problem::Entangled(key).at(&excluded.span));
                None
            }
        }
    }
}
