//! A process as the kernel's programs would see it if it dialled now.

use std::{
    fs,
    path::{Path, PathBuf},
};

use waylay_core::{Cgroups, CommandName, Process};

use crate::{cgroup::Cgroup, processes::Running};

/// A process of this host, with what is above its cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The process. Which service it is of is not looked for.
    pub process: Process,
    /// Its cgroup and those above.
    pub cgroups: Cgroups,
    /// Where its cgroup is.
    pub cgroup: PathBuf,
}

impl Caller {
    /// Looks at a process; `None` if it has ended, or cannot be looked at.
    #[must_use]
    pub fn look(pid: u32) -> Option<Self> {
        Self::of(&Running::look(pid))
    }

    pub(crate) fn of(running: &Running) -> Option<Self> {
        let root = Cgroup::root().ok()?;
        let cgroup = root.at(running.cgroup.as_deref()?)?;
        let command = fs::read(format!("/proc/{}/comm", running.pid)).ok()?;
        let process = Process {
            pid: running.pid,
            uid: running.uid?,
            gid: running.gid?,
            command: CommandName::new(command.trim_ascii_end()),
            exe: running.exe.unwrap_or_default(),
            cgroup: cgroup.id().ok()?,
            ..Process::default()
        };
        Some(Self { process, cgroups: line_to(&cgroup, root.path()), cgroup: cgroup.path().to_owned() })
    }
}

fn line_to(cgroup: &Cgroup, root: &Path) -> Cgroups {
    let id = |path: &Path| Cgroup::from((path.to_owned(), 0)).id().ok();
    let within = cgroup.path().ancestors().take_while(|path| *path != root);
    Cgroups::new(within.filter_map(|path| Some((id(path)?, id(path.parent()?)?))))
}

#[cfg(test)]
mod tests {
    use waylay_core::FileId;

    use super::*;

    #[test]
    fn a_process_is_seen_as_it_is_and_none_that_has_ended() {
        let own = Caller::look(std::process::id()).unwrap();
        assert_eq!(own.process.uid, rustix::process::getuid().as_raw());
        assert_eq!(own.process.gid, rustix::process::getgid().as_raw());
        assert_ne!(own.process.exe, FileId::default());
        let root = Cgroup::root().unwrap().id().unwrap();
        assert_eq!(own.cgroups.lineage(own.process.cgroup).last(), Some(&root));
        assert_eq!(Caller::look(u32::MAX), None);
    }
}
