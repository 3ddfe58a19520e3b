//! From a ledger to a policy that holds together, or to what is wrong with it.

use serde::{Deserialize, Serialize};
use thiserror::Error;
use waylay_config::{
    Declarations, Diagnostic, Lowered, Names, Problem, Severity, Sources, Style, declaration::FilterLifetime,
    duplicates, lint, lower, lower_boot, read_texts, render, strangers,
};

use crate::{
    authority::hold_to_account,
    enclosed::enclose,
    ledger::{Ledger, Lifetime},
    standing::everything_but_filters,
};

/// With more filters than this nobody looks for those that never decide: `waylay check` does.
pub(crate) const LINTED: usize = 2_000;

/// What a ledger comes to.
pub struct Draft {
    /// The texts.
    pub sources: Sources,
    /// What they say, held to what their owners may.
    pub declarations: Declarations,
    /// The policy.
    pub lowered: Lowered,
}

/// The texts do not hold together, or say what their owner may not.
#[derive(Debug, Error)]
#[error("{}", counted(*errors))]
pub struct Wrong {
    /// How many errors there are.
    pub errors: usize,
    /// Each.
    pub findings: Vec<Finding>,
    /// All of them, with the lines of the texts that they are about.
    pub words: String,
}

/// Something that is wrong, or not meant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// `error`, `warning` or `note`.
    pub severity: String,
    /// What.
    pub message: String,
    /// The text's name.
    pub file: Option<String>,
    /// The line in it, from 1 on.
    pub line: Option<usize>,
    /// The column in that, from 1 on.
    pub column: Option<usize>,
    /// What to do.
    pub help: Option<String>,
}

impl Finding {
    /// The same without what names begin with.
    pub(crate) fn without(self, prefix: &str) -> Self {
        let message = self.message.replace(prefix, "");
        Self { message, help: self.help.map(|help| help.replace(prefix, "")), ..self }
    }
}

fn counted(errors: usize) -> String {
    format!("{errors} error{}", if errors == 1 { "" } else { "s" })
}

impl Draft {
    /// What follows from a ledger where names stand for this.
    ///
    /// # Errors
    /// [`Wrong`] says everything that is.
    pub fn of(ledger: &Ledger, names: &dyn Names) -> Result<Self, Wrong> {
        Self::of_part(ledger, names, lower)
    }

    /// The same of the filters that are in force before there is a daemon.
    ///
    /// # Errors
    /// [`Wrong`] says everything that is, with those filters or with others.
    pub fn of_boot(ledger: &Ledger, names: &dyn Names) -> Result<Self, Wrong> {
        Self::of_part(ledger, names, lower_boot)
    }

    fn of_part(
        ledger: &Ledger,
        names: &dyn Names,
        lower: impl FnOnce(&Declarations, &dyn Names, &mut Vec<Diagnostic>) -> Option<Lowered>,
    ) -> Result<Self, Wrong> {
        let sources = ledger.sources();
        let (mut declarations, mut diagnostics) = read_texts(&sources);
        diagnostics.extend(enclose(&mut declarations, ledger));
        diagnostics.extend(tell_lifetimes(&mut declarations, ledger));
        diagnostics.extend(duplicates(&declarations));
        diagnostics.extend(hold_to_account(&mut declarations, ledger));
        match lower(&declarations, names, &mut diagnostics) {
            Some(lowered) => Ok(Self { sources, declarations, lowered }),
            None => Err(Wrong::of(&diagnostics, &sources)),
        }
    }

    /// What is allowed and probably not meant, of filters that are in force before there is a daemon.
    pub(crate) fn warnings_at_boot(&self, names: &dyn Names) -> Vec<Diagnostic> {
        let filters = self.declarations.filters.iter().filter(|it| it.lifetime == FilterLifetime::Boot);
        let declarations = Declarations { filters: filters.cloned().collect(), ..Declarations::default() };
        strangers(&declarations, names)
    }

    /// What is allowed and probably not meant, of the texts that are asked for by their number.
    #[must_use]
    pub fn warnings(&self, names: &dyn Names, of: impl Fn(usize) -> bool) -> Vec<Diagnostic> {
        let mut found = strangers(&self.declarations, names);
        if self.declarations.filters.len() <= LINTED {
            found.extend(lint(&self.declarations, &self.lowered, &self.sources));
        }
        warnings(found, of)
    }
}

/// What is added for before there is a daemon consists of filters for that time; what goes with a daemon or a connection has none.
pub(crate) fn tell_lifetimes(declarations: &mut Declarations, ledger: &Ledger) -> Vec<Diagnostic> {
    let lifetime = |source: usize| ledger.pieces().get(source).map(|piece| piece.origin.lifetime());
    let is_for_boot = |source: usize| lifetime(source) == Some(Lifetime::Boot);
    let others = everything_but_filters(declarations).filter(|span| is_for_boot(span.source()));
    let refused = |span: &_| {
        Problem::NotAllowed("what is in force from boot on is a filter: add this persistently".into())
            .at(span)
    };
    let mut problems: Vec<Diagnostic> = others.map(|span| refused(&span)).collect();
    for filter in &mut declarations.filters {
        match (lifetime(filter.span.source()), filter.lifetime) {
            (Some(Lifetime::Boot), _) => filter.lifetime = FilterLifetime::Boot,
            (Some(Lifetime::Session(_) | Lifetime::Daemon), FilterLifetime::Boot) => {
                let what =
                    "a filter that is in force from boot on is kept: add it with the lifetime \"boot\"";
                problems.push(Problem::NotAllowed(what.to_owned()).at(&filter.span));
            }
            (Some(Lifetime::Session(_) | Lifetime::Daemon), FilterLifetime::Persistent)
            | (Some(Lifetime::Persistent) | None, _) => {}
        }
    }
    problems
}

/// Those of the texts that are asked for by their number.
pub(crate) fn warnings(mut found: Vec<Diagnostic>, of: impl Fn(usize) -> bool) -> Vec<Diagnostic> {
    let is_asked_for = |diagnostic: &Diagnostic| diagnostic.span.is_none_or(|span| of(span.source()));
    found.retain(|diagnostic| diagnostic.severity() == Severity::Warning && is_asked_for(diagnostic));
    found
}

impl Wrong {
    fn of(diagnostics: &[Diagnostic], sources: &Sources) -> Self {
        let is_error = |diagnostic: &&Diagnostic| diagnostic.severity() == Severity::Error;
        Self {
            errors: diagnostics.iter().filter(is_error).count(),
            findings: findings(diagnostics, sources),
            words: render(diagnostics, sources, Style::Plain),
        }
    }
}

/// Diagnostics as data.
#[must_use]
pub fn findings(diagnostics: &[Diagnostic], sources: &Sources) -> Vec<Finding> {
    let finding = |diagnostic: &Diagnostic| {
        let span = diagnostic.span.as_ref();
        Finding {
            severity: diagnostic.severity().to_string(),
            message: diagnostic.problem.to_string(),
            file: span.map(|span| sources.name(span).to_owned()),
            line: span.map(|span| sources.line(span)),
            column: span.map(|span| sources.column(span)),
            help: diagnostic.help.clone(),
        }
    };
    diagnostics.iter().map(finding).collect()
}
