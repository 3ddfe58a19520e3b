//! The commands `waylay` and `waylayd`: what was typed, turned into a run, a daemon or a request to one; what happened, turned
//! into words. Decisions are in `waylay-core`, work in `waylay-host` and `waylay-daemon`.

mod args;
mod chain;
mod check;
mod control;
mod daemon;
mod declared;
mod doctor;
mod filter;
mod guest;
mod journey;
mod meant;
mod output;
mod patterns;
mod policy;
mod serve;
mod shell;
mod spec;
#[cfg(test)]
mod strange;
mod terminal;
mod why;

use std::{error::Error, ffi::OsString, process::ExitCode, sync::Arc, time::Duration};

use clap::{CommandFactory, Parser};
use waylay_core::Policy;
use waylay_host::{
    Ended, Observer, RunError, RunSpec, ServiceSpec, chain_policy,
    launch::{Launch, LaunchError, SUBCOMMAND},
    user::Identity,
};

use crate::{
    args::{Answer, Cli, Command, EngineChoice, RunArgs, Stage, StageCommand},
    chain::SERVE_SUBCOMMAND,
    declared::Declared,
    meant::with_suggestion,
    output::{Names, Output, complain},
    terminal::When,
};

/// waylay itself could not do what was asked; COMMAND was not run.
const COULD_NOT_START: u8 = 2;
/// Seconds that a service may leave a connection waiting.
const PATIENCE: u64 = 10;
/// Seconds that an adopted service may take until it listens.
const START_PATIENCE: u64 = 30;

/// What `waylay` does.
#[must_use]
pub fn waylay() -> ExitCode {
    act(command)
}

/// What `waylayd` does.
#[must_use]
pub fn waylayd() -> ExitCode {
    act(daemon::daemon)
}

/// Services start from the binary that runs them, so both have the stages.
fn act(command: impl FnOnce() -> Result<ExitCode, Box<dyn Error>>) -> ExitCode {
    let outcome = match stage() {
        Some(StageCommand::Launch(args)) => launch(&args.spec, &args.command),
        Some(StageCommand::Enter(args)) => match guest::enter(&args) {
            Ok(()) => launch(&args.spec, &args.command),
            Err(code) => Ok(code),
        },
        Some(StageCommand::Serve(args)) => serve::serve(args),
        None => command(),
    };
    terminal::status(None);
    outcome.unwrap_or_else(|error| {
        complain(error.as_ref());
        ExitCode::from(COULD_NOT_START)
    })
}

/// Stages of a run are told by their first argument; they are in no help, completion or suggestion.
fn stage() -> Option<StageCommand> {
    let first = std::env::args_os().nth(1)?;
    [SUBCOMMAND, SERVE_SUBCOMMAND, guest::ENTER_SUBCOMMAND].iter().find(|stage| **stage == first)?;
    terminal::use_colours(When::Never);
    Some(Stage::parse().command)
}

fn command() -> Result<ExitCode, Box<dyn Error>> {
    let cli = Cli::try_parse().unwrap_or_else(|error| with_suggestion(error, &Cli::command()).exit());
    terminal::use_colours(cli.color);
    match cli.command {
        Command::Run(args) => run(args),
        Command::Doctor(args) => doctor::doctor(&args),
        Command::Check(args) => check::check(&args),
        Command::Filter(command) => filter::filter(&command),
        Command::Service(command) => control::service(&command),
        Command::Status(args) => control::status(&args),
        Command::Flows(args) => control::flows(&args),
        Command::Observe(args) => control::observe(&args),
        Command::Reload(args) => control::reload(&args),
        Command::Why(args) => why::why(&args),
        Command::Completions(args) => shell::completions(&args),
        Command::Man(args) => shell::man(&args),
    }
}

fn run(args: RunArgs) -> Result<ExitCode, Box<dyn Error>> {
    match guest::daemon_for(&args)? {
        Some(daemon) => guest::run(&args, daemon),
        None => run_alone(args),
    }
}

/// With an engine of its own.
fn run_alone(args: RunArgs) -> Result<ExitCode, Box<dyn Error>> {
    let declared = args.policy.as_deref().map(Declared::read).transpose()?;
    let run: Run = match args.engine {
        Some(EngineChoice::Ebpf) => waylay_host::run,
        Some(EngineChoice::Seccomp) => waylay_host::run_supervised,
        Some(EngineChoice::Daemon) | None => engine_for_the_caller(),
    };
    let (mut services, policy) = match &declared {
        Some(declared) => (declared.services(&args.pattern)?, declared.policy()),
        None => chain(&args)?,
    };
    chain::end_idle_flows_after(&mut services, args.idle);
    let spec = RunSpec {
        command: args.command,
        identity: Identity::of_the_caller(args.user.as_deref())?,
        services,
        policy,
        keep_sockets: args.keep_sockets,
        patience: Duration::from_secs(args.patience.unwrap_or(PATIENCE)),
        start_patience: Duration::from_secs(args.start_patience.unwrap_or(START_PATIENCE)),
    };
    let names = declared.map(|declared| Names {
        filter: Box::new(move |filter| declared.describe(filter)),
        service: Box::new(str::to_owned),
    });
    let output: Arc<dyn Observer> = Arc::new(Output::new(args.output, args.log.as_deref(), names)?);
    let outcome = run(&spec, &output);
    match outcome {
        Ok(ended) => Ok(ExitCode::from(ended.exit_code())),
        Err(error @ RunError::Interrupted { signal }) => {
            complain(&error);
            Ok(ExitCode::from(128 + u8::try_from(signal).unwrap_or(0)))
        }
        Err(error) => Err(error.into()),
    }
}

type Run = fn(&RunSpec, &Arc<dyn Observer>) -> Result<Ended, RunError>;

/// The better one takes privileges and a machine that has what it needs; that another was taken, and why, is said.
fn engine_for_the_caller() -> Run {
    let Some(lacking) = waylay_host::doctor::lacking() else { return waylay_host::run };
    let (why, more) = doctor::why_without(lacking);
    output::notice(&format!("without {why}: TCP and UDP are redirected by a supervisor (seccomp); {more}"));
    waylay_host::run_supervised
}

/// What follows from the SPECs that were typed.
fn chain(args: &RunArgs) -> Result<(Vec<ServiceSpec>, Policy), Box<dyn Error>> {
    let services = chain::services(&args.through, &args.forget, &args.pattern)?;
    let policy = chain_policy(&services, args.on_failure.into())?
        .with_unredirectable(args.unredirectable.unwrap_or(Answer::Block).into())
        .with_foreign_namespace(args.other_namespaces.unwrap_or(Answer::Permit).into());
    Ok((services, policy))
}

fn launch(spec: &str, command: &[OsString]) -> Result<ExitCode, Box<dyn Error>> {
    let launch: Launch = spec.parse()?;
    let error = launch.exec(command);
    if !matches!(error, LaunchError::Dismissed) {
        complain(&error);
    }
    Ok(ExitCode::from(error.exit_code()))
}
