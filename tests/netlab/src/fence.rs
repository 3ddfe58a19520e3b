//! A cgroup around whatever a test starts, to see what it leaves there.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use crate::instance::cgroup_file_system;

/// A cgroup below the root, removed with its owner.
#[derive(Debug)]
pub struct Fence(PathBuf);

impl Fence {
    /// Makes it.
    #[expect(clippy::new_without_default, reason = "it makes a directory")]
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = cgroup_file_system().join(format!("netlab-{}-{count}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The cgroups below it.
    pub fn children(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(&self.0).unwrap().flatten().map(|entry| entry.path());
        entries.filter(|path| path.is_dir()).collect()
    }

    /// Whether there is no cgroup below it.
    pub fn is_empty(&self) -> bool {
        self.children().is_empty()
    }
}

impl Drop for Fence {
    fn drop(&mut self) {
        // What processes a failed test left there end with it.
        let _killed = fs::write(self.0.join("cgroup.kill"), "1");
        for path in self
            .children()
            .iter()
            .flat_map(|child| [child.join("app"), child.clone()])
            .chain([self.0.clone()])
        {
            // A failure to remove it must not hide that of the test.
            let _stays = fs::remove_dir(path);
        }
    }
}
