//! Processes that end with the test that started them.

use std::{
    env, fs,
    io::{BufRead, BufReader, Read},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, OnceLock},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

/// Longer than anything takes on a busy machine; only a failure waits so long.
const PATIENCE: Duration = Duration::from_secs(60);
/// Seconds to wait instead, where a whole machine is emulated.
const PATIENCE_VARIABLE: &str = "WAYLAY_TEST_PATIENCE";
const STEP: Duration = Duration::from_millis(10);

/// Waits until `look` finds something.
///
/// # Panics
/// If it does not in a minute; `what` says what was waited for.
pub fn patiently<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let give_up = Instant::now() + patience();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < give_up, "waited in vain: {what}");
        thread::sleep(STEP);
    }
}

fn patience() -> Duration {
    let seconds = std::env::var(PATIENCE_VARIABLE).ok().and_then(|seconds| seconds.parse().ok());
    seconds.map_or(PATIENCE, Duration::from_secs)
}

/// Sends a signal to a process the test started.
pub fn kill(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).unwrap();
    kill_process(pid, signal).unwrap();
}

/// Stops a process; returns when none of its threads runs any more. Until then it may take one more connection.
pub fn stop(pid: u32) {
    kill(pid, Signal::STOP);
    let is_stopped = |thread: std::io::Result<fs::DirEntry>| {
        let stat = fs::read_to_string(thread.unwrap().path().join("stat")).unwrap();
        // Behind the name, which may hold anything.
        stat.rsplit(')').next().unwrap().trim_start().starts_with('T')
    };
    patiently("the process to stop", || {
        fs::read_dir(format!("/proc/{pid}/task")).unwrap().all(is_stopped).then_some(())
    });
}

/// What carries redirection out in the tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// The engine on eBPF, as root.
    Ebpf,
    /// The engine without privileges, as a user who has none.
    Seccomp,
}

impl Subject {
    /// What the environment asks for: `SUBJECT=seccomp`.
    pub fn chosen() -> Self {
        match env::var("SUBJECT").as_deref() {
            Err(_) | Ok("ebpf") => Self::Ebpf,
            Ok("seccomp") => Self::Seccomp,
            Ok(other) => panic!("SUBJECT={other}: neither ebpf nor seccomp"),
        }
    }
}

/// The python itself, without the wrappers that choose between several.
pub fn python() -> &'static str {
    static PYTHON: OnceLock<String> = OnceLock::new();
    PYTHON.get_or_init(|| {
        let ask = "import os, sys; print(os.path.realpath(sys.executable))";
        let found = if Subject::chosen() == Subject::Seccomp { system_python() } else { "python3" };
        let answer = Command::new(found).args(["-c", ask]).output().expect("python3 is needed");
        String::from_utf8(answer.stdout).unwrap().trim().to_owned()
    })
}

/// A python that a service's own user can run, wherever the other one lives.
pub fn system_python() -> &'static str {
    "/usr/bin/python3"
}

/// A child that is killed when it goes out of scope.
#[derive(Debug)]
pub struct Process(Child);

impl Process {
    /// Starts it.
    pub fn spawn(command: &mut Command) -> Self {
        Self(command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}")))
    }

    /// Starts it and reads what it prints.
    pub fn spawn_read(command: &mut Command) -> (Self, Lines) {
        let mut process = Self::spawn(command.stdin(Stdio::null()).stdout(Stdio::piped()));
        let lines = Lines::read(process.0.stdout.take().unwrap());
        (process, lines)
    }

    /// The child.
    pub fn child(&mut self) -> &mut Child {
        &mut self.0
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // An error means that it has ended.
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// What a process prints, as it comes.
#[derive(Debug)]
pub struct Lines {
    text: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
}

impl Lines {
    /// Reads in a thread of its own.
    pub fn read(from: impl Read + Send + 'static) -> Self {
        let text = Arc::new(Mutex::new(String::new()));
        let written = Arc::clone(&text);
        let reader = thread::spawn(move || {
            for line in BufReader::new(from).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).into_owned();
                written.lock().unwrap().push_str(&(line + "\n"));
            }
        });
        Self { text, reader: Some(reader) }
    }

    /// All so far.
    pub fn text(&self) -> String {
        self.text.lock().unwrap().clone()
    }

    /// The first line that contains `part`, as soon as there is one.
    pub fn wait_for(&self, part: &str) -> String {
        let find = |text: String| text.lines().find(|line| line.contains(part)).map(str::to_owned);
        let what = format!("a line with {part:?}");
        patiently(&what, || find(self.text()))
    }

    /// Line number `index`, as soon as there is one.
    pub fn wait_for_line(&self, index: usize) -> String {
        let what = format!("line {index}, after {:?}", self.text());
        patiently(&what, || self.text().lines().nth(index).map(str::to_owned))
    }

    /// All there will be.
    pub fn finish(&mut self) -> String {
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
        self.text()
    }
}
