//! The registry of listeners that all instances of a host share through a pin.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use libbpf_rs::{MapCore, MapFlags, MapHandle};
use waylay_abi as abi;
use zerocopy::{FromBytes, IntoBytes};

use crate::{
    error::EbpfError,
    scope::{Scope, cgroup_id},
};

const NAME: &str = "listeners";
/// Of the bytes in it. Instances that put others in there have a map of their own.
const LAYOUT: u32 = 3;

/// Where it is pinned.
pub(crate) fn pin_path(root: &Path) -> PathBuf {
    root.join(format!("{NAME}-v{LAYOUT}"))
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
        Ok(Self { map, netns, instance, scope: cgroup_id(&scope.cgroup)?, scope_level: scope.level() })
    }

    /// Enters a listener. Who listens on an address now is its only owner: an
    /// older entry is of a service that has died while its instance lives.
    pub(crate) fn register(&self, address: SocketAddr, service: u32) -> Result<(), EbpfError> {
        let key = self.key(address);
        let owner = abi::ListenerOwner {
            instance: self.instance,
            scope: self.scope,
            scope_level: self.scope_level,
            service,
        };
        self.map.update(key.as_bytes(), owner.as_bytes(), MapFlags::ANY).map_err(error)
    }

    fn key(&self, address: SocketAddr) -> abi::Listener {
        let address = abi::Address::from(address);
        abi::Listener { netns: self.netns, ip: address.ip, port: address.port, reserved: [0; 6] }
    }
}

/// Removes an instance's listeners, once nothing of it is in force any more.
///
/// # Errors
/// [`EbpfError::Map`] if the registry cannot be read.
pub fn forget_instance(root: &Path, instance: u64) -> Result<(), EbpfError> {
    let path = pin_path(root);
    if !path.exists() {
        return Ok(());
    }
    let map = MapHandle::from_pinned_path(&path).map_err(|source| EbpfError::Pin { path, source })?;
    let keys: Vec<Vec<u8>> = map.keys().collect();
    for key in keys {
        let value = map.lookup(&key, MapFlags::ANY).map_err(error)?;
        let owner = value.and_then(|bytes| abi::ListenerOwner::read_from_bytes(&bytes).ok());
        if owner.is_some_and(|owner| owner.instance == instance) {
            map.delete(&key).map_err(error)?;
        }
    }
    Ok(())
}

fn error(source: libbpf_rs::Error) -> EbpfError {
    EbpfError::Map { map: NAME, source }
}
