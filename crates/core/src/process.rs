//! Who dials.

use crate::ids::ServiceId;

/// A process as it was when it dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Process {
    /// Its id, reused by the system: together with the start time it is not.
    pub pid: u32,
    /// When it started, in nanoseconds of the monotonic clock since boot.
    pub start_time_ns: u64,
    /// Its user.
    pub uid: u32,
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
