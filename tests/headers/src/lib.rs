//! Compilers, told to be strict, for the tests beside it.
//!
//! It knows nothing of what the programs mean and nothing of redirection: the
//! headers are in `crates/ws2/include`, what they have to do is in `tests/`.

#![expect(clippy::unwrap_used, reason = "a failed set-up is a failed test")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use tempfile::TempDir;

/// What every translation unit has to pass without a word.
const STRICT: [&str; 4] = ["-Wall", "-Wextra", "-Wpedantic", "-Werror"];

/// A compiler, and the language it is to take a source for.
#[derive(Clone, Copy, Debug)]
pub struct Compiler {
    /// The command.
    pub command: &'static str,
    /// `c` or `c++`.
    pub language: &'static str,
    /// As `-std=` takes it.
    pub standard: &'static str,
    /// Where `winsock2.h` is; the system's own for Windows.
    pub include: Include,
}

/// Whose headers are compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Include {
    /// Those of this project.
    Ours,
    /// Those of the Windows toolchain.
    Windows,
}

/// Every compiler with every language standard the headers are for.
#[must_use]
pub fn compilers() -> Vec<Compiler> {
    let c = ["c99", "c11", "gnu17"].map(|standard| ("c", standard));
    let cpp = ["c++11", "c++17", "gnu++20"].map(|standard| ("c++", standard));
    let commands = |language| if language == "c" { ["gcc", "clang"] } else { ["g++", "clang++"] };
    let with = |(language, standard)| {
        commands(language).map(|command| Compiler { command, language, standard, include: Include::Ours })
    };
    c.into_iter().chain(cpp).flat_map(with).collect()
}

/// The cross compilers for Windows.
pub const WINDOWS: [Compiler; 2] = [
    Compiler { command: "x86_64-w64-mingw32-gcc", language: "c", standard: "c11", include: Include::Windows },
    Compiler {
        command: "x86_64-w64-mingw32-g++",
        language: "c++",
        standard: "c++17",
        include: Include::Windows,
    },
];

impl Compiler {
    /// A compilation of `source`, strict, up to `more`.
    ///
    /// # Panics
    /// If the compiler is not there: `scripts/setup test` installs it.
    pub fn run(&self, source: &Path, more: &[&str]) -> Output {
        let mut command = Command::new(self.command);
        command.arg(format!("-std={}", self.standard)).args(STRICT);
        if self.include == Include::Ours {
            command.arg("-I").arg(headers());
        }
        command.args(["-x", self.language]).arg(source).args(["-x", "none"]).args(more);
        command.output().unwrap_or_else(|error| panic!("{}: {error}", self.command))
    }

    /// Fails the test with what the compiler said, if it said anything.
    pub fn accepts(&self, source: &Path) {
        let output = self.run(source, &["-fsyntax-only"]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() && said.is_empty(), "{self:?}: {}\n{said}", source.display());
    }

    /// Builds a program and returns what it prints.
    pub fn prints(&self, source: &Path) -> String {
        let directory = TempDir::new().unwrap();
        let program = directory.path().join("program");
        let output = self.run(source, &["-o", program.to_str().unwrap()]);
        assert!(output.status.success(), "{self:?}: {}", String::from_utf8_lossy(&output.stderr));
        let ran = Command::new(&program).output().unwrap();
        assert!(ran.status.success(), "{}: {ran:?}", source.display());
        String::from_utf8(ran.stdout).unwrap()
    }
}

/// The root of the workspace.
#[must_use]
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The directory that `#include <winsock2.h>` is to find.
#[must_use]
pub fn headers() -> PathBuf {
    root().join("crates/ws2/include/waylay")
}

/// A source of this package.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("programs").join(name)
}

/// A source of a few lines, in a directory that goes with it.
#[must_use]
pub fn source(text: &str) -> (TempDir, PathBuf) {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("source.c");
    fs::write(&path, text).unwrap();
    (directory, path)
}
