//! From a policy's files to a run: its services, and who is who when it begins.

use std::{error::Error, ffi::OsString, path::Path};

use thiserror::Error;
use waylay_config::{
    FileNames, Lowered, Severity, Sources,
    declaration::{
        Account, AdoptedIdentity, Builtin as DeclaredBuiltin, DestinationBy, ServiceDeclaration, ServiceKind,
    },
    lint, lower, read, strangers,
};
use waylay_core::{FilterId, Naming, Protocol};
use waylay_host::{Adoption, KnownBy, LocalName, ServiceSpec, Transports, names::HostNames};
use waylay_inspect::scan::Patterns;

use crate::{
    chain::{builtin_command, shell_command},
    policy::{self, Count, PolicyFileError},
    spec::Builtin,
    terminal,
};

/// A policy from files, as it is at the beginning of a run.
pub(crate) struct Declared {
    sources: Sources,
    lowered: Lowered,
    services: Vec<ServiceDeclaration>,
}

/// Why a service of a policy cannot be had.
#[derive(Debug, Error)]
pub(crate) enum DeclaredError {
    /// No user of that name.
    #[error("the service {service} is known by a user {name:?} that this host does not have")]
    NoSuchUser {
        /// The service.
        service: String,
        /// The user's name.
        name: String,
    },
    /// `--pattern` without anybody to look for it.
    #[error("--pattern: no service of the policy scans; one would have run = \"scan\"")]
    NothingScans,
}

impl Declared {
    /// Reads a policy; what is wrong with it is printed, and so are warnings.
    pub(crate) fn read(file: &Path) -> Result<Self, Box<dyn Error>> {
        let sources = policy::sources(file)?;
        let host = HostNames::new();
        let (declarations, mut diagnostics) = read(&sources);
        let lowered = lower(&declarations, &host, &mut diagnostics);
        if let Some(lowered) = &lowered {
            diagnostics.extend(strangers(&declarations, &host));
            diagnostics.extend(lint(&declarations, lowered, &sources));
            diagnostics.retain(|diagnostic| diagnostic.severity() != Severity::Note);
        }
        let words = policy::words(&diagnostics, &sources, terminal::stderr());
        if !words.is_empty() {
            terminal::say(words.trim_end());
        }
        let errors = Count(policy::count(&diagnostics, Severity::Error));
        let Some(lowered) = lowered.filter(|_| errors.0 == 0) else {
            return Err(PolicyFileError::Wrong { path: file.to_owned(), errors }.into());
        };
        Ok(Self { sources, lowered, services: declarations.services })
    }

    /// What follows from it.
    pub(crate) fn policy(&self) -> waylay_core::Policy {
        self.lowered.policy.clone()
    }

    /// Its services in their solved order.
    pub(crate) fn services(&self, pattern: &[OsString]) -> Result<Vec<ServiceSpec>, Box<dyn Error>> {
        let scans =
            |service: &ServiceDeclaration| service.kind == ServiceKind::Builtin(DeclaredBuiltin::Scan);
        if !pattern.is_empty() && !self.services.iter().any(scans) {
            return Err(DeclaredError::NothingScans.into());
        }
        let patterns = crate::patterns::read(pattern)?;
        let mut found = Vec::new();
        for service in self.lowered.policy.services() {
            let declared = self.services.iter().find(|declared| declared.name.value == service.name);
            found.extend(declared.map(|declared| self::service(declared, &patterns)).transpose()?);
        }
        Ok(found)
    }

    /// A filter as people know it.
    pub(crate) fn describe(&self, filter: FilterId) -> String {
        FileNames { lowered: &self.lowered, sources: &self.sources }.filter(filter)
    }
}

fn service(declared: &ServiceDeclaration, patterns: &Patterns) -> Result<ServiceSpec, DeclaredError> {
    let name = declared.name.value.clone();
    let (builtin, command, input, adoption) = match &declared.kind {
        ServiceKind::Builtin(DeclaredBuiltin::Log) => {
            (true, builtin_command(Builtin::Log, false, &name), Vec::new(), None)
        }
        ServiceKind::Builtin(DeclaredBuiltin::Scan) => {
            (true, builtin_command(Builtin::Scan, false, &name), patterns.encode(), None)
        }
        ServiceKind::Cooperating { command } => (false, shell_command(command), Vec::new(), None),
        ServiceKind::Adopted { listeners, identity, destination } => {
            let (known_by, command) = identify(identity, &name)?;
            let local_name = match destination {
                DestinationBy::Option => LocalName::Listener,
                DestinationBy::LocalName => LocalName::Destination,
            };
            let adoption = Adoption { known_by, listens: listeners.clone(), local_name };
            (false, command, Vec::new(), Some(adoption))
        }
    };
    let transports = transports(&declared.transports);
    Ok(ServiceSpec { name, transports, builtin, command, input, identity: None, adoption })
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
        AdoptedIdentity::User(user) => KnownBy::Uid(match &user.value {
            Account::Number(uid) => *uid,
            Account::Named(name) => {
                let unknown =
                    || DeclaredError::NoSuchUser { service: service.to_owned(), name: name.clone() };
                waylay_config::Names::user(&HostNames::new(), name).ok_or_else(unknown)?
            }
        }),
    };
    Ok((Some(known_by), Vec::new()))
}

fn transports(protocols: &[Protocol]) -> Transports {
    match (protocols.contains(&Protocol::Tcp), protocols.contains(&Protocol::Udp)) {
        (true, true) => Transports::TcpAndUdp,
        (false, true) => Transports::Udp,
        (true | false, false) => Transports::Tcp,
    }
}
