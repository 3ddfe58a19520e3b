//! Programs on file systems that are made of others, as containers have them: which of them a condition on an executable means.

#![expect(clippy::unwrap_used, reason = "a failed set-up is a failed test")]

use std::{
    fs,
    io::Write,
    net::{IpAddr, Ipv4Addr, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use tempfile::TempDir;
use waylay_netlab::{Daemon, Home, TcpServer, Waylay, patiently};

const POLICY: &str = "[sublayer.base]\n[[filter]]\naction = \"block\"\nsublayer = \"base\"\nif.exe = ";

/// Layers of a file system: what was there, in `lower`, and what has been written since, in `upper`, together in `merged`.
struct Layers {
    base: PathBuf,
    _folder: TempDir,
    lower: PathBuf,
}

impl Layers {
    /// In one file system, or the lower in another one.
    fn new(apart: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path().join("base");
        fs::create_dir(&base).unwrap();
        mount(&["-t", "tmpfs", "tmpfs", base.to_str().unwrap()]);
        let lower = if apart { folder.path().join("lower") } else { base.join("lower") };
        for directory in [&lower, &base.join("upper"), &base.join("work"), &base.join("merged")] {
            fs::create_dir(directory).unwrap();
        }
        for name in ["program", "other"] {
            fs::copy("/bin/bash", lower.join(name)).unwrap();
        }
        let layers = Self { base, _folder: folder, lower };
        let options = ["lower", "upper", "work"].map(|layer| layers.path(layer).display().to_string());
        let options = format!("lowerdir={},upperdir={},workdir={}", options[0], options[1], options[2]);
        mount(&["-t", "overlay", "overlay", "-o", &options, layers.path("merged").to_str().unwrap()]);
        layers
    }

    fn path(&self, layer: &str) -> PathBuf {
        if layer == "lower" { self.lower.clone() } else { self.base.join(layer) }
    }
}

impl Drop for Layers {
    fn drop(&mut self) {
        for mounted in [self.path("merged"), self.base.clone()] {
            // A failure here must not hide that of the test.
            let _unmounted = Command::new("umount").arg("--lazy").arg(mounted).status();
        }
    }
}

fn mount(arguments: &[&str]) {
    let mounted = Command::new("mount").args(arguments).output().unwrap();
    assert!(mounted.status.success(), "{arguments:?}: {mounted:?}");
}

/// Whether a copy of the shell connects, in a cgroup.
fn connects(home: &Home, program: &Path, port: u16) -> bool {
    let dial = format!("exec {} -c 'exec 3<>/dev/tcp/127.0.0.1/{port}'", program.display());
    let enter = format!("echo $$ > {}/cgroup.procs && {dial}", home.directory().display());
    let mut shell = Command::new("/bin/bash");
    shell.args(["-c", &enter]).stdin(Stdio::null()).stderr(Stdio::null()).status().unwrap().success()
}

fn only_what_is_named_is_meant(home: &Home, layers: &Layers) {
    let server =
        TcpServer::start(IpAddr::V4(Ipv4Addr::LOCALHOST), |mut stream: TcpStream| stream.write_all(b"x"));
    let connects = |program: &Path| connects(home, program, server.address().port());
    let merged = layers.path("merged").join("program");
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("policy.toml"), format!("{POLICY}{merged:?}\n")).unwrap();
    let daemon = Daemon::start(folder.path(), &home.path());
    assert!(!connects(&merged));
    assert!(connects(&layers.path("merged").join("other")));
    assert!(connects(&layers.path("lower").join("program")), "the same bytes by another way");
    // A change of the file copies it to the upper layer.
    fs::OpenOptions::new().append(true).open(&merged).unwrap().write_all(b"\n").unwrap();
    assert!(layers.path("upper").join("program").exists());
    patiently("it is known", || (!connects(&merged)).then_some(()));
    assert!(connects(&layers.path("merged").join("other")));
    // An upgrade makes another file of that name.
    let next = layers.path("merged").join("next");
    fs::copy("/bin/bash", &next).unwrap();
    assert!(connects(&next));
    fs::rename(&next, &merged).unwrap();
    patiently("it is known", || (!connects(&merged)).then_some(()));
    daemon.end();
}

#[test]
fn of_layers_in_one_file_system_are_known_also_when_they_change() {
    only_what_is_named_is_meant(&Home::new("layers"), &Layers::new(false));
}

#[test]
fn of_layers_in_several_file_systems_are_known_also_when_they_change() {
    only_what_is_named_is_meant(&Home::new("layers-apart"), &Layers::new(true));
}

/// By a supervisor, who asks stat(2), which has other numbers for these than the mount table.
#[test]
fn of_layers_are_known_without_root_too() {
    let server =
        TcpServer::start(IpAddr::V4(Ipv4Addr::LOCALHOST), |mut stream: TcpStream| stream.write_all(b"x"));
    let dial = format!("exec 3<>/dev/tcp/127.0.0.1/{}", server.address().port());
    for apart in [false, true] {
        let layers = Layers::new(apart);
        let anybody = || std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(layers.base.parent().unwrap(), anybody()).unwrap();
        let [merged, other, lower] = [("merged", "program"), ("merged", "other"), ("lower", "program")]
            .map(|(layer, name)| layers.path(layer).join(name));
        let policy = layers.base.join("policy.toml");
        fs::write(&policy, format!("{POLICY}{merged:?}\n")).unwrap();
        let connects = |program: &Path| {
            let waylay = Waylay::run_without_root(None).args(["--policy", policy.to_str().unwrap()]);
            waylay.watch([program.to_str().unwrap(), "-c", &dial]).code() == 0
        };
        assert_eq!(
            [&merged, &other, &lower].map(|program| connects(program)),
            [false, true, true],
            "{apart}"
        );
    }
}
