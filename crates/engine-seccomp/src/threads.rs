//! Threads that make calls: a handle on each, kept, as to open one takes longer than all that is asked by it.
//!
//! A handle is of one thread, and never of another that has its number later: once the thread is gone, whatever is asked by its handle fails (ESRCH). So
//! what answers is the thread that has the number now, and has had it since the handle was opened. What a process can change of itself (its program,
//! name, user and cgroup) is not kept, but asked for anew with each call.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::FileExt,
    },
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use rustix::fs::{Mode, OFlags};
use waylay_core::CommandName;

use crate::{
    call::{errno, not_to_be_looked_at, process_of},
    given::{self, Given},
    probe::Means,
    program::{self, ExePath, Program},
    sys::{self, Identity},
};

/// Handles that are kept; each has up to three descriptors.
const MOST_KNOWN: usize = 100;
/// `TASK_COMM_LEN`, and a line's end.
const LONGEST_NAME: usize = 17;

/// A thread, by its handle.
#[derive(Debug)]
pub(crate) struct Thread {
    tid: u32,
    handle: OwnedFd,
    /// Whether it is on the thread itself, and not on its process.
    is_its_own: bool,
    name: OnceLock<File>,
    directory: OnceLock<OwnedFd>,
    begun: OnceLock<u64>,
    /// What it was seen to run last.
    program: Mutex<Option<Arc<Program>>>,
}

/// What a thread is as it makes a call.
#[derive(Debug)]
pub(crate) struct Papers {
    pub(crate) pid: u32,
    pub(crate) begun_ns: u64,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// The id of its cgroup, where the kernel tells it; the file in /proc does otherwise.
    pub(crate) cgroup: Option<u64>,
    pub(crate) command: CommandName,
    pub(crate) program: Arc<Program>,
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
        // If it is still there, so it was when others were asked by its number.
        let command = self.command()?;
        self.begun.get_or_init(|| begun_ns);
        Ok(Papers { pid, begun_ns, uid, gid, cgroup, command, program: self.program(command) })
    }

    fn command(&self) -> io::Result<CommandName> {
        let file = self.kept(&self.name, |path| File::open(format!("{path}/comm")))?;
        let mut bytes = [0; LONGEST_NAME];
        let len = file.read_at(&mut bytes, 0)?;
        Ok(CommandName::new(bytes[..len].trim_ascii_end()))
    }

    /// The same as before as long as it runs the same file.
    fn program(&self, command: CommandName) -> Arc<Program> {
        let directory = self.directory().ok();
        let seen = directory.and_then(|directory| program::seen(directory).ok()).unwrap_or_default();
        let mut last = self.program.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(same) = last.as_ref().filter(|program| program.is(seen, command)) {
            return Arc::clone(same);
        }
        let exe = directory.map(|directory| program::file(directory, seen)).unwrap_or_default();
        Arc::clone(last.insert(Arc::new(Program::of(seen, exe, command))))
    }

    /// The path of a program of its own, as it sees it.
    pub(crate) fn path_of(&self, program: &Program) -> ExePath {
        self.directory().map_or_else(|_gone| Arc::new([0; waylay_abi::EXE_LEN]), |own| program.path(own))
    }

    /// By which it is seen, among others, when it is gone.
    pub(crate) fn handle(&self) -> BorrowedFd<'_> {
        self.handle.as_fd()
    }

    /// Whether whatever is asked by its handle is said of this thread, and not of another one of its process.
    pub(crate) fn is_by_itself(&self) -> bool {
        self.is_its_own
    }

    /// What a descriptor is of, as /proc shows it.
    fn shown(&self, number: i32) -> io::Result<Vec<u8>> {
        match rustix::fs::readlinkat(self.directory()?, format!("fd/{number}"), Vec::new()) {
            // The thread is there, and the descriptor is not.
            Err(rustix::io::Errno::NOENT) => {
                sys::require_alive(self.handle.as_fd())?;
                Err(errno(libc::EBADF))
            }
            shown => Ok(shown?.into_bytes()),
        }
    }

    /// The flags of a descriptor and its open file (open(2)), as /proc shows them (proc_pid_fdinfo(5)).
    fn flags(&self, number: i32) -> io::Result<i32> {
        let text = fs::read_to_string(format!("/proc/{}/fdinfo/{number}", self.tid))?;
        sys::require_alive(self.handle.as_fd())?;
        let flags = text.lines().find_map(|line| line.strip_prefix("flags:"));
        let flags = flags.and_then(|flags| i32::from_str_radix(flags.trim(), 8).ok());
        flags.ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    fn namespace(self: &Arc<Self>) -> io::Result<Vec<u8>> {
        Ok(rustix::fs::readlinkat(self.directory()?, "ns/net", Vec::new())?.into_bytes())
    }

    fn directory(&self) -> io::Result<&OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        self.kept(&self.directory, |path| Ok(rustix::fs::open(path, flags, Mode::empty())?))
    }

    /// What is opened by its number, and is its own if it is still there afterwards.
    fn kept<'t, T>(
        &self,
        at: &'t OnceLock<T>,
        open: impl FnOnce(&str) -> io::Result<T>,
    ) -> io::Result<&'t T> {
        if let Some(opened) = at.get() {
            return Ok(opened);
        }
        let opened = open(&format!("/proc/{}", self.tid))?;
        sys::require_alive(self.handle.as_fd())?;
        Ok(at.get_or_init(|| opened))
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
    /// Sockets that were given, where no descriptor may be copied.
    given: Option<Given>,
    known: Mutex<BTreeMap<u32, Arc<Thread>>>,
}

