//! Records under load and under attack: none missing, none wrong, none forged.
#![expect(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use tempfile::TempDir;

const PROBE: &str = env!("CARGO_BIN_EXE_netlab-probe");
const LOAD: &str = env!("CARGO_BIN_EXE_netlab-load");

/// Programs where a service's own user can reach them, wherever the build directory is.
struct Programs {
    directory: TempDir,
}

impl Programs {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        for program in [PROBE, LOAD] {
            let to = directory.path().join(Path::new(program).file_name().unwrap());
            fs::copy(program, to).unwrap();
        }
        Self { directory }
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    /// Runs `command` with every connection redirected to probes.
    fn run(&self, probes: &[&str], command: &[&str]) -> Output {
        let mut waylay = Command::new(waylay());
        waylay.arg("run");
        for probe in probes {
            waylay.args(["--through", &format!("exec:{} {probe}", self.path("netlab-probe"))]);
        }
        let output = waylay.arg("--").args(command).output().unwrap();
        eprintln!("{}{}", text(&output.stdout), text(&output.stderr));
        output
    }
}

/// The command this build made.
fn waylay() -> PathBuf {
    let path = Path::new(PROBE).with_file_name("waylay");
    assert!(path.exists(), "build it first: cargo build -p waylay-cli");
    path
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
    let output = programs.run(&["tell"], &[&programs.path("netlab-load"), "100000", "4"]);
    assert_eq!(text(&output.stdout), "right 100000 wrong 0 missing 0\n");
}

#[test]
fn a_million_altered_handles_and_none_is_accepted() {
    let programs = Programs::new();
    let output = programs.run(&["mutate"], &[&programs.path("netlab-load"), "1", "1"]);
    let said = said(&output, "tried");
    assert!(said.starts_with("1000000 accepted 0 "), "{said}");
    assert!(said.ends_with(" other 0 genuine true"), "{said}");
}

#[test]
fn every_refusal_has_its_errno() {
    let programs = Programs::new();
    let output = programs.run(&["refusals"], &[&programs.path("netlab-load"), "1", "1"]);
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
    let output = programs.run(&["borrow", "borrow"], &[&programs.path("netlab-load"), "1", "1"]);
    assert_eq!(said(&output, "borrowed"), "NotEntitled");
    assert_eq!(said(&output, "own"), "Ok");
}

#[test]
fn on_an_applications_socket_the_options_do_not_exist() {
    let programs = Programs::new();
    let output = programs.run(&["tell"], &[&programs.path("netlab-load"), "own-options"]);
    assert_eq!(text(&output.stdout), "set NotRegistered\nquery NotRegistered\n");
}
