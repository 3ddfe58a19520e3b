//! What `make install` leaves is what a program needs, and `make uninstall` takes all of it away.
#![expect(clippy::unwrap_used, reason = "a failed set-up is a failed test")]

use std::{
    env, fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use tempfile::TempDir;
use waylay_headers::{program, root};

const PREFIX: &str = "/usr/local";
const EXPECTED: [&str; 17] = [
    "bin/waylay",
    "bin/waylayd",
    "include/waylay/mstcpip.h",
    "include/waylay/mswsock.h",
    "include/waylay/waylay_context.h",
    "include/waylay/waylay_errors.h",
    "include/waylay/waylay_lengths.h",
    "include/waylay/waylay_types.h",
    "include/waylay/winsock2.h",
    "include/waylay/ws2spi.h",
    "include/waylay/ws2tcpip.h",
    "lib/libwaylay_ws2.a",
    "lib/libwaylay_ws2.so",
    "lib/libwaylay_ws2.so.0",
    "lib/pkgconfig/waylay-ws2.pc",
    "lib/systemd/system/waylay-boot.service",
    "lib/systemd/system/waylayd.service",
];
/// What a program meets that is no redirect service: WSAENOPROTOOPT, WSAENOTSOCK.
const SAYS: &str = "version 2.2\nsocket made\nquery 10042\nquery of no socket 10038\nclose 0\ncleanup 0\n";

/// An installation below a directory of its own, of what this build has made.
struct Installed {
    directory: TempDir,
}

impl Installed {
    fn new() -> Self {
        let installed = Self { directory: TempDir::new().unwrap() };
        let output = installed.make("install", &built());
        assert!(output.status.success(), "{output:?}");
        installed
    }

    fn make(&self, target: &str, built: &Path) -> Output {
        let variables = [("DESTDIR", self.directory.path()), ("PREFIX", Path::new(PREFIX)), ("BUILT", built)];
        let variables = variables.map(|(name, value)| format!("{name}={}", value.display()));
        let mut make = Command::new("make");
        make.arg("--no-print-directory").arg("-C").arg(root()).arg(target).args(variables);
        // Those of a make that runs the tests are for itself.
        make.env_remove("MAKEFLAGS").env_remove("MAKELEVEL").output().unwrap()
    }

    fn prefix(&self) -> PathBuf {
        self.directory.path().join(PREFIX.trim_start_matches('/'))
    }

    /// Every file, from the prefix on.
    fn files(&self) -> Vec<String> {
        let mut found = Vec::new();
        collect(self.directory.path(), &mut found);
        let relative = |path: &PathBuf| path.strip_prefix(self.prefix()).unwrap().display().to_string();
        let mut names: Vec<String> = found.iter().map(relative).collect();
        names.sort();
        names
    }

    /// What pkg-config says, for an installation that is not where it says it is.
    fn pkg_config(&self, arguments: &[&str]) -> Vec<String> {
        let output = Command::new("pkg-config")
            .args(arguments)
            .arg("waylay-ws2")
            .env("PKG_CONFIG_LIBDIR", self.prefix().join("lib/pkgconfig"))
            .env("PKG_CONFIG_SYSROOT_DIR", self.directory.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().split_whitespace().map(str::to_owned).collect()
    }

    /// Builds the program with these, and returns it.
    fn compile(&self, source: &Path, flags: &[String]) -> PathBuf {
        let to = self.directory.path().join("program");
        let compiler =
            if source.extension().is_some_and(|extension| extension == "cpp") { "g++" } else { "cc" };
        let output = Command::new(compiler).arg("-o").arg(&to).arg(source).args(flags).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        to
    }
}

fn collect(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            collect(&entry.path(), found);
        } else {
            found.push(entry.path());
        }
    }
}

