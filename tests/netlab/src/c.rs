//! Programs in C that use the library for C.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    time::SystemTime,
};

/// What a program is to be built or run with, to find mistakes that do not show.
///
/// `WAYLAY_CHECKED_BY=valgrind` runs programs under it; `address` and `thread`
/// build them with that sanitizer, with the library that
/// `WAYLAY_CHECKED_LIBRARY` and the sanitizer's runtime that
/// `WAYLAY_CHECKED_RUNTIME` names. See `scripts/test-sanitizers`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckedBy {
    /// Nothing: as users have it.
    Nothing,
    /// `valgrind`.
    Valgrind,
    /// `-fsanitize=`.
    Sanitizer(String),
}

impl CheckedBy {
    /// As the environment says.
    pub fn from_env() -> Self {
        match env::var("WAYLAY_CHECKED_BY").ok().as_deref() {
            None | Some("") => Self::Nothing,
            Some("valgrind") => Self::Valgrind,
            Some(sanitizer) => Self::Sanitizer(sanitizer.into()),
        }
    }

    /// The command for a program that was built for it.
    pub fn command(&self, program: &Path) -> Command {
        match self {
            Self::Nothing | Self::Sanitizer(_) => Command::new(program),
            Self::Valgrind => {
                let mut command = Command::new("valgrind");
                command.args(["--quiet", "--error-exitcode=9", "--num-callers=40", "--leak-check=full"]);
                command.args(["--show-leak-kinds=definite", "--errors-for-leak-kinds=definite"]);
                let known = package().join("programs/control-codes/valgrind.supp");
                command.arg(format!("--suppressions={}", known.display())).arg(program);
                command
            }
        }
    }
}

/// Builds `programs/NAME/*.c` with the library for C, once for all tests; where it is.
///
/// # Panics
/// If it does not compile without a warning.
pub fn program(name: &str, checked_by: &CheckedBy) -> PathBuf {
    let (sources, headers, library) = (files(&package().join("programs").join(name)), headers(), library());
    let made_of = sources.iter().cloned().chain(files(&headers)).chain([library.clone()]);
    let newest = made_of.map(|file| modified(&file)).max().unwrap();
    let kind: String = format!("{checked_by:?}").chars().filter(char::is_ascii_alphanumeric).collect();
    let built = beside_the_tests().join(format!("{name}-{kind}-{newest}"));
    if built.exists() {
        return built;
    }
    let objects = tempfile::tempdir().unwrap();
    let mut compiler = compiler(checked_by);
    compiler.args(["-std=gnu11", "-g", "-Wall", "-Wextra", "-Werror", "-c", "-I"]).arg(headers);
    succeeds(compiler.args(sources.iter().filter(|file| has_extension(file, "c"))).current_dir(&objects));
    let unfinished = built.with_extension(std::process::id().to_string());
    let mut linker = Command::new("gcc");
    linker.args(files(objects.path())).arg(library).args(runtime()).args(["-lm", "-o"]).arg(&unfinished);
    succeeds(&mut linker);
    fs::rename(unfinished, &built).unwrap();
    built
}

fn succeeds(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn has_extension(file: &Path, wanted: &str) -> bool {
    file.extension().is_some_and(|extension| extension == wanted)
}

/// The linker is another's: clang's own runtime may not be there, and would not be the one for Rust.
fn compiler(checked_by: &CheckedBy) -> Command {
    match checked_by {
        CheckedBy::Nothing | CheckedBy::Valgrind => Command::new("gcc"),
        CheckedBy::Sanitizer(sanitizer) => {
            let mut clang = Command::new("clang");
            clang.arg(format!("-fsanitize={sanitizer}"));
            clang
        }
    }
}

/// The whole of a sanitizer's runtime: it takes the place of functions of the C library.
fn runtime() -> Vec<String> {
    let Ok(runtime) = env::var("WAYLAY_CHECKED_RUNTIME") else { return Vec::new() };
    let whole = ["-Wl,--whole-archive", &runtime, "-Wl,--no-whole-archive", "-rdynamic", "-ldl", "-lrt"];
    whole.map(str::to_owned).into()
}

fn files(directory: &Path) -> Vec<PathBuf> {
    fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect()
}

fn headers() -> PathBuf {
    package().join("../../crates/ws2/include/waylay")
}

/// The static library: cargo makes it where the tests themselves are.
fn library() -> PathBuf {
    let named = env::var_os("WAYLAY_CHECKED_LIBRARY").map(PathBuf::from);
    named.unwrap_or_else(|| beside_the_tests().join("libwaylay_ws2.a"))
}

fn beside_the_tests() -> PathBuf {
    env::current_exe().unwrap().parent().unwrap().into()
}

fn package() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn modified(file: &Path) -> u128 {
    let time = fs::metadata(file).and_then(|file| file.modified()).unwrap();
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos()
}
