//! What a run leaves on the host while it lives, and how the next one cleans
//! up after one that was killed.

use std::{
    fs::{self, DirBuilder, File},
    io::{self, Write},
    os::{fd::AsRawFd, unix::fs::DirBuilderExt},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, CWD, FlockOperation, Mode, OFlags},
    rand::GetRandomFlags,
};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use waylay_engine_ebpf::{REGISTRY_LAYOUT, forget_instance, forget_other_layouts, unpin};

use crate::{assignment::Ground, cgroup::Cgroup, resident::KnownBy, user::share_users};

pub(crate) const STATE: &str = "/run/waylay";
/// The command's cgroup in that of its run, beside those of the services.
pub(crate) const APPLICATIONS: &str = "app";
pub(crate) const PREFIX: &str = "waylay-";

/// Names a run, and its cgroup and pins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InstanceId(u64);

/// A run's place on the host. The lock on its record says that its owner
/// lives, and goes with the owner however that ends.
#[derive(Debug)]
pub struct Instance {
    path: PathBuf,
    record: Record,
    _lock: File,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) cgroup: PathBuf,
    pub(crate) level: u32,
    /// The cgroup that is watched, with its level, if that was there before.
    #[serde(default)]
    pub(crate) scope: Option<(PathBuf, u32)>,
    pins: PathBuf,
    /// Which registry it shares with others.
    #[serde(default)]
    registry: u32,
    /// Its services that run already.
    #[serde(default)]
    pub(crate) residents: Vec<RecordedResident>,
    /// The cgroups that it has made for commands of its clients, with their levels.
    #[serde(default)]
    pub(crate) enclosures: Vec<(PathBuf, u32)>,
    /// Whether it is in force without a process, until something takes its place.
    #[serde(default)]
    pub(crate) boot: bool,
}

/// A service that runs already, in a cgroup to which a run's programs are attached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RecordedResident {
    pub(crate) service: String,
    pub(crate) known_by: KnownBy,
    pub(crate) hooked: Vec<PathBuf>,
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
    /// It would be inside of a run that does not share its registry of listeners, so that each would take the other's
    /// services for applications.
    #[error(
        "this is inside of the run {}, which is of another version of waylay; runs inside of each other have to be of one version",
        name_of(*run)
    )]
    AnotherVersion {
        /// The run.
        run: u64,
    },
    /// No random number for its id.
    #[error("no random bytes for the run's id")]
    Random(#[source] io::Error),
}

impl InstanceId {
    /// A number that no other run has, nor any whose services have the users that this one's would have.
    ///
    /// # Errors
    /// [`InstanceError::Random`].
    pub fn new() -> Result<Self, InstanceError> {
        Self::apart_from(&recorded(), || {
            let mut bytes = [0; 8];
            rustix::rand::getrandom(&mut bytes, GetRandomFlags::empty())
                .map_err(|errno| InstanceError::Random(errno.into()))?;
            Ok(u64::from_ne_bytes(bytes))
        })
    }

    fn apart_from(
        others: &[u64],
        mut draw: impl FnMut() -> Result<u64, InstanceError>,
    ) -> Result<Self, InstanceError> {
        loop {
            // 0 stands for "no instance" in the kernel's tables.
            let number = draw()?.max(1);
            if !others.iter().any(|&other| share_users(number, other)) {
                return Ok(Self(number));
            }
        }
    }

    /// The number.
    #[must_use]
    pub fn number(self) -> u64 {
        self.0
    }

    /// A name for its cgroup and pins.
    #[must_use]
    pub fn name(self) -> String {
        name_of(self.0)
    }
}

impl Instance {
    /// Writes down what there will be to clean up, before it is made.
    ///
    /// # Errors
    /// [`InstanceError::Record`].
    pub(crate) fn record(
        id: InstanceId,
        ground: &Ground,
        cgroup: &Cgroup,
        pins: &Path,
    ) -> Result<Self, InstanceError> {
        let scope = match ground {
            Ground::Own => None,
            Ground::Existing(scope) => Some((scope.path().into(), scope.level())),
        };
        Self::write_down(id, Record::new(cgroup, scope, pins))
    }

    /// The same of what is going to be in force without a process. It has no cgroup of its own: `cgroup` says where that would be.
    ///
    /// # Errors
    /// [`InstanceError::Record`].
    pub(crate) fn record_boot(
        id: InstanceId,
        scope: &Cgroup,
        cgroup: &Cgroup,
        pins: &Path,
    ) -> Result<Self, InstanceError> {
        let scope = Some((scope.path().into(), scope.level()));
        Self::write_down(id, Record { boot: true, ..Record::new(cgroup, scope, pins) })
    }

    fn write_down(id: InstanceId, record: Record) -> Result<Self, InstanceError> {
        let path = record_of(id.0);
        let failed = |source| InstanceError::Record { path: path.clone(), source };
        DirBuilder::new().recursive(true).mode(0o755).create(STATE).map_err(failed)?;
        let lock = write(&record).and_then(|text| locked_record(&path, &text)).map_err(failed)?;
        Ok(Self { path, record, _lock: lock })
    }

