//! From a ledger to a policy that holds together, or to what is wrong with it.

use serde::{Deserialize, Serialize};
use thiserror::Error;
use waylay_config::{
    Declarations, Diagnostic, Lowered, Names, Severity, Sources, Style, duplicates, lint, lower, read_texts,
    render, strangers,
};

use crate::{authority::hold_to_account, enclosed::enclose, ledger::Ledger};

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

fn counted(errors: usize) -> String {
    format!("{errors} error{}", if errors == 1 { "" } else { "s" })
}

impl Draft {
    /// What follows from a ledger where names stand for this.
    ///
    /// # Errors
    /// [`Wrong`] says everything that is.
    pub fn of(ledger: &Ledger, names: &dyn Names) -> Result<Self, Wrong> {
        let sources = ledger.sources();
        let (mut declarations, mut diagnostics) = read_texts(&sources);
        diagnostics.extend(enclose(&mut declarations, ledger));
        diagnostics.extend(duplicates(&declarations));
        diagnostics.extend(hold_to_account(&mut declarations, ledger));
        match lower(&declarations, names, &mut diagnostics) {
            Some(lowered) => Ok(Self { sources, declarations, lowered }),
            None => Err(Wrong::of(&diagnostics, &sources)),
        }
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
