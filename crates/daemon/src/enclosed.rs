//! What the texts of a run come to in the policy of a daemon: names of their own, and nothing that is about anybody but the
//! processes in the run's cgroup. Pure.

use waylay_config::{
    Declarations, Diagnostic, LONGEST_SERVICE, Located, Problem, Span,
    declaration::{
        AdoptedIdentity, CgroupName, FilterDeclaration, LayerDeclaration, ServiceDeclaration, ServiceKind,
    },
};

use crate::ledger::{Ledger, RunOf};

/// Gives what runs declare their names, holds their filters to their cgroups, and says what a run cannot say.
pub(crate) fn enclose(declarations: &mut Declarations, ledger: &Ledger) -> Vec<Diagnostic> {
    let run_at = |span: &Span| ledger.piece_at(span).and_then(|piece| piece.run.as_deref());
    let mut problems = Vec::new();
    let switches = [
        declarations.unredirectable.as_ref().map(|switch| switch.span),
        declarations.other_namespaces.as_ref().map(|switch| switch.span),
        declarations.existing.as_ref().map(|switch| switch.span),
        declarations.override_sandbox.as_ref().map(|switch| switch.span),
    ];
    for span in switches.into_iter().flatten().filter(|span| run_at(span).is_some()) {
        problems.push(refused("with a daemon its own policy says this, and not that of a run", &span));
    }
    for service in &mut declarations.services {
        if let Some(run) = run_at(&service.name.span) {
            enclose_service(service, run, &mut problems);
        }
    }
    for sublayer in &mut declarations.sublayers {
        if let Some(run) = run_at(&sublayer.name.span) {
            rename(&mut sublayer.name, run);
        }
    }
    for filter in &mut declarations.filters {
        if let Some(run) = run_at(&filter.span) {
            enclose_filter(filter, run, &mut problems);
        }
    }
    for name in declarations.orders.iter_mut().flatten() {
        if let Some(run) = run_at(&name.span) {
            rename(name, run);
        }
    }
    problems
}

fn refused(what: impl Into<String>, span: &Span) -> Diagnostic {
    Problem::NotAllowed(what.into()).at(span)
}

fn rename(name: &mut Located<String>, run: &RunOf) {
    name.value.insert_str(0, &run.prefix());
}

fn enclose_service(service: &mut ServiceDeclaration, run: &RunOf, problems: &mut Vec<Diagnostic>) {
    rename(&mut service.name, run);
    service.before.iter_mut().chain(&mut service.after).for_each(|name| rename(name, run));
    if service.name.value.len() > LONGEST_SERVICE {
        let most = LONGEST_SERVICE - run.prefix().len();
        let what = format!("at the daemon names of this run's services have at most {most} bytes");
        problems.push(refused(what, &service.name.span));
    }
    let running = match &service.kind {
        ServiceKind::Builtin(_)
        | ServiceKind::Cooperating { .. }
        | ServiceKind::Adopted { identity: AdoptedIdentity::Started { .. }, .. } => None,
        ServiceKind::Adopted { identity: AdoptedIdentity::Unit(unit), .. } => Some(unit.span),
        ServiceKind::Adopted { identity: AdoptedIdentity::User(user), .. } => Some(user.span),
        ServiceKind::Adopted {
            identity: AdoptedIdentity::Cgroup(path) | AdoptedIdentity::Exe(path), ..
        } => Some(path.span),
    };
    if let Some(span) = running {
        problems
            .push(refused("what runs already is adopted by the daemon's own policy, not by a run", &span));
    }
}

fn enclose_filter(filter: &mut FilterDeclaration, run: &RunOf, problems: &mut Vec<Diagnostic>) {
    if let Some(name) = &mut filter.name {
        rename(name, run);
    }
    match &mut filter.layer {
        LayerDeclaration::Redirect { service } => rename(service, run),
        LayerDeclaration::Auth { sublayer, .. } => rename(sublayer, run),
    }
    let cgroup = &mut filter.wanted.application.cgroup;
    if let Some(named) = cgroup {
        problems.push(refused("with a daemon the cgroup of a run's filters is that of the run", &named.span));
    }
    let span = filter.span;
    let own = Located { value: CgroupName::Path(run.cgroup.clone()), span };
    *cgroup = Some(Box::new(Located { value: vec![own], span }));
}
