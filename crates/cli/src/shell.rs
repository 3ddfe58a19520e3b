//! What shells and man(1) want to know, from the same definitions as `--help`.

use std::{
    error::Error,
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Command, CommandFactory};
use clap_mangen::{
    Man,
    roff::{Roff, roman},
};
use thiserror::Error;

use crate::args::{Cli, CompletionsArgs, DaemonArgs, ManArgs, Shell};

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

/// One page a command: waylay.1, waylay-run.1, …, and waylayd.1
pub(crate) fn man(args: &ManArgs) -> Result<ExitCode, Box<dyn Error>> {
    fs::create_dir_all(&args.directory)
        .map_err(|source| ManError { path: args.directory.clone(), source })?;
    let mut command = Cli::command();
    command.build();
    write_pages(&command, &args.directory)?;
    write_page(&DaemonArgs::command(), &args.directory)?;
    Ok(ExitCode::SUCCESS)
}

/// Of a command and all below it.
fn write_pages(command: &Command, directory: &Path) -> Result<(), ManError> {
    write_page(command, directory)?;
    command.get_subcommands().try_for_each(|command| write_pages(command, directory))
}

fn write_page(command: &Command, directory: &Path) -> Result<(), ManError> {
    let page = Man::new(command.clone().disable_help_flag(true))
        .source(concat!("waylay ", env!("CARGO_PKG_VERSION")))
        .manual("waylay");
    let path = directory.join(page.get_filename());
    let failed = |source| ManError { path: path.clone(), source };
    let text = render(&page, command).map_err(failed)?;
    fs::write(&path, text).map_err(failed)
}

fn render(page: &Man, command: &Command) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    page.render_title(&mut text)?;
    page.render_name_section(&mut text)?;
    page.render_synopsis_section(&mut text)?;
    page.render_description_section(&mut text)?;
    page.render_options_section(&mut text)?;
    if command.has_subcommands() {
        page.render_subcommands_section(&mut text)?;
    }
    let rest = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    sections(&rest).to_writer(&mut text)?;
    Ok(text)
}

/// What stands below the options in `--help`: its paragraphs have their titles in front.
fn sections(text: &str) -> Roff {
    let mut roff = Roff::default();
    for paragraph in text.split("\n\n") {
        if let Some(examples) = paragraph.strip_prefix("Examples:\n") {
            roff.control("SH", ["EXAMPLES"]).control("nf", []);
            for line in examples.lines() {
                roff.text([roman(line.strip_prefix("  ").unwrap_or(line))]);
            }
            roff.control("fi", []);
        } else if let Some(status) = paragraph.strip_prefix("Exit status: ") {
            roff.control("SH", ["EXIT STATUS"]).text([roman(status)]);
        } else {
            roff.control("PP", []).text([roman(paragraph)]);
        }
    }
    roff
}
