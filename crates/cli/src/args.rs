//! What can be typed.

mod control;
mod daemon;

use std::{
    ffi::OsString,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use clap::{Args, Parser, Subcommand, ValueEnum};
use waylay_core::{FailurePolicy, ForeignNamespace, Unredirectable};

pub(crate) use control::*;
pub(crate) use daemon::DaemonArgs;

use crate::{
    policy,
    spec::{Builtin, Spec},
    terminal::When,
};

const EXAMPLES: &str = "\
Examples:
  sudo waylay run -- curl http://example.test/
      Show every connection curl makes.
  sudo waylay run --through scan -- wget http://example.test/invoice.exe
      End the download if it carries a virus scanner's test string.
  waylay doctor
      See what this machine offers, and what is missing.
  waylay run --help
      See the rest.";

/// See and steer what programs do on the network.
///
/// waylay sends what programs say on the network, by TCP and UDP, through local services, one after the other. The kernel
/// remembers which services a connection has had, so that nothing loops.
#[derive(Debug, Parser)]
#[command(name = "waylay", version, max_term_width = 100, disable_help_subcommand = true)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    /// When to use colours
    #[arg(long, global = true, display_order = 90, value_name = "WHEN", value_enum, default_value_t = When::Auto)]
    pub(crate) color: When,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a command with its connections and its datagrams redirected through services
    Run(RunArgs),
    /// Say what this machine offers, who else is hooked in, and what runs have left
    Doctor(DoctorArgs),
    /// Say what is wrong with a policy, before it is used
    Check(CheckArgs),
    /// See what filters make of connections, and change those of a daemon
    #[command(subcommand)]
    Filter(FilterCommand),
    /// See and change the services of a daemon
    #[command(subcommand)]
    Service(ServiceCommand),
    /// Say whether a daemon runs, and with what
    Status(StatusArgs),
    /// List what a daemon redirects at this moment
    Flows(FlowsArgs),
    /// Tell what happens at a daemon, as it happens
    Observe(ObserveArgs),
    /// Have a daemon read its policy's files again
    Reload(ReloadArgs),
    /// Say why a connection goes as it does
    Why(WhyArgs),
    /// Write a completion script for a shell to standard output
    Completions(CompletionsArgs),
    /// Write the manual pages to a directory, one a command
    Man(ManArgs),
}

