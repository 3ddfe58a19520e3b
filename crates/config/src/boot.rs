//! Filters that are in force from boot on: what they cannot say. Until there is a daemon nobody keeps them up with the host, and
//! there are neither services nor the cgroups of what has not started.

use crate::declaration::{
    ActionDeclaration, CgroupName, ConditionDeclarations, FilterDeclaration, FilterLifetime,
    LayerDeclaration, NamespaceName, ProcessDeclarations,
};
use crate::problem::{Diagnostic, Problem};
use crate::source::Span;

/// Says of a filter what it cannot say, if it is one of those.
pub(crate) fn refuse(filter: &FilterDeclaration, diagnostics: &mut Vec<Diagnostic>) {
    match filter.lifetime {
        FilterLifetime::Persistent => return,
        FilterLifetime::Boot => {}
    }
    let mut say = |span: &Span, what| diagnostics.push(Problem::NotAtBoot(what).at(span));
    match &filter.layer {
        LayerDeclaration::Redirect { service } => {
            say(&service.span, "redirect: there are no services yet");
        }
        LayerDeclaration::Auth { sublayer, action: ActionDeclaration::Continue, .. } => {
            say(&sublayer.span, "continue: it permits or blocks");
        }
        LayerDeclaration::Auth {
            action: ActionDeclaration::Permit(_) | ActionDeclaration::Block(..),
            redirected,
            proxied,
            ..
        } => {
            if redirected.is_some() || proxied.is_some() {
                say(&filter.span, "ask for `redirected` or `proxied`: there are no services yet");
            }
        }
    }
    for lists in [&filter.wanted, &filter.excluded] {
        refuse_conditions(lists, &mut say);
    }
}

fn refuse_conditions(lists: &ConditionDeclarations, say: &mut impl FnMut(&Span, &'static str)) {
    if let Some(host) = &lists.host {
        say(&host.span, "ask for names of hosts: nobody learns them yet");
    }
    for namespace in lists.namespace.iter().flat_map(|namespaces| &namespaces.value) {
        match &namespace.value {
            NamespaceName::Own => {}
            NamespaceName::Path(path) if path == NamespaceName::HOST => {}
            NamespaceName::Path(_) => {
                say(&namespace.span, "ask for a network namespace by a path: it is not there yet");
            }
        }
    }
    for process in [&lists.application, &lists.via] {
        refuse_processes(process, say);
    }
}

fn refuse_processes(process: &ProcessDeclarations, say: &mut impl FnMut(&Span, &'static str)) {
    for cgroup in process.cgroup.iter().flat_map(|cgroups| &cgroups.value) {
        let what = match &cgroup.value {
            CgroupName::Path(_) => "ask for a cgroup: it may not be there yet",
            CgroupName::Unit(_) => "ask for a unit: it has not started yet",
            CgroupName::Container(_) => "ask for a container: it has not started yet",
        };
        say(&cgroup.span, what);
    }
    for exe in process.exe.iter().flat_map(|executables| &executables.value) {
        if exe.value.has_wildcards() {
            say(&exe.span, "ask for executables by a pattern: nobody looks for new ones yet");
        }
    }
}
