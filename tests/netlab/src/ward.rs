//! The engine without privileges by itself: policies and listeners of a test's own, on real connects of threads and processes that are supervised.

use std::{fmt, os::fd::OwnedFd, path::PathBuf, process::Child, sync::mpsc, thread};

use rustix::{
    process::{Gid, Pid, PidfdFlags, PidfdGetfdFlags, Uid},
    thread::{set_no_new_privs, set_thread_groups, set_thread_res_gid, set_thread_res_uid},
};
use waylay_engine_seccomp::{Datagrams, Dialler, Open, Part, SeccompEngine, supervise};
use waylay_host::cgroup::Cgroup;

/// What an application may do, of whom no more is asked than what it connects to.
const ANY_SOCKET: Part = Part::Command { any_socket: true };

/// Cgroups for those who are to be supervised, which take root to make, and the engine, which takes nothing.
pub struct Ward {
    engine: Option<SeccompEngine>,
    cgroup: Option<Cgroup>,
}

impl fmt::Debug for Ward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ward").field("cgroup", &self.cgroup).finish_non_exhaustive()
    }
}

impl Drop for Ward {
    fn drop(&mut self) {
        let Some(cgroup) = &self.cgroup else { return };
        cgroup.kill();
        // A failure here must not hide that of the test.
        let _removed = cgroup.remove();
    }
}

impl Ward {
    /// With cgroups of these names, and no engine yet.
    pub fn new(name: &str, parts: &[String]) -> Self {
        let parent = Cgroup::for_runs().unwrap();
        let cgroup = parent.child(&format!("waylay-ward-{name}-{}", std::process::id()));
        let ward = Self { engine: None, cgroup: Some(cgroup) };
        ward.cgroup().create().unwrap();
        parts.iter().for_each(|part| ward.cgroup().child(part).create().unwrap());
        ward
    }

    fn cgroup(&self) -> &Cgroup {
        self.cgroup.as_ref().unwrap()
    }

    /// Without cgroups, for threads alone.
    pub fn of_threads() -> Self {
        Self { engine: None, cgroup: None }
    }

    /// Begins, as whoever this thread is and in its network namespace.
    pub fn begin(&mut self) {
        self.engine = Some(SeccompEngine::new(Cgroup::root().unwrap().path().to_owned()).unwrap());
    }

    /// The engine.
    pub fn engine(&mut self) -> &mut SeccompEngine {
        self.engine.as_mut().unwrap()
    }

    /// Ends the flows whose connections the test has closed, which is all of them.
    pub fn sweep(&self) {
        let engine = self.engine.as_ref().unwrap();
        // More often than any is missed before it is taken to be gone.
        (0..200).for_each(|_| engine.sweep(&Open::default()));
    }

    /// The number of a cgroup of those that were made.
    pub fn cgroup_id(&self, part: Option<&str>) -> u64 {
        part.map_or_else(|| self.cgroup().id(), |part| self.cgroup().child(part).id()).unwrap()
    }

    /// The file by which a process enters one.
    pub fn procs(&self, part: &str) -> PathBuf {
        self.cgroup().child(part).path().join("cgroup.procs")
    }

    /// Supervises a process that has put a filter on itself ([`submit`]): `listener` is the descriptor that it has for that.
    pub fn watch(&self, process: &Child, listener: i32, dialler: Dialler) {
        let pid = Pid::from_child(process);
        let process = rustix::process::pidfd_open(pid, PidfdFlags::empty()).unwrap();
        let calls = rustix::process::pidfd_getfd(&process, listener, PidfdGetfdFlags::empty()).unwrap();
        self.supervise(calls, dialler);
    }

    /// Does something as a thread that is supervised, such as connecting, or asking about a connection.
    pub fn acting_as<T: Send>(&self, dialler: Dialler, act: impl FnOnce() -> T + Send) -> T {
        let part = match dialler {
            Dialler::Command => ANY_SOCKET,
            Dialler::Service(_) => Part::Service,
        };
        thread::scope(|scope| {
            // A thread that is started by one that is supervised is supervised as well, as the supervisor's own must not be.
            let (made, calls) = mpsc::channel();
            let actor = scope.spawn(move || {
                made.send(submitted(part)).unwrap();
                act()
            });
            self.supervise(calls.recv().unwrap(), dialler);
            actor.join().unwrap()
        })
    }

    fn supervise(&self, calls: OwnedFd, dialler: Dialler) {
        // It ends with those who are watched.
        let _watch = self.engine.as_ref().unwrap().watch(calls, dialler).unwrap();
    }
}

/// Has this thread supervised, and all that it starts. The descriptor that is given is for [`Ward::watch`].
pub fn submit(is_service: bool) -> OwnedFd {
    submitted(if is_service { Part::Service } else { ANY_SOCKET })
}

fn submitted(part: Part) -> OwnedFd {
    set_no_new_privs(true).unwrap();
    supervise(part, Datagrams::Judged).unwrap()
}

/// This thread, and those that it starts, have no privilege from here on.
pub fn become_user(uid: u32, gid: u32) {
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    set_thread_groups(&[]).unwrap();
    set_thread_res_gid(gid, gid, gid).unwrap();
    set_thread_res_uid(uid, uid, uid).unwrap();
}
