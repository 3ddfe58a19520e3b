//! What somebody who mistyped may have meant.

use clap::{
    Command, Error,
    error::{ContextKind, ContextValue, ErrorKind},
};

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
pub(crate) fn with_suggestion(mut error: Error, cli: &Command) -> Error {
    if error.kind() != ErrorKind::InvalidSubcommand || error.get(ContextKind::SuggestedSubcommand).is_some() {
        return error;
    }
    let names = cli.get_subcommands().map(Command::get_name);
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
    use clap::{CommandFactory, Parser};

    use super::*;
    use crate::args::Cli;

    fn suggest(typed: &str) -> String {
        let error = Cli::try_parse_from(["waylay", typed]).unwrap_err();
        with_suggestion(error, &Cli::command()).to_string()
    }

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
            let error = suggest(typed);
            assert!(error.contains(&format!("tip: a similar subcommand exists: {tip}")), "{error}");
        }
        let error = suggest("install");
        assert!(!error.contains("tip:"), "{error}");
    }
}
