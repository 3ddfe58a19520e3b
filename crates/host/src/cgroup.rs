//! The unified cgroup hierarchy: finding it, and the subtree a run owns.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::{FileExt, MetadataExt},
    path::{Component, Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use rustix::event::{PollFd, PollFlags, Timespec};
use thiserror::Error;

/// A removed cgroup's last processes take a moment to be reaped.
const REMOVAL_PATIENCE: Duration = Duration::from_secs(2);
const REMOVAL_STEP: Duration = Duration::from_millis(5);
/// That of a watch on a cgroup, of which the kernel says when it changes.
const LONGEST_SLEEP: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// Why the unified hierarchy cannot be used.
#[derive(Debug, Error)]
pub enum CgroupError {
    /// No `cgroup2` file system is mounted.
    #[error(
        "no cgroup2 file system is mounted; mount one: mount -t cgroup2 none /sys/fs/cgroup/unified (after mkdir)"
    )]
    NotMounted,
    /// The mount table or the process's membership cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// What was to be read.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A directory of the subtree cannot be made.
    #[error("cannot create the cgroup {path}")]
    Create {
        /// The directory.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

/// A cgroup this process may put things into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cgroup {
    path: PathBuf,
    level: u32,
}

impl Cgroup {
    /// The cgroup runs belong below: the caller's own, so that limits and
    /// egress programs above it stay in force, but outside of every subtree
    /// that is delegated to a user, who could move processes about in it.
    ///
    /// # Errors
    /// [`CgroupError`] names what is missing.
    pub fn for_runs() -> Result<Self, CgroupError> {
        let line = Self::line_of_the_caller()?;
        Ok(line.place().clone())
    }

    /// The root of the hierarchy.
    ///
    /// # Errors
    /// [`CgroupError`] names what is missing.
    pub fn root() -> Result<Self, CgroupError> {
        let mount = unified_mount(&read("/proc/self/mountinfo")?).ok_or(CgroupError::NotMounted)?;
        Ok(Self { path: mount, level: 0 })
    }

    /// The cgroups from the root of the hierarchy to the caller's own.
    ///
    /// # Errors
    /// [`CgroupError`] names what is missing.
    pub fn line_of_the_caller() -> Result<Line, CgroupError> {
        Self::line_by("/proc/self/cgroup")
    }

    /// The cgroups from the root of the hierarchy to a process's.
    ///
    /// # Errors
    /// [`CgroupError`]; of a process that has ended, that its membership cannot be read.
    pub fn line_of(pid: u32) -> Result<Line, CgroupError> {
        Self::line_by(&format!("/proc/{pid}/cgroup"))
    }

    fn line_by(membership: &str) -> Result<Line, CgroupError> {
        let root = Self::root()?;
        let own = read(membership)?;
        let membership = unified_membership(&own).ok_or(CgroupError::NotMounted)?;
        let mut line = Line { to_place: Vec::new(), place: root, beyond_place: Vec::new() };
        for part in membership.split('/').filter(|part| !part.is_empty()) {
            line.go_down(part);
        }
        line.to_place.push(line.place.clone());
        Ok(line)
    }

    /// The cgroup of that name below this one; it need not exist.
    #[must_use]
    pub fn child(&self, name: &str) -> Self {
        Self { path: self.path.join(name), level: self.level + 1 }
    }

    /// The one at a path below this one, if this is the root of the hierarchy: a path as in `/proc/PID/cgroup`, or the
    /// directory's own. It need not exist. `None` of a path with `..` in it.
    #[must_use]
    pub fn at(&self, path: &Path) -> Option<Self> {
        let below = path.strip_prefix(&self.path).or_else(|_| path.strip_prefix("/")).unwrap_or(path);
        below.components().try_fold(self.clone(), |at, part| match part {
            Component::Normal(name) => Some(Self { path: at.path.join(name), level: at.level + 1 }),
            Component::CurDir => Some(at),
            Component::Prefix(_) | Component::RootDir | Component::ParentDir => None,
        })
    }

    /// Itself and those above it, from the root of the hierarchy down.
    #[must_use]
    pub fn with_those_above(&self) -> Vec<Self> {
        let above = self.path.ancestors().zip((0..=self.level).rev());
        let mut all: Vec<Self> = above.map(|(path, level)| Self { path: path.into(), level }).collect();
        all.reverse();
        all
    }

