//! Who is who on a host: what the names in policy files come to.

use std::net::SocketAddr;

use waylay_core::{FileId, Namespace};

use crate::declaration::{ExePattern, UnitName};

/// What a host knows of names.
///
/// A name that nobody bears comes to nothing, and a condition on it holds of nobody. It is asked again when the host has changed.
pub trait Names {
    /// The user of this name.
    fn user(&self, name: &str) -> Option<u32>;

    /// The group of this name.
    fn group(&self, name: &str) -> Option<u32>;

    /// The executables that a pattern covers.
    fn executables(&self, pattern: &ExePattern) -> Vec<FileId>;

    /// The cgroup at a path below the root of the hierarchy, which is `/`.
    fn cgroup(&self, path: &str) -> Option<u64>;

    /// The cgroups of a systemd unit, wherever in the hierarchy they are: those that bear its name.
    fn unit(&self, unit: &UnitName) -> Vec<u64>;

    /// The cgroups of a container, wherever in the hierarchy they are: those with its id in their name.
    fn container(&self, id: &str) -> Vec<u64>;

    /// The network namespace for which the file at a path stands.
    fn namespace(&self, path: &str) -> Option<Namespace>;

    /// Whom applications ask for names, where a policy does not say it.
    fn resolvers(&self) -> Vec<SocketAddr>;
}

/// A host without anybody.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Nobody;

impl Names for Nobody {
    fn user(&self, _name: &str) -> Option<u32> {
        None
    }

    fn group(&self, _name: &str) -> Option<u32> {
        None
    }

    fn executables(&self, _pattern: &ExePattern) -> Vec<FileId> {
        Vec::new()
    }

    fn cgroup(&self, _path: &str) -> Option<u64> {
        None
    }

    fn unit(&self, _unit: &UnitName) -> Vec<u64> {
        Vec::new()
    }

    fn container(&self, _id: &str) -> Vec<u64> {
        Vec::new()
    }

    fn namespace(&self, _path: &str) -> Option<Namespace> {
        None
    }

    fn resolvers(&self) -> Vec<SocketAddr> {
        Vec::new()
    }
}