impl Threads {
    /// Asks a thread for something; one that has the number of a thread that is gone is another.
    pub(crate) fn ask<T>(&self, tid: u32, ask: impl Fn(&Arc<Thread>) -> io::Result<T>) -> io::Result<T> {
        let known = self.lock().get(&tid).cloned();
        if let Some(thread) = known {
            match ask(&thread) {
                Err(error) if matches!(error.raw_os_error(), Some(libc::ESRCH | libc::ENOENT)) => {}
                answer => return answer.map_err(not_to_be_looked_at),
            }
        }
        self.meet(tid).and_then(|thread| ask(&thread)).map_err(not_to_be_looked_at)
    }

    pub(crate) fn by(means: Means) -> Self {
        let given = match means {
            Means::Copying => None,
            Means::Giving => Some(Given::default()),
        };
        Self { given, ..Self::default() }
    }

    pub(crate) fn given(&self) -> Option<&Given> {
        self.given.as_ref()
    }

    /// The inode of a thread's socket. ENOTSOCK of what is none.
    pub(crate) fn inode(&self, tid: u32, number: i32) -> io::Result<u64> {
        self.holder(tid, number).map(|(_, inode)| inode)
    }

    /// The same, with the thread.
    pub(crate) fn holder(&self, tid: u32, number: i32) -> io::Result<(Arc<Thread>, u64)> {
        let (thread, shown) = self.ask(tid, |thread| Ok((Arc::clone(thread), thread.shown(number)?)))?;
        Ok((thread, given::read_inode(&shown).ok_or_else(|| errno(libc::ENOTSOCK))?))
    }

    /// The flags of a thread's descriptor.
    pub(crate) fn flags(&self, tid: u32, number: i32) -> io::Result<i32> {
        self.ask(tid, |thread| thread.flags(number))
    }

    /// Whether a thread is in the network namespace of this one.
    pub(crate) fn is_here(&self, tid: u32) -> io::Result<bool> {
        let theirs = self.ask(tid, Thread::namespace)?;
        Ok(rustix::fs::readlink("/proc/thread-self/ns/net", Vec::new())?.into_bytes() == theirs)
    }

    /// A copy of a descriptor of a thread's. EACCES if there is none to be had.
    pub(crate) fn copy_descriptor(&self, tid: u32, number: i32) -> io::Result<OwnedFd> {
        self.copy_of(tid, number).map(|(_, copy)| copy)
    }

    /// The same, with the thread whose it is.
    pub(crate) fn copy_of(&self, tid: u32, number: i32) -> io::Result<(Arc<Thread>, OwnedFd)> {
        if let Some(given) = &self.given {
            let (thread, inode) = self.holder(tid, number)?;
            return Ok((thread, given.copy(inode)?));
        }
        self.ask(tid, |thread| Ok((Arc::clone(thread), sys::copy_descriptor(thread.handle.as_fd(), number)?)))
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
        let thread = Arc::new(Thread {
            tid,
            handle,
            is_its_own,
            name: OnceLock::new(),
            directory: OnceLock::new(),
            begun: OnceLock::new(),
            program: Mutex::default(),
        });
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
        self.given.iter().for_each(Given::sweep);
        self.lock().retain(|_, thread| sys::require_alive(thread.handle.as_fd()).is_ok());
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u32, Arc<Thread>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write,
        os::unix::fs::MetadataExt,
        process::{Child, Command, Stdio},
        thread,
        time::Duration,
    };

