//! The findings for people.

use waylay_engine::{Capabilities, CapabilityState};
use waylay_host::doctor::{Check, Diagnosis, Other, Relation, Run, RunState, State};

use super::words;
use crate::terminal::{Colour, Paint};

pub(super) fn text(diagnosis: &Diagnosis, paint: Paint) -> String {
    let mut page = Page { paint, text: String::new() };
    page.verdict(diagnosis);
    page.title("What waylay run needs");
    diagnosis.checks.iter().for_each(|check| page.check(check));
    page.title("What the engine can do");
    page.capabilities(&diagnosis.capabilities);
    page.title("What it needs without root (--engine seccomp)");
    diagnosis.without_root.iter().for_each(|check| page.check(check));
    page.title("What goes without root");
    if let Some(capabilities) = &diagnosis.capabilities_without_root {
        page.capabilities(capabilities);
    }
    page.others(diagnosis);
    page.runs(&diagnosis.runs);
    page.title("What can get past, and what is worth knowing");
    for (_, end) in words::open_ends(&diagnosis.facts) {
        page.line(Mark::Note, end);
    }
    words::notes(&diagnosis.facts).iter().for_each(|note| page.line(Mark::Note, note));
    page.line(Mark::Fine, &words::bound());
    page.text
}

#[derive(Clone, Copy)]
enum Mark {
    Fine,
    Missing,
    Note,
}

struct Page {
    paint: Paint,
    text: String,
}

impl Page {
    fn verdict(&mut self, diagnosis: &Diagnosis) {
        let missing = diagnosis.checks.iter().filter(|check| check.state == State::Missing).count();
        let verdict = match (missing, diagnosis.is_ready_without_root()) {
            (0, _) => "waylay run can start here".to_owned(),
            (count, true) => format!("waylay run can start here without root only: {count} missing for eBPF"),
            (count, false) => format!("waylay run cannot start here: {count} missing, and without root too"),
        };
        let verdict = self.paint.paint(Colour::Bold, &verdict);
        self.text.push_str(&format!("{verdict}\n"));
    }

    fn title(&mut self, title: &str) {
        self.text.push_str(&format!("\n{}\n", self.paint.paint(Colour::Bold, title)));
    }

    fn line(&mut self, mark: Mark, text: &str) {
        let mark = match mark {
            Mark::Fine => self.paint.paint(Colour::Green, "✓"),
            Mark::Missing => self.paint.paint(Colour::Red, "✗"),
            Mark::Note => self.paint.paint(Colour::Yellow, "!"),
        };
        self.text.push_str(&format!("  {mark} {text}\n"));
    }

    fn more(&mut self, text: &str) {
        self.text.push_str(&format!("      {text}\n"));
    }

    fn check(&mut self, check: &Check) {
        let need = words::need(check.need);
        let found = check.found.as_ref().map_or_else(String::new, |found| format!(": {}", printable(found)));
        match check.state {
            State::Fine => self.line(Mark::Fine, &format!("{need}{found}")),
            State::Missing => {
                self.line(Mark::Missing, &format!("{need}{found}"));
                self.more(words::remedy(check.need));
            }
            State::Unknown => self.line(Mark::Note, &format!("{need}: {}", words::why_unknown(check.need))),
        }
    }

    fn capabilities(&mut self, capabilities: &Capabilities) {
        for capability in capabilities.iter() {
            let feature = capability.feature;
            match &capability.state {
                CapabilityState::Available => self.line(Mark::Fine, &feature.to_string()),
                CapabilityState::Missing { needs, remedy } => {
                    self.line(Mark::Note, &format!("not: {feature}; needs {needs} ({remedy})"));
                }
            }
        }
    }

    fn others(&mut self, diagnosis: &Diagnosis) {
        self.title("Who else is hooked in");
        match &diagnosis.others {
            Err(error) => self.line(Mark::Note, &format!("not known: asking takes CAP_NET_ADMIN ({error})")),
            Ok(others) if others.is_empty() => {
                self.line(Mark::Fine, "nobody, from the root of the cgroups down")
            }
            Ok(others) => others.iter().for_each(|other| self.other(other)),
        }
    }

    fn other(&mut self, other: &Other) {
        let mark = match other.relation {
            Relation::Above if !other.ours => Mark::Note,
            Relation::Above | Relation::Evaded => Mark::Fine,
        };
        let name = other.program.name.as_deref().map_or_else(|| "a program".to_owned(), printable);
        let (id, hook) = (other.program.id, other.hook);
        self.line(
            mark,
            &format!("{name} (id {id}), {hook}, {}", printable(&other.cgroup.display().to_string())),
        );
        self.more(words::meaning(other));
    }

    fn runs(&mut self, runs: &[Run]) {
        self.title("Runs on this machine");
        if runs.is_empty() {
            self.line(Mark::Fine, "none");
        }
        for run in runs {
            let mark = match run.state {
                RunState::Alive | RunState::Boot => Mark::Fine,
                RunState::LeftBehind | RunState::Removable | RunState::Unrecorded | RunState::Unknown => {
                    Mark::Note
                }
            };
            self.line(mark, &format!("{}: {}", run.id, printable(&words::run(run))));
        }
    }
}

/// Names are others' to choose, and must not steer the terminal.
fn printable(text: &str) -> String {
    text.chars()
        .flat_map(|character| match character {
            '"' | '\'' | '\\' => character.to_string().chars().collect::<Vec<_>>(),
            _ => character.escape_debug().collect(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_steers_the_terminal() {
        assert_eq!(printable("/a 'b'\\é\x1b[2J\u{202e}\n"), "/a 'b'\\é\\u{1b}[2J\\u{202e}\\n");
    }
}
