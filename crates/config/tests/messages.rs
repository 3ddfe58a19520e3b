//! What is said of policy files that are wrong or probably not meant: each file of the corpus beside its message.
//!
//! `WAYLAY_BLESS=1` writes the messages as they are now; look at the difference before it is committed.
#![expect(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::{
    collections::BTreeMap,
    env, fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

use waylay_config::{Severity, Sources, Style, lint, lower, names::Nobody, read, render, strangers};

/// What is said of a text, and the worst of it.
fn judge(name: &str, text: &str) -> (String, Option<Severity>) {
    let mut sources = Sources::default();
    sources.add(name, text);
    let (declarations, mut diagnostics) = read(&sources);
    if let Some(lowered) = lower(&declarations, &Nobody, &mut diagnostics) {
        diagnostics.extend(strangers(&declarations, &Nobody));
        diagnostics.extend(lint(&declarations, &lowered, &sources));
    }
    let worst = diagnostics.iter().map(waylay_config::Diagnostic::severity).min();
    (render(&diagnostics, &sources, Style::Plain) + "\n", worst)
}

fn corpus(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(folder);
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|extension| extension == "toml")).collect()
}

/// Every file of a folder gets the message beside it, and no two of them the same.
fn compare(folder: &str, expected: Severity) {
    let mut first_lines = BTreeMap::new();
    for path in corpus(folder) {
        let name = path.file_name().unwrap().to_str().unwrap();
        let (said, worst) = judge(name, &fs::read_to_string(&path).unwrap());
        assert_eq!(worst, Some(expected), "{name}: {said}");
        let beside = path.with_extension("txt");
        if env::var_os("WAYLAY_BLESS").is_some() {
            fs::write(&beside, &said).unwrap();
        }
        let kept = fs::read_to_string(&beside).unwrap_or_default();
        assert_eq!(said, kept, "{name}: WAYLAY_BLESS=1 keeps the new message");
        let first = said.lines().next().unwrap().to_owned();
        if let Some(other) = first_lines.insert(first.clone(), name.to_owned()) {
            panic!("{name} and {other} get the same message: {first}");
        }
    }
    assert!(!first_lines.is_empty());
}

#[test]
fn every_malformed_file_gets_its_own_message() {
    compare("malformed", Severity::Error);
}

#[test]
fn what_is_probably_not_meant_is_said() {
    compare("suspicious", Severity::Warning);
}

/// A policy with so many filters, each with conditions of its own.
fn many(filters: u32, conditions: impl Fn(u32) -> String) -> String {
    let filter = |n| format!("[[filter]]\naction = \"redirect\"\nservice = \"log\"\n{}", conditions(n));
    format!("[service.log]\nrun = \"log\"\n{}", (0..filters).map(filter).collect::<String>())
}

#[test]
fn filters_that_overlap_everywhere_are_warned_of() {
    let text = many(8000, |n| {
        let scattered = n.wrapping_mul(2_654_435_761);
        let first = scattered % 40_000;
        let prefix = |k: u32| {
            let length = 7 + (scattered >> k) % 5;
            let address =
                Ipv4Addr::from_bits((scattered.rotate_left(7 * k) ^ k << 24) & u32::MAX << (32 - length));
            format!("\"{address}/{length}\"")
        };
        let prefixes = [0, 1, 2, 3].map(prefix);
        format!("if.port = \"{first}-{}\"\nif.remote = [{}]\n", first + 20_000, prefixes.join(", "))
    });
    let (said, worst) = judge("policy.toml", &text);
    assert_eq!(worst, Some(Severity::Warning), "{said}");
    assert!(said.contains("warning: 8000 filters overlap in several conditions"), "{said}");
}

#[test]
fn more_filters_than_an_engine_holds_are_refused() {
    let filters = u32::try_from(waylay_core::MAX_FILTERS).unwrap() + 1;
    let (said, worst) = judge("policy.toml", &many(filters, |n| format!("if.user = {n}\n")));
    assert_eq!(
        (said.as_str(), worst),
        ("error: at most 131072 filters, not 131073\n", Some(Severity::Error))
    );
}
