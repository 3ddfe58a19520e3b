//! A cgroup of nobody's run, for programs that run already.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::{ChildStdin, Command, Stdio},
    sync::atomic::{AtomicU64, Ordering},
};

use waylay_host::cgroup::Cgroup;

use crate::{
    instance::cgroup_file_system,
    process::{Lines, Process, python},
    run::DIALLER,
};

/// Removed, with all that is in it, when dropped.
#[derive(Debug)]
pub struct Home {
    slice: Cgroup,
    cgroup: Cgroup,
}

impl Home {
    /// Beside the runs, in a slice of its own.
    pub fn new(name: &str) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let slice = format!("netlab-{}-{number}.slice", std::process::id());
        let slice = Cgroup::for_runs().unwrap().child(&slice);
        let cgroup = slice.child(name);
        slice.create().unwrap();
        cgroup.create().unwrap();
        Self { slice, cgroup }
    }

    /// Another one in the same slice.
    pub fn beside(&self, name: &str) -> PathBuf {
        let cgroup = self.slice.child(name);
        cgroup.create().unwrap();
        cgroup.path().to_owned()
    }

    /// Its directory.
    pub fn directory(&self) -> &Path {
        self.cgroup.path()
    }

    /// As `/proc/PID/cgroup` has it.
    pub fn path(&self) -> PathBuf {
        Path::new("/").join(self.directory().strip_prefix(cgroup_file_system()).unwrap())
    }

    /// Starts a command of the shell in it, and reads what it prints.
    pub fn start(&self, command: &str) -> (Process, Lines) {
        Self::start_in(self.directory(), command)
    }

    /// The same in another cgroup.
    pub fn start_in(directory: &Path, command: &str) -> (Process, Lines) {
        let enter = format!("echo $$ > {}/cgroup.procs && exec {command}", directory.display());
        Process::spawn_read(Command::new("/bin/sh").args(["-c", &enter]))
    }

    /// Starts the client in it that is told what to do.
    pub fn start_dialler(&self) -> Dialler {
        Self::start_dialler_in(self.directory())
    }

    /// The same in another cgroup.
    pub fn start_dialler_in(directory: &Path) -> Dialler {
        let enter = format!("echo $$ > {}/cgroup.procs && exec \"$@\"", directory.display());
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", &enter, "sh", python(), "-u", "-c", DIALLER]);
        let mut process = Process::spawn(shell.stdin(Stdio::piped()).stdout(Stdio::piped()));
        let child = process.child();
        let (input, lines) = (child.stdin.take().unwrap(), Lines::read(child.stdout.take().unwrap()));
        Dialler { _process: process, input, lines, answers: 0 }
    }
}

/// Does as it is told, outside of any run.
#[derive(Debug)]
pub struct Dialler {
    _process: Process,
    input: ChildStdin,
    lines: Lines,
    answers: usize,
}

impl Dialler {
    /// Gives it a line and returns its answer.
    pub fn ask(&mut self, line: &str) -> String {
        writeln!(self.input, "{line}").unwrap();
        self.answers += 1;
        self.lines.wait_for_line(self.answers - 1)
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        self.slice.kill();
        // A failure here must not hide that of the test.
        let _removed = self.slice.remove();
    }
}
