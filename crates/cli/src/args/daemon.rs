//! What can be typed to start a daemon.

use std::{ffi::OsString, path::PathBuf};

use clap::Parser;

use super::Format;
use crate::{policy, terminal::When};

const EXAMPLES: &str = "\
Examples:
  sudo waylayd
      Every connection of this host goes as /etc/waylay/policy.toml says, until Ctrl-C.
  sudo waylayd --policy policy.toml --scope /system.slice
      Those of the processes in one cgroup and below it.
  sudo waylay filter add 'action = \"block\"' 'sublayer = \"mine\"' 'if.port = 25'
      Change what it does meanwhile; waylay filter, service, status, observe and why ask it.
  sudo waylayd --boot
      Put the policy's boot filters in force, until a daemon takes over.
  sudo kill -HUP $(pidof waylayd)
      Have the policy's files read again, as waylay reload does.

When it ends in order, connections go as without it. If it is killed, what it has put in force
stays until the next one is started on the same scope: its services are gone, and their failure
policies answer.

Exit status: 0 after SIGTERM or Ctrl-C, or when --boot is done; 2 if it could not start, or not end in order.";

/// Keep a policy in force for a host, or for one cgroup of it.
#[derive(Debug, Parser)]
#[command(name = "waylayd", version, max_term_width = 100, after_help = EXAMPLES)]
pub(crate) struct DaemonArgs {
    /// The policy; the files in conf.d beside it belong to it
    #[arg(long, value_name = "FILE", default_value = policy::DEFAULT, value_hint = clap::ValueHint::FilePath)]
    pub(crate) policy: PathBuf,
    /// Whose connections: the processes in this cgroup and below, a path below the root of the hierarchy [default: all of the host]
    #[arg(long, value_name = "CGROUP")]
    pub(crate) scope: Option<PathBuf>,
    /// Put the policy's filters with the lifetime `boot` in force, and end: they hold until a daemon takes over
    ///
    /// Of what is declared nothing else comes in force. To be started early at boot, before there is a network; the daemon that takes
    /// over has the same scope, or one around it. Where the policy has no such filters (any more), those in force are lifted.
    #[arg(long)]
    pub(crate) boot: bool,
    /// Where it listens for requests
    #[arg(long, value_name = "PATH", default_value = waylay_daemon::server::DEFAULT, value_hint = clap::ValueHint::FilePath)]
    pub(crate) socket: PathBuf,
    /// Where what is added for good is kept
    #[arg(long, value_name = "DIR", default_value = "/var/lib/waylay", value_hint = clap::ValueHint::DirPath)]
    pub(crate) state: PathBuf,
    /// What services that scan look for, in bytes; repeat it for several [default: the EICAR test string]
    ///
    /// @FILE reads one pattern a line, as the bytes are; blank lines do not count.
    #[arg(long, value_name = "TEXT|@FILE", allow_hyphen_values = true)]
    pub(crate) pattern: Vec<OsString>,
    /// How long a service may leave a connection waiting before it is ended as hung
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) patience: u64,
    /// How long an adopted service may take until it listens
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) start_patience: u64,
    /// How connections are reported: `human` on standard error, `json` on standard output
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t = Format::Human)]
    pub(crate) output: Format,
    /// Report to this file instead; it is created for you alone (mode 0600) and appended to
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub(crate) log: Option<PathBuf>,
    /// When to use colours
    #[arg(long, display_order = 90, value_name = "WHEN", value_enum, default_value_t = When::Auto)]
    pub(crate) color: When,
}
