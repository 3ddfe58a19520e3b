//! Who has made a call, as far as the kernel tells.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use waylay_abi as abi;
use waylay_core::{Cgroups, Process, ServiceId};

use crate::{
    birthmark::Birthmark,
    call::not_to_be_looked_at,
    program::{ExePath, Program},
    threads::{Papers, Thread, Threads},
};

/// Ids of cgroups that none has: by which services are known here, where they have no cgroups of their own.
const FIRST_HOME: u64 = 1 << 63;

/// What a service's endpoint has for its cgroup, as services are known here by the filter that asks for them.
pub fn home_of(service: ServiceId) -> u64 {
    FIRST_HOME | u64::from(service.0)
}

/// A process that dials, and what its flow will tell of it.
pub(crate) struct Caller {
    pub(crate) process: Process,
    program: Arc<Program>,
    thread: Arc<Thread>,
}

/// A caller, and whether the place of its cgroup is to be looked up yet: looking at a process takes long, and keeps nobody
/// waiting where it needs no lock.
pub(crate) struct Seen {
    caller: Caller,
    is_of_a_service: bool,
    is_cgroup_told: bool,
}

impl Seen {
    /// Looks at a thread that waits for an answer, known by no more than its number. Of a service nothing is asked but which one it is.
    pub(crate) fn look(threads: &Threads, tid: u32, service: Option<ServiceId>) -> io::Result<Self> {
        let (thread, papers) = threads.ask(tid, |thread| Ok((Arc::clone(thread), thread.papers(None)?)))?;
        Ok(Self::by(thread, papers, service))
    }

    /// The same of a thread that it is known to be, which has this mark.
    pub(crate) fn of(
        thread: Arc<Thread>,
        mark: Option<Birthmark>,
        service: Option<ServiceId>,
    ) -> io::Result<Self> {
        let papers = thread.papers(mark).map_err(not_to_be_looked_at)?;
        Ok(Self::by(thread, papers, service))
    }

    fn by(thread: Arc<Thread>, papers: Papers, service: Option<ServiceId>) -> Self {
        let Papers { pid, begun_ns, uid, gid, cgroup, command, program } = papers;
        let process = Process {
            pid,
            start_time_ns: begun_ns,
            uid,
            gid,
            command,
            exe: program.exe,
            cgroup: service.map_or(cgroup.unwrap_or(0), home_of),
            service: None,
        };
        let caller = Caller { process, program, thread };
        Self { caller, is_of_a_service: service.is_some(), is_cgroup_told: cgroup.is_some() }
    }

    pub(crate) fn placed(mut self, lines: &mut CgroupLines) -> Caller {
        let Self { caller, is_of_a_service, is_cgroup_told } = &mut self;
        let known = is_cgroup_told.then_some(caller.process.cgroup).filter(|cgroup| lines.knows(*cgroup));
        if !*is_of_a_service
            && known.is_none()
            && let Some(place) = caller.thread.place()
        {
            let found = lines.of(&place);
            match *is_cgroup_told {
                true => lines.note(caller.process.cgroup),
                false => caller.process.cgroup = found,
            }
        }
        self.caller
    }
}

impl Caller {
    /// The path of its executable as it sees it; empty if that cannot be told.
    pub(crate) fn exe_path(&self) -> ExePath {
        self.thread.path_of(&self.program)
    }

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

/// Cgroups that callers were seen in, with those above.
#[derive(Debug, Default)]
pub(crate) struct CgroupLines {
    /// Where the hierarchy is mounted.
    root: PathBuf,
    known: BTreeMap<String, u64>,
    noted: BTreeSet<u64>,
    above: BTreeMap<u64, u64>,
    news: Option<Cgroups>,
}

impl CgroupLines {
    pub(crate) fn below(root: PathBuf) -> Self {
        Self { root, ..Self::default() }
    }

    /// Whether those above a cgroup, which the kernel names, have been looked up.
    fn knows(&self, id: u64) -> bool {
        self.noted.contains(&id)
    }

    fn note(&mut self, id: u64) {
        self.noted.insert(id);
    }

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
        let root = &*self.root;
        let path = root.join(place.trim_start_matches('/'));
        let id_of = |path: &Path| fs::metadata(path).map(|directory| directory.ino()).ok();
        for lower in path.ancestors().take_while(|path| *path != root && path.starts_with(root)) {
            if let (Some(id), Some(above)) = (id_of(lower), lower.parent().and_then(id_of)) {
                self.above.insert(id, above);
            }
        }
        self.news = Some(Cgroups::new(self.above.iter().map(|(id, above)| (*id, *above))));
        id_of(&path).unwrap_or(0)
    }

    /// Which is below which, if that is more than it was when this was asked last.
    pub(crate) fn news(&mut self) -> Option<Cgroups> {
        self.news.take()
    }
}
