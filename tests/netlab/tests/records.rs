//! Records under load and under attack: none missing, none wrong, none forged.
#![expect(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::process::{Command, Output};

use waylay_netlab::{Programs, Waylay};

/// Runs `command` with every connection redirected to probes.
fn run(programs: &Programs, probes: &[&str], command: &[&str]) -> Output {
    let mut waylay = Command::new(Waylay::binary());
    waylay.arg("run");
    for probe in probes {
        waylay.args(["--through", &format!("exec:{} {probe}", programs.path("netlab-probe"))]);
    }
    let output = waylay.arg("--").args(command).output().unwrap();
    eprintln!("{}{}", text(&output.stdout), text(&output.stderr));
    output
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What the probe said: lines by their first word.
fn said(output: &Output, name: &str) -> String {
    let prefix = format!("netlab-probe: {name} ");
    let second = format!("netlab-probe-2: {name} ");
    let stderr = text(&output.stderr);
    let line =
        stderr.lines().find_map(|line| line.strip_prefix(&prefix).or_else(|| line.strip_prefix(&second)));
    line.unwrap_or_else(|| panic!("the probe said nothing about {name}:\n{stderr}")).to_owned()
}

#[test]
fn a_hundred_thousand_connections_and_every_record_is_right() {
    let programs = Programs::new();
    let output = run(&programs, &["tell"], &[&programs.path("netlab-load"), "100000", "4"]);
    assert_eq!(text(&output.stdout), "right 100000 wrong 0 missing 0\n");
}

#[test]
fn a_million_altered_handles_and_none_is_accepted() {
    let programs = Programs::new();
    let output = run(&programs, &["mutate"], &[&programs.path("netlab-load"), "1", "1"]);
    let said = said(&output, "tried");
    assert!(said.starts_with("1000000 accepted 0 "), "{said}");
    assert!(said.ends_with(" other 0 genuine true"), "{said}");
}

#[test]
fn every_refusal_has_its_errno() {
    let programs = Programs::new();
    let output = run(&programs, &["refusals"], &[&programs.path("netlab-load"), "1", "1"]);
    let expected = [
        ("empty", "Malformed"),
        ("truncated", "Malformed"),
        ("extended", "Malformed"),
        ("version", "Malformed"),
        ("boot", "Expired"),
        ("instance", "Expired"),
        ("flow", "Tampered"),
        ("tag", "Tampered"),
        ("genuine", "Ok"),
        ("ipv6", "Ok"),
        ("connected", "Connected"),
        ("query-listener", "Listening"),
        ("bind", "Ok"),
        ("taken", "TakenAlready"),
        ("ended", "FlowEnded"),
    ];
    for (name, errno) in expected {
        assert_eq!(said(&output, name), errno, "{name}");
    }
}

#[test]
fn a_handle_is_worthless_to_another_service() {
    let programs = Programs::new();
    let output = run(&programs, &["borrow", "borrow"], &[&programs.path("netlab-load"), "1", "1"]);
    assert_eq!(said(&output, "borrowed"), "NotEntitled");
    assert_eq!(said(&output, "own"), "Ok");
}

#[test]
fn on_an_applications_socket_the_options_do_not_exist() {
    let programs = Programs::new();
    let output = run(&programs, &["tell"], &[&programs.path("netlab-load"), "own-options"]);
    assert_eq!(text(&output.stdout), "set NotRegistered\nquery NotRegistered\n");
}
