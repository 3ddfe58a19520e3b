//! The terminal: colours where they are wanted, and a line that goes away again.

use std::{
    env,
    ffi::OsStr,
    io::{self, IsTerminal, Write},
    sync::{Mutex, OnceLock, PoisonError},
};

use clap::ValueEnum;

/// When to use colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum When {
    /// On terminals, unless `NO_COLOR` is set or `TERM` is `dumb`
    #[default]
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// Colours, few of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Colour {
    /// What is well.
    Green,
    /// What deserves a look.
    Yellow,
    /// What is wrong.
    Red,
    /// Not a colour: what stands out.
    Bold,
}

/// Puts colours on text, or leaves it as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Paint {
    on: bool,
}

static WHEN: OnceLock<When> = OnceLock::new();
static STATUS: Mutex<Option<String>> = Mutex::new(None);

/// Says when to use colours, once and before anything is printed.
pub(crate) fn use_colours(when: When) {
    // The first word is the one that counts.
    let _already = WHEN.set(when);
}

/// For what goes to standard error.
pub(crate) fn stderr() -> Paint {
    Paint::of(io::stderr().is_terminal())
}

/// For what goes to standard output.
pub(crate) fn stdout() -> Paint {
    Paint::of(io::stdout().is_terminal())
}

impl Paint {
    /// For what goes to a file.
    pub(crate) fn none() -> Self {
        Self { on: false }
    }

    /// Whether there are colours.
    pub(crate) const fn is_on(self) -> bool {
        self.on
    }

    pub(crate) fn paint(self, colour: Colour, text: &str) -> String {
        let code = match colour {
            Colour::Green => 32,
            Colour::Yellow => 33,
            Colour::Red => 31,
            Colour::Bold => 1,
        };
        if self.on { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn of(is_terminal: bool) -> Self {
        let when = WHEN.get().copied().unwrap_or_default();
        Self { on: wanted(when, is_terminal, |name| env::var_os(name)) }
    }
}

/// <https://no-color.org> and <https://bixense.com/clicolors>.
fn wanted<T: AsRef<OsStr>>(when: When, is_terminal: bool, variable: impl Fn(&str) -> Option<T>) -> bool {
    let is_set = |name| variable(name).is_some_and(|value| !value.as_ref().is_empty());
    let is = |name, value: &str| variable(name).is_some_and(|set| set.as_ref() == value);
    match when {
        When::Always => true,
        When::Never => false,
        When::Auto if is_set("NO_COLOR") => false,
        When::Auto if is_set("CLICOLOR_FORCE") && !is("CLICOLOR_FORCE", "0") => true,
        When::Auto => is_terminal && !is("TERM", "dumb"),
    }
}

/// Prints a line on standard error, above the status if one is shown.
pub(crate) fn say(line: &str) {
    let status = STATUS.lock().unwrap_or_else(PoisonError::into_inner);
    let (erase, again) = match status.as_deref() {
        Some(text) => (ERASE, text),
        None => ("", ""),
    };
    put(&format!("{erase}{line}\n{again}"));
}

/// Shows what is going on, until there is something else to show or `None`: on terminals that can erase it
/// again, and nowhere else.
pub(crate) fn status(text: Option<&str>) {
    if !can_erase() {
        return;
    }
    let status = match text {
        // While somebody writes there may be nobody who reads: no reason to wait.
        Some(_) => STATUS.try_lock().ok(),
        None => Some(STATUS.lock().unwrap_or_else(PoisonError::into_inner)),
    };
    let Some(mut status) = status.filter(|status| status.as_deref() != text) else { return };
    put(&format!("{ERASE}{}", text.unwrap_or_default()));
    *status = text.map(str::to_owned);
}

/// To the start of the line, and away with what is on it.
const ERASE: &str = "\r\x1b[K";

fn can_erase() -> bool {
    io::stderr().is_terminal() && env::var_os("TERM").is_none_or(|term| term != "dumb")
}

fn put(text: &str) {
    // A reader that has gone must not end the command.
    let _reader_gone = io::stderr().lock().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_for_terminals_unless_somebody_says_otherwise() {
        let of = |when, is_terminal, set: &'static [(&str, &str)]| {
            wanted(when, is_terminal, |name| set.iter().find(|(set, _)| *set == name).map(|(_, value)| value))
        };
        assert!(of(When::Auto, true, &[("TERM", "xterm")]));
        assert!(of(When::Auto, true, &[("NO_COLOR", "")]));
        assert!(of(When::Auto, false, &[("CLICOLOR_FORCE", "1")]));
        assert!(of(When::Always, false, &[("NO_COLOR", "1"), ("TERM", "dumb")]));
        for (when, is_terminal, set) in [
            (When::Auto, false, &[][..]),
            (When::Auto, true, &[("NO_COLOR", "1")]),
            (When::Auto, true, &[("TERM", "dumb")]),
            (When::Auto, true, &[("NO_COLOR", "1"), ("CLICOLOR_FORCE", "1")]),
            (When::Auto, false, &[("CLICOLOR_FORCE", "0")]),
            (When::Never, true, &[("CLICOLOR_FORCE", "1")]),
        ] {
            assert!(!of(when, is_terminal, set), "{when:?} {is_terminal} {set:?}");
        }
    }

    #[test]
    fn paint_that_is_off_changes_nothing() {
        assert_eq!(Paint::none().paint(Colour::Red, "text"), "text");
        assert_eq!(Paint { on: true }.paint(Colour::Red, "text"), "\x1b[31mtext\x1b[0m");
    }
}
