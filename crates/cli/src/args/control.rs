//! What can be typed to a daemon.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use waylay_daemon::protocol::Lasting;

use super::{Format, Transport};

/// Where the daemon is, and how its answers are written.
#[derive(Debug, Args)]
pub(crate) struct Asking {
    /// The control socket of the daemon
    #[arg(long, value_name = "PATH", default_value = waylay_daemon::server::DEFAULT, value_hint = clap::ValueHint::FilePath)]
    pub(crate) socket: PathBuf,
    /// How the answer is written: `human` in words, `json` as one object (of observe: one a line)
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t = Format::Human)]
    pub(crate) output: Format,
}

const STATUS_EXAMPLES: &str = "\
Examples:
  waylay status
      Whether a daemon runs, with which policy.
  waylay status -o json | jq .overdue
      For scripts; the keys are stable.

Exit status: 0 if a daemon answers, 2 if none does.";

#[derive(Debug, Args)]
#[command(after_help = STATUS_EXAMPLES)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    pub(crate) asking: Asking,
}

const FLOWS_EXAMPLES: &str = "\
Examples:
  sudo waylay flows
      Every leg that is redirected at this moment.
  waylay flows -o json | jq -r '.flows[] | select(.to | endswith(\":443\")) | .application'
      Without root: those of your own programs.

Exit status: 0; 2 if no daemon answers.";

#[derive(Debug, Args)]
#[command(after_help = FLOWS_EXAMPLES)]
pub(crate) struct FlowsArgs {
    #[command(flatten)]
    pub(crate) asking: Asking,
}

const OBSERVE_EXAMPLES: &str = "\
Examples:
  sudo waylay observe
      What services report, what is refused, what changes, as it happens; Ctrl-C ends it.
  sudo waylay observe -o json | jq -c 'select(.about == \"refused\")'
      For scripts: one object a line.

Without root it tells of your own services.

Exit status: 0 when the daemon ends, 2 if none answers.";

#[derive(Debug, Args)]
#[command(after_help = OBSERVE_EXAMPLES)]
pub(crate) struct ObserveArgs {
    #[command(flatten)]
    pub(crate) asking: Asking,
}

const RELOAD_EXAMPLES: &str = "\
Examples:
  sudo waylay reload
      Read the policy's files again. If they do not hold together, what was in force still is.

Exit status: 0 if it is in force, 1 if the daemon refuses it, 2 if none answers.";

#[derive(Debug, Args)]
#[command(after_help = RELOAD_EXAMPLES)]
pub(crate) struct ReloadArgs {
    #[command(flatten)]
    pub(crate) asking: Asking,
}

const WHY_EXAMPLES: &str = "\
Examples:
  sudo waylay why --pid 4321 --to 192.0.2.1:443
      What would become of a connection of that process: what each service and each sublayer
      says, by which filter of which file; and what has been refused to it lately.
  sudo waylay why --from 10.0.0.5:43210
      The connection with this address of its own, as ss(8) shows it: the way it has taken, or
      had taken when it ended.
  sudo waylay why --flow 17 -o json
      One from waylay flows; for scripts.

Services are taken as they are: one that is gone is gone. Without root you may ask about your own
processes. Of connections that have ended the last few thousand are remembered.

Exit status: 0 if the connection would get to its destination now, 1 if it would be refused or there
is no such connection, 2 if no daemon answers.";

#[derive(Debug, Args)]
#[command(after_help = WHY_EXAMPLES)]
pub(crate) struct WhyArgs {
    /// A process that would connect
    #[arg(long, value_name = "PID", requires = "to", required_unless_present_any = ["from", "flow"])]
    pub(crate) pid: Option<u32>,
    /// Where to
    #[arg(long, value_name = "ADDRESS:PORT", requires = "pid")]
    pub(crate) to: Option<SocketAddr>,
    /// What it would be
    #[arg(long, value_name = "PROTOCOL", value_enum, default_value_t = Transport::Tcp)]
    pub(crate) protocol: Transport,
    /// The application's own address of a connection that is redirected now, or was lately
    #[arg(long, value_name = "ADDRESS:PORT", conflicts_with_all = ["pid", "flow"])]
    pub(crate) from: Option<SocketAddr>,
    /// A flow of a connection that is redirected now, or was lately
    #[arg(long, value_name = "NUMBER", conflicts_with = "pid")]
    pub(crate) flow: Option<u64>,
    #[command(flatten)]
    pub(crate) asking: Asking,
}

const LS_EXAMPLES: &str = "\
Examples:
  sudo waylay filter ls
      All filters, with where each is declared, whose it is and how long it stays.
  waylay filter ls -o json
      Without root: your own.

Exit status: 0; 2 if no daemon answers.";

#[derive(Debug, Args)]
#[command(after_help = LS_EXAMPLES)]
pub(crate) struct FilterLsArgs {
    #[command(flatten)]
    pub(crate) asking: Asking,
}

const ADD_EXAMPLES: &str = "\
Examples:
  sudo waylay filter add 'action = \"block\"' 'sublayer = \"mine\"' 'if.port = 25'
      One filter, line by line as in a policy's file (docs/policy.md); until the daemon stops.
  sudo waylay filter add --lifetime persistent --file rules.toml
      All that the file says, or nothing of it; also after the daemon was started anew.
  sudo waylay filter add --lifetime boot 'action = \"block\"' 'sublayer = \"mine\"' 'unless.port = 53'
      Not now, but from early boot on until the daemon takes over (waylayd --boot).
  waylay filter add --file mine.toml
      Without root: for your own programs, as long as this command runs (Ctrl-C); docs/daemon.md
      says what may be in it.

