//! Runs that live, and what is left of those that were killed.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use rustix::fs::FlockOperation;

use crate::{
    cgroup::Cgroup,
    instance::{PREFIX, Record, RecordedResident, STATE, id_of, run_of_directory},
    processes::Running,
    resident::KnownBy,
};

const PINS: &str = "/sys/fs/bpf/waylay";

/// A run, as its record tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Its number in hexadecimal, as its cgroup and record are called.
    pub id: String,
    /// How it is.
    pub state: RunState,
    /// The process that owns it.
    pub owner: Option<u32>,
    /// Its cgroup.
    pub cgroup: Option<PathBuf>,
    /// The run inside of which it is, by its number.
    pub inside: Option<String>,
    /// Its services.
    pub services: Vec<String>,
    /// Those of them that ran already.
    pub residents: Vec<ResidentSeen>,
    /// The command's processes, and all they started.
    pub processes: Vec<u32>,
}

/// A service that ran already when a run began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResidentSeen {
    /// Its name in the run.
    pub service: String,
    /// By what it is known.
    pub known_by: KnownBy,
    /// The cgroups to which the run's programs are attached for its sake.
    pub hooked: Vec<PathBuf>,
    /// Who else is there now, as `name[pid]`: what those dial is looked at, and left alone.
    pub bystanders: Vec<String>,
}

/// How a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunState {
    /// Its owner lives.
    Alive,
    /// Its owner was killed, and its rules stay in force for processes that live on.
    LeftBehind,
    /// It is in force from boot on and has no owner, until a daemon takes over.
    Boot,
    /// Nothing of it lives; the next run removes it.
    Removable,
    /// Its pins are there and no record of it: it is that of another mount namespace, alive or not.
    Unrecorded,
    /// This process may not look.
    Unknown,
}

/// `root` is where to look for the cgroups of those without a record.
pub(super) fn runs(root: Option<&Path>) -> Vec<Run> {
    let mut runs: Vec<Run> = entries(Path::new(STATE)).filter_map(|record| run(&record)).collect();
    let unrecorded: Vec<Run> = entries(Path::new(PINS))
        .filter_map(|pins| id_of_directory(&pins).map(str::to_owned))
        .filter(|id| runs.iter().all(|run| run.id != *id))
        .map(|id| unrecorded(id, root))
        .collect();
    runs.extend(unrecorded);
    runs.sort_by(|one, other| one.id.cmp(&other.id));
    runs
}

/// Whether a directory is called as the cgroup of a run is.
pub(super) fn is_of_a_run(path: &Path) -> bool {
    id_of_directory(path).is_some()
}

fn unrecorded(id: String, root: Option<&Path>) -> Run {
    let path = root.and_then(|root| find(root, &format!("{PREFIX}{id}")));
    let cgroup = path.clone().map(|path| Cgroup::from((path, 0)));
    Run {
        state: RunState::Unrecorded,
        services: path.as_deref().map(services).unwrap_or_default(),
        processes: cgroup.map(|cgroup| cgroup.child("app").processes()).unwrap_or_default(),
        inside: path.as_deref().and_then(around),
        cgroup: path,
        ..Run::unknown(id)
    }
}

/// The directory of that name, however deep.
fn find(below: &Path, name: &str) -> Option<PathBuf> {
    let here = below.join(name);
    if here.is_dir() {
        return Some(here);
    }
    entries(below).filter(|entry| entry.is_dir()).find_map(|entry| find(&entry, name))
}

fn entries(directory: &Path) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path())
}

pub(crate) fn id_of_directory(path: &Path) -> Option<&str> {
    run_of_directory(path)?;
    path.file_name()?.to_str()?.strip_prefix(PREFIX)
}

/// The run in whose scope a cgroup is.
fn around(cgroup: &Path) -> Option<String> {
    cgroup.ancestors().skip(1).find_map(id_of_directory).map(str::to_owned)
}

impl Run {
    fn unknown(id: String) -> Self {
        Self {
            id,
            state: RunState::Unknown,
            owner: None,
            cgroup: None,
            inside: None,
            services: Vec::new(),
            residents: Vec::new(),
            processes: Vec::new(),
        }
    }
}

