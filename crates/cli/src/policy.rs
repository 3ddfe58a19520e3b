//! Policies as files: what is found wrong with them, in words. Reading them is `waylay-daemon`'s.

use std::path::PathBuf;

use thiserror::Error;
use waylay_config::{Diagnostic, Severity, Sources, Style, render};

pub(crate) use waylay_daemon::files::sources;

use crate::terminal::Paint;

/// Where the policy of a host is.
pub(crate) const DEFAULT: &str = "/etc/waylay/policy.toml";

/// Why a policy's files cannot be used.
#[derive(Debug, Error)]
pub(crate) enum PolicyFileError {
    /// It holds together by no means; what is wrong has been printed.
    #[error("{}: {errors}", path.display())]
    Wrong {
        /// The policy's file.
        path: PathBuf,
        /// How many errors there are.
        errors: Count,
    },
}

/// So many errors.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Count(pub(crate) usize);

impl std::fmt::Display for Count {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} error{}", self.0, if self.0 == 1 { "" } else { "s" })
    }
}

/// What was found, in words; empty if nothing was.
pub(crate) fn words(diagnostics: &[Diagnostic], sources: &Sources, paint: Paint) -> String {
    let style = if paint.is_on() { Style::Coloured } else { Style::Plain };
    let text = render(diagnostics, sources, style);
    if text.is_empty() { text } else { text + "\n\n" }
}

/// How many there are of a severity.
pub(crate) fn count(diagnostics: &[Diagnostic], severity: Severity) -> usize {
    diagnostics.iter().filter(|diagnostic| diagnostic.severity() == severity).count()
}
