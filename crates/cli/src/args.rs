//! What can be typed.

use std::{ffi::OsString, path::PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};
use waylay_core::FailurePolicy;

use crate::chain::{Builtin, Spec};

/// See and steer what programs do on the network.
#[derive(Debug, Parser)]
#[command(name = "waylay", version, max_term_width = 100, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a command with its TCP connections redirected through services
    Run(RunArgs),
    #[command(name = waylay_host::launch::SUBCOMMAND, hide = true)]
    Launch(LaunchArgs),
    #[command(name = crate::chain::SERVE_SUBCOMMAND, hide = true)]
    Serve(ServeArgs),
}

const RUN_EXAMPLES: &str = "\
Examples:
  sudo waylay run -- curl http://example.test/
      Show every connection curl makes.
  sudo waylay run --through log --through log -- git clone http://example.test/repo.git
      Two independent services, one after the other; each line shows the chain.
  sudo waylay run --through log --through scan --pattern 'BEGIN PRIVATE KEY' -- ./upload
      End a connection before a private key has passed, whichever way it goes.
  sudo waylay run -o json --log connections.json -- wget -q http://example.test/
      One JSON object a line, in a file only you can read.
  sudo waylay run --through log --through log --forget log -- curl http://example.test/
      A service that forgets its records: the connection still does not loop.

Exit status: that of COMMAND; 128 and the signal's number if a signal ended it; 127 if it was
not found, 126 if it cannot be executed; 2 if waylay could not start.";

#[derive(Debug, Args)]
#[command(after_help = RUN_EXAMPLES)]
pub(crate) struct RunArgs {
    /// A service to send connections through; repeat it for a chain, in this order [default: log]
    ///
    /// log           lets everything pass and reports it
    /// scan          ends a connection in which a pattern passes, and reports all
    /// exec:COMMAND  a program that cooperates, in any language; it finds its listening sockets
    ///               as sd_listen_fds(3) says, and what it prints goes to standard error
    #[arg(long, value_name = "SPEC", verbatim_doc_comment, value_parser = Spec::parse)]
    pub(crate) through: Vec<Spec>,
    /// What `scan` looks for, in bytes; repeat it for several [default: the EICAR test string]
    ///
    /// @FILE reads one pattern a line, as the bytes are; blank lines do not count.
    #[arg(long, value_name = "TEXT|@FILE")]
    pub(crate) pattern: Vec<OsString>,
    /// Make this service leave its redirect records out, to see what happens then
    #[arg(long, value_name = "NAME")]
    pub(crate) forget: Vec<String>,
    /// What becomes of connections while a service is gone
    #[arg(long, value_name = "POLICY", value_enum, default_value_t = OnFailure::Closed)]
    pub(crate) on_failure: OnFailure,
    /// How long a service may leave a connection waiting before it is ended as hung
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) patience: u64,
    /// How connections are reported: `human` on standard error, `json` on standard output
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t = Format::Human)]
    pub(crate) output: Format,
    /// Report to this file instead; it is created for you alone (mode 0600) and appended to
    #[arg(long, value_name = "FILE")]
    pub(crate) log: Option<PathBuf>,
    /// Run COMMAND as this user [default: behind sudo, whoever called it]
    #[arg(long, value_name = "USER")]
    pub(crate) user: Option<String>,
    /// The command to run, and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// One readable line a connection
    Human,
    /// One JSON object a line
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnFailure {
    /// Go on without it
    Open,
    /// Refuse them
    Closed,
}

impl From<OnFailure> for FailurePolicy {
    fn from(choice: OnFailure) -> Self {
        match choice {
            OnFailure::Open => Self::Open,
            OnFailure::Closed => Self::Closed,
        }
    }
}

/// The stage before a launched program.
#[derive(Debug, Args)]
pub(crate) struct LaunchArgs {
    pub(crate) spec: String,
    #[arg(last = true, required = true)]
    pub(crate) command: Vec<OsString>,
}

/// A built-in service, in its own process.
#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    pub(crate) builtin: Builtin,
    #[arg(long)]
    pub(crate) name: String,
    #[arg(long)]
    pub(crate) forget: bool,
}
