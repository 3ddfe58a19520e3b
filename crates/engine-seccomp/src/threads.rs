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

use rustix::fs::{AtFlags, Mode, OFlags, Stat};
use waylay_core::CommandName;

use crate::{
    birthmark::Birthmark,
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
    run: Mutex<Option<Run>>,
}

/// A program that a thread runs.
#[derive(Debug)]
struct Run {
    program: Arc<Program>,
    /// Whether it was asked for twice: then it is worth to know it by its mark.
    is_seen_again: bool,
    mark: Option<Birthmark>,
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
    fn open(tid: u32) -> io::Result<Self> {
        match sys::open_thread(tid) {
            Ok(handle) => Ok(Self::by(tid, handle, true)),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Self::of_its_process(tid),
            Err(error) => Err(error),
        }
    }

    /// Before Linux 6.9 there are handles on processes only, by their first threads.
    fn of_its_process(tid: u32) -> io::Result<Self> {
        let pid = process_of(tid)?;
        Ok(Self::by(tid, sys::open_process(pid)?, pid == tid))
    }

    fn by(tid: u32, handle: OwnedFd, is_its_own: bool) -> Self {
        Self {
            tid,
            handle,
            is_its_own,
            name: OnceLock::new(),
            directory: OnceLock::new(),
            begun: OnceLock::new(),
            run: Mutex::default(),
        }
    }

    /// Looks at it, which has this mark. Of what it is not to be looked at for there is nothing.
    pub(crate) fn papers(&self, mark: Option<Birthmark>) -> io::Result<Papers> {
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
        Ok(Papers { pid, begun_ns, uid, gid, cgroup, command, program: self.program(command, mark) })
    }

    fn command(&self) -> io::Result<CommandName> {
        let file = self.kept(&self.name, |path| File::open(format!("{path}/comm")))?;
        let mut bytes = [0; LONGEST_NAME];
        let len = file.read_at(&mut bytes, 0)?;
        Ok(CommandName::new(bytes[..len].trim_ascii_end()))
    }

    /// The same as before as long as it runs the same file.
    fn program(&self, command: CommandName, mark: Option<Birthmark>) -> Arc<Program> {
        let known = |run: &&mut Run| mark.is_some() && run.mark == mark && run.program.is_called(command);
        if let Some(run) = self.run().as_mut().filter(known) {
            return Arc::clone(&run.program);
        }
        let directory = self.directory().ok();
        let seen = directory.and_then(|directory| program::seen(directory).ok()).unwrap_or_default();
        let mut last = self.run();
        if let Some(run) = last.as_mut().filter(|run| run.program.is(seen, command)) {
            run.is_seen_again = true;
            return Arc::clone(&run.program);
        }
        let exe = directory.map(|directory| program::file(directory, seen)).unwrap_or_default();
        let program = Arc::new(Program::of(seen, exe, command));
        Arc::clone(&last.insert(Run { program, is_seen_again: false, mark: None }).program)
    }

