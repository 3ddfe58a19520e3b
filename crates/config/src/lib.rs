//! Policy files: from TOML to a [`waylay_core::Policy`], with a message for each mistake that says where it is.
//!
//! This crate never reads a file, never looks a name up and never touches an engine: it is given texts, and [`Names`] for what a
//! host knows. `waylay-core` says what a policy means; `waylay-cli` reads files and prints what is found here.
//!
//! ```text
//! texts ─ read ─▶ Declarations ─ lower, with Names ─▶ Policy + Origins
//!   └─ each with ─▶ Diagnostics ─ render ─▶ file, line, caret, help
//! ```
//!
//! Reading order: [`declaration`] (what files say), [`keys`] (how they say it), [`mod@read`] and [`mod@lower`] (how that becomes a
//! policy), [`problem`] (what can be wrong), [`mod@lint`] (what is allowed and probably not meant), [`names`] and [`paper`] (who is who).
//!
//! ```
//! use waylay_config::{Origins, Sources, names::Nobody, read, lower};
//!
//! let mut sources = Sources::default();
//! sources.add("policy.toml", "[service.log]\nrun = \"log\"\n\n[[filter]]\naction = \"redirect\"\nservice = \"lgo\"\n");
//! let (declarations, mut diagnostics) = read(&sources);
//! assert!(diagnostics.is_empty());
//! let lowered = lower(&declarations, &Nobody, &mut diagnostics);
//! assert!(lowered.is_none());
//! assert_eq!(diagnostics[0].problem.to_string(), "there is no service \"lgo\"");
//! assert_eq!(diagnostics[0].help.as_deref(), Some("did you mean \"log\"?"));
//! ```

mod boot;
pub mod declaration;
pub mod keys;
pub mod lint;
pub mod lower;
mod meant;
pub mod names;
pub mod paper;
pub mod problem;
pub mod read;
mod render;
pub mod source;
#[cfg(any(test, fuzzing))]
pub mod strange;
mod subset;
mod values;

pub use declaration::Declarations;

pub use lint::{lint, strangers};
pub use lower::{FileNames, Lowered, Origins, called, lower, lower_boot};
pub use meant::meant;
pub use names::Names;
pub use problem::{Diagnostic, Problem, Severity};
pub use read::{duplicates, read, read_from, read_texts};
pub use render::{Style, render};
pub use source::{Located, Sources, Span};
pub use values::LONGEST_SERVICE;
