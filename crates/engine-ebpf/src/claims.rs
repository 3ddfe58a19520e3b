//! Who holds which cgroup: the scopes of all engines of a host, and the cgroups of their services.
//!
//! Engines may be inside of each other: a connection passes the inner one's services, and what the last of them dials is
//! an application's connection to the outer one. That comes to an end because no service of the outer one is inside of the
//! inner one's scope. Two engines of which each has services in the other's scope would hand a connection back and forth
//! for ever, and so whoever comes second is refused. Both claim first and look afterwards: of two that come at once at
//! least one sees the other.
//!
//! A service that runs already is claimed as any other if it is in the scope. Outside of it, nobody else may watch it, nor may in the
//! scope anybody watch a part of it.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use libbpf_rs::{MapCore, MapFlags, MapHandle};
use waylay_abi as abi;
use zerocopy::{FromBytes, IntoBytes};

use crate::{
    error::EbpfError,
    holder::{Held, Holder},
    scope::{Scope, cgroup_id},
};

pub(crate) const NAME: &str = "holders";

/// The engine's window on the claims.
#[derive(Debug)]
pub(crate) struct Claims {
    map: MapHandle,
    instance: u64,
    scope: PathBuf,
    scope_level: usize,
}

impl Claims {
    pub(crate) fn new(map: MapHandle, scope: &Scope) -> Self {
        let Scope { instance, cgroup, .. } = scope;
        Self { map, instance: *instance, scope: cgroup.clone(), scope_level: scope.level as usize }
    }

    /// Claims the scope, if none of those holds it that are to go.
    pub(crate) fn claim_scope(&self, former: &[u64]) -> Result<(), EbpfError> {
        let holder = self.holder(cgroup_id(&self.scope)?)?;
        if holder.is_some_and(|holder| former.contains(&holder.instance)) {
            return self.see_no_service_of_an_outer_one();
        }
        self.claim(&self.scope, Held::Scope)?;
        self.see_no_service_of_an_outer_one().inspect_err(|_| self.release_scope())
    }

    /// Claims it whoever holds it.
    pub(crate) fn take_scope(&self) -> Result<(), EbpfError> {
        let id = cgroup_id(&self.scope)?;
        let pid = std::process::id();
        let holder = abi::Holder { instance: self.instance, pid, held: encode(Held::Scope) };
        self.map.update(id.as_bytes(), holder.as_bytes(), MapFlags::ANY).map_err(error)
    }

    pub(crate) fn release_scope(&self) {
        let is_own = |holder: Holder| holder.instance == self.instance;
        let id = cgroup_id(&self.scope).ok();
        if id.and_then(|id| self.holder(id).ok().flatten()).is_some_and(is_own) {
            self.release(&self.scope);
        }
    }

    /// Claims a service's cgroup.
    pub(crate) fn claim_service(&self, cgroup: &Path) -> Result<(), EbpfError> {
        let Ok(below_scope) = cgroup.strip_prefix(&self.scope) else {
            return Err(EbpfError::ServiceOutside { cgroup: cgroup.into(), scope: self.scope.clone() });
        };
        self.claim(cgroup, Held::Service)?;
        self.see_no_scope_on_the_way(below_scope).inspect_err(|_| self.release(cgroup))
    }

    /// Claims a cgroup of a service that runs already.
    pub(crate) fn claim_resident(&self, cgroup: &Path) -> Result<(), EbpfError> {
        if self.scope.starts_with(cgroup) {
            return Err(EbpfError::ResidentAround { cgroup: cgroup.into(), scope: self.scope.clone() });
        }
        if cgroup.starts_with(&self.scope) {
            self.claim_service(cgroup)?;
            return self.see_nobody_else(cgroups_below(cgroup)).inspect_err(|_| self.release(cgroup));
        }
        self.claim(cgroup, Held::Resident)?;
        let above = cgroup.ancestors().skip(1).filter_map(|path| Some((cgroup_id(path).ok()?, path.into())));
        self.see_nobody_else(above.chain(cgroups_below(cgroup))).inspect_err(|_| self.release(cgroup))
    }

