//! From the SPECs that were typed to the services of a run.

use std::{collections::BTreeSet, ffi::OsString, net::SocketAddr};

use thiserror::Error;
use waylay_daemon::declared::shell_command;
use waylay_host::{Adoption, ServiceSpec};
use waylay_inspect::scan::Patterns;

use crate::{
    patterns::PatternsError,
    spec::{Builtin, LONGEST_NAME, Service, Spec},
};

pub(crate) use waylay_daemon::declared::SERVE_SUBCOMMAND;

/// Why the SPECs make no chain.
#[derive(Debug, Error)]
pub(crate) enum ChainError {
    /// `--forget` names nobody.
    #[error("--forget {name}: no built-in service of that name in this chain; it has {}", known.join(", "))]
    NoSuchService { name: String, known: Vec<String> },
    /// `--pattern` without anybody to look for it.
    #[error("--pattern: no scan in this chain; add --through scan")]
    NothingScans,
    /// What `scan` is to look for.
    #[error(transparent)]
    Patterns(#[from] PatternsError),
    /// One name for two services.
    #[error("two services are called {name}")]
    NameTaken { name: String },
    /// One place for two services that listen by themselves.
    #[error(
        "the services {one} and {other} cannot both listen on port {port}: each has to have a place of its own"
    )]
    AddressTaken { one: String, other: String, port: u16 },
    /// The name outgrew what the kernel side holds.
    #[error("the name {name:?} is longer than {LONGEST_NAME} bytes")]
    NameTooLong { name: String },
}

/// The services of a run, each with a name of its own: log, log-2, log-3, …
pub(crate) fn services(
    through: &[Spec],
    forget: &[String],
    pattern: &[OsString],
) -> Result<Vec<ServiceSpec>, ChainError> {
    let through = if through.is_empty() { &[Spec::from(Builtin::Log)] } else { through };
    let names = names(through)?;
    if let Some(name) = names.iter().find(|name| name.len() > LONGEST_NAME) {
        return Err(ChainError::NameTooLong { name: name.clone() });
    }
    check_forgotten(through, &names, forget)?;
    check_addresses(through, &names)?;
    let patterns = patterns(through, pattern)?;
    let service = |(spec, name)| service(spec, forget.contains(&name), &patterns, name);
    Ok(through.iter().zip(names).map(service).collect())
}

/// Has each ready-made service take flows for ended after so many seconds without a datagram.
pub(crate) fn end_idle_flows_after(services: &mut [ServiceSpec], seconds: u64) {
    for service in services.iter_mut().filter(|service| service.builtin) {
        service.command.extend(["--idle".into(), seconds.to_string().into()]);
    }
}

fn check_forgotten(through: &[Spec], names: &[String], forget: &[String]) -> Result<(), ChainError> {
    let builtins: Vec<&String> = through
        .iter()
        .zip(names)
        .filter_map(|(spec, name)| matches!(spec.service, Service::Builtin { .. }).then_some(name))
        .collect();
    match forget.iter().find(|name| !builtins.contains(name)) {
        Some(name) => {
            let known = builtins.into_iter().cloned().collect();
            Err(ChainError::NoSuchService { name: name.clone(), known })
        }
        None => Ok(()),
    }
}

fn check_addresses(through: &[Spec], names: &[String]) -> Result<(), ChainError> {
    let mut taken: Vec<(SocketAddr, &String)> = Vec::new();
    for (spec, name) in through.iter().zip(names) {
        let Some(adoption) = adoption(&spec.service) else { continue };
        let clash = |&&(other, _): &&(SocketAddr, &String)| {
            adoption.listens.iter().any(|&address| overlap(address, other))
        };
        if let Some(&(address, one)) = taken.iter().find(clash) {
            let (one, other, port) = (one.clone(), name.clone(), address.port());
            return Err(ChainError::AddressTaken { one, other, port });
        }
        taken.extend(adoption.listens.iter().map(|&address| (address, name)));
    }
    Ok(())
}

/// Of `[::]` it depends on the program whether IPv4 is its too.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let everywhere = one.ip().is_unspecified() || other.ip().is_unspecified();
    let meet = one.ip() == other.ip() || everywhere && one.is_ipv4() == other.is_ipv4();
    meet && one.port() == other.port()
}

fn patterns(through: &[Spec], pattern: &[OsString]) -> Result<Patterns, ChainError> {
    if !pattern.is_empty() && !through.iter().any(scans) {
        return Err(ChainError::NothingScans);
    }
    let patterns = crate::patterns::read(pattern)?;
    Ok(patterns)
}

fn scans(spec: &Spec) -> bool {
    matches!(spec.service, Service::Builtin { builtin: Builtin::Scan, .. })
}

/// Those that were given, and for the others the first that is free of log, log-2, log-3, …
fn names(through: &[Spec]) -> Result<Vec<String>, ChainError> {
    let mut taken = BTreeSet::new();
    for name in through.iter().filter_map(|spec| spec.name.clone()) {
        if !taken.insert(name.clone()) {
            return Err(ChainError::NameTaken { name });
        }
    }
    let mut choose = |spec: &Spec| {
        let stem = spec.stem();
        let numbered = (2..).map(|number| format!("{stem}-{number}"));
        let free = std::iter::once(stem.clone()).chain(numbered).find(|name| !taken.contains(name));
        let name = free.unwrap_or(stem);
        taken.insert(name.clone());
        name
    };
    Ok(through.iter().map(|spec| spec.name.clone().unwrap_or_else(|| choose(spec))).collect())
}

