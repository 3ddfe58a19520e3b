//! What shells and man(1) want to know, from the same definitions as `--help`.

use std::{
    error::Error,
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Command, CommandFactory};
use thiserror::Error;

use crate::args::{Cli, CompletionsArgs, ManArgs, Shell};

const NAME: &str = "waylay";

/// A manual page cannot be written.
#[derive(Debug, Error)]
#[error("cannot write the manual page {}", path.display())]
pub(crate) struct ManError {
    path: PathBuf,
    source: io::Error,
}

pub(crate) fn completions(args: &CompletionsArgs) -> Result<ExitCode, Box<dyn Error>> {
    let shell = match args.shell {
        Shell::Bash => clap_complete::Shell::Bash,
        Shell::Zsh => clap_complete::Shell::Zsh,
        Shell::Fish => clap_complete::Shell::Fish,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), NAME, &mut script);
    io::stdout().lock().write_all(&script)?;
    Ok(ExitCode::SUCCESS)
}

/// One page a command: waylay.1, waylay-run.1, …
pub(crate) fn man(args: &ManArgs) -> Result<ExitCode, Box<dyn Error>> {
    fs::create_dir_all(&args.directory)
        .map_err(|source| ManError { path: args.directory.clone(), source })?;
    let mut command = Cli::command();
    command.build();
    write_page(&command, &args.directory)?;
    command.get_subcommands().try_for_each(|command| write_page(command, &args.directory))?;
    Ok(ExitCode::SUCCESS)
}

fn write_page(command: &Command, directory: &Path) -> Result<(), ManError> {
    let page = clap_mangen::Man::new(command.clone().disable_help_flag(true));
    let path = directory.join(page.get_filename());
    let failed = |source| ManError { path: path.clone(), source };
    let mut text = Vec::new();
    page.render(&mut text).map_err(failed)?;
    fs::write(&path, text).map_err(failed)
}
