//! From the SPECs that were typed to the services of a run.

use std::{collections::BTreeMap, ffi::OsString};

use clap::ValueEnum;
use thiserror::Error;
use waylay_host::ServiceSpec;
use waylay_inspect::scan::Patterns;

use crate::{meant::meant, patterns::PatternsError};

/// The hidden subcommand of a built-in service's process.
pub(crate) const SERVE_SUBCOMMAND: &str = "__serve";
/// The kernel keeps names of at most this many bytes.
const LONGEST_NAME: usize = 31;

/// A service as it was typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Spec {
    /// One that comes with waylay.
    Builtin(Builtin),
    /// A program that cooperates, started by the shell.
    Exec(String),
}

/// A service that comes with waylay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Builtin {
    /// Lets everything pass and reports it
    Log,
    /// Ends a connection in which a pattern passes
    Scan,
}

const KNOWN: &str = "log, scan, exec:COMMAND";
/// What a SPEC can begin with.
const BEGINNINGS: [&str; 3] = ["log", "scan", "exec:"];

impl Spec {
    pub(crate) fn parse(spec: &str) -> Result<Self, String> {
        if let Some(builtin) = Builtin::named(spec) {
            return Ok(Self::Builtin(builtin));
        }
        match spec.split_once(':') {
            Some(("exec", command)) if !command.trim().is_empty() => {
                Ok(Self::Exec(command.trim().to_owned()))
            }
            Some(("exec", _)) => Err("exec: needs a command, as in exec:./my-service".to_owned()),
            Some(("adopt", _)) => Err(format!("adopt: is not there yet; known services: {KNOWN}")),
            Some(_) | None => {
                let beginning = spec.split_inclusive(':').next().unwrap_or(spec);
                let meant = meant(beginning, BEGINNINGS)
                    .map_or_else(String::new, |name| format!(" (is {name} meant?)"));
                Err(format!("no such service{meant}; known services: {KNOWN}"))
            }
        }
    }

    /// What its name in chains starts with.
    fn stem(&self) -> &str {
        match self {
            Self::Builtin(builtin) => builtin.name(),
            Self::Exec(command) => {
                let program = command.split_whitespace().next().unwrap_or("exec");
                program.rsplit('/').next().unwrap_or(program)
            }
        }
    }
}

impl Builtin {
    const fn name(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::Scan => "scan",
        }
    }

    fn named(name: &str) -> Option<Self> {
        [Self::Log, Self::Scan].into_iter().find(|builtin| builtin.name() == name)
    }
}

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
    let through = if through.is_empty() { &[Spec::Builtin(Builtin::Log)] } else { through };
    let names = names(through);
    if let Some(name) = names.iter().find(|name| name.len() > LONGEST_NAME) {
        return Err(ChainError::NameTooLong { name: name.clone() });
    }
    check_forgotten(through, &names, forget)?;
    let patterns = patterns(through, pattern)?;
    let service = |(spec, name)| service(spec, forget.contains(&name), &patterns, name);
    Ok(through.iter().zip(names).map(service).collect())
}

fn check_forgotten(through: &[Spec], names: &[String], forget: &[String]) -> Result<(), ChainError> {
    let builtins: Vec<&String> = through
        .iter()
        .zip(names)
        .filter_map(|(spec, name)| matches!(spec, Spec::Builtin(_)).then_some(name))
        .collect();
    match forget.iter().find(|name| !builtins.contains(name)) {
        Some(name) => {
            let known = builtins.into_iter().cloned().collect();
            Err(ChainError::NoSuchService { name: name.clone(), known })
        }
        None => Ok(()),
    }
}

fn patterns(through: &[Spec], pattern: &[OsString]) -> Result<Patterns, ChainError> {
    if !pattern.is_empty() && !through.contains(&Spec::Builtin(Builtin::Scan)) {
        return Err(ChainError::NothingScans);
    }
    let patterns = crate::patterns::read(pattern)?;
    Ok(patterns)
}

fn names(through: &[Spec]) -> Vec<String> {
    let mut seen = BTreeMap::new();
    let number = |spec: &Spec| {
        let stem = spec.stem();
        let count = seen.entry(stem.to_owned()).and_modify(|count| *count += 1).or_insert(1);
        match *count {
            1 => stem.to_owned(),
            count => format!("{stem}-{count}"),
        }
    };
    through.iter().map(number).collect()
}

fn service(spec: &Spec, forgets: bool, patterns: &Patterns, name: String) -> ServiceSpec {
    let input = match spec {
        Spec::Builtin(Builtin::Scan) => patterns.encode(),
        Spec::Builtin(Builtin::Log) | Spec::Exec(_) => Vec::new(),
    };
    let (builtin, command) = match spec {
        Spec::Builtin(builtin) => (true, builtin_command(*builtin, forgets, &name)),
        Spec::Exec(command) => (false, vec!["/bin/sh".into(), "-c".into(), format!("exec {command}").into()]),
    };
    ServiceSpec { name, builtin, command, input }
}

fn builtin_command(builtin: Builtin, forgets: bool, name: &str) -> Vec<OsString> {
    let mut command: Vec<OsString> =
        [SERVE_SUBCOMMAND, builtin.name(), "--name", name].into_iter().map(OsString::from).collect();
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
    fn only_a_built_in_service_of_the_chain_can_be_made_to_forget() {
        let error = services(&parse(&["log", "exec:guard"]), &["guard"]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "--forget guard: no built-in service of that name in this chain; it has log"
        );
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

    #[test]
    fn an_unknown_spec_lists_the_known_ones_and_the_one_that_may_be_meant() {
        let known = "known services: log, scan, exec:COMMAND";
        assert_eq!(Spec::parse("proxy").unwrap_err(), format!("no such service; {known}"));
        for (spec, meant) in [("lgo", "log"), ("scna", "scan"), ("exce:./guard", "exec:")] {
            let error = Spec::parse(spec).unwrap_err();
            assert_eq!(error, format!("no such service (is {meant} meant?); {known}"));
        }
        assert_eq!(Spec::parse("exec: ").unwrap_err(), "exec: needs a command, as in exec:./my-service");
    }
}
