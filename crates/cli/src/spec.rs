//! What a SPEC says: a service, and perhaps its name.

use clap::ValueEnum;

use crate::meant::meant;

/// The kernel keeps names of at most this many bytes.
pub(crate) const LONGEST_NAME: usize = 31;

/// A service as it was typed: `[NAME=]SERVICE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Spec {
    /// What it is to be called; else it gets a name after what it is.
    pub(crate) name: Option<String>,
    /// What it is.
    pub(crate) service: Service,
}

/// What a service is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Service {
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
        // Behind the colon a command begins, which may have an equals sign of its own.
        match spec.split_once('=').filter(|(name, _)| !name.contains(':')) {
            Some((name, service)) => {
                check_name(name)?;
                Ok(Self { name: Some(name.to_owned()), service: Service::parse(service)? })
            }
            None => Ok(Self { name: None, service: Service::parse(spec)? }),
        }
    }

    /// What its name in chains starts with, if none was given.
    pub(crate) fn stem(&self) -> String {
        match &self.service {
            Service::Builtin(builtin) => builtin.name().to_owned(),
            Service::Exec(command) => stem(command),
        }
    }
}

impl From<Builtin> for Spec {
    fn from(builtin: Builtin) -> Self {
        Self { name: None, service: Service::Builtin(builtin) }
    }
}

impl Service {
    fn parse(text: &str) -> Result<Self, String> {
        if let Some(builtin) = Builtin::named(text) {
            return Ok(Self::Builtin(builtin));
        }
        match text.split_once(':') {
            Some(("exec", command)) if !command.trim().is_empty() => {
                Ok(Self::Exec(command.trim().to_owned()))
            }
            Some(("exec", _)) => Err("exec: needs a command, as in exec:./my-service".to_owned()),
            Some(("adopt", _)) => Err(format!("adopt: is not there yet; known services: {KNOWN}")),
            Some(_) | None => Err(unknown(text)),
        }
    }
}

impl Builtin {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::Scan => "scan",
        }
    }

    fn named(name: &str) -> Option<Self> {
        [Self::Log, Self::Scan].into_iter().find(|builtin| builtin.name() == name)
    }
}

fn unknown(text: &str) -> String {
    let beginning = text.split_inclusive(':').next().unwrap_or(text);
    let meant = meant(beginning, BEGINNINGS).map_or_else(String::new, |name| format!(" (is {name} meant?)"));
    format!("no such service{meant}; known services: {KNOWN}")
}

fn check_name(name: &str) -> Result<(), String> {
    if name.is_empty() || name.len() > LONGEST_NAME || !name.chars().all(is_of_a_name) {
        return Err(format!("a name has 1 to {LONGEST_NAME} letters, digits, dots, dashes or underscores"));
    }
    Ok(())
}

fn is_of_a_name(character: char) -> bool {
    character.is_ascii_alphanumeric() || ".-_".contains(character)
}

/// The file of a command's program, without what a shell or a terminal could stumble over.
fn stem(command: &str) -> String {
    let program = command.split_whitespace().next().unwrap_or("exec");
    let file = program.trim_matches(['"', '\'']).rsplit('/').next().unwrap_or(program);
    let stem: String = file.chars().map(|c| if is_of_a_name(c) { c } else { '_' }).collect();
    if stem.is_empty() { "exec".to_owned() } else { stem }
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn a_name_is_what_stands_before_the_first_equals_sign() {
        let named = Spec::parse("my-guard.1=exec:MODE=strict guard").unwrap();
        assert_eq!(named.name.as_deref(), Some("my-guard.1"));
        assert_eq!(named.service, Service::Exec("MODE=strict guard".to_owned()));
        assert_eq!(Spec::parse("exec:MODE=strict guard").unwrap().name, None);
        for name in ["", "a b", "a/b", "\u{1b}", "12345678901234567890123456789012"] {
            let error = Spec::parse(&format!("{name}=log")).unwrap_err();
            assert!(error.starts_with("a name has 1 to 31 letters"), "{name}: {error}");
        }
    }

    #[test]
    fn a_program_gives_its_file_as_a_name() {
        for (command, stem) in [
            ("/opt/dlp/guard --strict", "guard"),
            ("\"/opt/dlp/guard\" --strict", "guard"),
            ("./my.service", "my.service"),
            ("/opt/w\u{e4}chter", "w_chter"),
            ("/", "exec"),
        ] {
            assert_eq!(Spec::parse(&format!("exec:{command}")).unwrap().stem(), stem, "{command}");
        }
    }
}
