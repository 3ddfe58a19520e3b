//! One service's process: started, listening, released, stopped.

use std::{
    ffi::OsString,
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::process::ExitStatusExt,
    process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::{
    cgroup::Cgroup,
    deadline::Deadline,
    error::RunError,
    launch::{self, Announcement, Families, Launch, Listening, Role},
    sockets,
    spawner::Spawner,
    spec::{Observer, ServiceSpec},
    user::Identity,
};

/// How long a service may take to finish what it has accepted, once the station ends.
pub(crate) const STOP_PATIENCE: Duration = Duration::from_secs(5);
/// Bytes of a line that a service prints; no report is as long.
const LONGEST_LINE: u64 = 64 * 1024;
pub(crate) const STOP_STEP: Duration = Duration::from_millis(2);

/// A service that listens but does not accept yet.
pub(crate) struct Waiting {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    input: Vec<u8>,
    /// Whether it is told when to accept.
    is_told: bool,
    pub(crate) name: String,
    pub(crate) listening: Listening,
}

/// A service that runs.
pub(crate) struct Running {
    pid: Option<Pid>,
    stopping: Arc<AtomicBool>,
    watcher: JoinHandle<()>,
}

impl Waiting {
    /// Starts the service's process and waits until it says where it listens.
    pub(crate) fn start(
        spec: &ServiceSpec,
        cgroup: &Cgroup,
        identity: Identity,
        spawner: &Spawner,
    ) -> Result<Self, RunError> {
        let launch = Launch {
            cgroup: Some(cgroup.path().into()),
            identity: Some(identity),
            role: Role::Service,
            own_binary: spec.builtin,
            families: Families::Any,
            supervision: None,
        };
        Self::start_as(spec, &launch, spawner)
    }

    /// The same, in whatever way it is to be launched.
    pub(crate) fn start_as(spec: &ServiceSpec, launch: &Launch, spawner: &Spawner) -> Result<Self, RunError> {
        let failed = |source| RunError::ServiceStart { service: spec.name.clone(), source };
        let (mut child, stdin, stdout) =
            launcher(launch, &spec.command).and_then(|command| start(command, spawner)).map_err(failed)?;
        let mut stdout = BufReader::new(stdout);
        match read_announcement(&mut stdout) {
            Ok(listening) => {
                let (name, input) = (spec.name.clone(), spec.input.clone());
                Ok(Self { child, stdin, stdout, input, is_told: true, name, listening })
            }
            Err(source) => {
                end(&mut child);
                Err(failed(source))
            }
        }
    }

    /// A program that knows nothing of waylay, and has been let go already.
    pub(crate) fn adopted(started: (Child, ChildStdin, ChildStdout), name: String) -> Self {
        let ((child, stdin, stdout), listening) = (started, Listening::default());
        let stdout = BufReader::new(stdout);
        Self { child, stdin, stdout, input: Vec::new(), is_told: false, name, listening }
    }

    /// How it has ended, if it has.
    pub(crate) fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Its first process, which leads a session.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it before it was of use.
    pub(crate) fn give_up(mut self) {
        end(&mut self.child);
    }

    /// The same, of one that has been let go, and has said why it is of no use.
    pub(crate) fn give_up_and_tell(mut self, observer: &Arc<dyn Observer>) {
        end(&mut self.child);
        // A reader that panicked has read all it will.
        let _read = read_reports(self.name, self.stdout, Arc::clone(observer)).join();
    }

    /// Lets it accept. `on_death` is called if it ends before it is told to.
    pub(crate) fn release(
        mut self,
        observer: &Arc<dyn Observer>,
        on_death: impl FnOnce(ExitStatus) + Send + 'static,
    ) -> Result<Running, RunError> {
        let failed = |source| RunError::ServiceStart { service: self.name.clone(), source };
        if self.is_told {
            self.stdin.write_all(b"go\n").map_err(failed)?;
        }
        feed(self.stdin, self.input);
        let stopping = Arc::new(AtomicBool::new(false));
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let reader = read_reports(self.name, self.stdout, Arc::clone(observer));
        let watcher = watch(self.child, self.is_told, reader, Arc::clone(&stopping), on_death);
        Ok(Running { pid, stopping, watcher })
    }
}

impl Running {
    /// Tells it to finish what it has and end; kills it if that takes too long.
    pub(crate) fn tell_to_stop(&self) {
        self.stopping.store(true, Ordering::Release);
        self.signal(Signal::TERM);
    }

    /// Ends it at once.
    pub(crate) fn give_up(self) {
        self.stopping.store(true, Ordering::Release);
        self.signal(Signal::KILL);
        let _ended = self.watcher.join();
    }

    /// Whether it has, and all that it has reported has been read.
    pub(crate) fn has_ended(&self) -> bool {
        self.watcher.is_finished()
    }

    /// Whether a process of its session has a connection.
    pub(crate) fn has_connections(&self) -> bool {
        let Some(pid) = self.pid.filter(|_| !self.watcher.is_finished()) else { return false };
        let own = sockets::of_session(pid.as_raw_nonzero().get().cast_unsigned());
        sockets::connections().is_ok_and(|open| open.iter().any(|socket| own.contains(&socket.inode)))
    }

    /// Ends a service that hangs, with what it has started. Its death is told as any.
    pub(crate) fn end_hung(&self) {
        // Each has a session of its own, and is not reaped before its watcher is finished.
        if let Some(pid) = self.pid.filter(|_| !self.watcher.is_finished()) {
            let _gone_already = kill_process_group(pid, Signal::KILL);
        }
    }

    /// Until it has ended and its last report has been read.
    pub(crate) fn wait(self, deadline: &Deadline) {
        while !self.watcher.is_finished() {
            if deadline.is_over() {
                self.signal(Signal::KILL);
                break;
            }
            thread::sleep(STOP_STEP);
        }
        // A watcher that panicked has ended too.
        let _ended = self.watcher.join();
    }

    fn signal(&self, signal: Signal) {
        // The watcher reaps it, so the pid may be another's only after it is finished.
        if let Some(pid) = self.pid.filter(|_| !self.watcher.is_finished()) {
            let _gone_already = kill_process(pid, signal);
        }
    }
}

/// `waylay __launch SPEC -- COMMAND…`, from the running binary.
pub(crate) fn launcher(launch: &Launch, command: &[OsString]) -> io::Result<Command> {
    let mut launcher = Command::new("/proc/self/exe");
    launcher.arg(launch::SUBCOMMAND).arg(serde_json::to_string(launch)?).arg("--").args(command);
    Ok(launcher)
}

/// Starts one, with pipes for its standard input and output.
pub(crate) fn start(mut command: Command, spawner: &Spawner) -> io::Result<(Child, ChildStdin, ChildStdout)> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = spawner.spawn(command)?;
    match (child.stdin.take(), child.stdout.take()) {
        (Some(stdin), Some(stdout)) => Ok((child, stdin, stdout)),
        (_, _) => {
            end(&mut child);
            Err(io::ErrorKind::BrokenPipe.into())
        }
    }
}

