//! Services.

use waylay_core::{FailurePolicy, Protocol};

use super::conditions::{account, cgroup, executable, protocol, unit};
use super::table::{Problems, Scalar, Table, string, word};
use crate::declaration::{AdoptedIdentity, Builtin, DestinationBy, ServiceDeclaration, ServiceKind};
use crate::problem::{Diagnostic, Problem};
use crate::source::Located;
use crate::values;

const IDENTITIES: [&str; 4] = ["unit", "cgroup", "exe", "user"];

pub(super) fn read(
    name: Located<String>,
    table: &Table<'_>,
    problems: &mut Problems,
) -> Option<ServiceDeclaration> {
    let failures = [FailurePolicy::Closed, FailurePolicy::Open];
    let on_failure = table.one("on_failure", problems, |value| word(value, &["closed", "open"], &failures));
    let before = names(table, "before", problems);
    let after = names(table, "after", problems);
    let kind = kind(table, problems)?;
    let transports = table.list("protocol", problems, protocol).map(|protocols| protocols.value);
    Some(ServiceDeclaration {
        name,
        transports: transports.unwrap_or_else(|| default_transports(&kind)),
        kind,
        before,
        after,
        on_failure: on_failure.unwrap_or(FailurePolicy::Closed),
    })
}

fn default_transports(kind: &ServiceKind) -> Vec<Protocol> {
    match kind {
        ServiceKind::Builtin(Builtin::Log | Builtin::Scan) => vec![Protocol::Tcp, Protocol::Udp],
        ServiceKind::Cooperating { .. } | ServiceKind::Adopted { .. } => vec![Protocol::Tcp],
    }
}

fn names(table: &Table<'_>, key: &str, problems: &mut Problems) -> Vec<Located<String>> {
    let read = |value: Scalar<'_>| Ok(string(value)?.map(str::to_owned));
    table.list(key, problems, read).map(|names| names.value).unwrap_or_default()
}

fn kind(table: &Table<'_>, problems: &mut Problems) -> Option<ServiceKind> {
    let run = table.place("run");
    let command = table.place("command");
    let adopt = table.place("adopt");
    if adopt.is_none() {
        table.misplaced(&["unit", "cgroup", "exe", "user", "destination"], "\"adopt\"", problems);
    }
    match (run, command, adopt) {
        (Some(_), None, None) => {
            let builtins = [Builtin::Log, Builtin::Scan];
            table
                .one("run", problems, |value| word(value, &["log", "scan"], &builtins))
                .map(ServiceKind::Builtin)
        }
        (None, Some(_), None) => {
            let command = table.one("command", problems, text)?;
            Some(ServiceKind::Cooperating { command })
        }
        (None, _, Some(_)) => adopted(table, problems),
        (Some(run), Some(_), _) => {
            problems.push(Problem::Exclusive { first: "run", second: "command" }.at(run));
            None
        }
        (Some(run), None, Some(_)) => {
            problems.push(Problem::Exclusive { first: "run", second: "adopt" }.at(run));
            None
        }
        (None, None, None) => {
            let help = "say \"run\", \"command\" or \"adopt\": what the service is".to_owned();
            problems.push(table.missing("run").help(help));
            None
        }
    }
}

fn adopted(table: &Table<'_>, problems: &mut Problems) -> Option<ServiceKind> {
    let listener = |value: Scalar<'_>| {
        let text = string(value)?;
        values::listener(text.value).map_err(|problem| problem.at(&text.span))
    };
    let listeners = table.list("adopt", problems, listener)?.value;
    let destinations = [DestinationBy::Option, DestinationBy::LocalName, DestinationBy::Packet];
    let destination = table
        .one("destination", problems, |value| word(value, &["option", "local", "packet"], &destinations));
    let identity = identity(table, problems)?;
    Some(ServiceKind::Adopted { listeners, identity, destination: destination.unwrap_or_default() })
}

/// Exactly one of those there are.
fn identity(table: &Table<'_>, problems: &mut Problems) -> Option<AdoptedIdentity> {
    let given: Vec<&'static str> =
        ["command"].into_iter().chain(IDENTITIES).filter(|key| table.place(key).is_some()).collect();
    match given[..] {
        [] => {
            let help =
                "or say by \"unit\", \"cgroup\", \"exe\" or \"user\" which running process it is".to_owned();
            problems.push(table.missing("command").help(help));
            None
        }
        ["command"] => {
            table.one("command", problems, text).map(|command| AdoptedIdentity::Started { command })
        }
        ["unit"] => table.one("unit", problems, unit).map(AdoptedIdentity::Unit),
        ["cgroup"] => table.one("cgroup", problems, cgroup).map(AdoptedIdentity::Cgroup),
        ["exe"] => table.one("exe", problems, one_executable).map(AdoptedIdentity::Exe),
        ["user"] => table.one("user", problems, account).map(AdoptedIdentity::User),
        [first, second, ..] => {
            let span = table.place(second)?;
            problems.push(Problem::Exclusive { first, second }.at(span));
            None
        }
        [_] => None,
    }
}

/// One file, and not those that a pattern covers.
fn one_executable(value: Scalar<'_>) -> Result<Located<String>, Diagnostic> {
    let Located { value: pattern, span } = executable(value)?;
    let path = pattern.as_str().to_owned();
    if pattern.has_wildcards() {
        return Err(Problem::Pattern { pattern: path, reason: "one file is wanted" }.at(&span));
    }
    Ok(Located { value: path, span })
}

fn text(value: Scalar<'_>) -> Result<String, Diagnostic> {
    Ok(string(value)?.value.to_owned())
}
