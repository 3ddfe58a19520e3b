//! What every file keeps to.

use std::fs;

use waylay_tidy::{code_of, root, sources};

/// A file that is longer hides what it is about.
const MOST_LINES: usize = 600;
/// How far above an unsafe block its reason may start.
const REASON_LINES: usize = 6;

#[test]
fn no_file_is_too_long() {
    for source in sources(&["rs", "c", "cpp", "h"]) {
        let lines = source.text.lines().count();
        assert!(lines <= MOST_LINES, "{} has {lines} lines", source.path);
    }
}

#[test]
fn every_crate_says_what_it_is() {
    for source in sources(&["rs"]) {
        let is_root = source.path.ends_with("src/lib.rs");
        assert!(!is_root || source.text.starts_with("//! "), "{} has no header", source.path);
    }
}

#[test]
fn unsafe_stays_in_modules_named_sys() {
    for source in sources(&["rs"]) {
        let used = source.text.lines().any(|line| words(&code_of(line)).any(|word| word == "unsafe"));
        let is_sys = source.path.ends_with("/sys.rs") || source.path.contains("/sys/");
        assert!(!used || is_sys, "{} holds unsafe code", source.path);
    }
}

#[test]
fn every_unsafe_block_has_its_reason() {
    for source in sources(&["rs"]) {
        let lines: Vec<&str> = source.text.lines().collect();
        for (number, line) in lines.iter().enumerate().filter(|(_, line)| code_of(line).contains("unsafe {"))
        {
            let above = &lines[number.saturating_sub(REASON_LINES)..number];
            let reason = above.iter().any(|line| line.trim_start().starts_with("// SAFETY:"));
            assert!(reason, "{}:{}: no SAFETY comment above {line:?}", source.path, number + 1);
        }
    }
}

/// A guarantee is as good as the test behind it, so the test has to be there.
#[test]
fn every_guard_that_the_guarantees_name_exists() {
    let guarantees = fs::read_to_string(root().join("GUARANTEES.md")).unwrap();
    let table: String = guarantees.lines().filter(|line| line.starts_with('|')).collect();
    let guards: Vec<_> =
        table.split('`').skip(1).step_by(2).filter_map(|quoted| quoted.split_once("::")).collect();
    assert!(!guards.is_empty());
    let sources = sources(&["rs"]);
    for (place, test) in guards {
        let function = format!("fn {test}(");
        let (file, module) = (format!("/{place}.rs"), format!("mod {place} {{"));
        let found = sources.iter().any(|source| {
            source.text.contains(&function) && (source.path.ends_with(&file) || source.text.contains(&module))
        });
        assert!(found, "GUARANTEES.md names {place}::{test}, which does not exist");
    }
}

#[test]
fn every_step_that_the_guarantees_name_exists() {
    let [guarantees, makefile] =
        ["GUARANTEES.md", "Makefile"].map(|file| fs::read_to_string(root().join(file)).unwrap());
    for step in guarantees.split("`make ").skip(1).filter_map(|text| text.split(['`', ' ']).next()) {
        assert!(
            makefile.contains(&format!("\n{step}: ")),
            "GUARANTEES.md names make {step}, which does not exist"
        );
    }
}

/// They are numbered as they come, and each says by which command it is shown: its own number's, if it has guards.
#[test]
fn every_guarantee_is_shown_by_a_command() {
    let guarantees = fs::read_to_string(root().join("GUARANTEES.md")).unwrap();
    let rows = guarantees.lines().map(|line| line.split('|').map(str::trim).collect::<Vec<_>>());
    let rows = rows.filter(|cells| cells.len() > 1 && cells[1].parse::<u32>().is_ok());
    let numbers: Vec<String> = rows
        .map(|cells| {
            let [_, number, _, guards, shown_by, _, _] = cells[..] else { panic!("{cells:?}") };
            let own = format!("`make guarantee N={number}`");
            let shown = if guards.contains("::") {
                shown_by.starts_with(&own)
            } else {
                shown_by.starts_with("`make ")
            };
            assert!(shown, "number {number} is shown by {shown_by:?}");
            number.to_owned()
        })
        .collect();
    assert!(numbers.len() > 40);
    assert_eq!(numbers, (1..=numbers.len()).map(|number| number.to_string()).collect::<Vec<_>>());
}

/// The string that scanners are tried with, whole, would get the file that has it taken away.
#[test]
fn no_file_is_taken_for_infected() {
    let (start, end) = (r"X5O!P%@AP[4\PZX54(P^)7CC)7}$EICAR", "-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*");
    let documents = ["README.md", "CHANGELOG.md", "GUARANTEES.md", "ARCHITECTURE.md", "scripts/demo"];
    let documents = documents.map(|file| fs::read_to_string(root().join(file)).unwrap());
    let sources = sources(&["rs", "c", "h", "py"]).into_iter().map(|source| source.text);
    assert!(documents.into_iter().chain(sources).all(|text| !text.contains(&format!("{start}{end}"))));
}

#[test]
fn the_readme_shows_the_example_as_it_is() {
    let [readme, example] =
        ["README.md", "examples/forward.rs"].map(|file| fs::read_to_string(root().join(file)).unwrap());
    let program = example.split_once("\n\n").unwrap().1;
    assert!(readme.contains(program), "README.md shows another program than examples/forward.rs");
}

fn words(code: &str) -> impl Iterator<Item = &str> {
    code.split(|character| !is_word(character))
}

fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}