/// The stages of a run in processes of their own; people do not type them.
#[derive(Debug, Parser)]
#[command(name = "waylay", disable_help_subcommand = true)]
pub(crate) struct Stage {
    #[command(subcommand)]
    pub(crate) command: StageCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum StageCommand {
    #[command(name = waylay_host::launch::SUBCOMMAND)]
    Launch(LaunchArgs),
    #[command(name = crate::guest::ENTER_SUBCOMMAND)]
    Enter(EnterArgs),
    #[command(name = crate::chain::SERVE_SUBCOMMAND)]
    Serve(ServeArgs),
}

const RUN_EXAMPLES: &str = "\
Examples:
  sudo waylay run -- curl http://example.test/
      Show every connection curl makes.
  sudo waylay run --through log --through log -- git clone http://example.test/repo.git
      Two independent services, one after the other; each line shows the chain.
  sudo waylay run --through log --through scan --pattern '-----BEGIN PRIVATE KEY' -- ./upload
      End a connection before a private key has passed, whichever way it goes.
  sudo waylay run --through guard=exec:'python3 guard.py' --through log -- ./build.sh
      A service of your own, called guard, before one that reports.
  sudo waylay run --unredirectable permit -- ping -c 1 192.0.2.1
      With sockets that nothing can inspect.
  sudo waylay run --through log --through adopt:127.0.0.1:5000='haproxy -db -f x.cfg' -- ./build.sh
      A proxy as it is, after a service that reports; docs/adopt has configurations.
  sudo waylay run --policy policy.toml -- ./build.sh
      With services, order and filters from a file; waylay check says what is wrong with it.
  sudo waylay run -o json --log connections.json -- wget -q http://example.test/
      One JSON object a line, in a file only you can read.
  waylay run -- make test
      Without root, where waylayd runs: it redirects what the command does.
  sudo waylay run --through log --through log --forget log -- curl http://example.test/
      A service that forgets its records: the connection still does not loop.

Exit status: that of COMMAND; 128 and the signal's number if a signal ended it; 127 if it was
not found, 126 if it cannot be executed, 125 if its process could not be prepared; 2 if waylay
could not start, or the arguments make no sense.";

#[derive(Clone, Debug, Args)]
#[command(after_help = RUN_EXAMPLES)]
pub(crate) struct RunArgs {
    /// A service to send connections through; repeat it for a chain, in this order [default: log]
    ///
    /// log: lets everything pass and reports it
    ///
    /// scan: ends a connection, or a flow of UDP, in which a pattern passes, and reports all
    ///
    /// exec:COMMAND: a program that cooperates, in any language; it finds its listening sockets as
    /// sd_listen_fds(3) says, and what it prints goes to standard error
    ///
    /// adopt:ADDRESS=COMMAND: a transparent proxy that knows nothing of waylay (HAProxy, nginx, redsocks, …) and listens on
    /// ADDRESS by itself; ADDRESS,ADDRESS for IPv4 and IPv6. It learns the destination by SO_ORIGINAL_DST; write
    /// adopt/tproxy: for one that goes by the address of its socket, and adopt/udp+packet: for one that tells others where
    /// datagrams were going
    ///
    /// adopt:ADDRESS@unit=NAME: one that runs already, known by its systemd unit, or by cgroup=/PATH, exe=/PATH or
    /// uid=USER instead; it stays as it is
    ///
    /// exec/udp:, exec/tcp+udp: (the same with adopt): what it takes, if not TCP alone; log/tcp, log/udp (the same with scan), if not
    /// both
    ///
    /// NAME= in front of any of them calls the service NAME in reports and chains
    #[arg(long, value_name = "SPEC", value_parser = Spec::parse)]
    pub(crate) through: Vec<Spec>,
    /// The policy that says which services there are and what is redirected to them, in place of --through; docs/policy.md
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    #[arg(conflicts_with_all = ["through", "forget", "on_failure", "unredirectable", "other_namespaces"])]
    pub(crate) policy: Option<PathBuf>,
    /// What `scan` looks for, in bytes; repeat it for several [default: the EICAR test string]
    ///
    /// @FILE reads one pattern a line, as the bytes are; blank lines do not count.
    #[arg(long, value_name = "TEXT|@FILE", allow_hyphen_values = true)]
    pub(crate) pattern: Vec<OsString>,
    /// Make this service leave its redirect records out, to see what happens then
    #[arg(long, value_name = "NAME")]
    pub(crate) forget: Vec<String>,
    /// What becomes of connections while a service is gone
    #[arg(long, value_name = "POLICY", value_enum, default_value_t = OnFailure::Closed)]
    pub(crate) on_failure: OnFailure,
    /// What becomes of sockets that cannot be redirected: UDP-Lite, SCTP, ICMP, raw, packet, vsock …
    /// [default: block]
    #[arg(long, value_name = "POLICY", value_enum)]
    pub(crate) unredirectable: Option<Answer>,
    /// What becomes of connections that COMMAND makes in another network namespace
    /// [default: permit]
    #[arg(long, value_name = "POLICY", value_enum)]
    pub(crate) other_namespaces: Option<Answer>,
    /// Let COMMAND inherit network sockets, although what it does with them is not inspected
    #[arg(long)]
    pub(crate) keep_sockets: bool,
    /// How long a service may leave a connection waiting before it is ended as hung
    /// [default: 10]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) patience: Option<u64>,
    /// After so long without a datagram `log` and `scan` report a flow of UDP as ended
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=60))]
    pub(crate) idle: u64,
    /// How long an adopted service may take until it listens
    /// [default: 30]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) start_patience: Option<u64>,
    /// The control socket of the daemon
    #[arg(long, value_name = "PATH", default_value = waylay_daemon::server::DEFAULT, value_hint = clap::ValueHint::FilePath)]
    pub(crate) socket: PathBuf,
    /// How connections are reported: `human` on standard error, `json` on standard output
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t = Format::Human)]
    pub(crate) output: Format,
    /// Report to this file instead; it is created for you alone (mode 0600) and appended to
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub(crate) log: Option<PathBuf>,
    /// Run COMMAND as this user [default: behind sudo, whoever called it]
    #[arg(long, value_name = "USER", value_hint = clap::ValueHint::Username)]
    pub(crate) user: Option<String>,
    /// What redirects: `daemon`, for whoever is in its scope; `ebpf`, which takes root; or `seccomp`, which takes no privilege,
    /// redirects TCP alone and is no obstacle to programs that want to get around it [default: the daemon if one answers, else
    /// ebpf where it can, else seccomp, which is said]
    #[arg(long, value_name = "ENGINE", value_enum)]
    pub(crate) engine: Option<EngineChoice>,
    /// The command to run, and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND", value_hint = clap::ValueHint::CommandName)]
    pub(crate) command: Vec<OsString>,
}

