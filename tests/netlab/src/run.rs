//! The `waylay` command, run and watched.

use std::{
    env,
    ffi::OsStr,
    fs,
    io::Write,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::{
    forbidden::forbidding,
    ground::Namespace,
    instance::{Instance, service_below},
    process::{Lines, Subject, kill, patiently, python},
    report::Report,
};

pub(crate) const DIALLER: &str = include_str!("../scripts/dialler.py");

/// Variables that would send clients elsewhere.
const MISLEADING: [&str; 11] = [
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "SUDO_UID",
    "SUDO_GID",
    "SUDO_USER",
];

/// The user who has no privilege.
pub(crate) const NOBODY: u32 = 65534;

/// A `waylay` command to be.
#[derive(Debug)]
pub struct Waylay {
    command: Command,
    directory: TempDir,
}

impl Waylay {
    /// `waylay run`, in a network namespace if one is given.
    pub fn run(namespace: Option<&Namespace>) -> Self {
        match Subject::chosen() {
            Subject::Ebpf => Self::run_as_root(namespace),
            Subject::Seccomp => Self::run_without_root(namespace),
        }
    }

    fn run_as_root(namespace: Option<&Namespace>) -> Self {
        require_root();
        let binary = Self::binary();
        let mut command = match namespace {
            Some(namespace) => namespace.command(binary.to_str().unwrap()),
            None => Command::new(binary),
        };
        command.arg("run");
        Self::new(command)
    }

    /// The same as a user who has no privilege, whatever the subject; with `COPYING=forbidden` as in a container that forbids pidfd_getfd(2).
    pub fn run_without_root(namespace: Option<&Namespace>) -> Self {
        let is_forbidden = env::var("COPYING").is_ok_and(|said| said == "forbidden");
        let forbidden: &[_] = if is_forbidden { &[libc::SYS_pidfd_getfd] } else { &[] };
        Self::run_without(forbidden, namespace)
    }

    /// As a user who has no privilege, where these system calls are forbidden as well.
    pub fn run_without(calls: &[i64], namespace: Option<&Namespace>) -> Self {
        require_root();
        let mut command = match namespace {
            Some(namespace) => namespace.command("setpriv"),
            None => Command::new("setpriv"),
        };
        let user = NOBODY.to_string();
        command.args(["--reuid", &user, "--regid", &user, "--clear-groups", "--"]);
        if !calls.is_empty() {
            command.args(forbidding(calls));
        }
        command.arg(Self::binary());
        command.args(["run", "--engine", "seccomp"]);
        let waylay = Self::new(command);
        std::os::unix::fs::chown(waylay.directory.path(), Some(NOBODY), Some(NOBODY)).unwrap();
        waylay
    }

    /// Any command line in which `waylay` occurs.
    pub fn within(command: Command) -> Self {
        require_root();
        Self::new(command)
    }

    fn new(mut command: Command) -> Self {
        MISLEADING.iter().for_each(|name| {
            command.env_remove(name);
        });
        command.envs([("GIT_CONFIG_GLOBAL", "/dev/null"), ("GIT_CONFIG_SYSTEM", "/dev/null")]);
        let directory = TempDir::new().unwrap();
        command.env("HOME", directory.path());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Self { command, directory }
    }

    /// The built binary, next to the tests'.
    pub fn binary() -> PathBuf {
        let tests = env::current_exe().unwrap();
        let binary = tests.ancestors().nth(2).unwrap().join("waylay");
        assert!(
            binary.is_file(),
            "{} is missing; build it first: cargo build -p waylay-cli",
            binary.display()
        );
        binary
    }

    /// More arguments.
    #[must_use]
    pub fn args<I: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = I>) -> Self {
        self.command.args(args);
        self
    }

    /// So many `log` services.
    #[must_use]
    pub fn through_logs(self, count: usize) -> Self {
        self.args(["--through", "log"].repeat(count))
    }

    /// Reports go to a file, so that the command has its standard output for itself.
    #[must_use]
    pub fn reporting(self) -> Self {
        let log = self.log();
        self.args([OsStr::new("-o"), OsStr::new("json"), OsStr::new("--log"), log.as_os_str()])
    }

    /// Starts it with the command to watch, in a directory for its files.
    pub fn spawn<I: AsRef<OsStr>>(self, watched: impl IntoIterator<Item = I>) -> Running {
        self.args(["--"]).args(watched).spawn_as_is()
    }

    /// Of itself, another `waylay run`; what follows is for that one. Its reports go to a file of this name.
    #[must_use]
    pub fn around_another(self, log: &str) -> Self {
        let (binary, log) = (Self::binary(), self.directory.path().join(log));
        let arguments = ["--".as_ref(), binary.as_os_str(), "run".as_ref(), "-o".as_ref(), "json".as_ref()];
        self.args(arguments).args([OsStr::new("--log"), log.as_os_str()])
    }

    /// Starts it with the client that is told what to do.
    pub fn spawn_dialler(self) -> Running {
        self.spawn([python(), "-u", "-c", DIALLER])
    }

    /// Starts it with the arguments so far.
    pub fn spawn_as_is(mut self) -> Running {
        let mut child = self.command.current_dir(self.directory.path()).spawn().unwrap();
        Running {
            stdin: child.stdin.take(),
            stdout: Lines::read(child.stdout.take().unwrap()),
            stderr: Lines::read(child.stderr.take().unwrap()),
            log: self.log(),
            directory: self.directory,
            answers: 0,
            instance: None,
            is_supervised: self.command.get_args().any(|argument| argument == "seccomp"),
            child,
        }
    }

    /// Runs it with the command to watch until both have ended.
    pub fn watch<I: AsRef<OsStr>>(self, watched: impl IntoIterator<Item = I>) -> Finished {
        self.spawn(watched).finish()
    }

    /// Runs it with the arguments so far.
    pub fn finish(self) -> Finished {
        self.spawn_as_is().finish()
    }

    fn log(&self) -> PathBuf {
        self.directory.path().join("connections.json")
    }
}

