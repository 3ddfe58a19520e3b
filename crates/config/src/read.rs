//! From texts to [`Declarations`], with everything that is wrong with each text by itself or with their names together.

mod conditions;
mod filter;
mod service;
mod table;

use std::collections::BTreeMap;

use toml::de::{DeTable, DeValue};
use waylay_core::{Existing, ForeignNamespace, Sandboxes, Unredirectable};

use crate::declaration::{Declarations, SublayerDeclaration};
use crate::keys::{FILTER, SERVICE, SUBLAYER, TOP, TableKind};
use crate::problem::{Diagnostic, Problem};
use crate::source::{Located, Sources, Span};
use crate::values::{self, LONGEST_NAME, LONGEST_SERVICE};
use table::{Problems, Scalar, Table, boolean, number, string, word, wrong_type};

const ANSWERS: &[&str] = &["block", "permit"];
const FATES: &[&str] = &["leave", "reset"];

/// What the texts say. Where something is wrong the rest is read all the same, so that one run shows all there is.
#[must_use]
pub fn read(sources: &Sources) -> (Declarations, Vec<Diagnostic>) {
    let (declarations, mut problems) = read_texts(sources);
    problems.extend(duplicates(&declarations));
    (declarations, problems)
}

/// The same, where names that occur twice may still become different ones.
#[must_use]
pub fn read_texts(sources: &Sources) -> (Declarations, Vec<Diagnostic>) {
    read_from(sources, 0)
}

/// The same of those texts that come from a number on.
#[must_use]
pub fn read_from(sources: &Sources, first: usize) -> (Declarations, Vec<Diagnostic>) {
    let mut declarations = Declarations::default();
    let mut problems = Vec::new();
    for (source, (_, text)) in (0..).zip(sources.iter()).skip(first) {
        let (table, errors) = DeTable::parse_recoverable(text);
        problems.extend(errors.iter().map(|error| syntax(error, source)));
        // What a text means that is no TOML is a guess.
        if errors.is_empty() {
            let span = Span::new(source, 0..0);
            let top = Table::new(TOP, source, span, table.get_ref(), &mut problems);
            read_file(&top, source, &mut declarations, &mut problems);
        }
    }
    (declarations, problems)
}

fn syntax(error: &toml::de::Error, source: u32) -> Diagnostic {
    let problem = Problem::Syntax(error.message().trim().to_owned());
    match error.span() {
        Some(bytes) => problem.at(&Span::new(source, bytes)),
        None => problem.somewhere(),
    }
}

fn read_file(top: &Table<'_>, source: u32, into: &mut Declarations, problems: &mut Problems) {
    let unredirectable = [Unredirectable::Block, Unredirectable::Permit];
    let answer = |value: Scalar<'_>| word(value, ANSWERS, &unredirectable);
    if let Some(answer) = switch(top, "unredirectable", answer, into.unredirectable.as_ref(), problems) {
        into.unredirectable = Some(answer);
    }
    let namespaces = [ForeignNamespace::Block, ForeignNamespace::Permit];
    let answer = |value: Scalar<'_>| word(value, ANSWERS, &namespaces);
    if let Some(answer) = switch(top, "other_namespaces", answer, into.other_namespaces.as_ref(), problems) {
        into.other_namespaces = Some(answer);
    }
    let resolvers = |value: Scalar<'_>| {
        let text = string(value)?;
        values::resolver(text.value).map_err(|problem| problem.at(&text.span))
    };
    if let Some(resolvers) = top.list("resolvers", problems, resolvers) {
        let former =
            into.resolvers.get_or_insert_with(|| Located { value: Vec::new(), span: resolvers.span });
        former.value.extend(resolvers.value);
    }
    let order = top.list("order", problems, |value| Ok(string(value)?.map(str::to_owned)));
    into.orders.extend(order.map(|order| order.value));
    let answer =
        |value: Scalar<'_>| Ok(if boolean(value)? { Sandboxes::Overridden } else { Sandboxes::Stay });
    if let Some(answer) = switch(top, "override_sandbox", answer, into.override_sandbox.as_ref(), problems) {
        into.override_sandbox = Some(answer);
    }
    let existing = [Existing::Leave, Existing::Reset];
    let fate = |value: Scalar<'_>| word(value, FATES, &existing);
    if let Some(fate) = switch(top, "existing", fate, into.existing.as_ref(), problems) {
        into.existing = Some(fate);
    }
    for (name, table) in named_tables(top, ("service", LONGEST_SERVICE), SERVICE, source, problems) {
        match service::read(name.clone(), &table, problems) {
            Some(service) => into.services.push(service),
            None => into.unreadable_services.push(name),
        }
    }
    for (name, table) in named_tables(top, ("sublayer", LONGEST_NAME), SUBLAYER, source, problems) {
        let weight = table.one("weight", problems, |value| number(value, u16::MAX.into()));
        let weight = weight.and_then(|weight| u16::try_from(weight).ok()).unwrap_or(0);
        into.sublayers.push(SublayerDeclaration { name, weight });
    }
    for table in tables(top, "filter", FILTER, source, problems) {
        into.filters.extend(filter::read(&table, problems));
    }
}

