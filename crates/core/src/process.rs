//! Who dials.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::ids::ServiceId;

/// A process as it was when it dialled. The default is one of which nothing is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Process {
    /// Its id, reused by the system: together with the start time it is not.
    pub pid: u32,
    /// When it started, in nanoseconds of the monotonic clock since boot.
    pub start_time_ns: u64,
    /// Its user, the real one.
    pub uid: u32,
    /// Its group, the real one.
    pub gid: u32,
    /// Its command name.
    pub command: CommandName,
    /// Its executable.
    pub exe: FileId,
    /// Its cgroup.
    pub cgroup: u64,
    /// The registered service it is part of.
    pub service: Option<ServiceId>,
}

/// A file by what identifies it to the kernel, not by a path that can be bound elsewhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId {
    /// Device of the file system.
    pub device: u64,
    /// Inode on it.
    pub inode: u64,
}

/// What the kernel calls a thread's command: at most 15 bytes, of the executable's name unless somebody changed it
/// (<https://man7.org/linux/man-pages/man5/proc_pid_comm.5.html>).
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommandName([u8; Self::LEN]);

impl CommandName {
    /// Bytes of the longest one.
    pub const LEN: usize = 15;

    /// The name as the kernel keeps it: cut after [`Self::LEN`] bytes, and at a zero.
    #[must_use]
    pub fn new(name: impl AsRef<[u8]>) -> Self {
        let mut kept = [0; Self::LEN];
        let name = name.as_ref().iter().take_while(|byte| **byte != 0);
        kept.iter_mut().zip(name).for_each(|(to, from)| *to = *from);
        Self(kept)
    }

    /// Its bytes, without padding.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        let end = self.0.iter().position(|byte| *byte == 0).unwrap_or(Self::LEN);
        &self.0[..end]
    }
}

impl fmt::Display for CommandName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(self.as_bytes()))
    }
}

impl fmt::Debug for CommandName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&String::from_utf8_lossy(self.as_bytes()), f)
    }
}

/// Which cgroup is below which.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cgroups {
    parents: Arc<BTreeMap<u64, u64>>,
}

impl Cgroups {
    /// The hierarchy in which each first cgroup is right below the second.
    pub fn new(parents: impl IntoIterator<Item = (u64, u64)>) -> Self {
        Self { parents: Arc::new(parents.into_iter().collect()) }
    }

    /// A cgroup and all above it, from itself up. One of which nothing is known is alone.
    #[must_use]
    pub fn lineage(&self, cgroup: u64) -> Vec<u64> {
        let mut lineage = vec![cgroup];
        let mut at = cgroup;
        while let Some(parent) = self.parents.get(&at).copied().filter(|parent| !lineage.contains(parent)) {
            lineage.push(parent);
            at = parent;
        }
        lineage
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_name_is_what_the_kernel_keeps_of_it() {
        assert_eq!(CommandName::new("curl"), CommandName::new("curl\0xyz"));
        assert_eq!(CommandName::new("a-very-long-program-name").to_string(), "a-very-long-pro");
        assert_ne!(CommandName::new("curl"), CommandName::new("curly"));
        assert_eq!(format!("{:?}", CommandName::new("sh")), "\"sh\"");
    }

    #[test]
    fn a_lineage_goes_up_to_the_root_and_ends() {
        let cgroups = Cgroups::new([(4, 3), (3, 1), (2, 1)]);
        assert_eq!(cgroups.lineage(4), [4, 3, 1]);
        assert_eq!(cgroups.lineage(9), [9]);
        assert_eq!(Cgroups::new([(1, 2), (2, 1)]).lineage(1), [1, 2]);
    }
}
