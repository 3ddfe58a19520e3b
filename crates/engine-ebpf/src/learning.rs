//! Names of hosts, learned from what resolvers answer: which resolvers those are, when the programs are attached, and what they know.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

use libbpf_rs::{MapCore, MapFlags, MapHandle};
use rustix::time::{ClockId, clock_gettime};
use waylay_abi as abi;
use waylay_core::{Limit, LimitError, Process};
use zerocopy::{FromBytes, IntoBytes};

use crate::{
    engine::EbpfEngine,
    error::EbpfError,
    load::{LEARNING_PROGRAMS, SCOPE_PROGRAMS},
};

const RESOLVERS: &str = "resolvers";
/// Entries of that map.
const MOST_RESOLVERS: usize = 256;
const KNOWN: &str = "known_names";

/// What the programs have learned of names of hosts; it can go to another thread.
#[derive(Debug)]
pub struct KnownNames {
    map: MapHandle,
}

impl KnownNames {
    /// The keys ([`HostPattern::key`](waylay_core::HostPattern::key)) of what covers the names by which an application has asked for
    /// an address. Kept are those that some filter asked for when the answer came.
    ///
    /// # Errors
    /// [`EbpfError::Map`].
    pub fn keys(&self, application: &Process, address: IpAddr) -> Result<BTreeSet<u64>, EbpfError> {
        let by = abi::Asker {
            exe_device: application.exe.device,
            exe_inode: application.exe.inode,
            cgroup: application.cgroup,
            uid: application.uid,
            reserved: 0,
        };
        let known = abi::Known { by, ip: abi::Address::from(SocketAddr::new(address, 0)).ip };
        let found = self.map.lookup(known.as_bytes(), MapFlags::ANY);
        let found = found.map_err(|source| EbpfError::Map { map: KNOWN, source })?;
        let names = found.and_then(|bytes| abi::Names::read_from_bytes(&bytes).ok());
        let now = clock_gettime(ClockId::Boottime).tv_sec;
        let valid = names.iter().flat_map(|names| names.keys.into_iter().zip(names.until));
        let valid = valid.filter(|&(key, until)| key != 0 && i64::from(until) > now);
        Ok(valid.map(|(key, _)| key).collect())
    }
}

impl EbpfEngine {
    /// Publishes the tables' resolvers, before tables are in force that ask for what they say.
    pub(crate) fn follow_resolvers(&self, resolvers: &BTreeSet<SocketAddr>) -> Result<(), EbpfError> {
        LimitError::check(Limit::Resolvers, resolvers.len(), MOST_RESOLVERS)?;
        let map = self.loaded.map(RESOLVERS)?;
        let wanted: BTreeSet<abi::Resolver> = resolvers.iter().copied().map(encode).collect();
        for former in published(&map).difference(&wanted) {
            map.delete(former.as_bytes()).map_err(failed)?;
        }
        for resolver in &wanted {
            map.update(resolver.as_bytes(), &[1], MapFlags::ANY).map_err(failed)?;
        }
        Ok(())
    }

    /// Attaches the programs, or detaches them.
    pub(crate) fn learn_names(&mut self, wanted: bool) -> Result<(), EbpfError> {
        match (wanted, self.learns) {
            (true, false) => {
                let cgroup = self.scope.cgroup.clone();
                for program in LEARNING_PROGRAMS {
                    self.attach_program(program, &cgroup, program)?;
                }
            }
            (false, true) => {
                let pins = LEARNING_PROGRAMS.map(|program| self.scope.pins.join(program));
                self.end_links(&pins)?;
            }
            (true, true) | (false, false) => {}
        }
        self.learns = wanted;
        Ok(())
    }

    /// Says what is known of names of hosts; it can go to another thread.
    ///
    /// # Errors
    /// [`EbpfError::Map`].
    pub fn known_names(&self) -> Result<KnownNames, EbpfError> {
        Ok(KnownNames { map: self.loaded.map(KNOWN)? })
    }

    /// Whether the programs of the scope are in force.
    pub(crate) fn is_attached(&self) -> bool {
        let last = self.scope.pins.join(SCOPE_PROGRAMS[SCOPE_PROGRAMS.len() - 1]);
        self.links.iter().any(|link| link.pin_path().as_ref() == Some(&last))
    }
}

fn published(map: &MapHandle) -> BTreeSet<abi::Resolver> {
    map.keys().filter_map(|key| abi::Resolver::read_from_bytes(&key).ok()).collect()
}

fn encode(resolver: SocketAddr) -> abi::Resolver {
    let address = abi::Address::from(resolver);
    abi::Resolver { ip: address.ip, port: address.port, reserved: 0 }
}

fn failed(source: libbpf_rs::Error) -> EbpfError {
    EbpfError::Map { map: RESOLVERS, source }
}
