//! Who runs on this host, as far as `/proc` shows it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, CWD, StatxFlags},
    process::{Pid, Signal, WaitOptions, kill_process, waitpid},
};
use waylay_core::FileId;

use crate::cgroup::unified_membership;

/// A process. What is `None` could not be looked at, or is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Running {
    pub(crate) pid: u32,
    pub(crate) name: String,
    /// Its real user.
    pub(crate) uid: Option<u32>,
    /// Its real group.
    pub(crate) gid: Option<u32>,
    /// Its executable, as the kernel knows it.
    pub(crate) exe: Option<FileId>,
    /// Its cgroup, as in `/proc/PID/cgroup`.
    pub(crate) cgroup: Option<PathBuf>,
}

impl Running {
    pub(crate) fn look(pid: u32) -> Self {
        let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).ok();
        let name = read("comm").unwrap_or_default();
        let cgroup = read("cgroup").and_then(|text| Some(PathBuf::from(unified_membership(&text)?)));
        let exe = file_id(Path::new(&format!("/proc/{pid}/exe")), pid).ok();
        let status = read("status").unwrap_or_default();
        Self {
            pid,
            name: name.trim().escape_debug().to_string(),
            uid: real_id("Uid:", &status),
            gid: real_id("Gid:", &status),
            exe,
            cgroup,
        }
    }
}

impl fmt::Display for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]", self.name, self.pid)
    }
}

/// What proc_pid_stat(5) says of a process.
struct Stat {
    has_ended: bool,
    parent: u32,
    session: u32,
}

impl Stat {
    /// Fields 3, 4 and 6, which the name comes before.
    fn of(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let mut fields = stat.rsplit(')').next()?.split_whitespace();
        let (state, parent) = (fields.next()?, fields.next()?.parse().ok()?);
        Some(Self { has_ended: state == "Z", parent, session: fields.nth(1)?.parse().ok()? })
    }
}

fn stats() -> BTreeMap<u32, Stat> {
    all().into_iter().filter_map(|pid| Some((pid, Stat::of(pid)?))).collect()
}

fn number(pid: u32) -> Option<Pid> {
    i32::try_from(pid).ok().and_then(Pid::from_raw)
}

/// Ends all that this process has started, and what those have, but for those of some sessions.
pub(crate) fn kill_descendants(spared: &BTreeSet<u32>) {
    let (stats, own) = (stats(), std::process::id());
    let descends = |pid: u32| {
        // As many steps as there are processes are enough, whatever has become of one meanwhile.
        let parents = std::iter::successors(Some(pid), |pid| stats.get(pid).map(|stat| stat.parent));
        parents.skip(1).take(stats.len()).any(|parent| parent == own)
    };
    let ended = stats.iter().filter(|(pid, stat)| descends(**pid) && !spared.contains(&stat.session));
    for pid in ended.filter_map(|(&pid, _)| number(pid)) {
        let _gone_already = kill_process(pid, Signal::KILL);
    }
}

/// Asks how children have ended that others have left to this process, which reaps those in `own` itself.
pub(crate) fn reap_orphans(own: &BTreeSet<u32>) {
    let me = std::process::id();
    let orphans =
        stats().into_iter().filter(|(pid, stat)| stat.has_ended && stat.parent == me && !own.contains(pid));
    for pid in orphans.filter_map(|(pid, _)| number(pid)) {
        let _reaped = waitpid(Some(pid), WaitOptions::NOHANG);
    }
}

/// Those that have one of these sockets open, by the inode that a descriptor shows.
pub(crate) fn holding(inodes: &BTreeSet<u32>) -> Vec<Running> {
    let holds = |pid: &u32| open_sockets(*pid).any(|inode| inodes.contains(&inode));
    all().into_iter().filter(holds).map(Running::look).collect()
}

/// For each of these sockets a process that has it open.
pub(crate) fn holders(inodes: &BTreeSet<u32>) -> BTreeMap<u32, Running> {
    let mut found = BTreeMap::new();
    for pid in all() {
        let missing = |inode: &u32| inodes.contains(inode) && !found.contains_key(inode);
        let held: Vec<u32> = open_sockets(pid).filter(missing).collect();
        if !held.is_empty() {
            let process = Running::look(pid);
            found.extend(held.into_iter().map(|inode| (inode, process.clone())));
        }
    }
    found
}

/// By their inodes.
fn open_sockets(pid: u32) -> impl Iterator<Item = u32> {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    descriptors.filter_map(|descriptor| {
        let target = fs::read_link(descriptor.path()).ok()?;
        target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
    })
}

