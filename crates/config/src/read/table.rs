//! One table of a file, and what is wrong with it.

use std::collections::BTreeMap;

use toml::Spanned;
use toml::de::{DeInteger, DeTable, DeValue};

use crate::keys::{SERVICE, TableKind};
use crate::meant::did_you_mean;
use crate::problem::{Diagnostic, Problem};
use crate::source::{Located, Span};

/// A table that is being read. Each entry is taken once; what was not asked for is no key of it.
pub(super) struct Table<'a> {
    kind: TableKind,
    source: u32,
    pub(super) span: Span,
    entries: BTreeMap<&'a str, (Span, &'a Spanned<DeValue<'a>>)>,
}

/// Where problems go, so that one run shows all of them.
pub(super) type Problems = Vec<Diagnostic>;

/// A value that is no table and no list.
pub(super) type Scalar<'a> = Located<&'a DeValue<'a>>;

impl<'a> Table<'a> {
    pub(super) fn new(
        kind: TableKind,
        source: u32,
        span: Span,
        table: &'a DeTable<'a>,
        problems: &mut Problems,
    ) -> Self {
        let mut entries = BTreeMap::new();
        for (key, value) in table {
            let name: &str = key.get_ref();
            let span = Span::new(source, key.span());
            if kind.keys.iter().any(|known| known.name == name) {
                entries.insert(name, (span, value));
            } else {
                let problem = Problem::UnknownKey { key: name.to_owned(), table: kind.what };
                problems.push(problem.at(&span).help(key_meant(&kind, name)));
            }
        }
        Self { kind, source, span, entries }
    }

    /// Where a key is, if it is there.
    pub(super) fn place(&self, key: &str) -> Option<&Span> {
        self.entries.get(key).map(|(span, _)| span)
    }

    /// The value of a key with its own place.
    pub(super) fn value(&self, key: &str) -> Option<Scalar<'a>> {
        self.entries.get(key).map(|(_, value)| self.locate(value))
    }

    /// The value of a key, read.
    pub(super) fn one<T>(
        &self,
        key: &str,
        problems: &mut Problems,
        read: impl FnOnce(Scalar<'a>) -> Result<T, Diagnostic>,
    ) -> Option<T> {
        read(self.value(key)?).map_err(|problem| problems.push(problem)).ok()
    }

    /// The values of a key, one or a list of them, each read; `None` if the key is not there. Where one cannot be read the others are.
    pub(super) fn list<T>(
        &self,
        key: &str,
        problems: &mut Problems,
        read: impl Fn(Scalar<'a>) -> Result<T, Diagnostic>,
    ) -> Option<Located<Vec<T>>> {
        let value = self.value(key)?;
        let scalars = match value.value {
            DeValue::Array(values) => values.iter().map(|value| self.locate(value)).collect(),
            DeValue::String(_)
            | DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_)
            | DeValue::Table(_) => vec![value.clone()],
        };
        if scalars.is_empty() {
            problems.push(Problem::EmptyList.at(&value.span));
        }
        let read = |scalar| read(scalar).map_err(|problem| problems.push(problem)).ok();
        Some(Located { value: scalars.into_iter().filter_map(read).collect(), span: value.span })
    }

    /// The table behind a key.
    pub(super) fn table(&self, key: &str, kind: TableKind, problems: &mut Problems) -> Option<Self> {
        let value = self.value(key)?;
        let DeValue::Table(table) = value.value else {
            problems.push(wrong_type("a table", &value));
            return None;
        };
        // A table's own place is its heading, which `if.port = 80` has not.
        let span = self.place(key).cloned().unwrap_or(value.span);
        Some(Self::new(kind, self.source, span, table, problems))
    }

    /// Says that a key has to be there.
    pub(super) fn missing(&self, key: &'static str) -> Diagnostic {
        Problem::MissingKey { key, table: self.kind.what }.at(&self.span)
    }

    /// Says of those keys that are there that they are in the wrong place.
    pub(super) fn misplaced(&self, keys: &[&'static str], with: &'static str, problems: &mut Problems) {
        let there = keys.iter().filter_map(|key| Some((*key, self.place(key)?)));
        problems.extend(there.map(|(key, span)| Problem::MisplacedKey { key, with }.at(span)));
    }

    fn locate(&self, value: &'a Spanned<DeValue<'a>>) -> Scalar<'a> {
        Located { value: value.get_ref(), span: Span::new(self.source, value.span()) }
    }
}

pub(super) fn wrong_type(wanted: &'static str, value: &Scalar<'_>) -> Diagnostic {
    let found = match value.value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    };
    Problem::WrongType { wanted, found }.at(&value.span)
}

/// A string.
pub(super) fn string(value: Scalar<'_>) -> Result<Located<&str>, Diagnostic> {
    let DeValue::String(text) = value.value else { return Err(wrong_type("a string", &value)) };
    Ok(Located { value: text.as_ref(), span: value.span })
}

/// A boolean.
pub(super) fn boolean(value: Scalar<'_>) -> Result<bool, Diagnostic> {
    let DeValue::Boolean(yes) = value.value else { return Err(wrong_type("a boolean", &value)) };
    Ok(*yes)
}

/// Which key may have been meant.
fn key_meant(kind: &TableKind, typed: &str) -> Option<String> {
    // What a file calls `command` is `exec:` on the command line, and is nearer to another key.
    let typed = if typed == "exec" && kind.heading == SERVICE.heading { "command" } else { typed };
    did_you_mean(typed, kind.keys.iter().map(|known| known.name))
}

/// A number up to a bound.
pub(super) fn number(value: Scalar<'_>, most: u64) -> Result<u64, Diagnostic> {
    let DeValue::Integer(integer) = value.value else { return Err(wrong_type("a number", &value)) };
    within(integer, most).map_err(|problem| problem.at(&value.span))
}

/// A number from 0 on up to a bound.
pub(super) fn within(integer: &DeInteger<'_>, most: u64) -> Result<u64, Problem> {
    let number = u64::from_str_radix(integer.as_str(), integer.radix()).ok();
    number.filter(|number| *number <= most).ok_or_else(|| Problem::OutOfRange {
        number: integer.to_string(),
        least: 0,
        most,
    })
}

/// One of some words, by what each stands for.
pub(super) fn word<T: Copy>(
    value: Scalar<'_>,
    words: &'static [&'static str],
    meanings: &[T],
) -> Result<T, Diagnostic> {
    let found = string(value)?;
    let known = words.iter().position(|word| *word == found.value).and_then(|index| meanings.get(index));
    known.copied().ok_or_else(|| {
        let problem = Problem::UnknownWord { found: found.value.to_owned(), allowed: words };
        problem.at(&found.span).help(did_you_mean(found.value, words.iter().copied()))
    })
}
