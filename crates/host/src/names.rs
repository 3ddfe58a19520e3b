//! Who is who on this host: users and groups, executables as the kernel knows them, cgroups by path, unit and container, network
//! namespaces, resolvers.

use std::{
    fs::{self, File},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::fd::AsRawFd,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
};

use nix::unistd::{Group, User};
use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
};
use waylay_config::{
    Names,
    declaration::{ExePattern, UnitName},
};
use waylay_core::{FileId, Namespace};

use crate::{cgroup::Cgroup, netns::Netns, processes::file_id};

/// Cgroups below each other; deeper ones are not looked at.
const DEEPEST: usize = 32;
/// resolv.conf(5).
const RESOLVERS: &str = "/etc/resolv.conf";
/// Where systemd-resolved listens (systemd-resolved.service(8)), whatever that file says.
const STUBS: [Ipv4Addr; 2] = [Ipv4Addr::new(127, 0, 0, 53), Ipv4Addr::new(127, 0, 0, 54)];
const DNS_PORT: u16 = 53;
/// `NSFS_MAGIC` of linux/magic.h.
const NSFS: i64 = 0x6e73_6673;
/// No namespace has this cookie: it is for those that are there and cannot be entered by this process.
const UNKNOWN: Namespace = Namespace::Foreign(u64::MAX);

/// What this host knows of names, at the moment it is asked.
#[derive(Clone, Debug)]
pub struct HostNames {
    hierarchy: Option<PathBuf>,
}

impl HostNames {
    /// Of this host. Without a unified hierarchy it knows no cgroups.
    #[must_use]
    pub fn new() -> Self {
        let root = Cgroup::root().ok();
        Self { hierarchy: root.map(|root| root.path().to_owned()) }
    }

    fn cgroups_called(&self, fits: &dyn Fn(&[u8]) -> bool) -> Vec<u64> {
        let mut found = Vec::new();
        if let Some(root) = &self.hierarchy {
            find_below(root, fits, DEEPEST, &mut found);
        }
        found
    }
}

impl Default for HostNames {
    fn default() -> Self {
        Self::new()
    }
}

impl Names for HostNames {
    fn user(&self, name: &str) -> Option<u32> {
        User::from_name(name).ok().flatten().map(|user| user.uid.as_raw())
    }

    fn group(&self, name: &str) -> Option<u32> {
        Group::from_name(name).ok().flatten().map(|group| group.gid.as_raw())
    }

    fn executables(&self, pattern: &ExePattern) -> Vec<FileId> {
        if !pattern.has_wildcards() {
            return executable(Path::new(pattern.as_str())).into_iter().collect();
        }
        let found = glob::glob(pattern.as_str()).into_iter().flatten().filter_map(Result::ok);
        let covered = found.filter(|path| path.to_str().is_some_and(|path| pattern.covers(path)));
        covered.filter_map(|path| executable(&path)).collect()
    }

    fn cgroup(&self, path: &str) -> Option<u64> {
        let directory = self.hierarchy.as_ref()?.join(path.trim_start_matches('/'));
        fs::metadata(directory).ok().filter(fs::Metadata::is_dir).map(|metadata| metadata.ino())
    }

    fn unit(&self, unit: &UnitName) -> Vec<u64> {
        self.cgroups_called(&|name| name == unit.as_str().as_bytes())
    }

    fn container(&self, id: &str) -> Vec<u64> {
        let id = id.as_bytes();
        self.cgroups_called(&|name| name.windows(id.len()).any(|part| part == id))
    }

    fn namespace(&self, path: &str) -> Option<Namespace> {
        match Netns::entered(namespace_at(path)?) {
            Ok(netns) => Some(netns.namespace()),
            Err(error) if error.raw_os_error() == Some(Errno::PERM.raw_os_error()) => Some(UNKNOWN),
            Err(_) => None,
        }
    }