/// A switch of the whole policy, which may stand in one file only.
fn switch<'a, T>(
    top: &Table<'a>,
    key: &'static str,
    read: impl FnOnce(Scalar<'a>) -> Result<T, Diagnostic>,
    former: Option<&Located<T>>,
    problems: &mut Problems,
) -> Option<Located<T>> {
    let span = *top.place(key)?;
    if let Some(former) = former {
        let problem = Problem::Duplicate { what: "setting", name: key.to_owned() };
        problems.push(problem.at(&span).related(&former.span, "set here first"));
    }
    let value = top.one(key, problems, read)?;
    Some(Located { value, span })
}

/// The tables below `[key.NAME]`, as they come in the file, with names up to a length.
fn named_tables<'a>(
    top: &Table<'a>,
    (key, longest): (&str, usize),
    kind: TableKind,
    source: u32,
    problems: &mut Problems,
) -> Vec<(Located<String>, Table<'a>)> {
    let Some(value) = top.value(key) else { return Vec::new() };
    let DeValue::Table(entries) = value.value else {
        problems.push(wrong_type("tables, each with a name", &value));
        return Vec::new();
    };
    let mut found = Vec::new();
    for (name, entry) in entries {
        let span = Span::new(source, name.span());
        if let Err(problem) = values::name(name.get_ref(), longest) {
            problems.push(problem.at(&span));
        }
        let name = Located { value: name.get_ref().to_string(), span };
        if let DeValue::Table(table) = entry.get_ref() {
            found.push((name, Table::new(kind, source, span, table, problems)));
        } else {
            problems.push(wrong_type("a table of its own", &Located { value: entry.get_ref(), span }));
        }
    }
    found.sort_by_key(|(name, _)| name.span.bytes().start);
    found
}

/// The tables below `[[key]]`.
fn tables<'a>(
    top: &Table<'a>,
    key: &str,
    kind: TableKind,
    source: u32,
    problems: &mut Problems,
) -> Vec<Table<'a>> {
    let Some(value) = top.value(key) else { return Vec::new() };
    let DeValue::Array(entries) = value.value else {
        problems.push(wrong_type("an array of tables, [[filter]],", &value));
        return Vec::new();
    };
    let mut found = Vec::new();
    for entry in entries.iter() {
        let span = Span::new(source, entry.span());
        if let DeValue::Table(table) = entry.get_ref() {
            found.push(Table::new(kind, source, span, table, problems));
        } else {
            problems.push(wrong_type("a table of its own", &Located { value: entry.get_ref(), span }));
        }
    }
    found
}

/// What two of a kind are called.
#[must_use]
pub fn duplicates(declarations: &Declarations) -> Vec<Diagnostic> {
    let mut problems = Vec::new();
    let services = declarations.services.iter().map(|service| &service.name);
    let sublayers = declarations.sublayers.iter().map(|sublayer| &sublayer.name);
    let filters = declarations.filters.iter().filter_map(|filter| filter.name.as_ref());
    refuse_duplicates_of("service", services, &mut problems);
    refuse_duplicates_of("sublayer", sublayers, &mut problems);
    refuse_duplicates_of("filter", filters, &mut problems);
    problems
}

fn refuse_duplicates_of<'d>(
    what: &'static str,
    names: impl Iterator<Item = &'d Located<String>>,
    problems: &mut Problems,
) {
    let mut seen = BTreeMap::new();
    for name in names {
        if let Some(first) = seen.insert(&name.value, &name.span) {
            let problem = Problem::Duplicate { what, name: name.value.clone() };
            problems.push(problem.at(&name.span).related(first, "declared here first"));
        }
    }
}
