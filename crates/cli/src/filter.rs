//! `waylay filter test`: what a policy makes of a connection that nobody has made yet.

use std::{
    collections::BTreeSet,
    error::Error,
    io::{self, Write},
    process::ExitCode,
};

use serde::Serialize;
use thiserror::Error;
use waylay_config::{
    FileNames, Lowered, Names, Severity, lower, meant,
    paper::{Paper, Party},
    read,
};
use waylay_core::{
    Availability, Chain, ChainError, Hop, Leg, Naming, Policy, Process, Protocol, Records, ServiceId, Stage,
    Verdict, World, follow,
};
use waylay_host::names::HostNames;

use crate::{
    args::{FilterCommand, FilterTestArgs, Format, Transport},
    policy::{self, Count, PolicyFileError},
    terminal::{self, Colour, Paint},
};

/// The connection would be refused.
const REFUSED: u8 = 1;

/// Why nothing can be said of a connection.
#[derive(Debug, Error)]
enum TestError {
    /// Nobody of that name.
    #[error("there is no {what} {name:?} on this host")]
    Nobody {
        /// What it would be.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// No service of that name.
    #[error("the policy has no service {name:?}{}", hint(meant.as_deref()))]
    UnknownService {
        /// The name.
        name: String,
        /// What may have been meant.
        meant: Option<String>,
    },
    /// More hops than a chain holds.
    #[error(transparent)]
    Chain(#[from] ChainError),
}

fn hint(meant: Option<&str>) -> String {
    meant.map(|name| format!("; did you mean {name:?}?")).unwrap_or_default()
}

pub(crate) fn filter(command: &FilterCommand) -> Result<ExitCode, Box<dyn Error>> {
    match command {
        FilterCommand::Test(args) => test(args),
    }
}

fn test(args: &FilterTestArgs) -> Result<ExitCode, Box<dyn Error>> {
    let sources = policy::sources(&args.policy)?;
    let host = HostNames::new();
    let party = party(args, &host)?;
    let mut paper = Paper::new(&host);
    let caller = paper.process(&party);
    let (declarations, mut diagnostics) = read(&sources);
    let Some(lowered) = lower(&declarations, &paper, &mut diagnostics) else {
        terminal::say(policy::words(&diagnostics, &sources, terminal::stderr()).trim_end());
        let errors = Count(policy::count(&diagnostics, Severity::Error));
        return Err(PolicyFileError::Wrong { path: args.policy.clone(), errors }.into());
    };
    let stages = stages(args, &lowered.policy, caller, &paper)?;
    let names = FileNames { lowered: &lowered, sources: &sources };
    let journey =
        Journey { application: application(args), lowered: &lowered, names: &names, stages: &stages };
    let text = match args.output {
        Format::Human => journey.words(terminal::stdout()),
        Format::Json => serde_json::to_string_pretty(&journey.written())? + "\n",
    };
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(if journey.refusal().is_none() { ExitCode::SUCCESS } else { ExitCode::from(REFUSED) })
}

/// Who the application is.
fn party(args: &FilterTestArgs, host: &HostNames) -> Result<Party, TestError> {
    let account = |what, given: Option<&String>, find: &dyn Fn(&str) -> Option<u32>| {
        let Some(name) = given else { return Ok(0) };
        let number = name.parse().ok().or_else(|| find(name));
        number.ok_or_else(|| TestError::Nobody { what, name: name.clone() })
    };
    Ok(Party {
        exe: args.exe.clone(),
        command: args.command.clone(),
        uid: account("user", args.user.as_ref(), &|name| host.user(name))?,
        gid: account("group", args.group.as_ref(), &|name| host.group(name))?,
        cgroup: args.cgroup.clone(),
    })
}

/// What the application is called.
fn application(args: &FilterTestArgs) -> String {
    args.exe.clone().or_else(|| args.command.clone()).unwrap_or_else(|| "the application".to_owned())
}

fn stages(
    args: &FilterTestArgs,
    policy: &Policy,
    caller: Process,
    paper: &Paper<'_>,
) -> Result<Vec<Stage>, TestError> {
    let absent = services(&args.absent, policy)?;
    let availability = |id| match absent.contains(&id) {
        true => Availability::Absent,
        false => Availability::Available,
    };
    let world = World {
        availability: policy
            .services()
            .iter()
            .map(|service| (service.id, availability(service.id)))
            .collect(),
        cgroups: paper.hierarchy(),
        ..World::default()
    };
    let protocol = match args.protocol {
        Transport::Tcp => Protocol::Tcp,
        Transport::Udp => Protocol::Udp,
    };
    let had = services(&args.chain, policy)?;
    let caller_now = had.last().map_or(caller, |last| dialler(*last));
    let local = args.from.map(|ip| (ip, 0).into());
    let leg = Leg { protocol, local, remote: args.to, caller: caller_now };
    Ok(follow(policy, &leg, &records(&had, policy, caller)?, &world, dialler))
}

/// A process of a service, of which nothing more is known.
fn dialler(service: ServiceId) -> Process {
    Process { service: Some(service), ..Process::default() }
}

/// Those of a connection that these services have had, by whichever of their filters comes first.
fn records(had: &[ServiceId], policy: &Policy, application: Process) -> Result<Records, TestError> {
    if had.is_empty() {
        return Ok(Records::None);
    }
    let hop = |service: &ServiceId| {
        let filter = policy.redirect_filters(*service).next()?.id;
        Some(Hop { service: *service, filter })
    };
    let excluded = had.iter().copied().collect();
    Ok(Records::Carried(Chain::new(had.iter().filter_map(hop).collect(), excluded, Some(application))?))
}

fn services(names: &[String], policy: &Policy) -> Result<Vec<ServiceId>, TestError> {
    let find = |name: &String| {
        let known = policy.services().iter().map(|service| service.name.as_str());
        let found = policy.services().iter().find(|service| service.name == *name);
        found.map(|service| service.id).ok_or_else(|| TestError::UnknownService {
            name: name.clone(),
            meant: meant(name, known).map(str::to_owned),
        })
    };
    names.iter().map(find).collect()
}

/// A connection from its application to its end.
struct Journey<'a> {
    application: String,
    lowered: &'a Lowered,
    names: &'a FileNames<'a>,
    stages: &'a [Stage],
}

#[derive(Serialize)]
struct Written {
    permitted: bool,
    /// What connect() returns, where it is refused.
    errno: Option<String>,
    /// Those it goes through from here on, in order.
    services: Vec<String>,
    stages: Vec<WrittenStage>,
}

#[derive(Serialize)]
struct WrittenStage {
    from: String,
    to: String,
    verdict: &'static str,
    service: Option<String>,
    filter: Option<String>,
    reason: Option<String>,
    trace: Vec<String>,
}

impl Journey<'_> {
    fn words(&self, paint: Paint) -> String {
        let mut text = String::new();
        for stage in self.stages {
            let Leg { protocol, remote, .. } = stage.leg;
            let from = paint.paint(Colour::Bold, &self.dialler(stage));
            text += &format!("{from} -> {remote} ({protocol})\n");
            for step in self.trace(stage) {
                text += &format!("    {step}\n");
            }
            text += &format!("  {}\n", self.verdict(stage));
        }
        text + &self.summary(paint) + "\n"
    }

