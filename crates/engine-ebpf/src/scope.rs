use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{error::EbpfError, load::SCOPE_PROGRAMS};

/// Where an engine works and under which name.
#[derive(Clone, Debug)]
pub struct Scope {
    /// Directory of the cgroup whose subtree is watched.
    pub cgroup: PathBuf,
    /// How many cgroups are above it; 0 of the hierarchy's root.
    pub level: u32,
    /// How many are above the cgroups of services, which are somewhere below it.
    pub service_level: u32,
    /// Tells this engine's handles and listeners from those of others.
    pub instance: u64,
    /// Directory in the BPF file system that all engines of the host share.
    pub pin_root: PathBuf,
    /// Directory in the BPF file system for this engine's links; made here.
    pub pins: PathBuf,
    /// How many flows may be under way.
    pub limits: Limits,
    /// Whether services may be adopted that run already; the programs for that are loaded only then.
    pub residents: bool,
}

impl Scope {
    /// How many cgroups are above the innermost one that is around it and around these directories.
    pub(crate) fn level_shared_with(&self, cgroups: &[PathBuf]) -> u32 {
        let depth = |path: &Path| {
            let shared =
                path.components().zip(self.cgroup.components()).take_while(|(one, other)| one == other);
            shared.count()
        };
        let own = self.cgroup.components().count();
        let up = cgroups.iter().map(|cgroup| own - depth(cgroup)).max().unwrap_or(0);
        self.level.saturating_sub(u32::try_from(up).unwrap_or(u32::MAX))
    }
}

/// Removes the pins of an engine whose process is gone, and with them what they hold: first what was attached last. Pins that are gone
/// are no error.
///
/// # Errors
/// [`EbpfError::Pin`] if one stays.
pub fn unpin(pins: &Path) -> Result<(), EbpfError> {
    let failed = |path: &Path, source: io::Error| {
        let is_gone = source.kind() == io::ErrorKind::NotFound;
        if is_gone { Ok(()) } else { Err(EbpfError::Pin { path: path.into(), source: source.into() }) }
    };
    for program in SCOPE_PROGRAMS.into_iter().rev() {
        let path = pins.join(program);
        fs::remove_file(&path).or_else(|source| failed(&path, source))?;
    }
    fs::remove_dir_all(pins).or_else(|source| failed(pins, source))
}

/// The id by which the programs know a cgroup: the inode of its directory.
pub(crate) fn cgroup_id(path: &Path) -> Result<u64, EbpfError> {
    let metadata = fs::metadata(path).map_err(|source| EbpfError::Read { path: path.into(), source })?;
    Ok(metadata.ino())
}

/// How many flows may be under way, waiting ones included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Of the whole scope; at most 32,768.
    pub flows: u64,
    /// Of one cgroup in it.
    pub flows_per_cgroup: u64,
    /// Cgroups whose flows are counted at a time: those in which a process has connected or sent, until they are gone.
    /// One more is refused.
    pub cgroups: u32,
    /// Datagram flows of the whole scope; at most 131,072.
    pub datagram_flows: u64,
    /// Datagram flows of one cgroup in it. Beyond, the one that has been idle for longest makes room.
    pub datagram_flows_per_cgroup: u64,
    /// How long a datagram flow is kept without a datagram. That of a connected socket is kept as long as the socket.
    pub datagram_idle: Duration,
    /// Bytes for flows that have ended and that nobody has asked for yet; a power of two, of pages. Nobody asks: one page.
    pub past: u32,
}

impl Default for Limits {
    /// All that the programs hold; one cgroup may take three quarters of the connections and seven eighths of the
    /// datagram flows, so that it cannot keep the services from carrying on what they have accepted.
    fn default() -> Self {
        Self {
            flows: 32_768,
            flows_per_cgroup: 24_576,
            cgroups: 4096,
            datagram_flows: 131_072,
            datagram_flows_per_cgroup: 114_688,
            datagram_idle: Duration::from_secs(60),
            past: 4096,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_resident_shares_with_the_scope_is_around_both() {
        let scope = Scope {
            cgroup: "/sys/fs/cgroup/a/b/run".into(),
            level: 3,
            service_level: 4,
            instance: 1,
            pin_root: PathBuf::new(),
            pins: PathBuf::new(),
            limits: Limits::default(),
            residents: true,
        };
        let level =
            |hooked: &[&str]| scope.level_shared_with(&hooked.iter().map(PathBuf::from).collect::<Vec<_>>());
        assert_eq!(level(&["/sys/fs/cgroup/a/b/proxy"]), 2);
        assert_eq!(level(&["/sys/fs/cgroup/a/c/proxy"]), 1);
        assert_eq!(level(&["/sys/fs/cgroup/proxy.service"]), 0);
        assert_eq!(level(&["/sys/fs/cgroup/a/b/proxy", "/sys/fs/cgroup/a/proxy.socket"]), 1);
        assert_eq!(level(&["/sys/fs/cgroup/a/b/run/proxy"]), 3);
    }
}