/// Not `self` and the like, which are processes too.
fn all() -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// What tells a file from all others in the kernel. stat(2) does not say it everywhere: of some file systems it has other
/// numbers for a device than the kernel, which are those of the mount table. A path in `/proc/PID` leads into the mounts of
/// that process.
pub(crate) fn file_id(path: &Path, pid: u32) -> io::Result<FileId> {
    let metadata = fs::metadata(path)?;
    let mount = rustix::fs::statx(CWD, path, AtFlags::empty(), StatxFlags::MNT_ID)?.stx_mnt_id;
    let device = ["self".to_owned(), pid.to_string()].into_iter().find_map(|process| {
        let table = fs::read_to_string(format!("/proc/{process}/mountinfo")).ok()?;
        devices(&table).get(&mount).copied()
    });
    let of_stat = || encode(rustix::fs::major(metadata.dev()), rustix::fs::minor(metadata.dev()));
    // A pipe would keep whoever opens it waiting.
    let file = metadata.is_file().then(|| fs::File::open(path).ok()).flatten();
    let generation = file.map_or(0, |file| waylay_engine_seccomp::generation(&file));
    let device = device.unwrap_or_else(of_stat) | u64::from(generation) << 32;
    Ok(FileId { device, inode: metadata.ino() })
}

/// By the number of the mount (proc(5)).
fn devices(mountinfo: &str) -> BTreeMap<u64, u64> {
    let device = |line: &str| {
        let mut fields = line.split(' ');
        let mount = fields.next()?.parse().ok()?;
        let (major, minor) = fields.nth(1)?.split_once(':')?;
        Some((mount, encode(major.parse().ok()?, minor.parse().ok()?)))
    };
    mountinfo.lines().filter_map(device).collect()
}

/// The kernel's encoding (linux/kdev_t.h).
fn encode(major: u32, minor: u32) -> u64 {
    u64::from(major) << 20 | u64::from(minor)
}

/// The first of four is the real one (proc(5)).
fn real_id(of: &str, status: &str) -> Option<u32> {
    let ids = status.lines().find_map(|line| line.strip_prefix(of))?;
    ids.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::{
        net::TcpListener,
        os::fd::AsRawFd,
        process::Command,
        thread,
        time::{Duration, Instant},
    };

    use super::*;

    #[test]
    fn whoever_is_left_to_this_process_is_reaped_and_none_of_its_own_is() {
        rustix::process::set_child_subreaper(Some(rustix::process::getpid())).unwrap();
        let mut own = Command::new("true").spawn().unwrap();
        let left = Command::new("sh").args(["-c", "sleep 0 & echo $!"]).output().unwrap();
        let left: u32 = String::from_utf8(left.stdout).unwrap().trim().parse().unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        while [own.id(), left].iter().any(|&pid| !Stat::of(pid).is_some_and(|stat| stat.has_ended)) {
            assert!(Instant::now() < deadline, "they go on");
            thread::sleep(Duration::from_millis(5));
        }
        reap_orphans(&BTreeSet::from([own.id()]));
        assert!(Stat::of(left).is_none());
        assert!(own.wait().unwrap().success());
    }

    #[test]
    fn whoever_holds_a_socket_is_found_with_what_it_is() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let link = fs::read_link(format!("/proc/self/fd/{}", listener.as_raw_fd())).unwrap();
        let inode = link.to_str().unwrap().trim_matches(|c: char| !c.is_ascii_digit()).parse().unwrap();
        let holders = holding(&BTreeSet::from([inode]));
        let [own] = &holders[..] else { panic!("{holders:?}") };
        assert_eq!(own.pid, std::process::id());
        assert_eq!(own.uid, Some(rustix::process::getuid().as_raw()));
        assert_eq!(own.exe, Some(file_id(&std::env::current_exe().unwrap(), own.pid).unwrap()));
        assert!(own.cgroup.is_some());
    }

    #[test]
    fn devices_are_read_from_the_mount_table() {
        let table = "36 35 98:7 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw\nstrange\n";
        assert_eq!(devices(table), BTreeMap::from([(36, 98 << 20 | 7)]));
    }

    #[test]
    fn the_real_user_is_the_first_of_four() {
        assert_eq!(real_id("Uid:", "Name:\tx\nUid:\t33\t0\t0\t0\n"), Some(33));
        assert_eq!(real_id("Uid:", "Name:\tx\n"), None);
    }
}