    /// Writes down to which cgroups of others there are going to be programs attached.
    pub(crate) fn record_residents(&mut self, residents: Vec<RecordedResident>) -> Result<(), InstanceError> {
        if residents == self.record.residents {
            return Ok(());
        }
        self.rewrite(Record { residents, ..self.record.clone() })
    }

    /// Writes down which cgroups it is going to have for commands of its clients.
    pub(crate) fn record_enclosures(&mut self, enclosures: &[Cgroup]) -> Result<(), InstanceError> {
        let recorded = |cgroup: &Cgroup| (cgroup.path().to_owned(), cgroup.level());
        let enclosures = enclosures.iter().map(recorded).collect();
        self.rewrite(Record { enclosures, ..self.record.clone() })
    }

    fn rewrite(&mut self, record: Record) -> Result<(), InstanceError> {
        let failed = |source| InstanceError::Record { path: self.path.clone(), source };
        let lock = write(&record).and_then(|text| replace_record(&self.path, &text)).map_err(failed)?;
        self.record = record;
        self._lock = lock;
        Ok(())
    }

    /// Looks at the runs around a cgroup.
    ///
    /// # Errors
    /// [`InstanceError::AnotherVersion`].
    pub fn see_versions_around(cgroup: &Cgroup) -> Result<(), InstanceError> {
        // One without a record is of another mount namespace; nothing is known of it.
        for run in recorded() {
            let record = fs::read_to_string(record_of(run)).ok();
            let Some(record) = record.and_then(|text| serde_json::from_str::<Record>(&text).ok()) else {
                continue;
            };
            let watched = record.scope.map_or(record.cgroup, |(scope, _)| scope);
            if record.registry != REGISTRY_LAYOUT && cgroup.path().starts_with(watched) {
                return Err(InstanceError::AnotherVersion { run });
            }
        }
        Ok(())
    }

    /// Forgets the record, once everything in it is gone.
    pub fn forget(self) {
        // The next run cleans up what stays.
        let _stays = fs::remove_file(&self.path);
    }
}

impl Record {
    fn new(cgroup: &Cgroup, scope: Option<(PathBuf, u32)>, pins: &Path) -> Self {
        Self {
            cgroup: cgroup.path().into(),
            level: cgroup.level(),
            scope,
            pins: pins.into(),
            registry: REGISTRY_LAYOUT,
            residents: Vec::new(),
            enclosures: Vec::new(),
            boot: false,
        }
    }

    pub(crate) fn pins(&self) -> &Path {
        &self.pins
    }

    pub(crate) fn shares_the_registry(&self) -> bool {
        self.registry == REGISTRY_LAYOUT
    }
}

/// A record of somebody who is gone, with its lock.
#[derive(Debug)]
pub(crate) struct Abandoned {
    pub(crate) id: u64,
    pub(crate) path: PathBuf,
    pub(crate) record: Record,
    _lock: File,
}

/// Those of whom this holds. Nobody else cleans them up meanwhile.
pub(crate) fn abandoned(is_meant: impl Fn(&Record) -> bool) -> Vec<Abandoned> {
    let entries = fs::read_dir(STATE).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.filter_map(|path| abandoned_at(path).filter(|found| is_meant(&found.record))).collect()
}

fn abandoned_at(path: PathBuf) -> Option<Abandoned> {
    let id = id_of(&path)?;
    let lock = File::open(&path).ok()?;
    rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).ok()?;
    let record = serde_json::from_str(&io::read_to_string(&lock).ok()?).ok()?;
    Some(Abandoned { id, path, record, _lock: lock })
}

/// Removes what a station of a dead process has left on this scope, whoever is in it: another one takes its place. Returns
/// how many there were.
#[must_use]
pub(crate) fn take_over(scope: &Cgroup, pin_root: &Path) -> usize {
    let is_of_it =
        |record: &Record| !record.boot && record.scope.as_ref().is_some_and(|(path, _)| path == scope.path());
    let entries = fs::read_dir(STATE).into_iter().flatten().flatten();
    entries.filter(|entry| clean_up_one(&entry.path(), pin_root, is_of_it)).count()
}

/// Cleans up after runs whose owner is gone and whose scope is empty. Where
/// processes still live, their rules stay in force. Returns how many were removed.
#[must_use]
pub fn clean_up(pin_root: &Path) -> usize {
    let entries = fs::read_dir(STATE).into_iter().flatten().flatten();
    let removed = entries.filter(|entry| clean_up_one(&entry.path(), pin_root, serves_nobody)).count();
    forget_other_layouts(pin_root);
    removed
}

fn clean_up_one(path: &Path, pin_root: &Path, is_removable: impl Fn(&Record) -> bool) -> bool {
    let Some(id) = id_of(path) else { return false };
    let Ok(file) = File::open(path) else { return false };
    if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        return false;
    }
    let Ok(record) = io::read_to_string(&file).map(|text| serde_json::from_str::<Record>(&text)) else {
        return false;
    };
    let removed = record.is_ok_and(|record| is_removable(&record) && remove(&record, id, pin_root));
    removed && fs::remove_file(path).is_ok()
}

