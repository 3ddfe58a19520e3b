//! Who has made a call, as far as /proc tells.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
};

use waylay_abi as abi;
use waylay_core::{Cgroups, CommandName, FileId, Process, ServiceId};
use zerocopy::FromZeros;

/// Ids of cgroups that none has: by which services are known here, where they have no cgroups of their own.
const FIRST_HOME: u64 = 1 << 63;
const CGROUP_ROOT: &str = "/sys/fs/cgroup";

/// What a service's endpoint has for its cgroup, as services are known here by the filter that asks for them.
pub fn home_of(service: ServiceId) -> u64 {
    FIRST_HOME | u64::from(service.0)
}

/// A process that dials, and what its flow will tell of it.
pub(crate) struct Caller {
    pub(crate) process: Process,
    /// Its executable as it sees it; empty if that cannot be told.
    pub(crate) exe_path: [u8; abi::EXE_LEN],
}

/// A caller, and the place of its cgroup, which is not looked up yet: looking at a process takes long, and keeps nobody
/// waiting where it needs no lock.
pub(crate) struct Seen {
    caller: Caller,
    place: Option<String>,
}

impl Seen {
    /// Looks at a thread that waits for an answer. Of a service nothing is asked but which one it is.
    pub(crate) fn look(tid: u32, service: Option<ServiceId>) -> io::Result<Self> {
        let status = fs::read_to_string(format!("/proc/{tid}/status"))?;
        let field = |name: &str| {
            status.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok())
        };
        let exe = format!("/proc/{tid}/exe");
        let process = Process {
            pid: field("Tgid:").unwrap_or(tid),
            start_time_ns: start_of(tid).unwrap_or(0),
            uid: field("Uid:").unwrap_or(u32::MAX),
            gid: field("Gid:").unwrap_or(u32::MAX),
            command: CommandName::new(fs::read(format!("/proc/{tid}/comm"))?.trim_ascii_end()),
            exe: fs::metadata(&exe).map(|file| file_id(&file)).unwrap_or_default(),
            cgroup: service.map_or(0, home_of),
            service: None,
        };
        let place = service.map_or_else(|| place_of(tid), |_| None);
        let caller = Caller { process, exe_path: path_bytes(fs::read_link(exe).ok()) };
        Ok(Self { caller, place })
    }

    pub(crate) fn placed(mut self, lines: &mut CgroupLines) -> Caller {
        if let Some(place) = self.place {
            self.caller.process.cgroup = lines.of(&place);
        }
        self.caller
    }
}

fn place_of(tid: u32) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{tid}/cgroup")).ok()?;
    text.lines().find_map(|line| line.strip_prefix("0::")).map(str::to_owned)
}

impl Caller {
    pub(crate) fn on_the_wire(&self) -> abi::Process {
        let Process { pid, start_time_ns, uid, command, exe, cgroup, .. } = &self.process;
        let mut comm = [0; abi::COMM_LEN];
        comm[..command.as_bytes().len()].copy_from_slice(command.as_bytes());
        abi::Process {
            start_time_ns: *start_time_ns,
            cgroup: *cgroup,
            exe_device: exe.device,
            exe_inode: exe.inode,
            pid: *pid,
            uid: *uid,
            comm,
        }
    }
}

/// In the kernel's encoding of devices, `major << 20 | minor`, as policies have it.
fn file_id(file: &fs::Metadata) -> FileId {
    let device = file.dev();
    let (major, minor) = (u64::from(libc::major(device)), u64::from(libc::minor(device)));
    FileId { device: major << 20 | minor, inode: file.ino() }
}

fn path_bytes(path: Option<PathBuf>) -> [u8; abi::EXE_LEN] {
    let mut bytes = <[u8; abi::EXE_LEN]>::new_zeroed();
    // One that does not fit, the zero at its end included, is not told.
    if let Some(path) = path.filter(|path| path.as_os_str().len() < abi::EXE_LEN) {
        bytes[..path.as_os_str().len()].copy_from_slice(path.as_os_str().as_bytes());
    }
    bytes
}

/// Field 22 of proc_pid_stat(5), in hundredths of a second, as nanoseconds.
fn start_of(tid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{tid}/stat")).ok()?;
    let ticks: u64 = stat.rsplit(')').next()?.split_whitespace().nth(19)?.parse().ok()?;
    Some(ticks * 10_000_000)
}

/// Cgroups that callers were seen in, with those above.
#[derive(Debug, Default)]
pub(crate) struct CgroupLines {
    known: BTreeMap<String, u64>,
    above: BTreeMap<u64, u64>,
}

impl CgroupLines {
    /// Of one that cannot be looked at, 0.
    fn of(&mut self, place: &str) -> u64 {
        if let Some(&id) = self.known.get(place) {
            return id;
        }
        let id = self.learn(place);
        self.known.insert(place.to_owned(), id);
        id
    }

    fn learn(&mut self, place: &str) -> u64 {
        let root = Path::new(CGROUP_ROOT);
        let path = root.join(place.trim_start_matches('/'));
        let id_of = |path: &Path| fs::metadata(path).map(|directory| directory.ino()).ok();
        for lower in path.ancestors().take_while(|path| *path != root && path.starts_with(root)) {
            if let (Some(id), Some(above)) = (id_of(lower), lower.parent().and_then(id_of)) {
                self.above.insert(id, above);
            }
        }
        id_of(&path).unwrap_or(0)
    }

    /// Which is below which.
    pub(crate) fn cgroups(&self) -> Cgroups {
        Cgroups::new(self.above.iter().map(|(id, above)| (*id, *above)))
    }
}
