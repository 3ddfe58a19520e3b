//! What a run leaves on the host while it lives, and how the next one cleans
//! up after one that was killed.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use rustix::{fs::FlockOperation, rand::GetRandomFlags};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use waylay_engine_ebpf::forget_instance;

use crate::cgroup::Cgroup;

pub(crate) const STATE: &str = "/run/waylay";

/// A run's place on the host. The lock on its record says that its owner
/// lives, and goes with the owner however that ends.
#[derive(Debug)]
pub struct Instance {
    id: u64,
    record: PathBuf,
    _lock: File,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) cgroup: PathBuf,
    pub(crate) level: u32,
    pins: PathBuf,
}

/// Why a run cannot have its place on the host.
#[derive(Debug, Error)]
pub enum InstanceError {
    /// The record cannot be written.
    #[error("cannot keep a record of the run at {path}")]
    Record {
        /// Where.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// No random number for its id.
    #[error("no random bytes for the run's id")]
    Random(#[source] io::Error),
}

impl Instance {
    /// A new place, with a number that no other run has.
    ///
    /// # Errors
    /// [`InstanceError`].
    pub fn new() -> Result<Self, InstanceError> {
        let mut bytes = [0; 8];
        rustix::rand::getrandom(&mut bytes, GetRandomFlags::empty())
            .map_err(|errno| InstanceError::Random(errno.into()))?;
        // 0 stands for "no instance" in the kernel's tables.
        let id = u64::from_ne_bytes(bytes).max(1);
        let record = Path::new(STATE).join(format!("{id:016x}.json"));
        let lock = locked_record(&record)
            .map_err(|source| InstanceError::Record { path: record.clone(), source })?;
        Ok(Self { id, record, _lock: lock })
    }

    /// Its number.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// A name for its cgroup and pins.
    #[must_use]
    pub fn name(&self) -> String {
        format!("waylay-{:016x}", self.id)
    }

    /// Writes down what there will be to clean up, before it is made.
    ///
    /// # Errors
    /// [`InstanceError::Record`].
    pub fn record(&self, cgroup: &Cgroup, pins: &Path) -> Result<(), InstanceError> {
        let record = Record { cgroup: cgroup.path().into(), level: cgroup.level(), pins: pins.into() };
        let failed = |source| InstanceError::Record { path: self.record.clone(), source };
        let text = serde_json::to_vec(&record).map_err(|error| failed(error.into()))?;
        fs::write(&self.record, text).map_err(failed)
    }

    /// Forgets the record, once everything in it is gone.
    pub fn forget(self) {
        // The next run cleans up what stays.
        let _stays = fs::remove_file(&self.record);
    }
}

/// Cleans up after runs whose owner is gone and whose scope is empty. Where
/// processes still live, their rules stay in force. Returns how many were removed.
#[must_use]
pub fn clean_up(pin_root: &Path) -> usize {
    let entries = fs::read_dir(STATE).into_iter().flatten().flatten();
    entries.filter(|entry| clean_up_one(&entry.path(), pin_root)).count()
}

fn clean_up_one(path: &Path, pin_root: &Path) -> bool {
    let Some(id) = id_of(path) else { return false };
    let Ok(file) = File::open(path) else { return false };
    if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        return false;
    }
    let Ok(record) = io::read_to_string(&file).map(|text| serde_json::from_str::<Record>(&text)) else {
        return false;
    };
    // An owner that died before it wrote the record has made nothing.
    let removed = record.is_err() || record.is_ok_and(|record| remove(&record, id, pin_root));
    removed && fs::remove_file(path).is_ok()
}

fn remove(record: &Record, id: u64, pin_root: &Path) -> bool {
    let cgroup = Cgroup::from((record.cgroup.clone(), record.level));
    if cgroup.is_populated() {
        return false;
    }
    let unpinned = match fs::remove_dir_all(&record.pins) {
        Err(error) => error.kind() == io::ErrorKind::NotFound,
        Ok(()) => true,
    };
    unpinned && forget_instance(pin_root, id).is_ok() && cgroup.remove().is_ok()
}

pub(crate) fn id_of(path: &Path) -> Option<u64> {
    if path.extension()? != "json" {
        return None;
    }
    u64::from_str_radix(path.file_stem()?.to_str()?, 16).ok()
}

fn locked_record(path: &Path) -> io::Result<File> {
    DirBuilder::new().recursive(true).mode(0o755).create(STATE)?;
    let file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(path)?;
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_records_are_taken_for_records() {
        assert_eq!(id_of(Path::new("/run/waylay/00000000000000ff.json")), Some(255));
        assert_eq!(id_of(Path::new("/run/waylay/00000000000000ff.txt")), None);
        assert_eq!(id_of(Path::new("/run/waylay/notes.json")), None);
    }
}
