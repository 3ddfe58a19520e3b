//! What one run has on the host.

use std::{
    ffi::OsStr,
    fs,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

/// A run's cgroup, pins and record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    cgroup: PathBuf,
    name: String,
}

impl Instance {
    /// From the text of `/proc/PID/cgroup` of a process that belongs to a run: the innermost, if there are several.
    pub fn of_membership(text: &str) -> Option<Self> {
        let path = Path::new(text.lines().find_map(|line| line.strip_prefix("0::/"))?);
        let name = |path: &Path| Some(path.file_name()?.to_str()?.to_owned());
        let mut runs =
            path.ancestors().filter(|path| name(path).is_some_and(|name| name.starts_with("waylay-")));
        let run = runs.next()?;
        Some(Self { cgroup: cgroup_file_system().join(run), name: name(run)? })
    }

    /// That of the run whose `waylay` process this is.
    pub fn of_waylay(pid: u32) -> Option<Self> {
        children_of(pid)
            .filter_map(|child| fs::read_to_string(child.join("cgroup")).ok())
            .find_map(|text| Self::of_membership(&text))
    }

    /// The directory of its cgroup.
    pub fn cgroup(&self) -> &Path {
        &self.cgroup
    }

    /// Its number, in hexadecimal.
    pub fn id(&self) -> &str {
        self.name.trim_start_matches("waylay-")
    }

    /// The directory of its pins.
    pub fn pins(&self) -> PathBuf {
        Path::new("/sys/fs/bpf/waylay").join(&self.name)
    }

    /// Its record on the host.
    pub fn record(&self) -> PathBuf {
        Path::new("/run/waylay").join(format!("{}.json", self.id()))
    }

    /// The processes of `app` or `svc-NAME`.
    pub fn pids(&self, part: &str) -> Vec<u32> {
        let pids = fs::read_to_string(self.cgroup.join(part).join("cgroup.procs")).unwrap_or_default();
        pids.lines().map(|pid| pid.parse().unwrap()).collect()
    }

    /// Whether `app` or `svc-NAME` has no process left that holds a descriptor.
    ///
    /// A dying process leaves `cgroup.procs` before it closes its sockets, and
    /// counts as populating its cgroup until after that (cgroups(7)).
    pub fn has_ended(&self, part: &str) -> bool {
        let events = fs::read_to_string(self.cgroup.join(part).join("cgroup.events"));
        // Another run may have removed it meanwhile.
        events.map_or(true, |events| events.lines().any(|line| line == "populated 0"))
    }

    /// Whether its rules are in force: they are pinned.
    pub fn is_in_force(&self) -> bool {
        self.cgroup.is_dir() && self.pins().is_dir() && self.record().is_file()
    }

    /// Whether it is as if it had never been.
    pub fn is_gone(&self) -> bool {
        self.what_stays().is_empty()
    }

    /// Of its cgroup, its pins and its record, those that are there.
    pub fn what_stays(&self) -> Vec<PathBuf> {
        let mut parts = vec![self.cgroup.clone(), self.pins(), self.record()];
        parts.retain(|part| part.exists());
        parts
    }

    /// Ends its processes, all at once.
    pub(crate) fn kill(&self) {
        // It may have been removed meanwhile.
        let _gone = fs::write(self.cgroup.join("cgroup.kill"), "1");
    }
}

/// Where the unified hierarchy is mounted.
///
/// # Panics
/// If it is not: the tests cannot run there.
pub fn cgroup_file_system() -> PathBuf {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mount =
        mounts.lines().find(|line| line.contains(" - cgroup2 ")).expect("a cgroup2 file system is needed");
    PathBuf::from(mount.split(' ').nth(4).unwrap())
}

fn children_of(pid: u32) -> impl Iterator<Item = PathBuf> {
    let processes = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    processes.filter(move |process| parent_of(process) == Some(pid))
}

/// The process of a service of a run that has no cgroup, by what it was started with: `--name` and its name, or a program of that name.
pub(crate) fn service_below(waylay: u32, name: &str) -> Option<u32> {
    let serves = |process: &PathBuf| {
        let words = |file: &str| {
            let text = fs::read(process.join(file)).unwrap_or_default();
            text.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect::<Vec<_>>()
        };
        let line = words("cmdline");
        let is_own = line.windows(2).any(|pair| pair[0] == b"--name" && pair[1] == name.as_bytes());
        let is_named =
            |word: &Vec<u8>| Path::new(OsStr::from_bytes(word)).file_stem() == Some(OsStr::new(name));
        let is_service = words("environ").iter().any(|word| word.starts_with(b"WAYLAY_LISTEN="));
        is_service && (is_own || !line.contains(&b"--name".to_vec()) && line.iter().any(is_named))
    };
    let process = children_of(waylay).find(serves)?;
    process.file_name()?.to_str()?.parse().ok()
}

fn parent_of(process: &Path) -> Option<u32> {
    let status = fs::read_to_string(process.join("status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
}