/// What carries redirection out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum EngineChoice {
    /// That of a daemon.
    Daemon,
    /// Programs in the kernel.
    Ebpf,
    /// A supervisor of system calls.
    Seccomp,
}

const DOCTOR_EXAMPLES: &str = "\
Examples:
  waylay doctor
      What is there, and what to do about what is not.
  sudo waylay doctor
      The same with the eyes of root, who sees the programs of others and all runs.
  waylay doctor -o json | jq -r '.needs[] | select(.state == \"missing\") | .remedy'
      For scripts; the keys are stable.
  waylay doctor >/dev/null && sudo waylay run -- make test
      Only where it can work.

It changes nothing: the programs are loaded and dropped, and never attached.

Exit status: 0 if waylay run has all that its engine on eBPF needs, 1 if something of that is
missing, whatever goes without root; 2 if doctor itself could not run. What is only worth
knowing does not change it.";

#[derive(Debug, Args)]
#[command(after_help = DOCTOR_EXAMPLES)]
pub(crate) struct DoctorArgs {
    /// How the findings are written: `human` in words, `json` as one object
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t = Format::Human)]
    pub(crate) output: Format,
}

const CHECK_EXAMPLES: &str = "\
Examples:
  waylay check policy.toml
      Everything that is wrong with the file and with those in conf.d beside it, and what may
      not be meant.
  waylay check policy.toml -o json | jq -r '.diagnostics[].message'
      For editors and scripts; the keys are stable.

It looks names up on this host, and needs no privilege. docs/policy.md tells what a policy can say.

Exit status: 0 if the policy can be used, whatever warnings there are; 1 if it cannot; 2 if it
could not be read.";

#[derive(Debug, Args)]
#[command(after_help = CHECK_EXAMPLES)]
pub(crate) struct CheckArgs {
    /// The policy; the files in conf.d beside it belong to it
    #[arg(value_name = "FILE", default_value = policy::DEFAULT, value_hint = clap::ValueHint::FilePath)]
    pub(crate) policy: PathBuf,
    /// How the findings are written: `human` in words, `json` as one object
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t = Format::Human)]
    pub(crate) output: Format,
}

#[derive(Debug, Subcommand)]
pub(crate) enum FilterCommand {
    /// Say what becomes of a connection that nobody has made yet, and why
    Test(Box<FilterTestArgs>),
    /// List the filters of a daemon
    Ls(FilterLsArgs),
    /// Add filters to a daemon
    Add(FilterAddArgs),
    /// Remove filters that were added
    Rm(RmArgs),
}

const FILTER_TEST_EXAMPLES: &str = "\
Examples:
  waylay filter test --policy policy.toml --exe /usr/bin/curl --user alice --to 192.0.2.1:443
      What happens to curl, leg by leg, with what each service and each sublayer says.
  waylay filter test --to 192.0.2.1:443 --chain log,guard
      What is still to come of a connection that two services have had.
  waylay filter test --to '[2001:db8::1]:53' --protocol udp --absent log
      What happens while a service is gone.
  waylay filter test --cgroup /system.slice/cron.service --to 192.0.2.1:25 && echo open
      For scripts.
  waylay filter test --to 192.0.2.1:443 --host www.example.com
      What happens if the application has asked a resolver for that name.
  waylay filter test --to 192.0.2.1:443 --network-namespace /run/netns/guests
      What happens to who connects from there.

Nothing is connected, and no privilege is needed: names in the policy are compared with those
given here. Users and groups are looked up on this host.

Exit status: 0 if the connection gets to its destination, 1 if it is refused, 2 if the policy is wrong
or the arguments make no sense.";

