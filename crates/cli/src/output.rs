//! What happened, in words or in JSON.

use std::{
    fs,
    io::{self, Write},
    os::unix::{
        fs::{OpenOptionsExt, fchown},
        process::ExitStatusExt,
    },
    path::{Path, PathBuf},
    process::ExitStatus,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use thiserror::Error;
use waylay_core::{Event, FailurePolicy, FilterId, Reason, Refusal};
use waylay_host::{Observer, ResidentError, Step, Swept};
use waylay_inspect::report::{Outcome, Report};

use crate::{
    args::Format,
    terminal::{self, Colour, Paint, say},
};

/// Prints an error with its causes, in one line.
pub(crate) fn complain(error: &dyn std::error::Error) {
    let mut causes = String::new();
    let mut next = error.source();
    while let Some(cause) = next {
        causes.push_str(&format!(": {cause}"));
        next = cause.source();
    }
    say(&format!("{} {error}{causes}", terminal::stderr().paint(Colour::Red, "waylay:")));
}

/// Prints what the user should know.
pub(crate) fn notice(text: &str) {
    say(&format!("{} {text}", terminal::stderr().paint(Colour::Yellow, "waylay:")));
}

/// What the user can do about what was refused, or was not: at the command line, or in a policy's file.
fn remedy(event: &Event, is_declared: bool) -> &'static str {
    match (event, is_declared) {
        (Event::Refused { refusal: Refusal::Unredirectable, .. }, false)
        | (Event::SocketRefused { refusal: Refusal::Unredirectable, .. }, false) => {
            " (--unredirectable permit lets it pass, uninspected)"
        }
        (Event::Refused { refusal: Refusal::Unredirectable, .. }, true)
        | (Event::SocketRefused { refusal: Refusal::Unredirectable, .. }, true) => {
            " (unredirectable = \"permit\" in the policy lets it pass, uninspected)"
        }
        (Event::Refused { refusal: Refusal::ForeignNamespace, .. }, false)
        | (Event::SocketRefused { refusal: Refusal::ForeignNamespace, .. }, false) => {
            " (--other-namespaces permit lets it pass, uninspected)"
        }
        (Event::Refused { refusal: Refusal::ForeignNamespace, .. }, true)
        | (Event::SocketRefused { refusal: Refusal::ForeignNamespace, .. }, true) => {
            " (other_namespaces = \"permit\" in the policy lets it pass, uninspected)"
        }
        (Event::LeftAlone { reason: Reason::ForeignNamespace, .. }, false) => {
            " (--other-namespaces block refuses such; said once a process)"
        }
        (Event::LeftAlone { reason: Reason::ForeignNamespace, .. }, true) => {
            " (other_namespaces = \"block\" in the policy refuses such; said once a process)"
        }
        (Event::LeftAlone { reason: Reason::Sandbox, .. }, false) => {
            " (override_sandbox in a policy's file leads it to the services; said once a cgroup)"
        }
        (Event::LeftAlone { reason: Reason::Sandbox, .. }, true) => {
            " (override_sandbox = true in the policy leads it to the services; said once a cgroup)"
        }
        (
            Event::Refused { .. }
            | Event::SocketRefused { .. }
            | Event::Redirected { .. }
            | Event::Ended { .. }
            | Event::Dropped { .. }
            | Event::Lost { .. },
            _,
        ) => "",
    }
}

/// Where reports go and how they look.
pub(crate) struct Output {
    format: Format,
    paint: Paint,
    sink: Sink,
    names: Option<Names>,
}

/// What people call what is in a policy from files.
pub(crate) struct Names {
    pub(crate) filter: Box<dyn Fn(FilterId) -> String + Send + Sync>,
    /// By the name that the policy in force has for it.
    pub(crate) service: Box<dyn Fn(&str) -> String + Send + Sync>,
}

enum Sink {
    StandardError,
    Other(Mutex<Box<dyn Write + Send>>),
}

/// The log file cannot be written.
#[derive(Debug, Error)]
#[error("cannot write the log {}", path.display())]
pub(crate) struct LogError {
    path: PathBuf,
    source: io::Error,
}

impl Output {
    pub(crate) fn new(format: Format, log: Option<&Path>, names: Option<Names>) -> Result<Self, LogError> {
        let (sink, paint): (Box<dyn Write + Send>, _) = match (log, format) {
            (Some(path), _) => {
                let file = open(path).map_err(|source| LogError { path: path.into(), source })?;
                (Box::new(file), Paint::none())
            }
            (None, Format::Human) => {
                return Ok(Self { format, paint: terminal::stderr(), sink: Sink::StandardError, names });
            }
            (None, Format::Json) => (Box::new(io::stdout()), Paint::none()),
        };
        Ok(Self { format, paint, sink: Sink::Other(Mutex::new(sink)), names })
    }

