//! Who may declare what. Pure: it looks at declarations and at whose they are.
//!
//! Root may all. Others may steer what programs of their own user do, through services that run as themselves, for as long as
//! they hold a connection to the daemon; and nothing that they say keeps root from saying anything else.

use std::collections::BTreeMap;

use waylay_config::{
    Declarations, Diagnostic, Located, Problem, Span,
    declaration::{
        Account, ActionDeclaration, AdoptedIdentity, CgroupName, FilterDeclaration, LayerDeclaration,
        ProcessDeclarations, ServiceDeclaration, ServiceKind,
    },
};

use crate::ledger::{Ledger, Lifetime, Origin, ROOT};

/// Services that one user other than root may have at a time.
pub const SERVICES_OF_A_USER: usize = 4;
/// Filters that one user other than root may have at a time.
pub const FILTERS_OF_A_USER: usize = 256;
/// Sublayers that one user other than root may have at a time.
pub const SUBLAYERS_OF_A_USER: usize = 2;
/// Units and containers that the filters of one user other than root may name: each is looked for among all cgroups.
pub const SEARCHES_OF_A_USER: usize = 16;
/// Users other than root who may have something at a time. So they leave room for most of what there can be.
pub const USERS: usize = 4;

/// What the names begin with of whatever a user other than root declares; nobody else's do.
#[must_use]
pub fn prefix(uid: u32) -> String {
    format!("u{uid}.")
}

/// Whose a name is.
fn owner_of_name(name: &str) -> Option<u32> {
    name.strip_prefix('u')?.split_once('.')?.0.parse().ok()
}

/// Whether a user may remove what has this owner.
#[must_use]
pub const fn may_remove(uid: u32, owner: u32) -> bool {
    uid == ROOT || uid == owner
}

/// Whether a user may have something for so long.
#[must_use]
pub const fn may_last(uid: u32, lifetime: Lifetime) -> bool {
    match lifetime {
        Lifetime::Session(_) => true,
        Lifetime::Daemon | Lifetime::Persistent | Lifetime::Boot => uid == ROOT,
    }
}

/// Holds declarations to what their owners may: adds the conditions without which some would say too much, and the order in which
/// services of users stand, and says of everything else what may not be.
pub fn hold_to_account(declarations: &mut Declarations, ledger: &Ledger) -> Vec<Diagnostic> {
    let mut office = Office { ledger, problems: Vec::new() };
    office.switches(declarations);
    office.names(declarations);
    office.reliance(declarations);
    office.services(declarations);
    office.filters(declarations);
    office.shares(declarations);
    office.problems
}

/// What a filter asks of processes.
fn processes(filter: &FilterDeclaration) -> impl Iterator<Item = &ProcessDeclarations> {
    [&filter.wanted, &filter.excluded].into_iter().flat_map(|asked| [&asked.application, &asked.via])
}

struct Office<'a> {
    ledger: &'a Ledger,
    problems: Vec<Diagnostic>,
}

