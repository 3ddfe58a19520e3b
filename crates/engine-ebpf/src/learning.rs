//! Names of hosts, learned from what resolvers answer: which resolvers those are, and when the programs are attached.

use std::{collections::BTreeSet, net::SocketAddr};

use libbpf_rs::{MapCore, MapFlags, MapHandle};
use waylay_abi as abi;
use waylay_core::{Limit, LimitError};
use zerocopy::{FromBytes, IntoBytes};

use crate::{
    engine::EbpfEngine,
    error::EbpfError,
    load::{LEARNING_PROGRAMS, SCOPE_PROGRAMS},
};

const RESOLVERS: &str = "resolvers";
/// Entries of that map.
const MOST_RESOLVERS: usize = 256;

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