    fn summary(&self, paint: Paint) -> String {
        let through = self.through();
        let through = if through.is_empty() {
            "directly".to_owned()
        } else {
            format!("through {}", through.join(", "))
        };
        match self.refusal() {
            None => format!("{}, {through}", paint.paint(Colour::Green, "permitted")),
            Some((_, reason)) => format!("{}: {reason}", paint.paint(Colour::Red, "refused")),
        }
    }

    fn verdict(&self, stage: &Stage) -> String {
        match &stage.decision.verdict {
            Verdict::Direct => "goes to the destination".to_owned(),
            Verdict::Redirect { service, .. } => format!("goes to {}", self.names.service(*service)),
            Verdict::Refuse(refusal) => format!("fails with {}", refusal.errno()),
        }
    }

    fn written(&self) -> Written {
        Written {
            permitted: self.refusal().is_none(),
            errno: self.refusal().map(|(errno, _)| errno),
            services: self.through(),
            stages: self.stages.iter().map(|stage| self.write(stage)).collect(),
        }
    }

    fn write(&self, stage: &Stage) -> WrittenStage {
        let (verdict, service, filter, reason) = match &stage.decision.verdict {
            Verdict::Direct => ("direct", None, None, None),
            Verdict::Redirect { service, filter, .. } => {
                ("redirect", Some(self.name(*service)), Some(self.names.filter(*filter)), None)
            }
            Verdict::Refuse(refusal) => ("refuse", None, None, Some(refusal.explain(self.names).to_string())),
        };
        let trace = self.trace(stage);
        WrittenStage {
            from: self.dialler(stage),
            to: stage.leg.remote.to_string(),
            verdict,
            service,
            filter,
            reason,
            trace,
        }
    }

    fn trace(&self, stage: &Stage) -> Vec<String> {
        stage.decision.trace.explain(self.names).to_string().lines().map(str::to_owned).collect()
    }

    fn dialler(&self, stage: &Stage) -> String {
        stage.leg.caller.service.map_or_else(|| self.application.clone(), |service| self.name(service))
    }

    fn name(&self, service: ServiceId) -> String {
        self.lowered
            .policy
            .service(service)
            .map_or_else(|| service.to_string(), |service| service.name.clone())
    }

    fn through(&self) -> Vec<String> {
        let mut seen = BTreeSet::new();
        let taken = self.stages.iter().filter_map(|stage| match &stage.decision.verdict {
            Verdict::Redirect { service, .. } => Some(*service),
            Verdict::Direct | Verdict::Refuse(_) => None,
        });
        taken.filter(|service| seen.insert(*service)).map(|service| self.name(service)).collect()
    }

    /// The error and the reason, if it does not get there.
    fn refusal(&self) -> Option<(String, String)> {
        match &self.stages.last()?.decision.verdict {
            Verdict::Refuse(refusal) => {
                Some((refusal.errno().to_string(), refusal.explain(self.names).to_string()))
            }
            Verdict::Direct | Verdict::Redirect { .. } => None,
        }
    }
}