/// Where the build is that these tests are of.
fn built() -> PathBuf {
    let tests = env::current_exe().unwrap();
    let built = tests.ancestors().nth(2).unwrap();
    for file in ["waylay", "libwaylay_ws2.so", "libwaylay_ws2.a"] {
        let path = built.join(file);
        assert!(path.is_file(), "build {} first: cargo build -p waylay-cli -p waylay-ws2", path.display());
    }
    built.into()
}

fn says(program: &Path, library_path: Option<&Path>) -> String {
    let mut command = Command::new(program);
    command.env_remove("LD_LIBRARY_PATH");
    if let Some(path) = library_path {
        command.env("LD_LIBRARY_PATH", path);
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn everything_is_where_it_belongs_and_readable_by_all() {
    let installed = Installed::new();
    let (pages, files): (Vec<_>, Vec<_>) =
        installed.files().into_iter().partition(|name| name.starts_with("share/man/man1/waylay"));
    assert_eq!(files, EXPECTED);
    for page in ["waylay-run.1", "waylayd.1"] {
        assert!(pages.contains(&format!("share/man/man1/{page}")), "{pages:?}");
    }
    let link = fs::read_link(installed.prefix().join("lib/libwaylay_ws2.so")).unwrap();
    assert_eq!(link, Path::new("libwaylay_ws2.so.0"));
    // A service runs as a user of its own and has to be able to load the library.
    for name in installed.files() {
        let mode = fs::metadata(installed.prefix().join(&name)).unwrap().permissions().mode() & 0o777;
        let expected = if name.starts_with("bin/") { 0o755 } else { 0o644 };
        assert_eq!(mode, expected, "{name}");
    }
}

#[test]
fn a_program_in_c_compiles_links_and_runs_by_pkg_config() {
    let installed = Installed::new();
    let program = installed.compile(&program("installed.c"), &installed.pkg_config(&["--cflags", "--libs"]));
    assert_eq!(says(&program, Some(&installed.prefix().join("lib"))), SAYS);
    // By its soname, so that a library that breaks programs can be another file.
    let dynamic = Command::new("readelf").arg("-d").arg(&program).output().unwrap();
    let needed = String::from_utf8(dynamic.stdout).unwrap();
    assert!(needed.contains("[libwaylay_ws2.so.0]"), "{needed}");
}

#[test]
fn a_program_linked_with_the_archive_needs_no_library() {
    let installed = Installed::new();
    let mut flags = installed.pkg_config(&["--cflags"]);
    flags.push(installed.prefix().join("lib/libwaylay_ws2.a").display().to_string());
    let libraries = installed.pkg_config(&["--static", "--libs-only-l"]);
    flags.extend(libraries.into_iter().filter(|library| library != "-lwaylay_ws2"));
    let program = installed.compile(&program("installed.c"), &flags);
    assert_eq!(says(&program, None), SAYS);
}

#[test]
fn the_redirect_service_compiles_as_it_says() {
    let installed = Installed::new();
    let service = root().join("examples/redirect-service.cpp");
    let program = installed.compile(&service, &installed.pkg_config(&["--cflags", "--libs"]));
    let mut command = Command::new(program);
    command.env("LD_LIBRARY_PATH", installed.prefix().join("lib")).env_remove("LISTEN_FDNAMES");
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("waylay run --through exec:"), "{output:?}");
}

#[test]
fn uninstalling_leaves_no_file() {
    let installed = Installed::new();
    let own = installed.prefix().join("lib/somebody-elses.so");
    fs::write(&own, "").unwrap();
    let output = installed.make("uninstall", &built());
    assert!(output.status.success(), "{output:?}");
    assert_eq!(installed.files(), ["lib/somebody-elses.so"]);
}

#[test]
fn without_a_build_nothing_is_installed() {
    let installed = Installed { directory: TempDir::new().unwrap() };
    let output = installed.make("install", Path::new("/nonexistent"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("run make build first"), "{output:?}");
    assert!(installed.files().is_empty());
}
