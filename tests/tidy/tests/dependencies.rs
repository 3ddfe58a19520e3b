//! Which crate may use which: what keeps policy, platform and bytes apart.
#![expect(clippy::unwrap_used, reason = "what cannot be read is a failed test")]

use std::{collections::BTreeSet, process::Command};

use serde_json::Value;

/// What each crate may use of the others, tests aside. A crate that is not
/// listed may use any.
const RULES: [(&str, &[&str]); 13] = [
    ("waylay-core", &[]),
    ("waylay-abi", &[]),
    ("waylay-config", &["waylay-core"]),
    ("waylay-diag", &[]),
    ("waylay-engine", &["waylay-core"]),
    ("waylay-engine-ebpf", &["waylay-abi", "waylay-core", "waylay-engine"]),
    ("waylay-engine-seccomp", &["waylay-abi", "waylay-core", "waylay-diag", "waylay-engine"]),
    (
        "waylay-host",
        &[
            "waylay-config",
            "waylay-core",
            "waylay-diag",
            "waylay-engine",
            "waylay-engine-ebpf",
            "waylay-engine-seccomp",
        ],
    ),
    ("waylay-daemon", &["waylay-config", "waylay-core", "waylay-host"]),
    ("waylay", &["waylay-abi", "waylay-core"]),
    ("waylay-ws2", &["waylay"]),
    ("waylay-relay", &["waylay"]),
    ("waylay-inspect", &["waylay", "waylay-relay"]),
];
/// What may use any: nobody may use it in turn.
const TOPS: [&str; 10] = [
    "waylay-benches",
    "waylay-cli",
    "waylay-conformance",
    "waylay-corpus",
    "waylay-differential",
    "waylay-examples",
    "waylay-headers",
    "waylay-model",
    "waylay-netlab",
    "waylay-tidy",
];

fn packages() -> Vec<Value> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(waylay_tidy::root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    metadata["packages"].as_array().unwrap().clone()
}

fn name(package: &Value) -> &str {
    package["name"].as_str().unwrap()
}

#[test]
fn every_crate_has_a_place() {
    let known: BTreeSet<&str> = RULES.iter().map(|(name, _)| *name).chain(TOPS).collect();
    let packages = packages();
    assert_eq!(packages.iter().map(name).collect::<BTreeSet<_>>(), known);
}

#[test]
fn no_crate_uses_one_it_may_not() {
    let packages = packages();
    let ours: BTreeSet<&str> = packages.iter().map(name).collect();
    for package in &packages {
        let used = package["dependencies"].as_array().unwrap().iter();
        let used = used.filter(|dependency| dependency["kind"] != "dev").map(name);
        let allowed = RULES.iter().find(|(crate_name, _)| *crate_name == name(package)).map(|rule| rule.1);
        for dependency in used.filter(|dependency| ours.contains(dependency)) {
            let fine = !TOPS.contains(&dependency) && allowed.is_none_or(|list| list.contains(&dependency));
            assert!(fine, "{} may not use {dependency}", name(package));
        }
    }
}
