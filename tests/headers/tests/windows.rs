//! The example for both systems, on the other one.
#![expect(clippy::unwrap_used, reason = "a failed set-up is a failed test")]

use std::{
    path::Path,
    process::{Command, Output},
};

use tempfile::TempDir;
use waylay_headers::{WINDOWS, root};

/// A Windows of the test's own, with the programs of `wine`.
struct Wine {
    directory: TempDir,
}

impl Wine {
    fn run(&self, program: &Path, arguments: &[&str]) -> Output {
        self.command("wine").arg(program).args(arguments).output().unwrap()
    }

    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(name);
        command.env("WINEPREFIX", self.directory.path().join("wine")).env("HOME", self.directory.path());
        command.env("WINEARCH", "win64").env("WINEDEBUG", "-all");
        command.env("WINEDLLOVERRIDES", "mscoree,mshtml,winemenubuilder.exe=");
        command
    }
}

impl Drop for Wine {
    /// The server of that Windows outlives its programs, and would write into the directory.
    fn drop(&mut self) {
        let servers = ["wineserver", "/usr/lib/wine/wineserver64", "/usr/lib/wine/wineserver"];
        // Where it is depends on the distribution; with none of them it ends by itself.
        let _ended = servers.iter().any(|server| self.command(server).arg("-k").status().is_ok());
    }
}

/// Wine's Winsock has none of the control codes: this shows that the program links and
/// starts, and says what is missing. What it does where they are, it does not show.
#[test]
fn the_redirect_service_says_under_wine_that_nothing_is_redirected_there() {
    let wine = Wine { directory: TempDir::new().unwrap() };
    let program = wine.directory.path().join("redirect-service.exe");
    let built = WINDOWS[1].run(
        &root().join("examples/redirect-service.cpp"),
        &["-static", "-o", program.to_str().unwrap(), "-lws2_32"],
    );
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    if Command::new("wine").arg("--version").output().is_err() {
        eprintln!("wine is not installed: built, and not started");
        return;
    }
    for (arguments, code, message) in [
        (&["127.0.0.1", "0"][..], 1, "nothing can be redirected here: error 10045"),
        (&["::1", "0"], 1, "nothing can be redirected here: error 10045"),
        (&[], 2, "usage: redirect-service ADDRESS PORT"),
    ] {
        let output = wine.run(&program, arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(said.contains(message), "{arguments:?}: {said}");
    }
}
