//! Programs to compare with, as `scripts/setup bench` has unpacked them.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

/// One of the system's programs.
#[must_use]
pub fn peer(program: &str) -> Command {
    let mut command = Command::new(peer_file(&Path::new("usr/sbin").join(program)));
    command.env("LD_LIBRARY_PATH", peer_file(Path::new("usr/lib/x86_64-linux-gnu")));
    command
}

/// A file that came with them; `path` is where Debian has it.
#[must_use]
pub fn peer_file(path: &Path) -> PathBuf {
    let own = env::current_exe().unwrap();
    let file = own.ancestors().nth(3).unwrap().join("peers").join(path);
    assert!(file.exists(), "{} is missing; scripts/setup bench brings it", file.display());
    file
}
