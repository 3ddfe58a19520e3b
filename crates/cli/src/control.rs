//! Requests to a daemon, and its answers in words.

use std::{
    error::Error,
    fmt::Write as _,
    fs, io,
    io::{Read, Write},
    path::PathBuf,
    process::ExitCode,
};

use serde::Serialize;
use thiserror::Error;
use waylay_daemon::{
    client::{Client, ClientError},
    protocol::{Answer, Changed, Lasting, Request, Source, Target},
};

use crate::{
    args::{
        Adding, Asking, FilterAddArgs, FilterLsArgs, FlowsArgs, Format, Lifetime, ObserveArgs, ReloadArgs,
        RmArgs, ServiceAddArgs, ServiceCommand, ServiceLsArgs, ServiceOrderArgs, StatusArgs,
    },
    daemon::with_lines,
    output::{complain, notice},
    terminal,
};

/// The daemon says no.
pub(crate) const REFUSED: u8 = 1;

/// What is to be added cannot be read.
#[derive(Debug, Error)]
#[error("cannot read {}", path.display())]
struct TextError {
    path: PathBuf,
    source: io::Error,
}

/// The daemon answers something else.
#[derive(Debug, Error)]
#[error("the daemon answers something else than what was asked; is it of another version?")]
pub(crate) struct OtherAnswer;

type Outcome = Result<ExitCode, Box<dyn Error>>;

/// Asks once; what a daemon refuses is told here.
pub(crate) fn ask(
    asking: &Asking,
    request: &Request,
) -> Result<Result<(Client, Answer), ExitCode>, Box<dyn Error>> {
    let mut client = Client::connect(&asking.socket)?;
    match client.ask(request) {
        Ok(answer) => Ok(Ok((client, answer))),
        Err(ClientError::Refused(failure)) => {
            complain(with_lines(failure).as_ref());
            Ok(Err(ExitCode::from(REFUSED)))
        }
        Err(error) => Err(error.into()),
    }
}

