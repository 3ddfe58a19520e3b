//! Threads that make calls: a handle on each, kept, as to open one takes longer than all that is asked by it.
//!
//! A handle is of one thread, and never of another that has its number later: once the thread is gone, whatever is asked by its handle fails (ESRCH). So
//! what answers is the thread that has the number now, and has had it since the handle was opened. What a process can change of itself (its
//! program, name, user and cgroup) is not kept, but asked for anew with each call.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::FileExt,
    },
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use rustix::fs::{AtFlags, StatxFlags};
use waylay_core::{CommandName, FileId};

use crate::{
    call::process_of,
    sys::{self, Identity},
};

/// Handles that are kept; each has two descriptors.
const MOST_KNOWN: usize = 128;
/// `TASK_COMM_LEN`, and a line's end.
const LONGEST_NAME: usize = 17;

/// A thread, by its handle.
#[derive(Debug)]
pub(crate) struct Thread {
    tid: u32,
    handle: OwnedFd,
    name: OnceLock<File>,
    begun: OnceLock<u64>,
}

/// What a thread is as it makes a call.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Papers {
    pub(crate) pid: u32,
    pub(crate) begun_ns: u64,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// The id of its cgroup, where the kernel tells it; the file in /proc does otherwise.
    pub(crate) cgroup: Option<u64>,
    pub(crate) command: CommandName,
    pub(crate) exe: FileId,
}

impl Thread {
    /// Looks at it. Of what it is not to be looked at for there is nothing.
    pub(crate) fn papers(&self) -> io::Result<Papers> {
        let Identity { pid, uid, gid, cgroup } = match sys::identity_of(self.handle.as_fd()) {
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => return Err(error),
            told => told.or_else(|_older_kernel| identity_by_number(self.tid))?,
        };
        let begun_ns = match self.begun.get() {
            Some(&begun) => begun,
            None => begun_of(pid).unwrap_or(0),
        };
        let exe = self.exe().unwrap_or_default();
        // Last: if it is still there, so it was when others were asked by its number.
        let command = self.command()?;
        self.begun.get_or_init(|| begun_ns);
        Ok(Papers { pid, begun_ns, uid, gid, cgroup, command, exe })
    }

    fn command(&self) -> io::Result<CommandName> {
        let file = match self.name.get() {
            Some(file) => file,
            None => {
                let file = File::open(format!("/proc/{}/comm", self.tid))?;
                sys::require_alive(self.handle.as_fd())?;
                self.name.get_or_init(|| file)
            }
        };
        let mut bytes = [0; LONGEST_NAME];
        let len = file.read_at(&mut bytes, 0)?;
        Ok(CommandName::new(bytes[..len].trim_ascii_end()))
    }

    /// In the kernel's encoding of devices, `major << 20 | minor`, as policies have it. A file system over a network is not asked for that.
    fn exe(&self) -> io::Result<FileId> {
        let path = format!("/proc/{}/exe", self.tid);
        let file = rustix::fs::statx(
            rustix::fs::CWD,
            path,
            AtFlags::STATX_DONT_SYNC,
            StatxFlags::INO,
        )?;
        let device = u64::from(file.stx_dev_major) << 20 | u64::from(file.stx_dev_minor);
        Ok(FileId { device, inode: file.stx_ino })
    }

    /// The path of its program, as it sees it.
    pub(crate) fn exe_path(&self) -> Option<std::path::PathBuf> {
        let path = fs::read_link(format!("/proc/{}/exe", self.tid)).ok()?;
        sys::require_alive(self.handle.as_fd()).is_ok().then_some(path)
    }

    /// Where its cgroup is.
    pub(crate) fn place(&self) -> Option<String> {
        let text = fs::read_to_string(format!("/proc/{}/cgroup", self.tid)).ok()?;
        sys::require_alive(self.handle.as_fd()).ok()?;
        text.lines().find_map(|line| line.strip_prefix("0::")).map(str::to_owned)
    }
}

/// Before Linux 6.13 /proc alone tells.
fn identity_by_number(tid: u32) -> io::Result<Identity> {
    let status = fs::read_to_string(format!("/proc/{tid}/status"))?;
    let field = |name: &str| {
        status.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok())
    };
    Ok(Identity {
        pid: field("Tgid:").unwrap_or(tid),
        uid: field("Uid:").unwrap_or(u32::MAX),
        gid: field("Gid:").unwrap_or(u32::MAX),
        cgroup: None,
    })
}

/// When a process began: field 22 of proc_pid_stat(5), in hundredths of a second, as nanoseconds.
fn begun_of(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let ticks: u64 = stat.rsplit(')').next()?.split_whitespace().nth(19)?.parse().ok()?;
    Some(ticks * 10_000_000)
}

/// The handles that are kept.
#[derive(Debug, Default)]
pub(crate) struct Threads {
    known: Mutex<BTreeMap<u32, Arc<Thread>>>,
}

impl Threads {
    /// Asks a thread for something; one that has the number of a thread that is gone is another.
    pub(crate) fn ask<T>(&self, tid: u32, ask: impl Fn(&Arc<Thread>) -> io::Result<T>) -> io::Result<T> {
        let known = self.lock().get(&tid).cloned();
        if let Some(thread) = known {
            match ask(&thread) {
                Err(error) if matches!(error.raw_os_error(), Some(libc::ESRCH | libc::ENOENT)) => {}
                answer => return answer,
            }
        }
        ask(&self.meet(tid)?)
    }

    /// A copy of a descriptor of a thread's.
    pub(crate) fn copy_descriptor(&self, tid: u32, number: i32) -> io::Result<OwnedFd> {
        self.ask(tid, |thread| sys::copy_descriptor(thread.handle.as_fd(), number))
    }

    fn meet(&self, tid: u32) -> io::Result<Arc<Thread>> {
        let (handle, is_its_own) = match sys::open_thread(tid) {
            Ok(handle) => (handle, true),
            // Before Linux 6.9 there are handles on processes only, by their first threads.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                let pid = process_of(tid)?;
                (sys::open_process(pid)?, pid == tid)
            }
            Err(error) => return Err(error),
        };
        let thread = Arc::new(Thread { tid, handle, name: OnceLock::new(), begun: OnceLock::new() });
        if is_its_own {
            self.keep(&thread);
        }
        Ok(thread)
    }

    fn keep(&self, thread: &Arc<Thread>) {
        let mut known = self.lock();
        if known.len() >= MOST_KNOWN {
            known.retain(|_, thread| sys::require_alive(thread.handle.as_fd()).is_ok());
        }
        if known.len() >= MOST_KNOWN {
            known.pop_first();
        }
        known.insert(thread.tid, Arc::clone(thread));
    }

    /// Lets those go that are gone.
    pub(crate) fn sweep(&self) {
        self.lock().retain(|_, thread| sys::require_alive(thread.handle.as_fd()).is_ok());
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u32, Arc<Thread>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
