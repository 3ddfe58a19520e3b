//! `waylay run` as the client of a daemon: that has the services and redirects, and this has the command, the terminal and
//! the reports. Needs no privilege.

use std::{
    error::Error,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    sync::Arc,
    thread,
};

use thiserror::Error;
use waylay_core::FailurePolicy;
use waylay_daemon::{
    client::{Client, ClientError},
    declared::SERVE_SUBCOMMAND,
    protocol::{Answer, Code, Happening, Request, Run, Status, Terms, Text},
};
use waylay_host::{
    Adoption, Enclosed, LocalName, Observer, ServiceSpec, Transports,
    launch::{Families, Launch, Role},
    run_enclosed,
    user::Identity,
};
use waylay_inspect::report::Report;

use crate::{
    args::{EngineChoice, EnterArgs, RunArgs},
    chain,
    control::OtherAnswer,
    daemon::with_lines,
    output::{Output, complain, notice},
    policy, run_alone,
};

/// The hidden subcommand of the command's process before it is in its cgroup.
pub(crate) const ENTER_SUBCOMMAND: &str = "__enter";
/// That process could not be prepared.
const NOT_PREPARED: u8 = 125;

/// Why a daemon has no part in a run that it could have.
#[derive(Debug, Error)]
pub(crate) enum GuestError {
    /// It may speak another language.
    #[error(
        "the daemon is waylayd {theirs}, and this is waylay {own}: they have to be of one version; --engine ebpf, as root, or seccomp does without the daemon"
    )]
    Version { theirs: String, own: &'static str },
    /// What only the daemon's own policy can say.
    #[error(
        "{option} is for the daemon to say, which has it for all of its scope; --engine ebpf, as root, or seccomp does without the daemon"
    )]
    Option { option: &'static str },
    /// `--user` of somebody who cannot become another.
    #[error("--user needs root")]
    User,
    /// What a run cannot adopt.
    #[error(
        "the service {name} runs already: with a daemon that is adopted by the daemon's own policy; --engine ebpf, as root, or seccomp does without the daemon"
    )]
    Resident { name: String },
}

/// A daemon that answers.
pub(crate) struct Daemon {
    client: Client,
    status: Status,
}