fn service(spec: &Spec, forgets: bool, patterns: &Patterns, name: String) -> ServiceSpec {
    let input = match spec.service {
        Service::Builtin { builtin: Builtin::Scan, .. } => patterns.encode(),
        Service::Builtin { builtin: Builtin::Log, .. } | Service::Exec { .. } | Service::Adopt { .. } => {
            Vec::new()
        }
    };
    let (builtin, transports, command) = match &spec.service {
        Service::Builtin { builtin, transports } => {
            (true, *transports, builtin_command(*builtin, forgets, &name))
        }
        Service::Adopt { transports, adoption, .. } if adoption.known_by.is_some() => {
            (false, *transports, Vec::new())
        }
        Service::Exec { transports, command } | Service::Adopt { transports, command, .. } => {
            (false, *transports, shell_command(command))
        }
    };
    let adoption = adoption(&spec.service).cloned();
    ServiceSpec { name, transports, builtin, command, input, identity: None, leave_within: None, adoption }
}

fn adoption(service: &Service) -> Option<&Adoption> {
    match service {
        Service::Builtin { .. } | Service::Exec { .. } => None,
        Service::Adopt { adoption, .. } => Some(adoption),
    }
}

fn builtin_command(builtin: Builtin, forgets: bool, name: &str) -> Vec<OsString> {
    let mut command = waylay_daemon::declared::builtin_command(builtin.name(), name);
    if forgets {
        command.push("--forget".into());
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(specs: &[&str]) -> Vec<Spec> {
        specs.iter().map(|spec| Spec::parse(spec).unwrap()).collect()
    }

    fn services(through: &[Spec], forget: &[&str]) -> Result<Vec<ServiceSpec>, ChainError> {
        let forget: Vec<String> = forget.iter().map(|name| (*name).to_owned()).collect();
        super::services(through, &forget, &[])
    }

    #[test]
    fn without_a_spec_there_is_one_log() {
        let services = services(&[], &[]).unwrap();
        assert_eq!(services.iter().map(|service| service.name.as_str()).collect::<Vec<_>>(), ["log"]);
    }

    #[test]
    fn the_same_service_twice_has_two_names_and_either_may_forget() {
        let services = services(&parse(&["log", "log"]), &["log-2"]).unwrap();
        assert_eq!(services[0].command, ["__serve", "log", "--name", "log"]);
        assert_eq!(services[1].command, ["__serve", "log", "--name", "log-2", "--forget"]);
    }

    #[test]
    fn a_program_is_named_after_its_file() {
        let services = services(&parse(&["exec:/opt/dlp/guard --strict"]), &[]).unwrap();
        assert_eq!(services[0].name, "guard");
        assert_eq!(services[0].command, ["/bin/sh", "-c", "exec /opt/dlp/guard --strict"]);
    }

    #[test]
    fn a_name_that_was_given_is_kept_and_no_other_gets_it() {
        let services =
            services(&parse(&["log", "guard=exec:python3 guard.py", "log-2=scan", "log"]), &[]).unwrap();
        let names: Vec<_> = services.iter().map(|service| service.name.as_str()).collect();
        assert_eq!(names, ["log", "guard", "log-2", "log-3"]);
        assert_eq!(services[1].command, ["/bin/sh", "-c", "exec python3 guard.py"]);
        let error = super::services(&parse(&["a=log", "a=scan"]), &[], &[]).unwrap_err();
        assert_eq!(error.to_string(), "two services are called a");
    }

    #[test]
    fn only_a_built_in_service_of_the_chain_can_be_made_to_forget() {
        let error = services(&parse(&["log", "exec:guard"]), &["guard"]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "--forget guard: no built-in service of that name in this chain; it has log"
        );
    }

    #[test]
    fn what_is_adopted_has_a_place_that_no_other_has() {
        let chain = parse(&["log", "adopt/tproxy:127.0.0.1:5000=nginx -c x", "adopt:127.0.0.2:5000=haproxy"]);
        let services = services(&chain, &[]).unwrap();
        assert_eq!(services[1].command, ["/bin/sh", "-c", "exec nginx -c x"]);
        let adoption = services[1].adoption.as_ref().unwrap();
        assert_eq!(adoption.listens, ["127.0.0.1:5000".parse().unwrap()]);
        assert_eq!(services[0].adoption, None);
        for other in ["adopt:127.0.0.1:5000=haproxy", "adopt:0.0.0.0:5000=haproxy"] {
            let error =
                super::services(&parse(&["adopt:127.0.0.1:5000=nginx", other]), &[], &[]).unwrap_err();
            let wanted = "the services nginx and haproxy cannot both listen on port 5000";
            assert!(error.to_string().starts_with(wanted), "{error}");
        }
    }

    #[test]
    fn patterns_go_to_those_that_scan_and_to_nobody_else() {
        let through = parse(&["log", "scan", "exec:guard", "scan"]);
        let services = super::services(&through, &[], &["secret".into()]).unwrap();
        let wanted = Patterns::new([b"secret".to_vec()]).unwrap().encode();
        let inputs: Vec<_> = services.iter().map(|service| service.input.as_slice()).collect();
        assert_eq!(inputs, [&[], wanted.as_slice(), &[], &wanted]);
        assert!(services.iter().flat_map(|service| &service.command).all(|argument| argument != "secret"));
        let error = super::services(&parse(&["log"]), &[], &["secret".into()]).unwrap_err();
        assert_eq!(error.to_string(), "--pattern: no scan in this chain; add --through scan");
    }
}
