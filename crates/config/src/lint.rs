//! What a policy allows and is probably not meant.

use std::collections::BTreeSet;

use waylay_core::{
    Action, Conditions, Filter, HostPattern, Layer, Namespace, OneOf, Policy, ProcessConditions, Tables,
    tables::Warning,
};

use crate::declaration::{
    Account, CgroupName, ConditionDeclarations, Declarations, NamespaceName, ProcessDeclarations,
};
use crate::lower::{Lowered, Origins};
use crate::names::Names;
use crate::problem::{Diagnostic, Problem};
use crate::source::Sources;
use crate::subset::Difference;

/// Each filter is compared with all before it in its service or sublayer; where there are more than this, only with those that ask
/// nothing.
const COMPARED: usize = 2_000;

/// Names in conditions that nobody bears on this host. Units and containers may come yet.
#[must_use]
pub fn strangers(declarations: &Declarations, names: &dyn Names) -> Vec<Diagnostic> {
    let filters = declarations.filters.iter();
    let conditions = filters.flat_map(|filter| [&filter.wanted, &filter.excluded]);
    conditions.flat_map(|conditions| strangers_of_a_table(conditions, names)).collect()
}

fn strangers_of_a_table(conditions: &ConditionDeclarations, names: &dyn Names) -> Vec<Diagnostic> {
    let mut found = strangers_of(&conditions.application, names);
    found.extend(strangers_of(&conditions.via, names));
    for namespace in conditions.namespace.iter().flat_map(|namespaces| &namespaces.value) {
        if let NamespaceName::Path(path) = &namespace.value
            && names.namespace(path).is_none()
        {
            found.push(
                Problem::NobodyYet { what: "network namespace", name: path.clone() }.at(&namespace.span),
            );
        }
    }
    found
}

fn strangers_of(process: &ProcessDeclarations, names: &dyn Names) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    for account in process.user.iter().flat_map(|users| &users.value) {
        if let Account::Named(name) = &account.value
            && names.user(name).is_none()
        {
            found.push(Problem::Nobody { what: "user", name: name.clone() }.at(&account.span));
        }
    }
    for account in process.group.iter().flat_map(|groups| &groups.value) {
        if let Account::Named(name) = &account.value
            && names.group(name).is_none()
        {
            found.push(Problem::Nobody { what: "group", name: name.clone() }.at(&account.span));
        }
    }
    for exe in process.exe.iter().flat_map(|executables| &executables.value) {
        // A pattern may cover the whole file system.
        if !exe.value.has_wildcards() && names.executables(&exe.value).is_empty() {
            let name = exe.value.as_str().to_owned();
            found.push(Problem::NobodyYet { what: "executable", name }.at(&exe.span));
        }
    }
    for cgroup in process.cgroup.iter().flat_map(|cgroups| &cgroups.value) {
        let (what, name, is_there) = match &cgroup.value {
            CgroupName::Path(path) => ("cgroup", path.as_str(), names.cgroup(path).is_some()),
            CgroupName::Unit(unit) => ("unit", unit.as_str(), !names.unit(unit).is_empty()),
            CgroupName::Container(id) => ("container", id.as_str(), !names.container(id).is_empty()),
        };
        if !is_there {
            found.push(Problem::NobodyYet { what, name: name.to_owned() }.at(&cgroup.span));
        }
    }
    found
}

/// Filters that never decide and services that nothing leads to.
#[must_use]
pub fn lint(declarations: &Declarations, lowered: &Lowered, sources: &Sources) -> Vec<Diagnostic> {
    let Lowered { policy, origins } = lowered;
    let mut found = unused_services(declarations, policy);
    found.extend(dear(policy));
    for service in policy.services() {
        let filters: Vec<&Filter> = policy.redirect_filters(service.id).collect();
        found.extend(shadowed(&filters, origins, sources));
    }
    for sublayer in policy.sublayers() {
        let filters: Vec<&Filter> = policy.auth_filters(sublayer.id).map(|(filter, _)| filter).collect();
        found.extend(shadowed(&filters, origins, sources));
    }
    found
}

/// Filters that are too many for an engine, or for a lookup that nobody notices.
fn dear(policy: &Policy) -> Option<Diagnostic> {
    let problem = match Tables::compile(policy) {
        Ok(tables) => match tables.index().report().warning()? {
            Warning::Overlapping { filters, steps } => Problem::Overlapping { filters, steps },
        },
        Err(limit) => Problem::Limit(limit),
    };
    Some(problem.somewhere())
}

fn unused_services(declarations: &Declarations, policy: &Policy) -> Vec<Diagnostic> {
    let used: BTreeSet<&str> = policy
        .services()
        .iter()
        .filter(|service| policy.redirect_filters(service.id).next().is_some())
        .map(|service| service.name.as_str())
        .collect();
    let unused = declarations.services.iter().filter(|service| !used.contains(service.name.value.as_str()));
    unused.map(|service| Problem::UnusedService(service.name.value.clone()).at(&service.name.span)).collect()
}

