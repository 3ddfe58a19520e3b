//! From what a policy says of a service to what a host needs to have it.

use std::{
    ffi::OsString,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use thiserror::Error;
use waylay_config::{
    Names,
    declaration::{
        Account, AdoptedIdentity, Builtin, DestinationBy, ServiceDeclaration, ServiceKind, UnitName,
    },
};
use waylay_core::Protocol;
use waylay_host::{Adoption, KnownBy, LocalName, ServiceSpec, Transports, names::HostNames, user::Identity};

/// The hidden subcommand of the process of a service that comes with waylay.
pub const SERVE_SUBCOMMAND: &str = "__serve";

/// Why a service of a policy cannot be had.
#[derive(Debug, Error)]
pub enum DeclaredError {
    /// No user of that name.
    #[error("the service {service} is known by a user {name:?} that this host does not have")]
    NoSuchUser {
        /// The service.
        service: String,
        /// The user's name.
        name: String,
    },
    /// Its identity is the daemon's too.
    #[error("the service {service} would be waylayd itself: by {by} it is known as well")]
    Itself {
        /// The service.
        service: String,
        /// What they have in common.
        by: String,
    },
}

/// What is to become of services that are declared.
#[derive(Clone, Debug, Default)]
pub struct Making {
    /// What `scan` finds on its standard input.
    pub patterns: Vec<u8>,
    /// Whom they run as; `None` for a user of its own each.
    pub identity: Option<Identity>,
    /// How long they may take to finish when they are no longer wanted; `None`: as long as that takes.
    pub leave_within: Option<Duration>,
}

impl Making {
    /// How a service is had.
    ///
    /// # Errors
    /// [`DeclaredError::NoSuchUser`].
    pub fn service(&self, declared: &ServiceDeclaration) -> Result<ServiceSpec, DeclaredError> {
        let name = declared.name.value.clone();
        let (builtin, command, input, adoption) = match &declared.kind {
            ServiceKind::Builtin(Builtin::Log) => (true, builtin_command("log", &name), Vec::new(), None),
            ServiceKind::Builtin(Builtin::Scan) => {
                (true, builtin_command("scan", &name), self.patterns.clone(), None)
            }
            ServiceKind::Cooperating { command } => (false, shell_command(command), Vec::new(), None),
            ServiceKind::Adopted { listeners, identity, destination } => {
                let (known_by, command) = identify(identity, &name)?;
                let local_name = match destination {
                    DestinationBy::Option => LocalName::Listener,
                    DestinationBy::LocalName => LocalName::Destination,
                    DestinationBy::Packet => LocalName::Packet,
                };
                let adoption = Adoption { known_by, listens: listeners.clone(), local_name };
                (false, command, Vec::new(), Some(adoption))
            }
        };
        let transports = transports(&declared.transports);
        let identity = self.identity.clone();
        Ok(ServiceSpec {
            name,
            transports,
            builtin,
            command,
            input,
            identity,
            leave_within: self.leave_within,
            adoption,
        })
    }
}

/// A command for the shell.
#[must_use]
pub fn shell_command(command: &str) -> Vec<OsString> {
    vec!["/bin/sh".into(), "-c".into(), format!("exec {command}").into()]
}

/// The arguments of this binary that make it a service which comes with waylay.
#[must_use]
pub fn builtin_command(which: &str, name: &str) -> Vec<OsString> {
    [SERVE_SUBCOMMAND, which, "--name", name].into_iter().map(OsString::from).collect()
}

/// By what an adopted service is known, or how it is started.
fn identify(
    identity: &AdoptedIdentity,
    service: &str,
) -> Result<(Option<KnownBy>, Vec<OsString>), DeclaredError> {
    let known_by = match identity {
        AdoptedIdentity::Started { command } => return Ok((None, shell_command(command))),
        AdoptedIdentity::Unit(unit) => KnownBy::Unit(unit.value.as_str().to_owned()),
        AdoptedIdentity::Cgroup(path) => KnownBy::Cgroup(path.value.clone().into()),
        AdoptedIdentity::Exe(path) => KnownBy::Exe(path.value.clone().into()),
        AdoptedIdentity::User(user) => KnownBy::Uid(uid(&user.value, service)?),
    };
    Ok((Some(known_by), Vec::new()))
}

fn uid(account: &Account, service: &str) -> Result<u32, DeclaredError> {
    match account {
        Account::Number(uid) => Ok(*uid),
        Account::Named(name) => HostNames::new()
            .user(name)
            .ok_or_else(|| DeclaredError::NoSuchUser { service: service.to_owned(), name: name.clone() }),
    }
}

fn transports(protocols: &[Protocol]) -> Transports {
    match (protocols.contains(&Protocol::Tcp), protocols.contains(&Protocol::Udp)) {
        (true, true) => Transports::TcpAndUdp,
        (false, true) => Transports::Udp,
        (true | false, false) => Transports::Tcp,
    }
}

/// What the daemon is known by: it is no service, and what it dials must not be taken for one's.
#[derive(Clone, Debug)]
pub struct Itself {
    /// Its cgroup, as a path below the root of the hierarchy.
    pub cgroup: PathBuf,
    /// Device and inode of its executable.
    pub exe: Option<(u64, u64)>,
    /// Its user.
    pub uid: u32,
}

impl Itself {
    /// This process.
    #[must_use]
    pub fn current() -> Self {
        let membership = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let path = membership.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/");
        Self {
            cgroup: path.into(),
            exe: file(Path::new("/proc/self/exe")),
            uid: rustix::process::geteuid().as_raw(),
        }
    }

    /// Refuses a service that is known by something which holds of this process too.
    ///
    /// # Errors
    /// [`DeclaredError::Itself`].
    pub fn refuse(&self, service: &ServiceDeclaration) -> Result<(), DeclaredError> {
        let ServiceKind::Adopted { identity, .. } = &service.kind else { return Ok(()) };
        let service = service.name.value.as_str();
        match self.has(identity, service)? {
            Some(by) => Err(DeclaredError::Itself { service: service.to_owned(), by }),
            None => Ok(()),
        }
    }

    fn has(&self, identity: &AdoptedIdentity, service: &str) -> Result<Option<String>, DeclaredError> {
        let is_in = |unit: &UnitName| self.cgroup.iter().any(|part| part == unit.as_str());
        Ok(match identity {
            AdoptedIdentity::Unit(unit) if is_in(&unit.value) => {
                Some(format!("the unit {}", unit.value.as_str()))
            }
            AdoptedIdentity::Cgroup(path) if self.cgroup.starts_with(&path.value) => {
                Some(format!("the cgroup {}", path.value))
            }
            AdoptedIdentity::Exe(path) if self.exe.is_some() && file(Path::new(&path.value)) == self.exe => {
                Some(format!("the executable {}", path.value))
            }
            AdoptedIdentity::User(user) if uid(&user.value, service)? == self.uid => {
                Some(format!("the user {}", user.value))
            }
            AdoptedIdentity::Started { .. }
            | AdoptedIdentity::Unit(_)
            | AdoptedIdentity::Cgroup(_)
            | AdoptedIdentity::Exe(_)
            | AdoptedIdentity::User(_) => None,
        })
    }
}

fn file(path: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use waylay_config::{Sources, read};

    use super::*;

    fn declared(identity: &str) -> ServiceDeclaration {
        let mut sources = Sources::default();
        sources.add("policy.toml", format!("[service.proxy]\nadopt = \"127.0.0.1:5000\"\n{identity}\n"));
        let (declarations, problems) = read(&sources);
        assert!(problems.is_empty(), "{problems:?}");
        declarations.services.into_iter().next().unwrap()
    }

    #[test]
    fn the_daemon_is_not_its_own_service() {
        let folder = tempfile::tempdir().unwrap();
        let [own, other] = ["own", "other"].map(|name| folder.path().join(name));
        std::fs::write(&own, "").unwrap();
        std::fs::write(&other, "").unwrap();
        let itself =
            Itself { cgroup: "/system.slice/waylayd.service".into(), exe: file(&own), uid: 4_000_000_000 };
        for (identity, by) in [
            ("unit = \"waylayd.service\"".to_owned(), Some("the unit waylayd.service")),
            ("unit = \"system.slice\"".to_owned(), Some("the unit system.slice")),
            ("unit = \"haproxy.service\"".to_owned(), None),
            ("cgroup = \"/system.slice\"".to_owned(), Some("the cgroup /system.slice")),
            ("cgroup = \"/system.slice/waylay\"".to_owned(), None),
            ("user = 4000000000".to_owned(), Some("the user 4000000000")),
            ("user = 4000000001".to_owned(), None),
            (format!("exe = {own:?}"), Some("the executable")),
            (format!("exe = {other:?}"), None),
            ("command = \"haproxy\"".to_owned(), None),
        ] {
            let refused = itself.refuse(&declared(&identity)).err().map(|error| error.to_string());
            match by {
                Some(by) => assert!(refused.unwrap().contains(by), "{identity}"),
                None => assert_eq!(refused, None, "{identity}"),
            }
        }
    }

    #[test]
    fn a_user_that_nobody_is_is_named() {
        let error = Making::default().service(&declared("user = \"no-such-user\"")).unwrap_err();
        assert!(error.to_string().contains("\"no-such-user\""), "{error}");
    }
}