    fn resolvers(&self) -> Vec<SocketAddr> {
        let named = fs::read_to_string(RESOLVERS).unwrap_or_default();
        let named: Vec<IpAddr> = resolvers_in(&named).chain(STUBS.map(IpAddr::V4)).collect();
        named.into_iter().map(|address| SocketAddr::new(address, DNS_PORT)).collect()
    }
}

/// Those that resolv.conf(5) names; the interface of a link-local address is left out, for answers are not known by it.
fn resolvers_in(text: &str) -> impl Iterator<Item = IpAddr> {
    let named = text.lines().filter_map(|line| line.trim_start().strip_prefix("nameserver"));
    let named =
        named.filter(|rest| rest.starts_with([' ', '\t'])).filter_map(|rest| rest.split_whitespace().next());
    named.filter_map(|address| address.split('%').next()?.parse().ok())
}

/// Opened only once it is known to be one: to open a pipe waits, and to open a device can mean something to it.
fn namespace_at(path: &str) -> Option<File> {
    let found = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let is_namespace = rustix::fs::fstatfs(&found).ok()?.f_type == NSFS;
    is_namespace.then(|| File::open(format!("/proc/self/fd/{}", found.as_raw_fd())).ok())?
}

/// That of a file which can be executed, so of no folder.
fn executable(path: &Path) -> Option<FileId> {
    let is_file = fs::metadata(path).is_ok_and(|metadata| metadata.is_file());
    is_file.then(|| file_id(path, std::process::id()).ok())?
}

/// The ids of the cgroups whose name fits.
fn find_below(directory: &Path, fits: &dyn Fn(&[u8]) -> bool, depth: usize, found: &mut Vec<u64>) {
    let Some(depth) = depth.checked_sub(1) else { return };
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in
        entries.filter_map(Result::ok).filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
    {
        if fits(entry.file_name().as_bytes())
            && let Ok(metadata) = entry.metadata()
        {
            found.push(metadata.ino());
        }
        find_below(&entry.path(), fits, depth, found);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_executable_is_the_same_by_every_name_and_another_by_its_copy() {
        let folder = tempfile::tempdir().unwrap();
        let [one, link, copy] = ["one", "link", "copy"].map(|name| folder.path().join(name));
        fs::write(&one, "x").unwrap();
        fs::hard_link(&one, &link).unwrap();
        fs::copy(&one, &copy).unwrap();
        assert!(executable(&one).is_some());
        assert_eq!(executable(&one), executable(&link));
        assert_ne!(executable(&one), executable(&copy));
        assert_eq!(executable(folder.path()), None);
    }

    #[test]
    fn resolvers_are_those_of_the_file() {
        let text = "# nameserver 192.0.2.9\nnameserver 192.0.2.1 \n  nameserver\tfe80::1%eth0\nnameservers 192.0.2.8\n\
                    search a.example\nnameserver nobody\n";
        let found: Vec<String> = resolvers_in(text).map(|address| address.to_string()).collect();
        assert_eq!(found, ["192.0.2.1", "fe80::1"]);
        assert!(HostNames::new().resolvers().contains(&"127.0.0.53:53".parse().unwrap()));
    }

    #[test]
    fn a_network_namespace_is_what_a_file_stands_for() {
        let names = HostNames::new();
        assert_eq!(names.namespace("/proc/self/ns/net"), Some(Namespace::Own));
        assert_eq!(names.namespace("/proc/self/ns/mnt"), None);
        assert_eq!(names.namespace("/no/such/namespace"), None);
        let pipe = tempfile::tempdir().unwrap();
        let pipe = pipe.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        assert_eq!(names.namespace(pipe.to_str().unwrap()), None);
    }

    #[test]
    fn names_are_those_of_this_host() {
        let names = HostNames::new();
        assert_eq!(names.user("root"), Some(0));
        assert_eq!(names.group("root"), Some(0));
        assert_eq!(names.user("nobody-of-this-name"), None);
        assert!(names.cgroup("/").is_some());
        assert_eq!(names.cgroup("/no-such-cgroup"), None);
    }
}