/// Whether there is nobody left for whom its rules could be in force.
fn serves_nobody(record: &Record) -> bool {
    if record.boot {
        // Whoever is going to be there is served.
        return record.scope.as_ref().is_none_or(|(scope, _)| !scope.is_dir());
    }
    let cgroup = Cgroup::from((record.cgroup.clone(), record.level));
    match record.scope.clone().map(Cgroup::from) {
        Some(scope) => !scope.is_populated_outside(&cgroup),
        None => !cgroup.child(APPLICATIONS).is_populated(),
    }
}

fn remove(record: &Record, id: u64, pin_root: &Path) -> bool {
    let cgroup = Cgroup::from((record.cgroup.clone(), record.level));
    // What serves nobody any more, and has no parent that would end it.
    cgroup.kill();
    // Commands that must not go on without the services they were started with.
    let enclosures: Vec<Cgroup> = record.enclosures.iter().cloned().map(Cgroup::from).collect();
    enclosures.iter().for_each(Cgroup::kill);
    let opened = enclosures.iter().all(|enclosure| enclosure.remove().is_ok());
    unpin(&record.pins).is_ok() && forget_instance(pin_root, id).is_ok() && cgroup.remove().is_ok() && opened
}

fn name_of(run: u64) -> String {
    format!("{PREFIX}{run:016x}")
}

fn record_of(run: u64) -> PathBuf {
    Path::new(STATE).join(format!("{run:016x}.json"))
}

/// The run whose cgroup is called so.
pub(crate) fn run_of_directory(path: &Path) -> Option<u64> {
    let id = path.file_name()?.to_str()?.strip_prefix(PREFIX)?;
    let is_id = id.len() == 16 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_id.then(|| u64::from_str_radix(id, 16).ok())?
}

/// The numbers of the runs that are there, or have left something.
fn recorded() -> Vec<u64> {
    let entries = fs::read_dir(STATE).into_iter().flatten().flatten();
    entries.filter_map(|entry| id_of(&entry.path())).collect()
}

pub(crate) fn id_of(path: &Path) -> Option<u64> {
    if path.extension()? != "json" {
        return None;
    }
    u64::from_str_radix(path.file_stem()?.to_str()?, 16).ok()
}

fn write(record: &Record) -> io::Result<Vec<u8>> {
    Ok(serde_json::to_vec(record)?)
}

/// Whoever looks sees the one or the other, and both taken.
fn replace_record(path: &Path, text: &[u8]) -> io::Result<File> {
    let beside = path.with_extension("new");
    let lock = locked_record(&beside, text)?;
    fs::rename(&beside, path)?;
    Ok(lock)
}

/// Written and locked before it has a name: whoever sees it sees it whole and taken.
fn locked_record(path: &Path, text: &[u8]) -> io::Result<File> {
    let directory = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let mode = Mode::RUSR | Mode::WUSR;
    let mut file =
        File::from(rustix::fs::open(directory, OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC, mode)?);
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
    file.write_all(text)?;
    let unnamed = format!("/proc/self/fd/{}", file.as_raw_fd());
    rustix::fs::linkat(CWD, unnamed, CWD, path, AtFlags::SYMLINK_FOLLOW)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_has_neither_the_number_nor_the_users_of_another() {
        let mut drawn = [7, 5 + (1 << 20), 0, 8].into_iter();
        let id = InstanceId::apart_from(&[1, 5, 7 + (3 << 40)], || Ok(drawn.next().unwrap())).unwrap();
        assert_eq!(id, InstanceId(8));
    }

    #[test]
    fn only_records_are_taken_for_records() {
        assert_eq!(id_of(Path::new("/run/waylay/00000000000000ff.json")), Some(255));
        assert_eq!(id_of(Path::new("/run/waylay/00000000000000ff.txt")), None);
        assert_eq!(id_of(Path::new("/run/waylay/notes.json")), None);
    }

    /// Whoever cleans up takes a record that is not locked for a dead run's.
    #[test]
    fn a_record_is_whole_and_locked_from_the_moment_it_is_there() {
        const RECORDS: usize = 2000;
        let directory = tempfile::tempdir().unwrap();
        let path = |number| directory.path().join(format!("{number:016x}.json"));
        let looks = std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                for number in 0..RECORDS {
                    let lock = locked_record(&path(number), b"{}").unwrap();
                    fs::remove_file(path(number)).unwrap();
                    drop(lock);
                }
            });
            let mut looks = 0;
            while !writer.is_finished() {
                let entries = fs::read_dir(directory.path()).unwrap().flatten();
                for file in entries.filter_map(|entry| File::open(entry.path()).ok()) {
                    let free = rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared).is_ok();
                    // One that was removed meanwhile is nobody's.
                    let removed = rustix::fs::fstat(&file).unwrap().st_nlink == 0;
                    assert!(removed || !free, "it is not locked");
                    assert!(removed || io::read_to_string(&file).unwrap() == "{}", "it is not whole");
                    looks += 1;
                }
            }
            looks
        });
        assert!(looks > 0);
    }
}
