//! The BPF file system, where pins outlive the process that made them.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use rustix::mount::MountFlags;

use crate::error::EbpfError;

const MOUNT_POINT: &str = "/sys/fs/bpf";
/// `BPF_FS_MAGIC` of linux/magic.h.
const BPF_FS_MAGIC: u64 = 0xcafe_4a11;

/// The directory of all of waylay's pins; the file system is mounted if need be.
///
/// # Errors
/// [`EbpfError::FileSystem`] if it cannot be.
pub fn bpf_file_system() -> Result<PathBuf, EbpfError> {
    let at = |source: io::Error| EbpfError::FileSystem { path: MOUNT_POINT.into(), source };
    if !is_bpf_file_system(Path::new(MOUNT_POINT)) {
        rustix::mount::mount(c"bpf", MOUNT_POINT, c"bpf", MountFlags::empty(), c"mode=0700")
            .map_err(|errno| at(errno.into()))?;
    }
    let ours = Path::new(MOUNT_POINT).join("waylay");
    match fs::create_dir(&ours) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(at(error)),
        Ok(()) | Err(_) => Ok(ours),
    }
}

/// Whether the file system is mounted where [`bpf_file_system`] would mount it.
#[must_use]
pub fn bpf_file_system_is_mounted() -> bool {
    is_bpf_file_system(Path::new(MOUNT_POINT))
}

fn is_bpf_file_system(path: &Path) -> bool {
    rustix::fs::statfs(path).is_ok_and(|stat| stat.f_type as u64 == BPF_FS_MAGIC)
}