/// Asks, and writes the answer.
fn show(asking: &Asking, request: &Request, words: impl FnOnce(&Answer) -> Option<String>) -> Outcome {
    let (_client, answer) = match ask(asking, request)? {
        Ok(answered) => answered,
        Err(refused) => return Ok(refused),
    };
    print(&match asking.output {
        Format::Human => words(&answer).ok_or(OtherAnswer)?,
        Format::Json => json(&answer)?,
    })?;
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn json(value: &impl Serialize) -> Result<String, serde_json::Error> {
    Ok(serde_json::to_string_pretty(value)? + "\n")
}

pub(crate) fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

pub(crate) fn status(args: &StatusArgs) -> Outcome {
    show(&args.asking, &Request::Status, |answer| {
        let Answer::Status(status) = answer else { return None };
        let mut text = format!(
            "waylayd {} (process {})\npolicy    {}\nscope     {}\nservices  {}\nfilters   {}\nsublayers {}\nchanges   {}\n",
            status.version,
            status.pid,
            status.policy.display(),
            status.scope.display(),
            if status.order.is_empty() { "none".to_owned() } else { status.order.join(", ") },
            status.filters,
            status.sublayers,
            status.changes,
        );
        if let Some(overdue) = &status.overdue {
            text += &format!("overdue   {overdue}\n");
        }
        Some(text)
    })
}

pub(crate) fn flows(args: &FlowsArgs) -> Outcome {
    show(&args.asking, &Request::Flows, |answer| {
        let Answer::Flows { flows } = answer else { return None };
        let line = |flow: &waylay_daemon::protocol::Flow| {
            let services: Vec<&str> = flow.chain.iter().map(|hop| hop.service.as_str()).collect();
            let application = format!("{}[{}]", flow.application, flow.pid);
            let (from, chain) = (flow.from.clone().unwrap_or_default(), services.join(" > "));
            vec![flow.id.to_string(), flow.protocol.clone(), application, from, flow.to.clone(), chain]
        };
        Some(table(&["FLOW", "PROTOCOL", "APPLICATION", "FROM", "TO", "SERVICES"], flows.iter().map(line)))
    })
}

pub(crate) fn observe(args: &ObserveArgs) -> Outcome {
    let (mut client, _observing) = match ask(&args.asking, &Request::Observe)? {
        Ok(answered) => answered,
        Err(refused) => return Ok(refused),
    };
    while let Some(happening) = client.next_happening()? {
        print(&match args.asking.output {
            Format::Json => serde_json::to_string(&happening)? + "\n",
            Format::Human => {
                let service = happening.service.as_ref().map_or_else(String::new, |name| format!(" {name}"));
                format!("{}{service}: {}\n", happening.about, happening.text)
            }
        })?;
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn reload(args: &ReloadArgs) -> Outcome {
    change(&args.asking, &Request::Reload, false)
}

pub(crate) fn filters(args: &FilterLsArgs) -> Outcome {
    show(&args.asking, &Request::Filters, |answer| {
        let Answer::Filters { filters } = answer else { return None };
        let line = |filter: &waylay_daemon::protocol::Filter| {
            let mut cells = vec![
                filter.name.clone().unwrap_or_else(|| "-".to_owned()),
                filter.action.clone(),
                filter.target.clone(),
                filter.weight.to_string(),
            ];
            cells.extend(source(&filter.source));
            cells
        };
        let heads = ["NAME", "ACTION", "TARGET", "WEIGHT", "NUMBER", "OWNER", "LIFETIME", "DECLARED"];
        Some(table(&heads, filters.iter().map(line)))
    })
}

pub(crate) fn add_filter(args: &FilterAddArgs) -> Outcome {
    let text = match &args.adding.file {
        Some(path) => read(path)?,
        None => format!("[[filter]]\n{}\n", args.lines.join("\n")),
    };
    add(&args.asking, text, args.adding.lifetime)
}

pub(crate) fn remove_filter(args: &RmArgs) -> Outcome {
    remove(args, Target::Filter)
}

pub(crate) fn service(command: &ServiceCommand) -> Outcome {
    match command {
        ServiceCommand::Ls(args) => services(args),
        ServiceCommand::Add(args) => add_service(args),
        ServiceCommand::Rm(args) => remove(args, Target::Service),
        ServiceCommand::Order(args) => order(args),
    }
}

fn services(args: &ServiceLsArgs) -> Outcome {
    show(&args.asking, &Request::Services, |answer| {
        let Answer::Services { services } = answer else { return None };
        let line = |service: &waylay_daemon::protocol::Service| {
            let processes: Vec<String> = service.processes.iter().map(u32::to_string).collect();
            let mut cells = vec![
                service.name.clone(),
                service.state.clone(),
                service.on_failure.clone(),
                processes.join(","),
                service.listens.first().cloned().unwrap_or_default(),
            ];
            cells.extend(source(&service.source));
            cells
        };
        let heads = [
            "NAME",
            "STATE",
            "ON FAILURE",
            "PROCESSES",
            "LISTENS",
            "NUMBER",
            "OWNER",
            "LIFETIME",
            "DECLARED",
        ];
        Some(table(&heads, services.iter().map(line)))
    })
}

fn add_service(args: &ServiceAddArgs) -> Outcome {
    let Adding { file, lifetime } = &args.adding;
    let text = match (file, &args.name) {
        (Some(path), _) => read(path)?,
        (None, name) => {
            let name = serde_json::to_string(name.as_deref().unwrap_or_default())?;
            format!("[service.{name}]\n{}\n", args.lines.join("\n"))
        }
    };
    add(&args.asking, text, *lifetime)
}

fn order(args: &ServiceOrderArgs) -> Outcome {
    let text = format!("order = {}\n", serde_json::to_string(&args.names)?);
    add(&args.asking, text, args.lifetime)
}

fn read(path: &PathBuf) -> Result<String, TextError> {
    let mut text = String::new();
    let read = match path.as_os_str() == "-" {
        true => io::stdin().lock().read_to_string(&mut text).map(|_bytes| text),
        false => fs::read_to_string(path),
    };
    read.map_err(|source| TextError { path: path.clone(), source })
}

fn add(asking: &Asking, text: String, lifetime: Option<Lifetime>) -> Outcome {
    let usual = if rustix::process::geteuid().is_root() { Lifetime::Daemon } else { Lifetime::Session };
    let lifetime: Lasting = lifetime.unwrap_or(usual).into();
    let request = Request::Change { add: vec![text], remove: Vec::new(), lifetime };
    change(asking, &request, lifetime == Lasting::Session)
}

fn remove(args: &RmArgs, named: impl Fn(String) -> Target) -> Outcome {
    let target = |which: &String| which.parse().map_or_else(|_name| named(which.clone()), Target::Number);
    let remove = args.which.iter().map(target).collect();
    change(&args.asking, &Request::Change { add: Vec::new(), remove, lifetime: Lasting::Daemon }, false)
}

/// What was changed; a session goes on until the daemon ends it, or somebody this command.
fn change(asking: &Asking, request: &Request, is_session: bool) -> Outcome {
    let (mut client, answer) = match ask(asking, request)? {
        Ok(answered) => answered,
        Err(refused) => return Ok(refused),
    };
    let Answer::Changed(changed) = &answer else { return Err(OtherAnswer.into()) };
    print(&match asking.output {
        Format::Human => in_words(changed),
        Format::Json => json(&answer)?,
    })?;
    if is_session {
        notice("it is in force as long as this command runs (Ctrl-C ends it)");
        while client.next_happening()?.is_some() {}
        notice("the daemon has ended");
    }
    Ok(ExitCode::SUCCESS)
}

fn in_words(changed: &Changed) -> String {
    let mut text = String::new();
    for warning in &changed.warnings {
        let place = warning.file.as_ref().zip(warning.line);
        let place = place.map_or_else(String::new, |(file, line)| format!("{file}:{line}: "));
        terminal::say(&format!("{}: {place}{}", warning.severity, warning.message));
    }
    for number in &changed.added {
        let _infallible = writeln!(text, "added as number {number}");
    }
    for number in &changed.removed {
        let _infallible = writeln!(text, "removed number {number}");
    }
    if text.is_empty() { "in force\n".to_owned() } else { text }
}

/// Number, owner, lifetime and place.
fn source(source: &Source) -> [String; 4] {
    let lifetime = match source.lifetime {
        Lasting::Session => "session",
        Lasting::Daemon => "daemon",
        Lasting::Persistent => "persistent",
        Lasting::Boot => "boot",
    };
    let number = source.number.map_or_else(|| "-".to_owned(), |number| number.to_string());
    [number, source.owner.to_string(), lifetime.to_owned(), source.place.clone()]
}

/// Columns as wide as what is in them.
fn table(heads: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let heads = heads.iter().map(|head| (*head).to_owned()).collect();
    let rows: Vec<Vec<String>> = std::iter::once(heads).chain(rows).collect();
    let widths: Vec<usize> = (0..rows[0].len())
        .map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
        .collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_what_is_in_them() {
        let row = |cells: [&str; 2]| cells.map(str::to_owned).to_vec();
        let text = table(&["A", "LONG"], [row(["äöü", "1"]), row(["b", "22222"])].into_iter());
        assert_eq!(text, "A    LONG\näöü  1\nb    22222\n");
    }
}