impl Office<'_> {
    fn origin(&self, span: &Span) -> Origin {
        self.ledger.piece_at(span).map_or(Origin::File, |piece| piece.origin)
    }

    /// The owner of what stands at a place, if it is somebody other than root.
    fn guest(&self, span: &Span) -> Option<u32> {
        Some(self.origin(span).owner()).filter(|owner| *owner != ROOT)
    }

    fn refuse(&mut self, span: &Span, what: impl Into<String>) -> &mut Diagnostic {
        self.problems.push(Problem::NotAllowed(what.into()).at(span));
        let last = self.problems.len() - 1;
        &mut self.problems[last]
    }

    fn switches(&mut self, declarations: &Declarations) {
        let switches = [
            declarations.unredirectable.as_ref().map(|switch| switch.span),
            declarations.other_namespaces.as_ref().map(|switch| switch.span),
            declarations.existing.as_ref().map(|switch| switch.span),
            declarations.override_sandbox.as_ref().map(|switch| switch.span),
            declarations.resolvers.as_ref().map(|resolvers| resolvers.span),
        ];
        let orders = declarations.orders.iter().filter_map(|order| Some(order.first()?.span));
        // Those of a run name nothing but its own services.
        let orders = orders.filter(|span| !self.is_of_a_run(span)).collect::<Vec<_>>();
        for span in switches.into_iter().flatten().chain(orders) {
            if self.guest(&span).is_some() && !self.is_of_a_run(&span) {
                self.refuse(&span, "only root may say this of the whole policy");
            }
        }
    }

    /// Names are set aside for each user, or somebody could take one that root is going to use.
    fn names(&mut self, declarations: &Declarations) {
        let services = declarations.services.iter().map(|service| &service.name);
        let sublayers = declarations.sublayers.iter().map(|sublayer| &sublayer.name);
        let filters = declarations.filters.iter().filter_map(|filter| filter.name.as_ref());
        for name in services.chain(sublayers).chain(filters) {
            if self.is_of_a_run(&name.span) {
                continue;
            }
            let owner = self.origin(&name.span).owner();
            let prefix = prefix(owner);
            if owner != ROOT && !name.value.starts_with(&prefix) {
                let help = format!("call it \"{prefix}{}\"", name.value);
                let said = self.refuse(&name.span, format!("names of this user begin with {prefix:?}"));
                said.help = Some(help);
            } else if owner == ROOT && owner_of_name(&name.value).is_some() {
                self.refuse(&name.span, "names like this are set aside for users other than root");
            }
        }
    }

    fn services(&mut self, declarations: &mut Declarations) {
        let of_root = declarations.services.iter().map(|service| &service.name);
        let of_root: Vec<Located<String>> =
            of_root.filter(|name| !self.goes_first(&name.span)).cloned().collect();
        for service in &mut declarations.services {
            if let Some(uid) = self.guest(&service.name.span) {
                self.service_of_a_guest(service, uid);
            }
            if self.goes_first(&service.name.span) {
                // Whatever it makes of a connection, root's services see it after that.
                let span = service.name.span;
                service.before.extend(of_root.iter().map(|name| Located { value: name.value.clone(), span }));
            }
        }
    }

    fn is_of_a_run(&self, span: &Span) -> bool {
        self.ledger.piece_at(span).is_some_and(|piece| piece.run.is_some())
    }

    /// Services of others than root, and those of runs.
    fn goes_first(&self, span: &Span) -> bool {
        self.guest(span).is_some() || self.is_of_a_run(span)
    }

    fn service_of_a_guest(&mut self, service: &ServiceDeclaration, uid: u32) {
        let named = service.before.iter().chain(&service.after);
        let other = named.filter(|name| owner_of_name(&name.value) != Some(uid));
        for span in other.map(|name| name.span).collect::<Vec<_>>() {
            self.refuse(&span, "only root may place a service before or after those of somebody else");
        }
        let running = match &service.kind {
            ServiceKind::Builtin(_) | ServiceKind::Cooperating { .. } => None,
            ServiceKind::Adopted { identity, .. } => match identity {
                AdoptedIdentity::Started { .. } => None,
                AdoptedIdentity::Unit(unit) => Some(unit.span),
                AdoptedIdentity::Cgroup(path) | AdoptedIdentity::Exe(path) => Some(path.span),
                AdoptedIdentity::User(user) => Some(user.span),
            },
        };
        if let Some(span) = running {
            self.refuse(&span, "only root may adopt what runs already");
        }
    }

    /// Nothing may rely on what can go before it: it would have to go too, and nobody would have said so.
    fn reliance(&mut self, declarations: &Declarations) {
        let services = declarations.services.iter().map(|service| &service.name);
        let services: BTreeMap<&str, Span> = services.map(|name| (name.value.as_str(), name.span)).collect();
        let sublayers = declarations.sublayers.iter().map(|sublayer| &sublayer.name);
        let sublayers: BTreeMap<&str, Span> =
            sublayers.map(|name| (name.value.as_str(), name.span)).collect();
        for service in &declarations.services {
            for name in service.before.iter().chain(&service.after) {
                self.relies(&name.span, services.get(name.value.as_str()), &name.value);
            }
        }
        for name in declarations.orders.iter().flatten() {
            self.relies(&name.span, services.get(name.value.as_str()), &name.value);
        }
        for filter in &declarations.filters {
            match &filter.layer {
                LayerDeclaration::Redirect { service } => {
                    self.relies(&service.span, services.get(service.value.as_str()), &service.value);
                }
                LayerDeclaration::Auth { sublayer, .. } => {
                    self.relies(&sublayer.span, sublayers.get(sublayer.value.as_str()), &sublayer.value);
                }
            }
        }
    }

    fn relies(&mut self, here: &Span, there: Option<&Span>, name: &str) {
        let Some(there) = there else { return };
        let (own, other) = (self.origin(here), self.origin(there));
        if !own.lifetime().may_rely_on(other.lifetime()) {
            self.refuse(
                here,
                format!("{name:?} may be gone before this is: it was added for a shorter time"),
            );
        }
    }

    fn filters(&mut self, declarations: &mut Declarations) {
        for filter in &mut declarations.filters {
            if let Some(uid) = self.guest(&filter.span) {
                self.filter_of_a_guest(filter, uid);
            }
        }
    }

    fn filter_of_a_guest(&mut self, filter: &mut FilterDeclaration, uid: u32) {
        let owned = |name: &str| owner_of_name(name) == Some(uid);
        match &filter.layer {
            LayerDeclaration::Redirect { service } if !owned(&service.value) => {
                self.refuse(&service.span, "only root may redirect to a service of somebody else");
            }
            LayerDeclaration::Auth { sublayer, .. } if !owned(&sublayer.value) => {
                self.refuse(&sublayer.span, "only root may put filters into a sublayer of somebody else");
            }
            LayerDeclaration::Auth { action: ActionDeclaration::Permit(_), .. } => {
                self.refuse(&filter.span, "only root may permit: it could override what root has blocked");
            }
            LayerDeclaration::Redirect { .. } | LayerDeclaration::Auth { .. } => {}
        }
        self.patterns(filter);
        let span = filter.span;
        let own = || vec![Located { value: Account::Number(uid), span }];
        let users =
            filter.wanted.application.user.get_or_insert_with(|| Box::new(Located { value: own(), span }));
        let other = users.value.iter().find(|user| user.value != Account::Number(uid));
        if let Some(other) = other.map(|user| user.span) {
            let said = self.refuse(&other, "only root may steer what programs of other users do");
            said.help = Some(format!("leave it out, or say {uid}"));
        }
    }

    /// A pattern may cover the whole file system, and would be looked for there by root and again and again.
    fn patterns(&mut self, filter: &FilterDeclaration) {
        let executables = processes(filter).filter_map(|process| process.exe.as_ref());
        let patterns = executables.flat_map(|exe| &exe.value).filter(|exe| exe.value.has_wildcards());
        for span in patterns.map(|exe| exe.span) {
            let said = self.refuse(&span, "only root may name executables by a pattern");
            said.help = Some("name each by its path".to_owned());
        }
    }

    /// Users other than root have a share, or what they add could keep root from adding more.
    fn shares(&mut self, declarations: &Declarations) {
        let users = self.ledger.guests();
        let services = declarations.services.iter().map(|service| service.name.span);
        let sublayers = declarations.sublayers.iter().map(|sublayer| sublayer.name.span);
        let filters = declarations.filters.iter().map(|filter| filter.span);
        self.share("services", services, SERVICES_OF_A_USER);
        self.share("sublayers", sublayers, SUBLAYERS_OF_A_USER);
        self.share("filters", filters, FILTERS_OF_A_USER);
        let cgroups =
            declarations.filters.iter().flat_map(processes).filter_map(|process| process.cgroup.as_ref());
        let searches = cgroups.flat_map(|cgroups| &cgroups.value).filter(|name| match name.value {
            CgroupName::Path(_) => false,
            CgroupName::Unit(_) | CgroupName::Container(_) => true,
        });
        self.share("units and containers in conditions", searches.map(|name| name.span), SEARCHES_OF_A_USER);
        if users.len() > USERS {
            let what = format!("at most {USERS} users other than root can have something at a time");
            self.problems.push(Problem::NotAllowed(what).somewhere());
        }
    }

    fn share(&mut self, what: &str, declared: impl Iterator<Item = Span>, most: usize) {
        let mut counts: BTreeMap<u32, usize> = BTreeMap::new();
        for span in declared {
            let Some(uid) = self.guest(&span) else { continue };
            let count = counts.entry(uid).or_default();
            *count += 1;
            if *count == most + 1 {
                self.refuse(&span, format!("a user other than root has at most {most} {what} at a time"));
            }
        }
    }
}
