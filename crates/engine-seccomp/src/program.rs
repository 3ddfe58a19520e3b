//! The program that a thread runs. It is looked up once, and is the same for as long as the thread has the same memory and the same name: execve(2)
//! gives it other memory, and the name of what is executed, and the memory before ends with that unless another process has it too. What runs in its
//! parent's memory (vfork(2)) is therefore looked up each time.

use std::{
    fs::File,
    os::{fd::AsFd, unix::fs::FileExt},
    sync::{Arc, OnceLock},
};

use rustix::fs::{AtFlags, Mode, OFlags, StatxFlags};
use waylay_abi::EXE_LEN;
use waylay_core::{CommandName, FileId};

/// A path as records have it: what does not fit, the zero at its end included, is not told.
pub(crate) type ExePath = Arc<[u8; EXE_LEN]>;

/// Bytes that proc_pid_pagemap(5) has for a page.
const A_PAGE: usize = 8;

/// A program, as one thread runs it.
#[derive(Debug, Default)]
pub(crate) struct Program {
    /// The file; none where it is not to be looked at.
    pub(crate) exe: FileId,
    command: CommandName,
    /// By which it is seen whether the memory is there; nothing else is read.
    memory: Option<File>,
    path: OnceLock<ExePath>,
}

impl Program {
    /// Looks it up, by the thread's directory in /proc. `lasts` says whether it can be told by its memory for how long it is run.
    pub(crate) fn of(thread: impl AsFd, command: CommandName, lasts: impl FnOnce() -> bool) -> Self {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let open = || rustix::fs::openat(&thread, "pagemap", flags, Mode::empty()).ok();
        let memory = lasts().then(open).flatten().map(File::from);
        Self { exe: file(&thread).unwrap_or_default(), command, memory, path: OnceLock::new() }
    }

    /// Whether it is what a thread of this name runs still, in whose place it was looked up.
    pub(crate) fn is(&self, command: CommandName) -> bool {
        self.command == command && self.is_running()
    }

    fn is_running(&self) -> bool {
        let looks = |memory: &File| memory.read_at(&mut [0; A_PAGE], 0);
        self.memory.as_ref().is_some_and(|memory| looks(memory).is_ok_and(|read| read == A_PAGE))
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

/// In the kernel's encoding of devices, `major << 20 | minor`, as policies have it. A file system over a network is not asked for that.
fn file(thread: impl AsFd) -> rustix::io::Result<FileId> {
    let file = rustix::fs::statx(thread, "exe", AtFlags::STATX_DONT_SYNC, StatxFlags::INO)?;
    let device = u64::from(file.stx_dev_major) << 20 | u64::from(file.stx_dev_minor);
    Ok(FileId { device, inode: file.stx_ino })
}
