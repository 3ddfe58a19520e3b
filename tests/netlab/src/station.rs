//! A station on a cgroup of a test's own: a policy that changes while processes go on.

use std::{
    io::Write,
    path::Path,
    process::{Child, Command, Stdio},
};

use serde_json::{Value, json};

use crate::{
    ground::Namespace,
    process::{Lines, Process},
    run::Waylay,
};

/// `netlab-station`, told what to do.
#[derive(Debug)]
pub struct Station {
    process: Process,
    answers: Lines,
    answered: usize,
    seen: Lines,
}

impl Station {
    /// Opens it on the cgroup of this directory.
    pub fn open(scope: &Path) -> Self {
        Self::try_open(scope).unwrap()
    }

    /// The same, or the error's words.
    pub fn try_open(scope: &Path) -> Result<Self, String> {
        let mut command = Command::new(Waylay::binary().with_file_name("netlab-station"));
        Self::start(command.arg(scope))
    }

    /// The same of one that is in its scope itself, in a network namespace.
    pub fn open_inside(scope: &Path, namespace: &Namespace) -> Self {
        let enter = "echo $$ > \"$1/cgroup.procs\" && exec \"$0\" \"$1\"";
        let binary = Waylay::binary().with_file_name("netlab-station");
        let mut command = namespace.command("/bin/sh");
        Self::start(command.args(["-c", enter]).arg(binary).arg(scope)).unwrap()
    }

    fn start(command: &mut Command) -> Result<Self, String> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = Process::spawn(command);
        let child = process.child();
        let (answers, seen) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let (answers, seen) = (Lines::read(answers), Lines::read(seen));
        let mut station = Self { process, answers, answered: 0, seen };
        station.outcome().map(|_open| station)
    }

    /// Asks for services, each for every TCP connection, in this order: objects with `id`, `name`, `command`, and, of those that know
    /// nothing of waylay, `listens` and maybe `destination`; with `udp` for datagrams too, or for them `only`. Returns the error's words.
    pub fn apply(&mut self, services: &[Value]) -> Result<(), String> {
        self.tell(&json!(services));
        self.outcome().map(|_in_force| ())
    }

    /// Its services, as objects.
    pub fn services(&mut self) -> Vec<Value> {
        self.tell(&json!("services"));
        self.outcome().unwrap().as_array().unwrap().clone()
    }

    /// What is redirected, as objects.
    pub fn flows(&mut self) -> Vec<Value> {
        self.tell(&json!("flows"));
        self.outcome().unwrap().as_array().unwrap().clone()
    }

    /// What it has observed.
    pub fn seen(&self) -> &Lines {
        &self.seen
    }

    /// Its process.
    pub fn pid(&mut self) -> u32 {
        self.process.child().id()
    }

    /// Ends it in order.
    pub fn close(mut self) {
        drop(self.process.child().stdin.take());
        assert_eq!(self.outcome(), Ok(json!("closed")), "{}", self.seen.text());
        assert!(self.process.child().wait().unwrap().success());
    }

    /// Ends it at once.
    pub fn kill(mut self) {
        self.process.child().kill().unwrap();
        self.process.child().wait().unwrap();
    }

    fn child(&mut self) -> &mut Child {
        self.process.child()
    }

    fn tell(&mut self, what: &Value) {
        writeln!(self.child().stdin.as_mut().unwrap(), "{what}").unwrap();
    }

    fn outcome(&mut self) -> Result<Value, String> {
        let answer = self.answer();
        match answer["error"].as_str() {
            Some(error) => Err(error.to_owned()),
            None => Ok(answer),
        }
    }

    fn answer(&mut self) -> Value {
        self.answered += 1;
        let line = self.answers.wait_for_line(self.answered - 1);
        serde_json::from_str(&line).unwrap()
    }
}
