//! What the documentation says is so: its reference is the one that reading goes by, and its examples hold.
//!
//! `WAYLAY_BLESS=1` writes the reference anew.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use waylay_config::{Sources, Style, keys, lint, lower, names::Nobody, read, render};

const HEADING: &str = "<!-- generated from crates/config/src/keys.rs; a test compares -->\n\n";

fn docs(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(name)
}

/// What is wrong with a policy, whoever there is on this host.
fn judge(name: &str, text: &str) -> String {
    let mut sources = Sources::default();
    sources.add(name, text);
    let (declarations, mut diagnostics) = read(&sources);
    let lowered = lower(&declarations, &Nobody, &mut diagnostics);
    diagnostics.extend(lowered.iter().flat_map(|lowered| lint(&declarations, lowered, &sources)));
    render(&diagnostics, &sources, Style::Plain)
}

#[test]
fn the_reference_is_that_of_the_keys() {
    let path = docs("policy.md");
    let text = fs::read_to_string(&path).unwrap();
    let (before, written) = text.split_once(HEADING).unwrap();
    if env::var_os("WAYLAY_BLESS").is_some() {
        fs::write(&path, format!("{before}{HEADING}{}", keys::reference())).unwrap();
        return;
    }
    assert_eq!(written, keys::reference(), "WAYLAY_BLESS=1 writes it anew");
}

#[test]
fn the_examples_hold() {
    let mut examples = 0;
    for entry in fs::read_dir(docs("policy")).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(judge(&path.display().to_string(), &fs::read_to_string(&path).unwrap()), "");
        examples += 1;
    }
    assert!(examples > 0);
}

#[test]
fn what_is_shown_in_the_text_can_be_read() {
    let text = fs::read_to_string(docs("policy.md")).unwrap();
    let blocks: Vec<&str> =
        text.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(!blocks.is_empty());
    for block in blocks {
        let services = if block.contains("\"redirect\"") { "[service.log]\nrun = \"log\"\n" } else { "" };
        assert_eq!(judge("policy.md", &format!("{services}{block}")), "");
    }
}