    /// Whether somebody is in it or below it, but for those in `part`, which is below it.
    #[must_use]
    pub fn is_populated_outside(&self, part: &Self) -> bool {
        let own = fs::read_to_string(self.path.join("cgroup.procs")).unwrap_or_default();
        !own.trim().is_empty()
            || self.children().any(|child| match part.path.starts_with(&child.path) {
                true => child != *part && child.is_populated_outside(part),
                false => child.is_populated(),
            })
    }

    /// Those below it that are called so.
    #[must_use]
    pub fn all_called(&self, name: &str) -> Vec<Self> {
        let mut found = Vec::new();
        for child in self.children() {
            found.extend(child.all_called(name));
            if child.path.ends_with(name) {
                found.push(child);
            }
        }
        found
    }

    /// Itself and all below it.
    #[must_use]
    pub fn all(&self) -> Vec<Self> {
        let below = self.children().flat_map(|child| child.all());
        std::iter::once(self.clone()).chain(below).collect()
    }

    /// Itself, or the one below it that has this id.
    #[must_use]
    pub fn with_id(&self, id: u64) -> Option<Self> {
        if self.id().is_ok_and(|own| own == id) {
            return Some(self.clone());
        }
        self.children().find_map(|child| child.with_id(id))
    }

    fn children(&self) -> impl Iterator<Item = Self> {
        let level = self.level + 1;
        let entries = fs::read_dir(&self.path).into_iter().flatten().flatten();
        let directories = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        directories.map(move |entry| Self { path: entry.path(), level })
    }

    /// Makes it.
    ///
    /// # Errors
    /// [`CgroupError::Create`].
    pub fn create(&self) -> Result<(), CgroupError> {
        fs::create_dir(&self.path).map_err(|source| CgroupError::Create { path: self.path.clone(), source })
    }

    /// Its directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How many cgroups are above it.
    #[must_use]
    pub fn level(&self) -> u32 {
        self.level
    }

    /// The id by which the kernel's programs know it: the inode of its directory.
    ///
    /// # Errors
    /// If the directory is gone.
    pub fn id(&self) -> io::Result<u64> {
        let metadata = fs::metadata(&self.path)?;
        Ok(metadata.ino())
    }

    /// Whether it or a cgroup below it holds a process.
    #[must_use]
    pub fn is_populated(&self) -> bool {
        fs::read_to_string(self.path.join("cgroup.events"))
            .is_ok_and(|events| events.lines().any(|line| line == "populated 1"))
    }

    /// Waits until neither it nor a cgroup below it holds a process.
    pub fn wait_until_empty(&self) {
        let Ok(events) = File::open(self.path.join("cgroup.events")) else { return };
        // Opened first: what changes from here on wakes the poll. One that cannot be watched is looked at in steps.
        while self.is_populated() {
            let mut fds = [PollFd::new(&events, PollFlags::PRI)];
            let _woken = rustix::event::poll(&mut fds, Some(&LONGEST_SLEEP));
            let mut text = [0; 256];
            let _read = events.read_at(&mut text, 0);
        }
    }

    /// Ends every process in it and below, at once.
    pub fn kill(&self) {
        if fs::write(self.path.join("cgroup.kill"), "1").is_ok() {
            return;
        }
        // Kernels before 5.14 lack cgroup.kill.
        for pid in self.processes() {
            if let Some(pid) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) {
                let _gone_already = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
    }

    /// Removes it and everything below, waiting a little for dying processes.
    ///
    /// # Errors
    /// If processes stay, `EBUSY`.
    pub fn remove(&self) -> io::Result<()> {
        let give_up = Instant::now() + REMOVAL_PATIENCE;
        loop {
            match remove_tree(&self.path) {
                Ok(()) => return Ok(()),
                // One below it may have been removed by somebody else meanwhile, or all of it.
                Err(_) if !self.path.exists() => return Ok(()),
                Err(error) if Instant::now() > give_up => return Err(error),
                Err(_) => thread::sleep(REMOVAL_STEP),
            }
        }
    }

    /// The processes in it and below that have a number in this process's pid namespace.
    #[must_use]
    pub fn processes(&self) -> Vec<u32> {
        let mut pids: Vec<u32> = self.children().flat_map(|child| child.processes()).collect();
        let own = fs::read_to_string(self.path.join("cgroup.procs")).unwrap_or_default();
        // The others are listed as 0.
        pids.extend(own.lines().filter_map(|pid| pid.parse::<u32>().ok()).filter(|pid| *pid != 0));
        pids
    }
}

/// The cgroups from the root of the hierarchy to a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    to_place: Vec<Cgroup>,
    place: Cgroup,
    beyond_place: Vec<Cgroup>,
}

