//! What all instances of a host share through pins: above all the registry of listeners.

use std::{
    collections::BTreeSet,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use libbpf_rs::{MapCore, MapFlags, MapHandle};
use waylay_abi as abi;
use waylay_core::Protocol;
use zerocopy::{FromBytes, IntoBytes};

use crate::{
    claims,
    encode::reached_by,
    error::EbpfError,
    scope::{Scope, cgroup_id},
};

const NAME: &str = "listeners";
/// The maps that are shared.
pub(crate) const SHARED: [&str; 2] = [NAME, claims::NAME];
/// Of the bytes in them. Instances that put others in there have maps of their own.
pub const LAYOUT: u32 = 4;

/// Where one of them is pinned.
pub(crate) fn pin_path(root: &Path, name: &str) -> PathBuf {
    root.join(format!("{name}-v{LAYOUT}"))
}

/// Where a service takes what is redirected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Registered {
    pub(crate) protocol: Protocol,
    pub(crate) address: SocketAddr,
}

/// The instance's window on the registry.
#[derive(Debug)]
pub(crate) struct Registry {
    map: MapHandle,
    netns: u64,
    instance: u64,
    scope: u64,
    scope_level: u32,
}

impl Registry {
    pub(crate) fn new(map: MapHandle, netns: u64, scope: &Scope) -> Result<Self, EbpfError> {
        let instance = scope.instance;
        Ok(Self { map, netns, instance, scope: cgroup_id(&scope.cgroup)?, scope_level: scope.level })
    }

    /// Enters a listener, and one on every address also under the one by which it is reached. Who listens on an address now is its only owner: an
    /// older entry is of a service that has died while its instance lives.
    pub(crate) fn register(&self, listener: Registered, service: u32) -> Result<(), EbpfError> {
        let owner = abi::ListenerOwner {
            instance: self.instance,
            scope: self.scope,
            scope_level: self.scope_level,
            service,
        };
        for name in names(listener) {
            self.map.update(self.key(name).as_bytes(), owner.as_bytes(), MapFlags::ANY).map_err(error)?;
        }
        Ok(())
    }

    /// Takes back what [`Registry::register`] entered, unless somebody else listens there by now.
    pub(crate) fn forget(&self, listener: Registered, service: u32) -> Result<(), EbpfError> {
        names(listener).into_iter().try_for_each(|name| self.forget_name(name, service))
    }

    fn forget_name(&self, listener: Registered, service: u32) -> Result<(), EbpfError> {
        let key = self.key(listener);
        let owner = self.map.lookup(key.as_bytes(), MapFlags::ANY).map_err(error)?;
        let owner = owner.and_then(|bytes| abi::ListenerOwner::read_from_bytes(&bytes).ok());
        match owner {
            Some(owner) if owner.instance == self.instance && owner.service == service => {
                self.map.delete(key.as_bytes()).map_err(error)
            }
            Some(_) | None => Ok(()),
        }
    }

    fn key(&self, listener: Registered) -> abi::Listener {
        let address = abi::Address::from(listener.address);
        let protocol = match listener.protocol {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
        };
        abi::Listener { netns: self.netns, ip: address.ip, port: address.port, protocol, reserved: [0; 5] }
    }
}

/// Under which a listener is found.
fn names(listener: Registered) -> BTreeSet<Registered> {
    [listener, Registered { address: reached_by(listener.address), ..listener }].into()
}

/// Removes an instance's listeners and its claims on cgroups, once nothing of it is in force any more.
///
/// # Errors
/// [`EbpfError::Map`] if the registry cannot be read.
pub fn forget_instance(root: &Path, instance: u64) -> Result<(), EbpfError> {
    for name in SHARED {
        forget_in(name, &pin_path(root, name), instance)?;
    }
    Ok(())
}

/// Removes what builds with other bytes in them have shared, once nobody needs it: nothing is pinned beside it. What cannot
/// be removed stays; nobody looks at it.
pub fn forget_other_layouts(root: &Path) {
    let entries: Vec<PathBuf> =
        fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    if entries.iter().any(|path| path.is_dir()) {
        return;
    }
    for path in entries.into_iter().filter(|path| SHARED.iter().all(|name| *path != pin_path(root, name))) {
        let _stays = fs::remove_file(path);
    }
}

fn forget_in(name: &'static str, path: &Path, instance: u64) -> Result<(), EbpfError> {
    if !path.exists() {
        return Ok(());
    }
    let error = |source| EbpfError::Map { map: name, source };
    let map =
        MapHandle::from_pinned_path(path).map_err(|source| EbpfError::Pin { path: path.into(), source })?;
    let keys: Vec<Vec<u8>> = map.keys().collect();
    for key in keys {
        // Every value begins with its instance.
        let owner = map.lookup(&key, MapFlags::ANY).map_err(error)?;
        if owner.is_some_and(|value| value.starts_with(instance.as_bytes())) {
            map.delete(&key).map_err(error)?;
        }
    }
    Ok(())
}

fn error(source: libbpf_rs::Error) -> EbpfError {
    EbpfError::Map { map: NAME, source }
}
