//! A line that is said to be a report.

use waylay_inspect::report::Report;

/// What is read is written back the same, and shown without anything that could steer a terminal.
pub(crate) fn check(bytes: &[u8]) {
    let line = String::from_utf8_lossy(bytes);
    let Ok(report) = Report::from_line(&line) else { return };
    let shown = report.human();
    assert!(!shown.chars().any(steers), "{shown:?}");
    let mut written = Vec::new();
    assert!(report.write_line(&mut written).is_ok());
    let lines = written.iter().filter(|byte| **byte == b'\n').count();
    assert!(lines == 1 && !written[..written.len() - 1].iter().any(u8::is_ascii_control));
    let again = Report::from_line(&String::from_utf8_lossy(&written));
    assert!(again.is_ok_and(|again| again == report), "{report:?}");
}

/// Control characters, and those that turn the order of what follows (Unicode, annex 9).
fn steers(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{61c}' | '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}