    /// Of a service that was removed. Its cgroup may be gone already.
    pub(crate) fn release_service(&self, cgroup: u64) {
        let ours = |holder: Holder| holder.instance == self.instance && holder.held != Held::Scope;
        if self.holder(cgroup).is_ok_and(|holder| holder.is_some_and(ours)) {
            let _stays = self.map.delete(cgroup.as_bytes());
        }
    }

    fn claim(&self, cgroup: &Path, held: Held) -> Result<(), EbpfError> {
        let id = cgroup_id(cgroup)?;
        let holder = abi::Holder { instance: self.instance, pid: std::process::id(), held: encode(held) };
        let taken = self.map.update(id.as_bytes(), holder.as_bytes(), MapFlags::NO_EXIST);
        // A service is claimed anew by a reload.
        let again = Holder { instance: self.instance, pid: std::process::id(), held };
        match (taken, self.holder(id)?) {
            (Ok(()), _) => Ok(()),
            (Err(_), Some(holder)) if held != Held::Scope && holder == again => Ok(()),
            (Err(_), Some(holder)) => Err(EbpfError::Overlap { cgroup: cgroup.into(), holder }),
            (Err(source), None) => Err(error(source)),
        }
    }

    fn release(&self, cgroup: &Path) {
        if let Ok(id) = cgroup_id(cgroup) {
            // A claim that stays ends with its cgroup.
            let _stays = self.map.delete(id.as_bytes());
        }
    }

    /// Services of an engine whose scope is around this one must be outside of it, and so must those that run by themselves outside of
    /// their engine's scope: they would have two engines that lead their legs.
    fn see_no_service_of_an_outer_one(&self) -> Result<(), EbpfError> {
        let mut outer = BTreeSet::new();
        for cgroup in self.scope.ancestors().skip(1).take(self.scope_level) {
            let holder = self.holder(cgroup_id(cgroup)?)?;
            outer.extend(holder.filter(|holder| holder.held == Held::Scope).map(|holder| holder.instance));
        }
        for (id, cgroup) in cgroups_below(&self.scope) {
            match self.holder(id)? {
                Some(holder) if outer.contains(&holder.instance) || holder.held == Held::Resident => {
                    return Err(EbpfError::Overlap { cgroup, holder });
                }
                Some(_) | None => {}
            }
        }
        Ok(())
    }

    fn see_nobody_else(&self, cgroups: impl IntoIterator<Item = (u64, PathBuf)>) -> Result<(), EbpfError> {
        for (id, cgroup) in cgroups {
            match self.holder(id)? {
                Some(holder) if holder.instance != self.instance => {
                    return Err(EbpfError::Overlap { cgroup, holder });
                }
                Some(_) | None => {}
            }
        }
        Ok(())
    }

    fn see_no_scope_on_the_way(&self, below_scope: &Path) -> Result<(), EbpfError> {
        let mut cgroup = self.scope.clone();
        for part in below_scope {
            cgroup.push(part);
            if let Some(holder) = self.holder(cgroup_id(&cgroup)?)?
                && holder.instance != self.instance
                && holder.held == Held::Scope
            {
                return Err(EbpfError::Overlap { cgroup, holder });
            }
        }
        Ok(())
    }

    fn holder(&self, id: u64) -> Result<Option<Holder>, EbpfError> {
        let bytes = self.map.lookup(id.as_bytes(), MapFlags::ANY).map_err(error)?;
        let holder = bytes.and_then(|bytes| abi::Holder::read_from_bytes(&bytes).ok());
        Ok(holder.map(|abi::Holder { instance, pid, held }| Holder { instance, pid, held: decode(held) }))
    }
}

fn encode(held: Held) -> u32 {
    match held {
        Held::Scope => 0,
        Held::Service => 1,
        Held::Resident => 2,
    }
}

fn decode(held: u32) -> Held {
    match held {
        0 => Held::Scope,
        2 => Held::Resident,
        _ => Held::Service,
    }
}

/// Those that are gone meanwhile hold nothing.
fn cgroups_below(path: &Path) -> Vec<(u64, PathBuf)> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut found = Vec::new();
    for path in entries.filter(|path| path.is_dir()) {
        found.extend(cgroups_below(&path));
        found.extend(cgroup_id(&path).ok().map(|id| (id, path)));
    }
    found
}

fn error(source: libbpf_rs::Error) -> EbpfError {
    EbpfError::Map { map: NAME, source }
}