    fn write(&self, line: &str) {
        match &self.sink {
            Sink::StandardError => say(line),
            Sink::Other(sink) => {
                let mut sink = sink.lock().unwrap_or_else(PoisonError::into_inner);
                // A reader that has gone must not end the command.
                let _reader_gone = sink.write_all(format!("{line}\n").as_bytes());
            }
        }
    }

    /// What ended in order is not worth a colour.
    fn coloured(&self, mut report: Report) -> String {
        if let Some(names) = &self.names {
            std::iter::once(&mut report.service)
                .chain(&mut report.chain)
                .for_each(|service| *service = (names.service)(service));
        }
        let line = report.human();
        match report.verdict {
            Outcome::Forwarded => line,
            Outcome::Reset | Outcome::Unreachable => self.paint.paint(Colour::Yellow, &line),
            Outcome::Stopped | Outcome::Failed => self.paint.paint(Colour::Red, &line),
        }
    }
}

/// Mode 0600 and, behind sudo, the caller's.
fn open(path: &Path) -> io::Result<fs::File> {
    let file = fs::OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
    let number = |name| std::env::var(name).ok().and_then(|number| number.parse::<u32>().ok());
    if let (Some(uid), Some(gid)) = (number("SUDO_UID"), number("SUDO_GID")) {
        fchown(&file, Some(uid), Some(gid))?;
    }
    Ok(file)
}

impl Observer for Output {
    fn report(&self, service: &str, line: &str) {
        match (self.format, Report::from_line(line)) {
            (Format::Json, Ok(_)) => self.write(line),
            (Format::Human, Ok(report)) => self.write(&self.coloured(report)),
            (_, Err(_)) => say(&format!("{service}: {line}")),
        }
    }

    fn refused(&self, event: &Event, service: Option<&str>) {
        let filter = event.blocked_by().and_then(|filter| Some((self.names.as_ref()?.filter)(filter)));
        let name =
            service.map(str::to_owned).or(filter).map_or_else(String::new, |name| format!(" ({name})"));
        notice(&format!("{event}{name}{}", remedy(event, self.names.is_some())));
    }

    fn service_hung(&self, service: &str, waited: Duration) {
        let seconds = waited.as_secs();
        notice(&format!(
            "the service {service} has taken no connection for {seconds} s while some waited; ending it"
        ));
    }

    fn service_died(&self, service: &str, status: ExitStatus, on_failure: FailurePolicy) {
        let how = match (status.code(), status.signal()) {
            (Some(code), _) => format!("exit status {code}"),
            (None, Some(signal)) => format!("signal {signal}"),
            (None, None) => "an unknown status".to_owned(),
        };
        let policy = on_failure.consequence();
        notice(&format!("the service {service} ended with {how}; {policy}"));
    }

    fn adopted_ended(&self, service: &str, on_failure: FailurePolicy) {
        let policy = on_failure.consequence();
        notice(&format!("all processes of the service {service} have ended; {policy}"));
    }

    fn resident_listens(&self, service: &str, listens: bool, on_failure: FailurePolicy) {
        let policy = on_failure.consequence();
        notice(&match listens {
            true => format!("the service {service} listens now"),
            false => format!("the service {service} does not listen any more; {policy}"),
        });
    }

    fn resident_awaited(&self, service: &str, why: &ResidentError, on_failure: FailurePolicy) {
        let policy = on_failure.consequence();
        notice(&format!("the service {service} is not there yet: {why}; until it is, {policy}"));
    }

    fn family_missing(&self, service: &str, family: &str, on_failure: FailurePolicy) {
        let policy = on_failure.consequence();
        notice(&format!("no {family} gets to the service {service}; over it, {policy}"));
    }

    fn existing_ended(&self, swept: &Swept) {
        for connection in &swept.reset {
            notice(&format!("{connection} is older than the policy and was reset"));
        }
        for (connection, error) in &swept.left {
            notice(&format!(
                "{connection} is older than the policy, and goes on, for it could not be reset: {error}"
            ));
        }
        if let Some(error) = &swept.unseen {
            notice(&format!("nobody could look for connections that are older than the policy: {error}"));
        }
    }

    fn waiting_for_background(&self) {
        notice("the command has ended; waiting for processes it started (Ctrl-C ends them)");
    }

    fn cleaned_up(&self, runs: usize) {
        notice(&format!("cleaned up after {runs} run(s) that had been killed"));
    }

    fn step(&self, step: Step<'_>) {
        let text = match step {
            Step::LoadingPrograms => Some("waylay: loading the programs …".to_owned()),
            Step::StartingService { name } => Some(format!("waylay: starting the service {name} …")),
            Step::WaitingForListener { name, address } => {
                Some(format!("waylay: waiting for the service {name} to listen on {address} …"))
            }
            Step::Command => None,
            Step::Background { processes } => Some(format!("waylay: waiting for {processes} process(es) …")),
            Step::StoppingServices => Some("waylay: stopping the services …".to_owned()),
        };
        terminal::status(text.as_deref());
    }
}