fn require_root() {
    let root = rustix::process::geteuid().is_root();
    assert!(root, "these tests load eBPF programs and make network namespaces: run them as root");
}

/// A `waylay` process.
#[derive(Debug)]
pub struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Lines,
    stderr: Lines,
    log: PathBuf,
    directory: TempDir,
    answers: usize,
    instance: Option<Instance>,
    /// By the engine without privileges: then it has no cgroup.
    is_supervised: bool,
}

/// How it ended.
#[derive(Debug)]
pub struct Finished {
    /// Its exit status.
    pub status: ExitStatus,
    /// What it and the command wrote on standard output.
    pub stdout: String,
    /// And on standard error.
    pub stderr: String,
    log: Option<String>,
    directory: TempDir,
}

impl Running {
    /// The pid of `waylay`.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether `waylay` still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Its place on the host, as soon as it has one.
    pub fn instance(&mut self) -> Instance {
        let pid = self.pid();
        let find = || patiently("an instance", || Instance::of_waylay(pid));
        self.instance.get_or_insert_with(find).clone()
    }

    /// The process of a service.
    pub fn service(&mut self, name: &str) -> u32 {
        if self.is_supervised {
            let pid = self.pid();
            return patiently(name, || service_below(pid, name));
        }
        let instance = self.instance();
        let part = format!("svc-{name}");
        patiently(&part, || instance.pids(&part).first().copied())
    }

    /// The directory the command runs in.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Standard output.
    pub fn stdout(&self) -> &Lines {
        &self.stdout
    }

    /// Standard error.
    pub fn stderr(&self) -> &Lines {
        &self.stderr
    }

    /// Gives the command a line.
    pub fn tell(&self, line: &str) {
        writeln!(self.stdin.as_ref().unwrap(), "{line}").unwrap();
    }

