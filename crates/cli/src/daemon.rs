//! `waylayd`: a policy in force for as long as it runs.

use std::{
    error::Error,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use clap::{CommandFactory, Parser};
use thiserror::Error;
use waylay_daemon::{
    boot::BootFilters,
    daemon::{Chronicle, DaemonError, DaemonSpec, run},
    draft::Finding,
    files::Store,
    history::History,
    protocol::{Changed, Failure},
};
use waylay_host::{Ground, Observer, Station, StationSpec, cgroup::Cgroup, names::HostNames};

use crate::{
    args::DaemonArgs,
    meant::with_suggestion,
    output::{Names, Output, notice},
    patterns, terminal,
};

/// There is no such cgroup.
#[derive(Debug, Error)]
#[error("--scope {}: there is no such cgroup; it is a path below {}", scope.display(), root.display())]
struct NoScope {
    scope: PathBuf,
    root: PathBuf,
}

pub(crate) fn daemon() -> Result<ExitCode, Box<dyn Error>> {
    let args =
        DaemonArgs::try_parse().unwrap_or_else(|error| with_suggestion(error, &DaemonArgs::command()).exit());
    terminal::use_colours(args.color);
    let scope = scope(args.scope.as_deref())?;
    if args.boot {
        return boot(&args, &scope);
    }
    let spec = DaemonSpec {
        policy: args.policy.clone(),
        scope: below_root(&scope)?,
        socket: args.socket.clone(),
        state: args.state.clone(),
        patterns: patterns::read(&args.pattern)?.encode(),
    };
    let history = History::default();
    let (filters, services) = (history.clone(), history.clone());
    let names = Names {
        filter: Box::new(move |filter| filters.describe(filter)),
        service: Box::new(move |service| services.in_words(service)),
    };
    let output: Arc<dyn Observer> = Arc::new(Output::new(args.output, args.log.as_deref(), Some(names))?);
    let teller = Teller { scope: spec.scope.clone(), socket: spec.socket.clone() };
    let open = |observer, interruption| {
        let ground = Ground::Existing(scope);
        let [patience, start_patience] = [args.patience, args.start_patience].map(Duration::from_secs);
        Station::open(
            StationSpec { ground, patience, start_patience, residents: true, interruption },
            observer,
        )
    };
    match run(&spec, (output, &teller), history, HostNames::new, open, Station::close) {
        Err(DaemonError::Policy(failure)) => Err(with_lines(failure)),
        ended => Ok(ended.map(|()| ExitCode::SUCCESS)?),
    }
}

/// What is in force from here on without a process.
fn boot(args: &DaemonArgs, scope: &Cgroup) -> Result<ExitCode, Box<dyn Error>> {
    let store = Store::new(args.state.clone());
    let filters = BootFilters::read(&args.policy, &store, &HostNames::new()).map_err(with_lines)?;
    filters.warnings.iter().for_each(warn);
    let of = below_root(scope)?;
    let of = of.display();
    match filters.policy.filters().len() {
        0 => match waylay_host::lift_boot(scope)? {
            true => notice(&format!("no filter has the lifetime boot; those of {of} are lifted")),
            false => notice("no filter has the lifetime boot"),
        },
        count => {
            waylay_host::boot(scope, &filters.policy)?;
            let filters = if count == 1 { "1 filter is".to_owned() } else { format!("{count} filters are") };
            notice(&format!("{filters} in force for {of} until a daemon takes over"));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn warn(warning: &Finding) {
    let place = warning.file.as_ref().zip(warning.line);
    let place = place.map_or_else(String::new, |(file, line)| format!("{file}:{line}: "));
    notice(&format!("{place}{}", warning.message));
}

/// The lines of the texts that a failure is about are printed apart.
pub(crate) fn with_lines(failure: Failure) -> Box<dyn Error> {
    if !failure.rendered.is_empty() {
        terminal::say(&failure.rendered);
    }
    failure.into()
}

fn scope(named: Option<&Path>) -> Result<Cgroup, Box<dyn Error>> {
    let root = Cgroup::root()?;
    let Some(named) = named else { return Ok(root) };
    let found = root.at(named).filter(|cgroup| cgroup.path().is_dir());
    let missing = || NoScope { scope: named.to_owned(), root: root.path().to_owned() };
    Ok(found.ok_or_else(missing)?)
}

fn below_root(scope: &Cgroup) -> Result<PathBuf, Box<dyn Error>> {
    let root = Cgroup::root()?;
    let below = scope.path().strip_prefix(root.path()).unwrap_or(scope.path());
    Ok(Path::new("/").join(below))
}

struct Teller {
    scope: PathBuf,
    socket: PathBuf,
}

impl Chronicle for Teller {
    fn in_force(&self, changed: &Changed) {
        changed.warnings.iter().for_each(warn);
        notice("the policy is in force");
    }

    fn refused(&self, failure: &Failure) {
        if !failure.rendered.is_empty() {
            terminal::say(&failure.rendered);
        }
        notice(&format!("{failure}; what was in force still is"));
    }

    fn ready(&self) {
        terminal::status(None);
        let (scope, socket) = (self.scope.display(), self.socket.display());
        notice(&format!("connections of {scope} go as the policy says; requests are answered on {socket}"));
    }
}