fn run(path: &Path) -> Option<Run> {
    let mut run = Run::unknown(format!("{:016x}", id_of(path)?));
    run.owner = owner(path);
    let text = fs::read_to_string(path);
    let record = text.as_ref().ok().and_then(|text| serde_json::from_str::<Record>(text).ok());
    if let Some(record) = &record {
        let cgroup = Cgroup::from((record.cgroup.clone(), record.level));
        run.services = services(cgroup.path());
        run.processes = match record.scope.clone().map(Cgroup::from) {
            Some(scope) => outside(&scope, &cgroup),
            None => cgroup.child("app").processes(),
        };
        run.residents = record.residents.iter().map(seen).collect();
        run.inside = around(&record.cgroup);
        run.cgroup = Some(record.cgroup.clone());
        let is_populated = cgroup.is_populated() || !run.processes.is_empty();
        run.state = match (record.boot, is_populated) {
            (true, _) => RunState::Boot,
            (false, true) => RunState::LeftBehind,
            (false, false) => RunState::Removable,
        };
    } else if text.is_ok() {
        // Its owner died before it wrote the record, or has not written it yet.
        run.state = RunState::Removable;
    }
    if run.owner.is_some() || record.is_some() && is_locked(path) {
        run.state = RunState::Alive;
    }
    Some(run)
}

/// The processes of a scope that was there before, without those of the services.
fn outside(scope: &Cgroup, services: &Cgroup) -> Vec<u32> {
    let services = services.processes();
    scope.processes().into_iter().filter(|pid| !services.contains(pid)).collect()
}

fn seen(resident: &RecordedResident) -> ResidentSeen {
    let RecordedResident { service, known_by, hooked } = resident.clone();
    let pids = hooked.iter().flat_map(|path| Cgroup::from((path.clone(), 0)).processes());
    let others = pids.map(Running::look).filter(|process| !known_by.is_mark_of(process));
    let bystanders = others.map(|process| process.to_string()).collect();
    ResidentSeen { service, known_by, hooked, bystanders }
}

fn services(cgroup: &Path) -> Vec<String> {
    let name = |path: PathBuf| {
        let name = path.file_name()?.to_str()?.strip_prefix("svc-")?;
        // Of two that have it one is leaving.
        Some(name.split_once(':').map_or(name, |(name, _)| name).to_owned())
    };
    let services: BTreeSet<String> = entries(cgroup).filter_map(name).collect();
    services.into_iter().collect()
}

/// The process that holds the lock on a record, by `/proc/locks` (proc(5)). It does not list those of
/// processes outside of the reader's pid namespace.
fn owner(record: &Path) -> Option<u32> {
    let metadata = fs::metadata(record).ok()?;
    holder(&fs::read_to_string("/proc/locks").ok()?, metadata.dev(), metadata.ino())
}

/// Lines are `1: FLOCK ADVISORY WRITE PID MAJOR:MINOR:INODE 0 EOF`, device numbers in hexadecimal.
pub(crate) fn holder(locks: &str, device: u64, inode: u64) -> Option<u32> {
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let file = format!("{major:02x}:{minor:02x}:{inode}");
    let fields = locks.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let found = fields.filter(|fields| fields.get(1) == Some(&"FLOCK"));
    found.filter(|fields| fields.get(5) == Some(&file.as_str())).find_map(|fields| fields[4].parse().ok())
}

/// Tried on written records only: those are locked already if they ever will be, so it is in nobody's way.
fn is_locked(record: &Path) -> bool {
    let lock = || -> io::Result<()> {
        let file = File::open(record)?;
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared)?;
        Ok(())
    };
    lock().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_of_a_lock_is_found_by_the_file() {
        let locks = "\
1: POSIX  ADVISORY  WRITE 77 00:1a:42 0 EOF
2: FLOCK  ADVISORY  WRITE 4711 00:1a:42 0 EOF
2: -> FLOCK  ADVISORY  WRITE 12 00:1a:43 0 EOF
";
        assert_eq!(holder(locks, 0x1a, 42), Some(4711));
        assert_eq!(holder(locks, 0x1a, 43), None);
        assert_eq!(holder(locks, 0x1b, 42), None);
    }

    #[test]
    fn directories_of_runs_are_told_from_others() {
        assert!(is_of_a_run(Path::new("/sys/fs/cgroup/waylay-00000000000000ff")));
        for other in ["/", "/sys/fs/cgroup/waylay-lab-1", "/sys/fs/cgroup/00000000000000ff", "waylay-"] {
            assert!(!is_of_a_run(Path::new(other)), "{other}");
        }
    }
}
