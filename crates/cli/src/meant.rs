//! What somebody who mistyped may have meant.

use clap::{
    Command, Error,
    error::{ContextKind, ContextValue, ErrorKind},
};
use waylay_config::meant;

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
    fn a_mistyped_command_is_answered_with_the_one_that_may_be_meant() {
        for (typed, tip) in [("rn", "'run'"), ("runn", "'run'"), ("docter", "'doctor'")] {
            let error = suggest(typed);
            assert!(error.contains(&format!("tip: a similar subcommand exists: {tip}")), "{error}");
        }
        let error = suggest("install");
        assert!(!error.contains("tip:"), "{error}");
    }
}
