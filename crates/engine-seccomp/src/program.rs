//! The program that a thread runs. Which file it is is asked for each time: nothing that a thread keeps tells that it has not executed another one, its
//! memory not even, which others may have as well (vfork(2), clone(2)) and so keep. Its path is asked for once.

use std::{
    os::fd::AsFd,
    sync::{Arc, OnceLock},
};

use rustix::fs::{AtFlags, StatxFlags};
use waylay_abi::EXE_LEN;
use waylay_core::{CommandName, FileId};

/// A path as records have it: what does not fit, the zero at its end included, is not told.
pub(crate) type ExePath = Arc<[u8; EXE_LEN]>;

/// A program, as one thread runs it.
#[derive(Debug, Default)]
pub(crate) struct Program {
    /// The file; none where it is not to be looked at.
    pub(crate) exe: FileId,
    command: CommandName,
    path: OnceLock<ExePath>,
}

impl Program {
    pub(crate) const fn of(exe: FileId, command: CommandName) -> Self {
        Self { exe, command, path: OnceLock::new() }
    }

    /// Whether it is the same file by the same name: a file may have several paths.
    pub(crate) fn is(&self, exe: FileId, command: CommandName) -> bool {
        self.exe == exe && self.command == command
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

/// The file that a thread runs, by its directory in /proc; in the kernel's encoding of devices, `major << 20 | minor`, as policies have it. A file system
/// over a network is not asked for that.
pub(crate) fn file(thread: impl AsFd) -> rustix::io::Result<FileId> {
    let file = rustix::fs::statx(thread, "exe", AtFlags::STATX_DONT_SYNC, StatxFlags::INO)?;
    let device = u64::from(file.stx_dev_major) << 20 | u64::from(file.stx_dev_minor);
    Ok(FileId { device, inode: file.stx_ino })
}