impl Line {
    /// The one that runs belong below: see [`Cgroup::for_runs`].
    #[must_use]
    pub fn place(&self) -> &Cgroup {
        &self.place
    }

    /// From the root to [`Line::place`], both included.
    #[must_use]
    pub fn to_place(&self) -> &[Cgroup] {
        &self.to_place
    }

    /// Those between [`Line::place`] and the process, its own included: a user has a say in them.
    #[must_use]
    pub fn beyond_place(&self) -> &[Cgroup] {
        &self.beyond_place
    }

    /// The root of the hierarchy.
    #[must_use]
    pub fn root(&self) -> &Cgroup {
        self.to_place.first().unwrap_or(&self.place)
    }

    /// The process's own.
    #[must_use]
    pub fn own(&self) -> &Cgroup {
        self.beyond_place.last().unwrap_or(&self.place)
    }

    fn go_down(&mut self, part: &str) {
        let child = self.beyond_place.last().unwrap_or(&self.place).child(part);
        if self.beyond_place.is_empty() && owned_by_root(&child.path) {
            self.to_place.push(std::mem::replace(&mut self.place, child));
        } else {
            self.beyond_place.push(child);
        }
    }
}

impl From<(PathBuf, u32)> for Cgroup {
    /// A cgroup known from the record of an earlier run.
    fn from((path, level): (PathBuf, u32)) -> Self {
        Self { path, level }
    }
}

fn read(path: &str) -> Result<String, CgroupError> {
    fs::read_to_string(path).map_err(|source| CgroupError::Read { path: path.into(), source })
}

fn owned_by_root(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.uid() == 0)
}

fn remove_tree(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(path)?;
    Ok(())
}

/// Where the unified hierarchy is mounted, by `/proc/self/mountinfo` (proc(5)).
pub(crate) fn unified_mount(mountinfo: &str) -> Option<PathBuf> {
    let is_root_of_cgroup2 = |line: &&str| {
        let Some((left, right)) = line.split_once(" - ") else { return false };
        right.starts_with("cgroup2 ") && left.split(' ').nth(3) == Some("/")
    };
    let line = mountinfo.lines().find(is_root_of_cgroup2)?;
    line.split(' ').nth(4).map(|path| PathBuf::from(unescape(path)))
}

/// mountinfo writes blanks and backslashes as three octal digits.
fn unescape(path: &str) -> String {
    path.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

/// This process's cgroup in the unified hierarchy, by `/proc/self/cgroup`.
pub(crate) fn unified_membership(cgroup: &str) -> Option<&str> {
    cgroup.lines().find_map(|line| line.strip_prefix("0::"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_is_found_on_a_hybrid_host() {
        let mountinfo = "\
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";
        assert_eq!(unified_mount(mountinfo), Some(PathBuf::from("/sys/fs/cgroup/unified")));
    }

    #[test]
    fn a_mount_of_a_subtree_does_not_count() {
        let mountinfo = "41 31 0:38 /docker/1 /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        assert_eq!(unified_mount(mountinfo), None);
    }

    #[test]
    fn blanks_in_the_mount_point_are_unescaped() {
        let mountinfo = "41 31 0:38 / /mnt/my\\040cgroup rw - cgroup2 cgroup2 rw\n";
        assert_eq!(unified_mount(mountinfo), Some(PathBuf::from("/mnt/my cgroup")));
    }

    #[test]
    fn membership_is_the_line_of_hierarchy_zero() {
        assert_eq!(unified_membership("4:memory:/x\n0::/user.slice\n"), Some("/user.slice"));
        assert_eq!(unified_membership("4:memory:/x\n"), None);
    }
}
