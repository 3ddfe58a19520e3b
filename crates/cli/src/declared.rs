//! From a policy's files to a run: its services, and who is who when it begins.

use std::{error::Error, ffi::OsString, path::Path};

use thiserror::Error;
use waylay_config::{
    FileNames, Lowered, Severity, Sources,
    declaration::{Builtin, ServiceDeclaration, ServiceKind},
    lint, lower, read, strangers,
};
use waylay_core::{FilterId, Naming};
use waylay_daemon::declared::Making;
use waylay_host::{ServiceSpec, names::HostNames};

use crate::{
    policy::{self, Count, PolicyFileError},
    terminal,
};

/// A policy from files, as it is at the beginning of a run.
pub(crate) struct Declared {
    sources: Sources,
    lowered: Lowered,
    services: Vec<ServiceDeclaration>,
}

/// `--pattern` without anybody to look for it.
#[derive(Debug, Error)]
#[error("--pattern: no service of the policy scans; one would have run = \"scan\"")]
pub(crate) struct NothingScans;

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
        let scans = |service: &ServiceDeclaration| service.kind == ServiceKind::Builtin(Builtin::Scan);
        if !pattern.is_empty() && !self.services.iter().any(scans) {
            return Err(NothingScans.into());
        }
        let patterns = crate::patterns::read(pattern)?.encode();
        let making = Making { patterns, identity: None, leave_within: None };
        let mut found = Vec::new();
        for service in self.lowered.policy.services() {
            let declared = self.services.iter().find(|declared| declared.name.value == service.name);
            found.extend(declared.map(|declared| making.service(declared)).transpose()?);
        }
        Ok(found)
    }

    /// A filter as people know it.
    pub(crate) fn describe(&self, filter: FilterId) -> String {
        FileNames { lowered: &self.lowered, sources: &self.sources }.filter(filter)
    }
}