#[derive(Debug, Args)]
#[command(after_help = FILTER_TEST_EXAMPLES)]
pub(crate) struct FilterTestArgs {
    /// The policy; the files in conf.d beside it belong to it
    #[arg(long, value_name = "FILE", default_value = policy::DEFAULT, value_hint = clap::ValueHint::FilePath)]
    pub(crate) policy: PathBuf,
    /// Where the connection goes
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) to: SocketAddr,
    /// What it is
    #[arg(long, value_name = "PROTOCOL", value_enum, default_value_t = Transport::Tcp)]
    pub(crate) protocol: Transport,
    /// The source address that the application binds
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) from: Option<IpAddr>,
    /// Path of the application's executable
    #[arg(long, value_name = "PATH", value_hint = clap::ValueHint::FilePath)]
    pub(crate) exe: Option<String>,
    /// The application's command name [default: that of its executable]
    #[arg(long, value_name = "NAME")]
    pub(crate) command: Option<String>,
    /// The user it runs as [default: root]
    #[arg(long, value_name = "USER", value_hint = clap::ValueHint::Username)]
    pub(crate) user: Option<String>,
    /// The group it runs as [default: root]
    #[arg(long, value_name = "GROUP")]
    pub(crate) group: Option<String>,
    /// Its cgroup, as a path below the root of the hierarchy
    #[arg(long, value_name = "PATH")]
    pub(crate) cgroup: Option<String>,
    /// The network namespace it is in, as a policy names it: `own`, `host`, or a path
    #[arg(long, value_name = "NAMESPACE", default_value = "own")]
    pub(crate) network_namespace: String,
    /// Names by which it has asked for the destination
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    pub(crate) host: Vec<String>,
    /// Services that have had the connection already, in order
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    pub(crate) chain: Vec<String>,
    /// Services that are gone
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    pub(crate) absent: Vec<String>,
    /// The connection comes from somebody's sandbox, as systemd's IPAddressDeny= makes them
    #[arg(long)]
    pub(crate) sandboxed: bool,
    /// How the outcome is written: `human` in words, `json` as one object
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t = Format::Human)]
    pub(crate) output: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Transport {
    Tcp,
    Udp,
}

const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  source <(waylay completions bash)
      In this shell.
  waylay completions bash | sudo tee /usr/share/bash-completion/completions/waylay >/dev/null
      For everybody; zsh looks in /usr/local/share/zsh/site-functions/_waylay, fish in
      /usr/share/fish/vendor_completions.d/waylay.fish.

Exit status: 0; 2 if the script could not be written.";

#[derive(Debug, Args)]
#[command(after_help = COMPLETIONS_EXAMPLES)]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_name = "SHELL", value_enum)]
    pub(crate) shell: Shell,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Shell {
    Bash,
    Zsh,
    Fish,
}

const MAN_EXAMPLES: &str = "\
Examples:
  waylay man pages && man -l pages/waylay-run.1
      Read one.
  sudo waylay man /usr/local/share/man/man1
      Install them all.

Exit status: 0; 2 if a page could not be written.";

#[derive(Debug, Args)]
#[command(after_help = MAN_EXAMPLES)]
pub(crate) struct ManArgs {
    /// Where to; it is made if it is not there
    #[arg(value_name = "DIRECTORY", value_hint = clap::ValueHint::DirPath)]
    pub(crate) directory: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// In words
    Human,
    /// As JSON
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

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Answer {
    /// They pass uninspected
    Permit,
    /// They are refused, with a line that says so
    Block,
}

impl From<Answer> for Unredirectable {
    fn from(answer: Answer) -> Self {
        match answer {
            Answer::Permit => Self::Permit,
            Answer::Block => Self::Block,
        }
    }
}

impl From<Answer> for ForeignNamespace {
    fn from(answer: Answer) -> Self {
        match answer {
            Answer::Permit => Self::Permit,
            Answer::Block => Self::Block,
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

/// The command's process, before it is in the cgroup that a daemon has made for it.
#[derive(Debug, Args)]
pub(crate) struct EnterArgs {
    #[arg(long)]
    pub(crate) socket: PathBuf,
    #[arg(long)]
    pub(crate) run: u64,
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
    #[arg(long, default_value_t = 60)]
    pub(crate) idle: u64,
}
