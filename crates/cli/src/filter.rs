//! `waylay filter test`: what a policy makes of a connection that nobody has made yet.

use std::{
    error::Error,
    io::{self, Write},
    process::ExitCode,
};

use thiserror::Error;
use waylay_config::{
    FileNames, Names, Severity, lower, meant,
    paper::{Paper, Party},
    read,
};
use waylay_core::{
    Availability, Chain, ChainError, Confinement, Hop, HostName, HostNameError, Leg, Namespace, Policy,
    Process, Protocol, Records, ServiceId, Stage, World, follow,
};
use waylay_daemon::journey::Journey;
use waylay_host::names::HostNames;

use crate::{
    args::{FilterCommand, FilterTestArgs, Format, Transport},
    control,
    journey::words,
    policy::{self, Count, PolicyFileError},
    terminal,
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
    /// Not a name of a host.
    #[error("{name:?} is no name of a host: {error}")]
    HostName {
        /// The text.
        name: String,
        /// What is wrong with it.
        error: HostNameError,
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
        FilterCommand::Ls(args) => control::filters(args),
        FilterCommand::Add(args) => control::add_filter(args),
        FilterCommand::Rm(args) => control::remove_filter(args),
    }
}

fn test(args: &FilterTestArgs) -> Result<ExitCode, Box<dyn Error>> {
    let sources = policy::sources(&args.policy)?;
    let host = HostNames::new();
    let party = party(args, &host)?;
    let mut paper = Paper::new(&host);
    let caller = paper.process(&party);
    let namespace = paper.add_namespace(&args.network_namespace);
    let (declarations, mut diagnostics) = read(&sources);
    let Some(lowered) = lower(&declarations, &paper, &mut diagnostics) else {
        terminal::say(policy::words(&diagnostics, &sources, terminal::stderr()).trim_end());
        let errors = Count(policy::count(&diagnostics, Severity::Error));
        return Err(PolicyFileError::Wrong { path: args.policy.clone(), errors }.into());
    };
    let world = world(args, &lowered.policy, namespace, &paper)?;
    let stages = stages(args, &lowered.policy, caller, &world)?;
    let names = FileNames { lowered: &lowered, sources: &sources };
    let called =
        |id| lowered.policy.service(id).map_or_else(|| id.to_string(), |service| service.name.clone());
    let journey = Journey::new(&application(args), &stages, &called, &names);
    let text = match args.output {
        Format::Human => words(&journey, terminal::stdout()),
        Format::Json => serde_json::to_string_pretty(&journey)? + "\n",
    };
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(if journey.permitted { ExitCode::SUCCESS } else { ExitCode::from(REFUSED) })
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

fn world(
    args: &FilterTestArgs,
    policy: &Policy,
    namespace: Namespace,
    paper: &Paper<'_>,
) -> Result<World, TestError> {
    let absent = services(&args.absent, policy)?;
    let availability = |id| match absent.contains(&id) {
        true => Availability::Absent,
        false => Availability::Available,
    };
    let name = |name: &String| {
        HostName::new(name).map_err(|error| TestError::HostName { name: name.clone(), error })
    };
    let hosts: Vec<HostName> = args.host.iter().map(name).collect::<Result<_, _>>()?;
    Ok(World {
        namespace,
        hosts: hosts.iter().flat_map(HostName::patterns).collect(),
        availability: policy
            .services()
            .iter()
            .map(|service| (service.id, availability(service.id)))
            .collect(),
        cgroups: paper.hierarchy(),
        confinement: if args.sandboxed { Confinement::Sandboxed } else { Confinement::Free },
        ..World::default()
    })
}

fn stages(
    args: &FilterTestArgs,
    policy: &Policy,
    caller: Process,
    world: &World,
) -> Result<Vec<Stage>, TestError> {
    let protocol = match args.protocol {
        Transport::Tcp => Protocol::Tcp,
        Transport::Udp => Protocol::Udp,
    };
    let had = services(&args.chain, policy)?;
    let caller_now = had.last().map_or(caller, |last| dialler(*last));
    let local = args.from.map(|ip| (ip, 0).into());
    let leg = Leg { protocol, local, remote: args.to, caller: caller_now };
    Ok(follow(policy, &leg, &records(&had, policy, caller)?, world, dialler))
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