    fn run(&self) -> MutexGuard<'_, Option<Run>> {
        self.run.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the program known by its mark that it was found to run since it waits for an answer, if it still does, and if it is found often.
    pub(crate) fn note_mark(&self, still_waits: impl FnOnce() -> bool) {
        if !self.run().as_ref().is_some_and(|run| run.is_seen_again) {
            return;
        }
        let mark = Birthmark::of(self.tid).ok().filter(|_| still_waits());
        if let Some(run) = self.run().as_mut() {
            run.mark = mark;
        }
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

    fn copy(&self, number: i32) -> io::Result<OwnedFd> {
        let copy = sys::copy_descriptor(self.handle.as_fd(), number);
        if self.is_its_own || number < 0 {
            return copy;
        }
        // That is the first thread's, which may be gone, and need not have the same descriptors (CLONE_FILES).
        let own = match rustix::fs::statat(self.directory()?, format!("fd/{number}"), AtFlags::empty()) {
            Err(rustix::io::Errno::NOENT) => return Err(errno(libc::EBADF)),
            own => own?,
        };
        let is_the_same =
            |copy: &OwnedFd| rustix::fs::fstat(copy).is_ok_and(|copy| file_of(&copy) == file_of(&own));
        copy.ok().filter(is_the_same).ok_or_else(|| errno(libc::EACCES))
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

fn file_of(stat: &Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
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
        self.ask(tid, |thread| Ok((Arc::clone(thread), thread.copy(number)?)))
    }

    /// By what the program of a thread may be known that has this number.
    pub(crate) fn mark_of(&self, tid: u32) -> Option<Birthmark> {
        self.lock().get(&tid)?.run().as_ref()?.mark
    }

    fn meet(&self, tid: u32) -> io::Result<Arc<Thread>> {
        let thread = Arc::new(Thread::open(tid)?);
        if thread.is_its_own {
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
        io::{BufRead, BufReader, Write},
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

    /// Overlays show other devices to stat(2) than the mount table.
    fn file(path: &str) -> FileId {
        let path = fs::canonicalize(path).unwrap();
        let found = Command::new("findmnt").args(["-nvo", "MAJ:MIN", "-T"]).arg(&path).output().unwrap();
        let device = String::from_utf8(found.stdout).unwrap();
        let (major, minor) = device.trim().split_once(':').unwrap();
        let [major, minor] = [major, minor].map(|number| number.parse::<u64>().unwrap());
        FileId { device: major << 20 | minor, inode: fs::metadata(&path).unwrap().ino() }
    }

    fn papers(threads: &Threads, tid: u32) -> Papers {
        threads.ask(tid, |thread| thread.papers(None)).unwrap()
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
                let found = thread.papers(None)?;
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
    fn a_program_that_is_known_by_its_mark_is_asked_for_anew_once_it_executes_itself() {
        let threads = Threads::default();
        let child = start("read line; exec sh -c 'read line'");
        let tid = child.id();
        let has_mark = || {
            let mark = threads.mark_of(tid);
            mark.is_some_and(|mark| mark.read_beside(tid, 0, &mut []).is_ok_and(|has_it| has_it))
        };
        let thread = threads.ask(tid, |thread| Ok(Arc::clone(thread))).unwrap();
        let until = std::time::Instant::now() + Duration::from_secs(10);
        // While it is being executed, a program has none yet.
        let meet_until_known = || {
            while !has_mark() {
                assert!(std::time::Instant::now() < until);
                papers(&threads, tid);
                thread.note_mark(|| true);
            }
        };
        papers(&threads, tid);
        thread.note_mark(|| true);
        assert_eq!(threads.mark_of(tid), None, "of one that was met once");
        meet_until_known();
        let (mark, before) = (threads.mark_of(tid), papers(&threads, tid).program);
        assert!(has_mark() && Arc::ptr_eq(&thread.papers(mark).unwrap().program, &before));

        child.stdin.as_ref().unwrap().write_all(b"\n").unwrap();
        while has_mark() {
            assert!(std::time::Instant::now() < until);
        }
        papers(&threads, tid);
        thread.note_mark(|| false);
        assert_eq!(threads.mark_of(tid), None, "of one that may be gone");
        meet_until_known();
        assert_ne!(threads.mark_of(tid), mark);
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
        assert!(threads.ask(gone, |thread| thread.papers(None)).is_err());
        assert!(threads.copy_descriptor(gone, 0).is_err());
        // As if this process had the number by now.
        threads.lock().insert(own, stale);
        assert_eq!(papers(&threads, own).program.exe, file("/proc/self/exe"));
        assert!(threads.copy_descriptor(own, 0).is_ok());
        threads.lock().retain(|tid, _| *tid != own);
        threads.sweep();
        assert_eq!(threads.lock().len(), 0);
    }

    /// Which is how it is done before Linux 6.9.
    #[test]
    fn a_descriptor_that_is_had_by_the_process_is_the_threads_or_none() {
        const APART: &str = "
import ctypes, os, socket, sys, threading, time
same, exchanged, closed = [socket.socket() for _ in range(3)]
def leave():
    ctypes.CDLL(None).unshare(0x400)
    os.dup2(same.fileno(), exchanged.fileno())
    closed.close()
    print(threading.get_native_id(), flush=True)
    time.sleep(100)
numbers = [one.fileno() for one in (same, exchanged, closed)]
print(*numbers)
threading.Thread(target=leave).start()
sys.stdin.readline()
# The first thread ends alone.
ctypes.CDLL(None).syscall({'x86_64': 60, 'aarch64': 93}[os.uname().machine], 0)";
        let command = ["-u", "-c", APART];
        let mut python = Command::new("python3");
        let mut child = python.args(command).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let numbers: Vec<i32> =
            lines.next().unwrap().split(' ').map(|number| number.parse().unwrap()).collect();
        let thread = Thread::of_its_process(lines.next().unwrap().parse().unwrap()).unwrap();
        let failures =
            || numbers.iter().map(|number| thread.copy(*number).err()?.raw_os_error()).collect::<Vec<_>>();
        assert_eq!(failures(), [None, Some(libc::EACCES), Some(libc::EBADF)]);
        child.stdin.as_ref().unwrap().write_all(b"\n").unwrap();
        let until = std::time::Instant::now() + Duration::from_secs(10);
        while failures()[0].is_none() && std::time::Instant::now() < until {}
        assert_eq!(failures(), [Some(libc::EACCES), Some(libc::EACCES), Some(libc::EBADF)]);
        end(child);
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
