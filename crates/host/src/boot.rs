//! What is in force from boot on, without a process that keeps it: put there, and handed over to a station.

use std::{collections::BTreeSet, fs, path::Path};

use waylay_core::{Policy, Tables};
use waylay_engine::Installation;
use waylay_engine_ebpf::{EbpfEngine, Limits, Scope, bpf_file_system, forget_instance, unpin};

use crate::{
    cgroup::Cgroup,
    error::RunError,
    instance::{self, Abandoned, Instance, InstanceId},
    station::require_root,
};

/// Puts a policy without services in force, which stays so when this process has ended, until a station takes the scope over or
/// somebody else does this again. What was put in force so before goes when this is.
///
/// # Errors
/// [`RunError`]; what was in force still is.
pub fn boot(scope: &Cgroup, policy: &Policy) -> Result<(), RunError> {
    require_root()?;
    let pin_root = bpf_file_system()?;
    let former = Former::on(scope, &pin_root);
    Instance::see_versions_around(scope)?;
    let id = InstanceId::new()?;
    let own = scope.child(&id.name());
    let place = Scope {
        cgroup: scope.path().into(),
        level: scope.level(),
        service_level: own.level() + 1,
        instance: id.number(),
        pin_root: pin_root.clone(),
        pins: pin_root.join(id.name()),
        limits: Limits::default(),
        residents: false,
    };
    let instance = Instance::record_boot(id, scope, &own, &place.pins)?;
    match put_in_force(place.clone(), policy, &former) {
        Ok(()) => {
            former.end();
            Ok(())
        }
        Err(error) => {
            let unpinned = unpin(&place.pins).is_ok();
            if forget_instance(&pin_root, place.instance).is_ok() && unpinned {
                instance.forget();
            }
            Err(error)
        }
    }
}

fn put_in_force(place: Scope, policy: &Policy, former: &Former) -> Result<(), RunError> {
    let mut engine = EbpfEngine::load_beside(place, &former.instances())?;
    let slots = waylay_engine::Engine::slots(&mut engine)?;
    let tables = Tables::compile_keeping(policy, slots)?;
    engine.install_living(&Installation { tables, endpoints: Vec::new() }, &BTreeSet::new())?;
    engine.attach()?;
    Ok(engine.take_scope()?)
}

/// Ends what is in force from boot on; whether anything was.
///
/// # Errors
/// [`RunError`] if this process may not.
pub fn lift_boot(scope: &Cgroup) -> Result<bool, RunError> {
    require_root()?;
    let former = Former::on(scope, &bpf_file_system()?);
    let is_there = !former.found.is_empty();
    former.end();
    Ok(is_there)
}

/// What has been in force since boot on a scope or in it, until it is ended. Nobody else cleans it up meanwhile.
#[derive(Debug)]
pub(crate) struct Former {
    found: Vec<Abandoned>,
    pin_root: std::path::PathBuf,
}

impl Former {
    /// What another version has put there, whose registry nobody shares, ends at once.
    pub(crate) fn on(scope: &Cgroup, pin_root: &Path) -> Self {
        let found = instance::abandoned(|record| {
            record.boot && record.scope.as_ref().is_some_and(|(path, _)| path.starts_with(scope.path()))
        });
        let (found, others): (Vec<_>, Vec<_>) =
            found.into_iter().partition(|found| found.record.shares_the_registry());
        Self { found: others, pin_root: pin_root.into() }.end();
        Self { found, pin_root: pin_root.into() }
    }

    /// Who holds the scope so far.
    pub(crate) fn instances(&self) -> Vec<u64> {
        self.found.iter().map(|found| found.id).collect()
    }

    /// Ends it. What stays whoever comes next removes.
    pub(crate) fn end(self) {
        for Abandoned { id, path, record, .. } in self.found {
            if unpin(record.pins()).is_ok() && forget_instance(&self.pin_root, id).is_ok() {
                let _stays = fs::remove_file(path);
            }
        }
    }
}