/// Of a process that is a launcher still, or of no use.
pub(crate) fn end(child: &mut Child) {
    let _gone_already = child.kill();
    let _reaped = child.wait();
}

fn end_session(leader: u32) {
    for pid in sockets::processes_of_session(leader) {
        if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
            let _gone_already = kill_process(pid, Signal::KILL);
        }
    }
}

/// What a launcher says of itself.
fn read_announcement(stdout: &mut impl BufRead) -> io::Result<Listening> {
    let mut line = String::new();
    stdout.read_line(&mut line)?;
    serde_json::from_str::<Announcement>(&line)?.map_err(io::Error::other)
}

/// More than a pipe holds must not keep the supervisor waiting for its reader.
fn feed(mut stdin: ChildStdin, input: Vec<u8>) {
    if !input.is_empty() {
        // A service that ends before it has read everything is noticed elsewhere.
        thread::spawn(move || stdin.write_all(&input));
    }
}

pub(crate) fn read_reports(
    name: String,
    stdout: BufReader<ChildStdout>,
    observer: Arc<dyn Observer>,
) -> JoinHandle<()> {
    thread::spawn(move || {
        let mut lines = Lines(stdout);
        while let Some(line) = lines.next() {
            observer.report(&name, &String::from_utf8_lossy(&line));
        }
    })
}

/// The lines of something that may be hostile: one that does not end is cut.
struct Lines<R>(R);

impl<R: BufRead> Lines<R> {
    fn next(&mut self) -> Option<Vec<u8>> {
        let mut line = Vec::new();
        let read = self.0.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line);
        if line.last() == Some(&b'\n') {
            line.pop();
        }
        read.is_ok_and(|count| count > 0).then_some(line)
    }
}

fn watch(
    mut child: Child,
    is_told: bool,
    reader: JoinHandle<()>,
    stopping: Arc<AtomicBool>,
    on_death: impl FnOnce(ExitStatus) + Send + 'static,
) -> JoinHandle<()> {
    thread::spawn(move || {
        let status = child.wait().unwrap_or_else(|_| ExitStatus::from_raw(0));
        // What a program has started that knows nothing of waylay would go on without it, where nobody looks.
        if !is_told {
            end_session(child.id());
        }
        if !stopping.load(Ordering::Acquire) {
            on_death(status);
        }
        // A reader that panicked has read all it will.
        let _read = reader.join();
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_they_are_and_those_without_an_end_in_pieces() {
        let endless = vec![b'x'; 2 * LONGEST_LINE as usize + 1];
        let text = [b"one\n\n\xff three\n".as_slice(), &endless, b"\nlast"].concat();
        let mut lines = Lines(text.as_slice());
        let lengths: Vec<usize> = std::iter::from_fn(|| lines.next()).map(|line| line.len()).collect();
        assert_eq!(lengths, [3, 0, 7, LONGEST_LINE as usize, LONGEST_LINE as usize, 1, 4]);
    }
}
