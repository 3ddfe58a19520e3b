//! A `waylayd` of the test's own.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use rustix::process::Signal;
use serde_json::Value;

use crate::{
    process::{Lines, Process, kill},
    run::Waylay,
};

/// It is killed when dropped.
#[derive(Debug)]
pub struct Daemon {
    process: Process,
    seen: Lines,
    folder: PathBuf,
}

impl Daemon {
    /// Starts it over a scope with `policy.toml` in a folder, where its socket and what it keeps are too; it answers requests then.
    pub fn start(folder: &Path, scope: &Path) -> Self {
        let mut command = Command::new(Waylay::binary().with_file_name("waylayd"));
        command.args(["--policy", "policy.toml", "--state", "state", "--socket", "control.sock"]);
        command.arg("--scope").arg(scope).current_dir(folder);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut process = Process::spawn(&mut command);
        let seen = Lines::read(process.child().stderr.take().unwrap());
        seen.wait_for("requests are answered");
        Self { process, seen, folder: folder.to_owned() }
    }

    /// What it says on standard error.
    pub fn seen(&self) -> &Lines {
        &self.seen
    }

    /// What `waylay` says of it, as root.
    pub fn ask(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(Waylay::binary());
        command.args(arguments).args(["--socket", "control.sock"]).current_dir(&self.folder);
        command.stdin(Stdio::null()).output().unwrap()
    }

    /// The same, where it is a change and has to succeed.
    pub fn change(&self, arguments: &[&str]) {
        let output = self.ask(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
    }

    /// The same as JSON.
    pub fn json(&self, arguments: &[&str]) -> Value {
        let output = self.ask(&[arguments, &["-o", "json"]].concat());
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
    }

    /// Has it end in order.
    pub fn end(mut self) {
        kill(self.process.child().id(), Signal::TERM);
        assert!(self.process.child().wait().unwrap().success(), "{}", self.seen.text());
    }
}
