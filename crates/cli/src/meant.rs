//! What somebody who mistyped may have meant.

use clap::{
    CommandFactory, Error,
    error::{ContextKind, ContextValue, ErrorKind},
};

use crate::args::Cli;

/// The name that is nearest to what was typed, if it is near enough for a slip.
pub(crate) fn meant<'n>(typed: &str, names: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    let slips = |name: &&str| strsim::damerau_levenshtein(typed, name);
    names.into_iter().min_by_key(slips).filter(|name| slips(name) <= allowed(name))
}

/// One slip in a short word, two in a longer one.
fn allowed(name: &str) -> usize {
    (name.len() / 3).clamp(1, 2)
}

/// Adds the command that may have been meant, where the parser finds none: it takes `rn` for unlike `run`.
pub(crate) fn with_suggestion(mut error: Error) -> Error {
    if error.kind() != ErrorKind::InvalidSubcommand || error.get(ContextKind::SuggestedSubcommand).is_some() {
        return error;
    }
    let cli = Cli::command();
    let names = cli.get_subcommands().map(clap::Command::get_name);
    let suggestion = match error.get(ContextKind::InvalidSubcommand) {
        Some(ContextValue::String(typed)) => meant(typed, names).map(str::to_owned),
        _ => None,
    };
    if let Some(name) = suggestion {
        error.insert(ContextKind::SuggestedSubcommand, ContextValue::Strings(vec![name]));
    }
    error
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[test]
    fn slips_are_told_from_other_words() {
        let names = ["run", "doctor", "completions", "man"];
        for (typed, name) in
            [("rn", "run"), ("rnu", "run"), ("dcotro", "doctor"), ("completion", "completions")]
        {
            assert_eq!(meant(typed, names), Some(name), "{typed}");
        }
        for typed in ["", "a", "exec", "install", "rm -rf"] {
            assert_eq!(meant(typed, names), None, "{typed}");
        }
    }

    #[test]
    fn a_mistyped_command_is_answered_with_the_one_that_may_be_meant() {
        for (typed, tip) in [("rn", "'run'"), ("runn", "'run'"), ("docter", "'doctor'")] {
            let error = with_suggestion(Cli::try_parse_from(["waylay", typed]).unwrap_err()).to_string();
            assert!(error.contains(&format!("tip: a similar subcommand exists: {tip}")), "{error}");
        }
        let error = with_suggestion(Cli::try_parse_from(["waylay", "install"]).unwrap_err()).to_string();
        assert!(!error.contains("tip:"), "{error}");
    }
}
