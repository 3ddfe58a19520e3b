//! From the SPECs that were typed to the services of a run.

use std::{collections::BTreeMap, ffi::OsString};

use clap::ValueEnum;
use thiserror::Error;
use waylay_host::ServiceSpec;

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
}

const KNOWN: &str = "log, exec:COMMAND";

impl Spec {
    pub(crate) fn parse(spec: &str) -> Result<Self, String> {
        match spec.split_once(':') {
            None if spec == Builtin::Log.name() => Ok(Self::Builtin(Builtin::Log)),
            Some(("exec", command)) if !command.trim().is_empty() => {
                Ok(Self::Exec(command.trim().to_owned()))
            }
            Some(("exec", _)) => Err("exec: needs a command, as in exec:./my-service".to_owned()),
            Some(("adopt", _)) => Err(format!("adopt: is not there yet; known services: {KNOWN}")),
            Some(_) | None => Err(format!("no such service; known services: {KNOWN}")),
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
        }
    }
}

/// Why the SPECs make no chain.
#[derive(Debug, PartialEq, Eq, Error)]
pub(crate) enum ChainError {
    /// `--forget` names nobody.
    #[error("--forget {name}: no built-in service of that name in this chain; it has {}", known.join(", "))]
    NoSuchService { name: String, known: Vec<String> },
    /// The name outgrew what the kernel side holds.
    #[error("the name {name:?} is longer than {LONGEST_NAME} bytes")]
    NameTooLong { name: String },
}

/// The services of a run, each with a name of its own: log, log-2, log-3, …
pub(crate) fn services(through: &[Spec], forget: &[String]) -> Result<Vec<ServiceSpec>, ChainError> {
    let through = if through.is_empty() { &[Spec::Builtin(Builtin::Log)] } else { through };
    let names = names(through);
    if let Some(name) = names.iter().find(|name| name.len() > LONGEST_NAME) {
        return Err(ChainError::NameTooLong { name: name.clone() });
    }
    let builtins: Vec<&String> = through
        .iter()
        .zip(&names)
        .filter_map(|(spec, name)| matches!(spec, Spec::Builtin(_)).then_some(name))
        .collect();
    if let Some(name) = forget.iter().find(|name| !builtins.contains(name)) {
        let known = builtins.into_iter().cloned().collect();
        return Err(ChainError::NoSuchService { name: name.clone(), known });
    }
    Ok(through.iter().zip(names).map(|(spec, name)| service(spec, forget.contains(&name), name)).collect())
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

fn service(spec: &Spec, forgets: bool, name: String) -> ServiceSpec {
    let (builtin, command) = match spec {
        Spec::Builtin(builtin) => (true, builtin_command(*builtin, forgets, &name)),
        Spec::Exec(command) => (false, vec!["/bin/sh".into(), "-c".into(), format!("exec {command}").into()]),
    };
    ServiceSpec { name, builtin, command }
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

    #[test]
    fn without_a_spec_there_is_one_log() {
        let services = services(&[], &[]).unwrap();
        assert_eq!(services.iter().map(|service| service.name.as_str()).collect::<Vec<_>>(), ["log"]);
    }

    #[test]
    fn the_same_service_twice_has_two_names_and_either_may_forget() {
        let services = services(&parse(&["log", "log"]), &["log-2".into()]).unwrap();
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
        let error = services(&parse(&["log", "exec:guard"]), &["guard".into()]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "--forget guard: no built-in service of that name in this chain; it has log"
        );
    }

    #[test]
    fn an_unknown_spec_lists_the_known_ones() {
        assert_eq!(Spec::parse("lgo").unwrap_err(), "no such service; known services: log, exec:COMMAND");
        assert_eq!(Spec::parse("exec: ").unwrap_err(), "exec: needs a command, as in exec:./my-service");
    }
}