Exit status: 0 if it is in force, 1 if the daemon refuses it, 2 if none answers.";

/// How what is added gets into a request.
#[derive(Debug, Args)]
pub(crate) struct Adding {
    /// How long it stays [default: of root until the daemon stops, of others as long as this command runs]
    #[arg(long, value_name = "LIFETIME", value_enum)]
    pub(crate) lifetime: Option<Lifetime>,
    /// Add what this file says; `-` is standard input
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub(crate) file: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = ADD_EXAMPLES)]
pub(crate) struct FilterAddArgs {
    #[command(flatten)]
    pub(crate) adding: Adding,
    /// The lines of one filter
    #[arg(value_name = "KEY = VALUE", required_unless_present = "file", conflicts_with = "file")]
    pub(crate) lines: Vec<String>,
    #[command(flatten)]
    pub(crate) asking: Asking,
}

const RM_EXAMPLES: &str = "\
Examples:
  sudo waylay filter rm no-mail
      The filter that was added under that name.
  sudo waylay filter rm 3
      What was added as number 3, all of it.

What the policy's files declare is changed there, and then: waylay reload.

Exit status: 0 if it is gone, 1 if the daemon refuses, 2 if none answers.";

#[derive(Debug, Args)]
#[command(after_help = RM_EXAMPLES)]
pub(crate) struct RmArgs {
    /// What to remove: names, or numbers of what was added; all of it or nothing
    #[arg(value_name = "NAME|NUMBER", required = true)]
    pub(crate) which: Vec<String>,
    #[command(flatten)]
    pub(crate) asking: Asking,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ServiceCommand {
    /// List the services, in the order in which they see a connection
    Ls(ServiceLsArgs),
    /// Add a service
    Add(ServiceAddArgs),
    /// Remove services that were added; they finish what they have accepted
    Rm(RmArgs),
    /// Say in which order services see a connection
    Order(ServiceOrderArgs),
}

const SERVICE_LS_EXAMPLES: &str = "\
Examples:
  waylay service ls
      Who sees connections, in which order, and how they get on.

Exit status: 0; 2 if no daemon answers.";

#[derive(Debug, Args)]
#[command(after_help = SERVICE_LS_EXAMPLES)]
pub(crate) struct ServiceLsArgs {
    #[command(flatten)]
    pub(crate) asking: Asking,
}

const SERVICE_ADD_EXAMPLES: &str = "\
Examples:
  sudo waylay service add guard 'command = \"python3 guard.py\"' 'before = \"log\"'
      A program of your own that cooperates, line by line as in a policy's file (docs/policy.md).
  sudo waylay service add proxy 'adopt = \"127.0.0.1:5000\"' 'unit = \"haproxy.service\"'
      A transparent proxy that runs already.

A service gets connections by filters: waylay filter add 'action = \"redirect\"' 'service = \"guard\"'.

Exit status: 0 if it is there, 1 if the daemon refuses it, 2 if none answers.";

#[derive(Debug, Args)]
#[command(after_help = SERVICE_ADD_EXAMPLES)]
pub(crate) struct ServiceAddArgs {
    #[command(flatten)]
    pub(crate) adding: Adding,
    /// What it is called
    #[arg(value_name = "NAME", required_unless_present = "file", conflicts_with = "file")]
    pub(crate) name: Option<String>,
    /// The lines of its declaration
    #[arg(value_name = "KEY = VALUE", conflicts_with = "file")]
    pub(crate) lines: Vec<String>,
    #[command(flatten)]
    pub(crate) asking: Asking,
}

const SERVICE_ORDER_EXAMPLES: &str = "\
Examples:
  sudo waylay service order guard log proxy
      guard before log before proxy, whatever else is said of others.

An order that contradicts what the services say of themselves is refused, and the cycle named.

Exit status: 0 if it is in force, 1 if the daemon refuses it, 2 if none answers.";

#[derive(Debug, Args)]
#[command(after_help = SERVICE_ORDER_EXAMPLES)]
pub(crate) struct ServiceOrderArgs {
    /// How long it holds [default: until the daemon stops]
    #[arg(long, value_name = "LIFETIME", value_enum)]
    pub(crate) lifetime: Option<Lifetime>,
    /// The services, each before the next
    #[arg(value_name = "NAME", required = true, num_args = 2..)]
    pub(crate) names: Vec<String>,
    #[command(flatten)]
    pub(crate) asking: Asking,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Lifetime {
    /// As long as this command runs
    Session,
    /// Until the daemon stops
    Daemon,
    /// Until it is removed
    Persistent,
    /// The same, of filters for the time before there is a daemon
    Boot,
}

impl From<Lifetime> for Lasting {
    fn from(lifetime: Lifetime) -> Self {
        match lifetime {
            Lifetime::Session => Self::Session,
            Lifetime::Daemon => Self::Daemon,
            Lifetime::Persistent => Self::Persistent,
            Lifetime::Boot => Self::Boot,
        }
    }
}