    use waylay_core::FileId;

    use super::*;

    fn start(shell: &str) -> Child {
        Command::new("sh").args(["-c", shell]).stdin(Stdio::piped()).spawn().unwrap()
    }

    fn end(mut child: Child) {
        child.kill().unwrap();
        child.wait().unwrap();
    }

    fn file(path: &str) -> FileId {
        let found = fs::metadata(path).unwrap();
        let (major, minor) = (u64::from(libc::major(found.dev())), u64::from(libc::minor(found.dev())));
        FileId { device: major << 20 | minor, inode: found.ino() }
    }

    fn papers(threads: &Threads, tid: u32) -> Papers {
        threads.ask(tid, |thread| thread.papers()).unwrap()
    }

    #[test]
    fn the_kernel_tells_of_a_thread_what_proc_does() {
        let threads = Threads::default();
        let child = start("read line");
        let found = papers(&threads, child.id());
        let by_number = identity_by_number(child.id()).unwrap();
        assert_eq!((found.pid, found.uid, found.gid), (child.id(), by_number.uid, by_number.gid));
        assert_eq!((found.program.exe, found.command), (file("/bin/sh"), CommandName::new("sh")));
        assert_eq!(Some(found.begun_ns), begun_of(child.id()));
        let again = papers(&threads, child.id());
        assert_eq!((again.pid, again.begun_ns), (found.pid, found.begun_ns));
        assert!(Arc::ptr_eq(&again.program, &found.program), "{again:?}");
        let (tid, path) = thread::spawn(|| {
            let tid = rustix::thread::gettid().as_raw_nonzero().get().cast_unsigned();
            let threads = Threads::default();
            let path = threads.ask(tid, |thread| {
                let found = thread.papers()?;
                Ok(waylay_abi::path_to_string(&thread.path_of(&found.program)))
            });
            let path = path.unwrap();
            assert_eq!(papers(&threads, tid).pid, std::process::id());
            (tid, path)
        })
        .join()
        .unwrap();
        assert_ne!(tid, std::process::id());
        assert_eq!(path, std::env::current_exe().unwrap().to_str().unwrap());
        end(child);
    }

    #[test]
    fn another_program_in_the_same_process_is_noticed_by_the_same_handle() {
        let threads = Threads::default();
        let mut child = start("read line; exec sleep 100");
        let handle = |threads: &Threads| threads.ask(child.id(), |thread| Ok(Arc::clone(thread))).unwrap();
        let before = handle(&threads);
        assert_eq!(papers(&threads, child.id()).program.exe, file("/bin/sh"));
        let by_now = || papers(&threads, child.id());
        child.stdin.as_ref().unwrap().write_all(b"\n").unwrap();
        let until = std::time::Instant::now() + Duration::from_secs(10);
        while by_now().program.exe != file("/bin/sleep") {
            assert!(std::time::Instant::now() < until, "{:?}", by_now());
        }
        assert_eq!(by_now().command, CommandName::new("sleep"));
        assert!(Arc::ptr_eq(&before, &handle(&threads)));
        child.stdin = None;
        end(child);
    }

    #[test]
    fn whoever_has_the_number_of_one_that_is_gone_is_not_taken_for_it() {
        let threads = Threads::default();
        let child = start("read line");
        let (gone, own) = (child.id(), std::process::id());
        papers(&threads, gone);
        let stale = threads.lock().get(&gone).cloned().unwrap();
        end(child);
        assert!(threads.ask(gone, |thread| thread.papers()).is_err());
        assert!(threads.copy_descriptor(gone, 0).is_err());
        // As if this process had the number by now.
        threads.lock().insert(own, stale);
        assert_eq!(papers(&threads, own).program.exe, file("/proc/self/exe"));
        assert!(threads.copy_descriptor(own, 0).is_ok());
        threads.lock().retain(|tid, _| *tid != own);
        threads.sweep();
        assert_eq!(threads.lock().len(), 0);
    }

    #[test]
    fn no_more_handles_are_kept_than_there_is_room_for() {
        let threads = Threads::default();
        let children: Vec<Child> = (0..MOST_KNOWN + 2).map(|_| start("read line")).collect();
        for child in &children {
            assert_eq!(papers(&threads, child.id()).pid, child.id());
        }
        assert_eq!(threads.lock().len(), MOST_KNOWN);
        children.into_iter().for_each(end);
    }
}