/// Of filters as they are asked, those before which another one always decides.
fn shadowed(filters: &[&Filter], origins: &Origins, sources: &Sources) -> Vec<Diagnostic> {
    let all = filters.len() <= COMPARED;
    let mut found = Vec::new();
    let mut deciding: Vec<&Filter> = Vec::new();
    for filter in filters {
        let by = deciding.iter().find(|earlier| shadows(earlier, filter)).copied();
        if decides(filter) && (all || filter.conditions == Conditions::default()) {
            deciding.push(filter);
        }
        let Some(by) = by else { continue };
        let Some(span) = origins.span(filter.id) else { continue };
        let mut diagnostic = Problem::Shadowed { by: origins.describe(by.id, sources) }.at(span);
        if let Some(span) = origins.span(by.id) {
            diagnostic = diagnostic.related(span, "asked first");
        }
        found.push(diagnostic);
    }
    found
}

/// Whether nothing is asked after it.
fn decides(filter: &Filter) -> bool {
    match filter.layer {
        Layer::Redirect { .. } => true,
        Layer::Auth(rule) => match rule.action {
            Action::Permit(_) | Action::Block { .. } => true,
            Action::Continue => false,
        },
    }
}

/// Whether the one matches all that the other matches. Says no where it cannot tell.
fn shadows(one: &Filter, other: &Filter) -> bool {
    let flags = match (one.layer, other.layer) {
        (Layer::Auth(one), Layer::Auth(other)) => {
            let covers = |one: Option<bool>, other| one.is_none() || one == other;
            covers(one.flags.redirected, other.flags.redirected)
                && covers(one.flags.proxied, other.flags.proxied)
        }
        (Layer::Redirect { .. }, Layer::Redirect { .. }) => true,
        (Layer::Auth(_), Layer::Redirect { .. }) | (Layer::Redirect { .. }, Layer::Auth(_)) => false,
    };
    flags && covers_conditions(&one.conditions, &other.conditions)
}

fn covers_conditions(one: &Conditions, other: &Conditions) -> bool {
    covers(&one.protocol, &other.protocol)
        && covers(&one.family, &other.family)
        && covers(&one.remote, &other.remote)
        && covers(&one.remote_ports, &other.remote_ports)
        && covers(&one.local, &other.local)
        && covers_hosts(&one.host, &other.host)
        && covers_namespaces(&one.namespace, &other.namespace)
        && covers_process(&one.application, &other.application)
        && covers_process(&one.via, &other.via)
}

fn covers_process(one: &ProcessConditions, other: &ProcessConditions) -> bool {
    covers(&one.exe, &other.exe)
        && covers(&one.uid, &other.uid)
        && covers(&one.gid, &other.gid)
        && covers(&one.command, &other.command)
        && covers(&one.cgroup, &other.cgroup)
}

/// A leg may have several names, so what one list wants says nothing of what another excludes.
fn covers_hosts(one: &Option<OneOf<HostPattern>>, other: &Option<OneOf<HostPattern>>) -> bool {
    let within = |values: &OneOf<HostPattern>, all: &OneOf<HostPattern>| {
        values.values().iter().all(|value| all.values().iter().any(|one| one.covers_all_of(value)))
    };
    match (one, other) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(one), Some(other)) => match (one.is_negated(), other.is_negated()) {
            (false, false) => within(other, one),
            (true, true) => within(one, other),
            (true, false) | (false, true) => false,
        },
    }
}

/// What asks for no namespace asks for the own one.
fn covers_namespaces(one: &Option<OneOf<Namespace>>, other: &Option<OneOf<Namespace>>) -> bool {
    let or_own = |list: &Option<OneOf<Namespace>>| list.clone().or(Some(OneOf::only(Namespace::Own)));
    covers(&or_own(one), &or_own(other))
}

fn covers<T: Difference>(one: &Option<OneOf<T>>, other: &Option<OneOf<T>>) -> bool {
    let (one, other) = match (one, other) {
        (None, _) => return true,
        (Some(_), None) => return false,
        (Some(one), Some(other)) => (one, other),
    };
    // What names come to can change; a list that is empty today is not compared.
    if one.values().is_empty() || other.values().is_empty() {
        return false;
    }
    let within =
        |values: &[T], all: &[T]| values.iter().all(|value| all.iter().any(|one| one.contains(value)));
    match (one.is_negated(), other.is_negated()) {
        (false, false) => within(other.values(), one.values()),
        // What is excluded by the one is excluded by the other already.
        (true, true) => within(one.values(), other.values()),
        (true, false) => {
            let disjoint =
                |a: &T, b: &T| !a.contains(b) && !b.contains(a) && a.clone().minus(b) == [a.clone()];
            other.values().iter().all(|value| one.values().iter().all(|excluded| disjoint(value, excluded)))
        }
        (false, true) => false,
    }
}