/// The daemon that has the services of this run, if one does.
pub(crate) fn daemon_for(args: &RunArgs) -> Result<Option<Daemon>, Box<dyn Error>> {
    let client = match (args.engine, Client::connect(&args.socket)) {
        (Some(EngineChoice::Ebpf | EngineChoice::Seccomp), Ok(_)) => {
            notice("a daemon runs, and has no part in this (--engine)");
            return Ok(None);
        }
        (Some(EngineChoice::Ebpf | EngineChoice::Seccomp) | None, Err(_)) => return Ok(None),
        (Some(EngineChoice::Daemon), client) | (None, client) => client,
    };
    let mut client = client?;
    let Answer::Status(status) = client.ask(&Request::Status)? else { return Err(OtherAnswer.into()) };
    let own = env!("CARGO_PKG_VERSION");
    if status.version == own {
        return Ok(Some(Daemon { client, status }));
    }
    let error = GuestError::Version { theirs: status.version, own };
    if args.engine.is_none() {
        notice(&format!("{error}; going on without it"));
        return Ok(None);
    }
    Err(error.into())
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Runs the command with what the daemon has for it.
pub(crate) fn run(args: &RunArgs, daemon: Daemon) -> Result<ExitCode, Box<dyn Error>> {
    let Daemon { mut client, status } = daemon;
    let (texts, terms) = see_what_is_asked(args)?;
    let identity = match (is_root(), &args.user) {
        (true, user) => Identity::of_the_caller(user.as_deref())?,
        (false, Some(_)) => return Err(GuestError::User.into()),
        (false, None) => None,
    };
    let output = Arc::new(Output::new(args.output, args.log.as_deref(), None)?);
    let run = match client.ask(&Request::Run { texts, terms }) {
        Ok(Answer::Run(run)) => run,
        Ok(_) => return Err(OtherAnswer.into()),
        Err(ClientError::Refused(failure)) if may_go_alone(args, failure.code) => {
            notice(&format!("the daemon has no part in this: {failure}"));
            return run_alone(args.clone());
        }
        Err(ClientError::Refused(failure)) => return Err(with_lines(failure)),
        Err(error) => return Err(error.into()),
    };
    notice(&format!("through the daemon (process {})", status.pid));
    for warning in &run.warnings {
        notice(&warning.message);
    }
    let requests = client.requests()?;
    let teller = Teller { output: Arc::clone(&output), prefix: run.prefix.clone() };
    let reader = thread::spawn(move || teller.tell_all(client));
    let enclosed = Enclosed {
        launcher: launcher(args, &run, identity)?,
        cgroup: run.cgroup.clone(),
        keep_sockets: args.keep_sockets,
    };
    // A daemon that has gone has ended the run.
    let finish = || {
        let _gone = requests.send(&Request::Finish);
    };
    let observer: Arc<dyn Observer> = output;
    let ended = run_enclosed(enclosed, &observer, &finish);
    finish();
    let _told = reader.join();
    Ok(ExitCode::from(ended?.exit_code()))
}

/// A daemon that is for others can be done without.
fn may_go_alone(args: &RunArgs, code: Code) -> bool {
    args.engine.is_none() && code == Code::OutOfScope
}

/// What the daemon is told of what was typed.
fn see_what_is_asked(args: &RunArgs) -> Result<(Vec<Text>, Terms), Box<dyn Error>> {
    let for_the_daemon = [
        ("--unredirectable", args.unredirectable.is_some()),
        ("--other-namespaces", args.other_namespaces.is_some()),
        ("--patience", args.patience.is_some()),
        ("--start-patience", args.start_patience.is_some()),
    ];
    if let Some((option, _)) = for_the_daemon.into_iter().find(|(_, is_said)| *is_said) {
        return Err(GuestError::Option { option }.into());
    }
    let texts = match &args.policy {
        Some(file) => {
            let sources = policy::sources(file)?;
            let text = |(name, text): (&str, &str)| Text { name: name.to_owned(), text: text.to_owned() };
            sources.iter().map(text).collect()
        }
        None => {
            let services = chain::services(&args.through, &args.forget, &args.pattern)?;
            vec![Text {
                name: "the command line".to_owned(),
                text: as_policy(&services, args.on_failure.into())?,
            }]
        }
    };
    let terms = Terms {
        patterns: crate::patterns::read(&args.pattern)?.encode(),
        forget: args.forget.clone(),
        idle: args.idle,
        directory: std::env::current_dir()?,
    };
    Ok((texts, terms))
}

/// A chain in the form of a policy file.
fn as_policy(services: &[ServiceSpec], on_failure: FailurePolicy) -> Result<String, Box<dyn Error>> {
    let mut text = String::new();
    for (index, service) in services.iter().enumerate() {
        let name = quoted(&service.name)?;
        let mut line = |what: String| text.push_str(&(what + "\n"));
        line(format!("[service.{name}]"));
        if let Some(next) = services.get(index + 1) {
            line(format!("before = {}", quoted(&next.name)?));
        }
        line(match on_failure {
            FailurePolicy::Open => "on_failure = \"open\"".to_owned(),
            FailurePolicy::Closed => "on_failure = \"closed\"".to_owned(),
        });
        let protocols = match service.transports {
            Transports::Tcp => "\"tcp\"",
            Transports::Udp => "\"udp\"",
            Transports::TcpAndUdp => "[\"tcp\", \"udp\"]",
        };
        line(format!("protocol = {protocols}"));
        kind(service)?.into_iter().for_each(&mut line);
        line(format!("[[filter]]\naction = \"redirect\"\nservice = {name}\nif.protocol = {protocols}"));
    }
    Ok(text)
}

/// What a service is.
fn kind(service: &ServiceSpec) -> Result<Vec<String>, Box<dyn Error>> {
    let word = |index: usize| service.command.get(index).map(|word| word.to_string_lossy().into_owned());
    if service.builtin {
        debug_assert_eq!(word(0).as_deref(), Some(SERVE_SUBCOMMAND));
        return Ok(vec![format!("run = {}", quoted(&word(1).unwrap_or_default())?)]);
    }
    let shell = word(2).unwrap_or_default();
    let mut lines = vec![format!("command = {}", quoted(shell.strip_prefix("exec ").unwrap_or(&shell))?)];
    if let Some(Adoption { known_by, listens, local_name }) = &service.adoption {
        if known_by.is_some() {
            return Err(GuestError::Resident { name: service.name.clone() }.into());
        }
        let listens: Vec<String> = listens.iter().map(ToString::to_string).collect();
        lines.push(format!("adopt = {}", serde_json::to_string(&listens)?));
        lines.push(match local_name {
            LocalName::Listener => "destination = \"option\"".to_owned(),
            LocalName::Destination => "destination = \"local\"".to_owned(),
            LocalName::Packet => "destination = \"packet\"".to_owned(),
        });
    }
    Ok(lines)
}

fn quoted(text: &str) -> Result<String, serde_json::Error> {
    serde_json::to_string(text)
}

/// What becomes the command: it asks the daemon to be moved into the cgroup first.
fn launcher(args: &RunArgs, run: &Run, identity: Option<Identity>) -> Result<Command, Box<dyn Error>> {
    let launch = Launch {
        cgroup: None,
        identity,
        role: Role::Command,
        own_binary: false,
        families: Families::Any,
        supervision: None,
    };
    let mut launcher = Command::new("/proc/self/exe");
    launcher.arg(ENTER_SUBCOMMAND).arg("--socket").arg(absolute(&args.socket)?);
    launcher.arg("--run").arg(run.run.to_string()).arg(serde_json::to_string(&launch)?);
    launcher.arg("--").args(&args.command);
    Ok(launcher)
}

fn absolute(path: &Path) -> std::io::Result<PathBuf> {
    std::path::absolute(path)
}

/// Has the daemon move this process into the cgroup of its run.
pub(crate) fn enter(args: &EnterArgs) -> Result<(), ExitCode> {
    let entered = Client::connect(&args.socket)
        .and_then(|mut client| client.ask(&Request::Enter { run: args.run }))
        .map_err(Box::<dyn Error>::from)
        .and_then(|answer| if answer == Answer::Entered { Ok(()) } else { Err(OtherAnswer.into()) });
    entered.map_err(|error| {
        complain(error.as_ref());
        ExitCode::from(NOT_PREPARED)
    })
}

/// Says what the daemon tells, as a run without one would.
struct Teller {
    output: Arc<Output>,
    prefix: String,
}

impl Teller {
    /// Until the run has finished, or the daemon has ended.
    fn tell_all(&self, mut client: Client) {
        loop {
            match client.next_happening() {
                Ok(Some(happening)) if happening.about == "finished" => return,
                Ok(Some(happening)) => self.tell(&happening),
                Ok(None) => return notice("the daemon has ended, and its services with it"),
                Err(error) => return complain(&error),
            }
        }
    }

    fn tell(&self, happening: &Happening) {
        let service = happening.service.as_ref().map(|name| self.own(name));
        let text = self.own(&happening.text);
        match (happening.about.as_str(), service) {
            ("report", Some(service)) => match Report::from_line(&happening.text) {
                Ok(report) => self.report(&service, report),
                Err(_) => self.output.report(&service, &happening.text),
            },
            ("service", Some(service)) => notice(&format!("the service {service} {text}")),
            (_, _) => notice(&text),
        }
    }

    fn report(&self, service: &str, mut report: Report) {
        report.service = self.own(&report.service);
        report.chain = report.chain.iter().map(|name| self.own(name)).collect();
        let mut line = Vec::new();
        if report.write_line(&mut line).is_ok() {
            self.output.report(service, String::from_utf8_lossy(&line).trim_end());
        }
    }

    /// Without what the daemon has put before the names of this run.
    fn own(&self, text: &str) -> String {
        text.replace(&self.prefix, "")
    }
}
