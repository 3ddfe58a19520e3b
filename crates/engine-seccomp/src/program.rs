//! The program that a thread runs. Which file it is is asked for each time, unless its [mark](crate::birthmark) tells that it has not executed another one.
//! Its path is asked for once.

use std::{
    fs::File,
    io,
    os::fd::AsFd,
    sync::{Arc, OnceLock},
};

use rustix::fs::{AtFlags, Mode, OFlags, StatxFlags};
use waylay_abi::EXE_LEN;
use waylay_core::{CommandName, FileId};

use crate::sys;

/// A path as records have it: what does not fit, the zero at its end included, is not told.
pub(crate) type ExePath = Arc<[u8; EXE_LEN]>;

/// A program, as one thread runs it.
#[derive(Debug, Default)]
pub(crate) struct Program {
    seen: Seen,
    /// The file; none where it is not to be looked at.
    pub(crate) exe: FileId,
    command: CommandName,
    path: OnceLock<ExePath>,
}

impl Program {
    pub(crate) const fn of(seen: Seen, exe: FileId, command: CommandName) -> Self {
        Self { seen, exe, command, path: OnceLock::new() }
    }

    /// Whether it is the same file by the same name: a file may have several paths.
    pub(crate) fn is(&self, seen: Seen, command: CommandName) -> bool {
        self.seen == seen && self.command == command
    }

    pub(crate) fn is_called(&self, command: CommandName) -> bool {
        self.command == command
    }

    /// Its path as the thread sees it; empty if that cannot be told.
    pub(crate) fn path(&self, thread: impl AsFd) -> ExePath {
        if let Some(known) = self.path.get() {
            return Arc::clone(known);
        }
        match rustix::fs::readlinkat(thread, "exe", Vec::new()) {
            Ok(path) => Arc::clone(self.path.get_or_init(|| Arc::new(on_the_wire(path.as_bytes())))),
            Err(_not_to_be_told) => Arc::new([0; EXE_LEN]),
        }
    }
}

fn on_the_wire(path: &[u8]) -> [u8; EXE_LEN] {
    let mut bytes = [0; EXE_LEN];
    if path.len() < EXE_LEN {
        bytes[..path.len()].copy_from_slice(path);
    }
    bytes
}

/// A file as stat(2) has it, which is the same for as long as it is the same file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    file: FileId,
    /// The mount that it was reached by.
    mount: u64,
}

/// The file that a thread runs, by its directory in /proc. A file system over a network is not asked for that.
pub(crate) fn seen(thread: impl AsFd) -> rustix::io::Result<Seen> {
    let wanted = StatxFlags::INO | StatxFlags::MNT_ID;
    let file = rustix::fs::statx(thread, "exe", AtFlags::STATX_DONT_SYNC, wanted)?;
    let device = encode(file.stx_dev_major, file.stx_dev_minor);
    Ok(Seen { file: FileId { device, inode: file.stx_ino }, mount: file.stx_mnt_id })
}

/// The same in the kernel's encoding of devices, `major << 20 | minor`, as policies have it. Overlays show those of their layers to stat(2), where they
/// lie on several file systems, and btrfs one for each subvolume; the mount table has their own.
pub(crate) fn file(thread: impl AsFd, seen: Seen) -> FileId {
    // Of devices that are there.
    if seen.file.device >> MINOR_BITS != 0 {
        return seen.file;
    }
    let device = mounts(&thread).ok().and_then(|table| device_of(&table, seen.mount));
    let generation = open(&thread, "exe").map_or(0, |exe| generation(&exe));
    FileId { device: device.unwrap_or(seen.file.device) | u64::from(generation) << 32, ..seen.file }
}

/// On btrfs, where a file has its number in its subvolume alone, when it was made: that tells it from those of the others. 0 elsewhere.
#[must_use]
pub fn generation(file: &File) -> u32 {
    let is_btrfs = rustix::fs::fstatfs(file).is_ok_and(|system| system.f_type == BTRFS);
    if is_btrfs { sys::generation(file.as_fd()).unwrap_or(0) } else { 0 }
}

const MINOR_BITS: u32 = 20;
/// `BTRFS_SUPER_MAGIC` (linux/magic.h).
const BTRFS: i64 = 0x9123_683e;

fn encode(major: u32, minor: u32) -> u64 {
    u64::from(major) << MINOR_BITS | u64::from(minor)
}

fn mounts(thread: impl AsFd) -> io::Result<String> {
    io::read_to_string(open(thread, "mountinfo")?)
}

fn open(thread: impl AsFd, name: &str) -> io::Result<File> {
    Ok(rustix::fs::openat(thread, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?.into())
}

/// proc_pid_mountinfo(5).
fn device_of(mountinfo: &str, mount: u64) -> Option<u64> {
    mountinfo.lines().find_map(|line| {
        let mut fields = line.split(' ');
        (fields.next()?.parse() == Ok(mount)).then_some(())?;
        let (major, minor) = fields.nth(1)?.split_once(':')?;
        Some(encode(major.parse().ok()?, minor.parse().ok()?))
    })
}
