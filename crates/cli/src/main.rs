//! The `waylay` command: what was typed, turned into a run; what happened,
//! turned into words. Decisions are in `waylay-core`, work in `waylay-host`.

mod args;
mod chain;
mod output;
mod patterns;
mod serve;

use std::{error::Error, process::ExitCode, sync::Arc, time::Duration};

use clap::Parser;
use waylay_host::{Observer, RunError, RunSpec, launch::Launch, user::Identity};

use crate::{
    args::{Cli, Command, LaunchArgs, RunArgs},
    output::{Output, complain},
};

/// waylay itself could not do what was asked; COMMAND was not run.
const COULD_NOT_START: u8 = 2;

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Run(args) => run(args),
        Command::Launch(args) => launch(&args),
        Command::Serve(args) => serve::serve(args),
    };
    outcome.unwrap_or_else(|error| {
        complain(error.as_ref());
        ExitCode::from(COULD_NOT_START)
    })
}

fn run(args: RunArgs) -> Result<ExitCode, Box<dyn Error>> {
    let services = chain::services(&args.through, &args.forget, &args.pattern)?;
    let spec = RunSpec {
        command: args.command,
        identity: Identity::of_the_caller(args.user.as_deref())?,
        services,
        on_failure: args.on_failure.into(),
        patience: Duration::from_secs(args.patience),
    };
    let output: Arc<dyn Observer> = Arc::new(Output::new(args.output, args.log.as_deref())?);
    match waylay_host::run(&spec, &output) {
        Ok(ended) => Ok(ExitCode::from(ended.exit_code())),
        Err(error @ RunError::Interrupted { signal }) => {
            complain(&error);
            Ok(ExitCode::from(128 + u8::try_from(signal).unwrap_or(0)))
        }
        Err(error) => Err(error.into()),
    }
}

fn launch(args: &LaunchArgs) -> Result<ExitCode, Box<dyn Error>> {
    let launch: Launch = args.spec.parse()?;
    let error = launch.exec(&args.command);
    complain(&error);
    Ok(ExitCode::from(error.exit_code()))
}