    /// The next line it answers with.
    pub fn answer(&mut self) -> String {
        self.answers += 1;
        self.stdout.wait_for_line(self.answers - 1)
    }

    /// Gives the command a line and returns its answer.
    pub fn ask(&mut self, line: &str) -> String {
        self.tell(line);
        self.answer()
    }

    /// Sends `waylay` a signal.
    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal);
    }

    /// Closes the command's standard input, at which the dialler ends.
    pub fn close_input(&mut self) {
        self.stdin = None;
    }

    /// Ends `waylay` without a warning; returns when it has ended.
    pub fn kill(&mut self) {
        if !self.is_supervised {
            self.instance();
        }
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// What has been reported so far.
    pub fn reports(&self) -> Vec<Report> {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let whole_lines = text.rfind('\n').map_or("", |end| &text[..end]);
        Report::parse_all(whole_lines)
    }

    /// Closes the command's standard input and waits for the end.
    pub fn finish(mut self) -> Finished {
        self.close_input();
        let child = &mut self.child;
        let status = patiently("the end of waylay", || child.try_wait().unwrap());
        Finished {
            status,
            stdout: self.stdout.finish(),
            stderr: self.stderr.finish(),
            log: fs::read_to_string(&self.log).ok(),
            directory: std::mem::replace(&mut self.directory, TempDir::new().unwrap()),
        }
    }
}

impl Drop for Running {
    /// What a failed test leaves behind is ended and, by the next run, removed.
    fn drop(&mut self) {
        let alive = matches!(self.child.try_wait(), Ok(None));
        if alive {
            self.instance = self.instance.take().or_else(|| Instance::of_waylay(self.child.id()));
            // Either has ended if it cannot be killed.
            let _ended = self.child.kill();
            let _reaped = self.child.wait();
        }
        if let Some(instance) = self.instance.take().filter(|instance| !instance.is_gone()) {
            instance.kill();
            let _cleaned_up = Command::new(Waylay::binary()).args(["run", "--", "true"]).output();
        }
    }
}

impl Finished {
    /// The exit status as a shell shows it.
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or_else(|| 128 + self.status.signal().unwrap())
    }

    /// All reports, in the order they were written.
    pub fn reports(&self) -> Vec<Report> {
        Report::parse_all(self.log.as_deref().unwrap_or_default())
    }

    /// The reports of a run that this one was [around](Waylay::around_another).
    pub fn reports_in(&self, log: &str) -> Vec<Report> {
        Report::parse_all(&String::from_utf8(self.file(log)).unwrap())
    }

    /// The reports of one service.
    pub fn reports_of(&self, service: &str) -> Vec<Report> {
        self.reports().into_iter().filter(|report| report.service == service).collect()
    }

    /// The one report of a service.
    pub fn report_of(&self, service: &str) -> Report {
        match <[Report; 1]>::try_from(self.reports_of(service)) {
            Ok([report]) => report,
            Err(reports) => panic!("{service} made not one report but {reports:#?}; {self:?}"),
        }
    }

    /// A file the command has written.
    pub fn file(&self, name: &str) -> Vec<u8> {
        let path = self.directory.path().join(name);
        fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}; {self:?}", path.display()))
    }

    /// The directory the command ran in.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Fails the test unless the command ended well.
    pub fn well(self) -> Self {
        assert_eq!(self.code(), 0, "{self:?}");
        self
    }

    /// Fails the test unless `waylay` refused in one line, which is returned. Whoever comes first after a run that another test
    /// killed says one line about that.
    pub fn refused_in_a_line(&self) -> &str {
        assert_eq!(self.code(), 2, "{self:?}");
        let is_of_others = |line: &&str| line.starts_with("waylay: cleaned up after");
        let mut lines = self.stderr.lines().skip_while(is_of_others);
        let line = lines.next().unwrap_or_else(|| panic!("no line: {self:?}"));
        assert_eq!(lines.next(), None, "{self:?}");
        line.trim()
    }
}
