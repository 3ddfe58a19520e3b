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
use waylay_core::{Event, FailurePolicy};
use waylay_host::Observer;
use waylay_inspect::report::Report;

use crate::args::Format;

/// Prints an error with its causes, in one line.
pub(crate) fn complain(error: &dyn std::error::Error) {
    let mut causes = String::new();
    let mut next = error.source();
    while let Some(cause) = next {
        causes.push_str(&format!(": {cause}"));
        next = cause.source();
    }
    eprintln!("waylay: {error}{causes}");
}

/// Where reports go and how they look.
pub(crate) struct Output {
    format: Format,
    sink: Mutex<Box<dyn Write + Send>>,
}

/// The log file cannot be written.
#[derive(Debug, Error)]
#[error("cannot write the log {}", path.display())]
pub(crate) struct LogError {
    path: PathBuf,
    source: io::Error,
}

impl Output {
    pub(crate) fn new(format: Format, log: Option<&Path>) -> Result<Self, LogError> {
        let sink: Box<dyn Write + Send> = match (log, format) {
            (Some(path), _) => Box::new(open(path).map_err(|source| LogError { path: path.into(), source })?),
            (None, Format::Human) => Box::new(io::stderr()),
            (None, Format::Json) => Box::new(io::stdout()),
        };
        Ok(Self { format, sink: Mutex::new(sink) })
    }

    fn write(&self, line: &str) {
        let mut sink = self.sink.lock().unwrap_or_else(PoisonError::into_inner);
        // A reader that has gone must not end the command.
        let _reader_gone = sink.write_all(format!("{line}\n").as_bytes());
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
            (Format::Human, Ok(report)) => self.write(&report.human()),
            (_, Err(_)) => eprintln!("{service}: {line}"),
        }
    }

    fn refused(&self, event: &Event, service: Option<&str>) {
        let name = service.map_or_else(String::new, |service| format!(" ({service})"));
        eprintln!("waylay: {event}{name}");
    }

    fn service_hung(&self, service: &str, waited: Duration) {
        let seconds = waited.as_secs();
        eprintln!(
            "waylay: the service {service} has taken no connection for {seconds} s while some waited; ending it"
        );
    }

    fn service_died(&self, service: &str, status: ExitStatus, on_failure: FailurePolicy) {
        let how = match (status.code(), status.signal()) {
            (Some(code), _) => format!("exit status {code}"),
            (None, Some(signal)) => format!("signal {signal}"),
            (None, None) => "an unknown status".to_owned(),
        };
        let policy = match on_failure {
            FailurePolicy::Open => "new connections go on without it (open)",
            FailurePolicy::Closed => "new connections are refused (closed)",
        };
        eprintln!("waylay: the service {service} ended with {how}; {policy}");
    }

    fn waiting_for_background(&self) {
        eprintln!("waylay: the command has ended; waiting for processes it started (Ctrl-C ends them)");
    }

    fn cleaned_up(&self, runs: usize) {
        eprintln!("waylay: cleaned up after {runs} run(s) that had been killed");
    }
}
