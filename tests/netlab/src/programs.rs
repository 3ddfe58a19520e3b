//! The test programs where a service's own user can reach them, wherever the build directory is.

use std::{fs, os::unix::fs::PermissionsExt};

use tempfile::TempDir;

use crate::run::Waylay;

/// Copies of `netlab-probe`, `netlab-load` and `waylay`, removed with their owner.
#[derive(Debug)]
pub struct Programs {
    directory: TempDir,
}

impl Programs {
    /// Makes them.
    #[expect(clippy::new_without_default, reason = "it makes a directory")]
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        for program in ["netlab-probe", "netlab-load", "netlab-uring", "waylay"] {
            fs::copy(Waylay::binary().with_file_name(program), directory.path().join(program)).unwrap();
        }
        Self { directory }
    }

    /// One of them.
    pub fn path(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    /// The probe as a service of that name: `NAME=exec:…`.
    pub fn probe(&self, name: &str, what: &str) -> String {
        format!("{name}=exec:{} {what}", self.path("netlab-probe"))
    }
}
