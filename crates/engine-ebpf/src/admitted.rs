//! Counts of the flows that each cgroup has, and the room that those of cgroups which are gone leave to others.
//!
//! The programs make an entry for a cgroup with its first flow, and keep it at zero: to remove it is not for them, as
//! another processor may be about to count in it. When a cgroup is gone nobody is.

use std::{
    collections::BTreeSet,
    fs::File,
    os::fd::AsFd,
    path::Path,
    sync::{Mutex, PoisonError},
};

use libbpf_rs::{MapCore, MapFlags, MapHandle};
use zerocopy::FromBytes;

use crate::{error::EbpfError, load::Loaded, sys};

/// Of connections, and of flows of datagrams.
pub(crate) const MAPS: [&str; 2] = ["admitted", "admitted_datagrams"];

/// Removes the entries of cgroups that are gone.
#[derive(Debug)]
pub(crate) struct Cgroups {
    maps: Vec<(&'static str, MapHandle)>,
    /// Any file of their file system.
    somewhere: File,
    /// Those that were gone already when last looked at: a program that was running then has ended.
    gone: Mutex<BTreeSet<u64>>,
}

impl Cgroups {
    pub(crate) fn new(loaded: &Loaded, cgroup: &Path) -> Result<Self, EbpfError> {
        let maps =
            MAPS.into_iter().map(|map| Ok((map, loaded.map(map)?))).collect::<Result<_, EbpfError>>()?;
        let somewhere =
            File::open(cgroup).map_err(|source| EbpfError::Read { path: cgroup.into(), source })?;
        Ok(Self { maps, somewhere, gone: Mutex::default() })
    }

    /// Removes those without a flow that were gone at the last sweep. Where nobody says whether a cgroup is there
    /// (open_by_handle_at(2) takes `CAP_DAC_READ_SEARCH`), it counts as being there.
    pub(crate) fn sweep(&self) -> Result<(), EbpfError> {
        let mut gone = self.gone.lock().unwrap_or_else(PoisonError::into_inner);
        let mut still_counted = BTreeSet::new();
        for (map, handle) in &self.maps {
            for cgroup in without_flows(handle) {
                if !sys::is_no_cgroup(self.somewhere.as_fd(), cgroup) {
                    continue;
                }
                if gone.contains(&cgroup) {
                    let deleted = handle.delete(&cgroup.to_ne_bytes());
                    deleted.map_err(|source| EbpfError::Map { map, source })?;
                } else {
                    still_counted.insert(cgroup);
                }
            }
        }
        *gone = still_counted;
        Ok(())
    }
}

fn without_flows(map: &MapHandle) -> Vec<u64> {
    let count = |key: &[u8]| map.lookup(key, MapFlags::ANY).ok().flatten();
    let is_empty = |key: &[u8]| count(key).is_some_and(|count| count.iter().all(|byte| *byte == 0));
    map.keys().filter(|key| is_empty(key)).filter_map(|key| u64::read_from_bytes(&key).ok()).collect()
}
