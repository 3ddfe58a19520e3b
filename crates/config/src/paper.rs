//! A host on paper: as many processes, executables and cgroups as a hypothetical connection needs, by name.
//!
//! It answers what a policy makes of "`/usr/bin/curl`, in `/user.slice`, as alice" without looking whether there is any such thing, and
//! without any privilege. Users and groups are those of a host, for there names say nothing without one.

use std::net::SocketAddr;

use waylay_core::{Cgroups, CommandName, FileId, Namespace, Process};

use crate::declaration::{ExePattern, NamespaceName, UnitName};
use crate::names::Names;

/// Who takes part in a hypothetical connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Party {
    /// Path of its executable.
    pub exe: Option<String>,
    /// Its command name; that of the executable where nothing is said.
    pub command: Option<String>,
    /// Its user.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Path of its cgroup below the root of the hierarchy.
    pub cgroup: Option<String>,
}

/// A host on paper.
pub struct Paper<'a> {
    accounts: &'a dyn Names,
    executables: Vec<String>,
    cgroups: Vec<String>,
    namespaces: Vec<String>,
}

/// Of files on paper: no device of Linux has it.
const DEVICE: u64 = u64::MAX;

impl<'a> Paper<'a> {
    /// A host with the users and groups of another.
    #[must_use]
    pub fn new(accounts: &'a dyn Names) -> Self {
        Self { accounts, executables: Vec::new(), cgroups: vec!["/".to_owned()], namespaces: Vec::new() }
    }

    /// Lets somebody be there.
    pub fn process(&mut self, party: &Party) -> Process {
        let command =
            party.command.clone().or_else(|| party.exe.as_deref().map(file_name).map(str::to_owned));
        Process {
            uid: party.uid,
            gid: party.gid,
            command: CommandName::new(command.unwrap_or_default()),
            exe: party.exe.as_deref().map(|exe| file(intern(&mut self.executables, exe))).unwrap_or_default(),
            cgroup: party.cgroup.as_deref().map_or(0, |cgroup| self.add_cgroup(cgroup)),
            ..Process::default()
        }
    }

    /// Lets a network namespace be there. On paper waylay is in the host's.
    pub fn add_namespace(&mut self, name: &str) -> Namespace {
        match name {
            "own" | "host" | NamespaceName::HOST => Namespace::Own,
            path => Namespace::Foreign(intern(&mut self.namespaces, path) + 1),
        }
    }

    /// Which cgroup is below which.
    #[must_use]
    pub fn hierarchy(&self) -> Cgroups {
        let below = self.cgroups.iter().filter_map(|path| {
            let (parent, name) = path.rsplit_once('/')?;
            let parent = if parent.is_empty() { "/" } else { parent };
            (!name.is_empty()).then(|| Some((self.cgroup(path)?, self.cgroup(parent)?)))?
        });
        Cgroups::new(below)
    }

    /// Adds a cgroup and all above it.
    fn add_cgroup(&mut self, path: &str) -> u64 {
        let mut at = String::new();
        let mut id = 0;
        for part in path.split('/').filter(|part| !part.is_empty()) {
            at = format!("{at}/{part}");
            id = intern(&mut self.cgroups, &at);
        }
        id
    }

    fn cgroups_called(&self, fits: impl Fn(&str) -> bool) -> Vec<u64> {
        (0..).zip(&self.cgroups).filter(|(_, path)| fits(file_name(path))).map(|(id, _)| id).collect()
    }
}

impl Names for Paper<'_> {
    fn user(&self, name: &str) -> Option<u32> {
        self.accounts.user(name)
    }

    fn group(&self, name: &str) -> Option<u32> {
        self.accounts.group(name)
    }

    fn executables(&self, pattern: &ExePattern) -> Vec<FileId> {
        (0..)
            .zip(&self.executables)
            .filter(|(_, path)| pattern.covers(path))
            .map(|(id, _)| file(id))
            .collect()
    }

    fn cgroup(&self, path: &str) -> Option<u64> {
        self.cgroups.iter().position(|known| known == path).map(|id| id as u64)
    }

    fn unit(&self, unit: &UnitName) -> Vec<u64> {
        self.cgroups_called(|name| name == unit.as_str())
    }

    fn container(&self, id: &str) -> Vec<u64> {
        self.cgroups_called(|name| name.contains(id))
    }

    fn namespace(&self, path: &str) -> Option<Namespace> {
        if path == NamespaceName::HOST {
            return Some(Namespace::Own);
        }
        let found = self.namespaces.iter().position(|known| known == path);
        found.map(|id| Namespace::Foreign(id as u64 + 1))
    }

    fn resolvers(&self) -> Vec<SocketAddr> {
        Vec::new()
    }
}

const fn file(inode: u64) -> FileId {
    FileId { device: DEVICE, inode }
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// Its index, from now on at the latest.
fn intern(names: &mut Vec<String>, name: &str) -> u64 {
    let index = names.iter().position(|known| known == name).unwrap_or_else(|| {
        names.push(name.to_owned());
        names.len() - 1
    });
    index as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::Nobody;

    #[test]
    fn a_party_is_covered_by_what_covers_its_names() {
        let mut paper = Paper::new(&Nobody);
        let cron = Party {
            exe: Some("/usr/sbin/cron".into()),
            cgroup: Some("/system.slice/cron.service/job".into()),
            ..Party::default()
        };
        let process = paper.process(&cron);
        assert_eq!(process.command, CommandName::new("cron"));
        let covers = |pattern| paper.executables(&ExePattern::new(pattern).unwrap()) == [process.exe];
        assert!(covers("/usr/sbin/cron") && covers("/usr/**/cron"));
        assert!(!covers("/usr/sbin/sshd"));
        let lineage = paper.hierarchy().lineage(process.cgroup);
        assert_eq!(lineage.len(), 4, "{lineage:?}");
        for unit in ["cron.service", "system.slice"] {
            let [cgroup] = paper.unit(&UnitName::new(unit).unwrap())[..] else { panic!("{unit}") };
            assert!(lineage.contains(&cgroup));
        }
        assert_eq!(paper.cgroup("/"), lineage.last().copied());
        assert_eq!(paper.cgroup("/user.slice"), None);
    }

    #[test]
    fn nobody_in_particular_is_covered_by_no_name() {
        let mut paper = Paper::new(&Nobody);
        let process = paper.process(&Party::default());
        paper.process(&Party { exe: Some("/bin/a".into()), ..Party::default() });
        assert!(!paper.executables(&ExePattern::new("/**/*").unwrap()).contains(&process.exe));
    }
}
