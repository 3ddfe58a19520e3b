//! From the SPECs that were typed to the services of a run.

use std::{collections::BTreeMap, ffi::OsString, fmt};

use thiserror::Error;
use waylay_host::ServiceSpec;

/// The hidden subcommand of a built-in service's process.
pub(crate) const SERVE_SUBCOMMAND: &str = "__serve";
/// The kernel keeps names of at most this many bytes.
const LONGEST_NAME: usize = 31;

/// A service that comes with waylay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Builtin {
    Log,
}

impl Builtin {
    const ALL: [Self; 1] = [Self::Log];

    pub(crate) fn parse(spec: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|builtin| builtin.name() == spec).ok_or_else(|| unknown(spec))
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Log => "log",
        }
    }
}

impl fmt::Display for Builtin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

fn unknown(spec: &str) -> String {
    let known = Builtin::ALL.map(Builtin::name).join(", ");
    match spec.split_once(':') {
        Some((kind @ ("exec" | "adopt"), _)) => {
            format!("{kind}: services are not there yet; known services: {known}")
        }
        Some(_) | None => format!("no such service; known services: {known}"),
    }
}

/// Why the SPECs make no chain.
#[derive(Debug, PartialEq, Eq, Error)]
pub(crate) enum ChainError {
    /// `--forget` names nobody.
    #[error("--forget {name}: no such service in this chain; it has {}", known.join(", "))]
    NoSuchService { name: String, known: Vec<String> },
    /// The name outgrew what the kernel side holds.
    #[error("the name {name:?} is longer than {LONGEST_NAME} bytes")]
    NameTooLong { name: String },
}

/// The services of a run, each with a name of its own: log, log-2, log-3, …
pub(crate) fn services(through: &[Builtin], forget: &[String]) -> Result<Vec<ServiceSpec>, ChainError> {
    let through = if through.is_empty() { &[Builtin::Log] } else { through };
    let names = names(through);
    if let Some(name) = forget.iter().find(|name| !names.contains(name)) {
        return Err(ChainError::NoSuchService { name: name.clone(), known: names });
    }
    if let Some(name) = names.iter().find(|name| name.len() > LONGEST_NAME) {
        return Err(ChainError::NameTooLong { name: name.clone() });
    }
    Ok(through.iter().zip(names).map(|(builtin, name)| service(*builtin, forget.contains(&name), name)).collect())
}

fn names(through: &[Builtin]) -> Vec<String> {
    let mut seen = BTreeMap::new();
    let number = |builtin: &Builtin| {
        let count = seen.entry(builtin.name()).and_modify(|count| *count += 1).or_insert(1);
        match *count {
            1 => builtin.name().to_owned(),
            count => format!("{}-{count}", builtin.name()),
        }
    };
    through.iter().map(number).collect()
}

fn service(builtin: Builtin, forgets: bool, name: String) -> ServiceSpec {
    let mut command: Vec<OsString> =
        [SERVE_SUBCOMMAND, builtin.name(), "--name", &name].into_iter().map(OsString::from).collect();
    if forgets {
        command.push("--forget".into());
    }
    ServiceSpec { name, builtin: true, command }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_spec_there_is_one_log() {
        let services = services(&[], &[]).unwrap();
        assert_eq!(services.iter().map(|service| service.name.as_str()).collect::<Vec<_>>(), ["log"]);
    }

    #[test]
    fn the_same_service_twice_has_two_names_and_either_may_forget() {
        let services = services(&[Builtin::Log, Builtin::Log], &["log-2".into()]).unwrap();
        assert_eq!(services[0].command, ["__serve", "log", "--name", "log"]);
        assert_eq!(services[1].command, ["__serve", "log", "--name", "log-2", "--forget"]);
    }

    #[test]
    fn forgetting_needs_a_service_of_that_name() {
        let error = services(&[Builtin::Log], &["scan".into()]).unwrap_err();
        assert_eq!(error.to_string(), "--forget scan: no such service in this chain; it has log");
    }

    #[test]
    fn an_unknown_spec_lists_the_known_ones() {
        assert_eq!(Builtin::parse("lgo").unwrap_err(), "no such service; known services: log");
        assert_eq!(
            Builtin::parse("exec:cat").unwrap_err(),
            "exec: services are not there yet; known services: log"
        );
    }
}
