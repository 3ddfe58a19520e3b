//! A cgroup of a process under measurement, whose processor time the kernel adds up.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use waylay_host::cgroup::Cgroup;

/// A cgroup that goes with its owner, and all processes in it.
#[derive(Debug)]
pub struct Cage {
    cgroup: Cgroup,
}

impl Cage {
    /// Makes it.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let cgroup =
            Cgroup::for_runs().unwrap().child(&format!("waylay-bench-{name}-{}", std::process::id()));
        cgroup.create().unwrap();
        Self { cgroup }
    }

    /// The file by which a process enters it.
    #[must_use]
    pub fn procs(&self) -> PathBuf {
        self.cgroup.path().join("cgroup.procs")
    }

    /// Its directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.cgroup.path()
    }

    /// The same command, inside.
    #[must_use]
    pub fn around(&self, command: &Command) -> Command {
        inside(&self.procs(), command)
    }

    /// What its processes have used, in user space and in the kernel.
    #[must_use]
    pub fn cpu(&self) -> Duration {
        cpu_of(self.cgroup.path())
    }
}

impl Drop for Cage {
    fn drop(&mut self) {
        self.cgroup.kill();
        // A failure to remove it must not hide that of the bench.
        let _stays = self.cgroup.remove();
    }
}

/// A command that enters a cgroup first.
pub(crate) fn inside(procs: &Path, command: &Command) -> Command {
    let mut entering = Command::new("sh");
    entering.args(["-c", "echo $$ > \"$0\"; exec \"$@\""]).arg(procs);
    entering.arg(command.get_program()).args(command.get_args());
    for (key, value) in command.get_envs() {
        match value {
            Some(value) => entering.env(key, value),
            None => entering.env_remove(key),
        };
    }
    entering
}

/// Processor time of a cgroup, whatever its controllers are.
#[must_use]
pub fn cpu_of(cgroup: &Path) -> Duration {
    let stat = fs::read_to_string(cgroup.join("cpu.stat")).unwrap();
    let usage = stat.lines().find_map(|line| line.strip_prefix("usage_usec ")).unwrap();
    Duration::from_micros(usage.parse().unwrap())
}
