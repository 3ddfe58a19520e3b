//! Who is who on this host: users and groups, executables as the kernel knows them, cgroups by path, unit and container.

use std::{
    fs::{self, File},
    io,
    os::{
        fd::AsFd,
        unix::{ffi::OsStrExt, fs::MetadataExt},
    },
    path::{Path, PathBuf},
};

use nix::unistd::{Group, User};
use waylay_config::{
    Names,
    declaration::{ExePattern, UnitName},
};
use waylay_core::FileId;

use crate::{cgroup::Cgroup, sys};

/// Cgroups below each other; deeper ones are not looked at.
const DEEPEST: usize = 32;

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
            return file_id(Path::new(pattern.as_str())).into_iter().collect();
        }
        let found = glob::glob(pattern.as_str()).into_iter().flatten().filter_map(Result::ok);
        let covered = found.filter(|path| path.to_str().is_some_and(|path| pattern.covers(path)));
        covered.filter_map(|path| file_id(&path).ok()).collect()
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
}

/// A file as the kernel's programs know it: by the device and inode of the file system that it is really on. What stat(2) says differs
/// from that on btrfs and overlayfs; what the kernel says of mappings (proc_pid_maps(5)) does not.
///
/// # Errors
/// If it cannot be opened or mapped.
pub fn file_id(path: &Path) -> io::Result<FileId> {
    let file = File::open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mapping = sys::Mapping::of(file.as_fd())?;
    let maps = fs::read("/proc/self/maps")?;
    let line = maps.split(|byte| *byte == b'\n').find(|line| starts_at(line, mapping.address()));
    line.and_then(parse_identity).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn starts_at(line: &[u8], address: usize) -> bool {
    line.starts_with(format!("{address:x}-").as_bytes())
}

/// Device and inode, the fourth and fifth fields, the device as the kernel packs it.
fn parse_identity(line: &[u8]) -> Option<FileId> {
    let line = str::from_utf8(line.get(..line.len().min(100))?).ok()?;
    let mut fields = line.split_ascii_whitespace().skip(3);
    let (major, minor) = fields.next()?.split_once(':')?;
    let [major, minor] = [major, minor].map(|number| u64::from_str_radix(number, 16).ok());
    Some(FileId { device: major? << 20 | minor?, inode: fields.next()?.parse().ok()? })
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
    fn a_line_of_maps_names_the_file() {
        let line = b"7f2c1a000000-7f2c1a001000 r--p 00000000 fd:01 393222                     /usr/bin/a b";
        assert!(starts_at(line, 0x7f2c_1a00_0000));
        assert_eq!(parse_identity(line), Some(FileId { device: 0xfd << 20 | 1, inode: 393_222 }));
        assert_eq!(parse_identity(b"7f2c1a000000-7f2c1a001000"), None);
    }

    #[test]
    fn a_file_is_the_same_by_every_name_and_another_by_its_copy() {
        let folder = tempfile::tempdir().unwrap();
        let [one, link, copy, empty] = ["one", "link", "copy", "empty"].map(|name| folder.path().join(name));
        fs::write(&one, "x").unwrap();
        fs::hard_link(&one, &link).unwrap();
        fs::copy(&one, &copy).unwrap();
        fs::write(&empty, "").unwrap();
        assert_eq!(file_id(&one).unwrap(), file_id(&link).unwrap());
        assert_ne!(file_id(&one).unwrap(), file_id(&copy).unwrap());
        assert_eq!(file_id(&empty).unwrap().inode, fs::metadata(&empty).unwrap().ino());
        assert!(file_id(folder.path()).is_err());
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
