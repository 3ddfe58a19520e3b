//! The engine under the subject, and who is who to it.

use std::{fs, os::unix::fs::MetadataExt};

use waylay_core::{Policy, ServiceId, Tables};
use waylay_engine::{Endpoint, Engine, Installation, Liveness};
use waylay_engine_ebpf::Limits;
use waylay_engine_seccomp::{Dialler, home_of};
use waylay_netlab::{Lab, Ward};

/// Which engine.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    /// Whose parties are cgroups.
    Ebpf,
    /// Whose parties are threads with a filter.
    Seccomp,
}

pub(crate) enum Place {
    Lab(Box<Lab>),
    Ward(Ward),
}

impl Place {
    pub(crate) fn new(kind: Kind) -> Self {
        match kind {
            Kind::Ebpf => Self::Lab(Box::new(Lab::new("conformance", Limits::default()))),
            Kind::Seccomp => {
                let mut ward = Ward::of_threads();
                ward.begin();
                Self::Ward(ward)
            }
        }
    }

    pub(crate) fn install(&mut self, policy: &Policy, endpoints: Vec<Endpoint>) {
        match self {
            Self::Lab(lab) => lab.install(policy, endpoints),
            Self::Ward(ward) => {
                let services: Vec<_> = endpoints.iter().map(|endpoint| endpoint.service).collect();
                let tables = Tables::compile(policy).unwrap();
                ward.engine().install(&Installation { tables, endpoints }).unwrap();
                for service in services {
                    ward.engine().set_liveness(service, Liveness::Alive).unwrap();
                }
            }
        }
    }

    pub(crate) fn replace(&mut self, tables: Tables, endpoints: Vec<Endpoint>) {
        let installation = Installation { tables, endpoints };
        match self {
            Self::Lab(lab) => lab.engine.install(&installation).unwrap(),
            Self::Ward(ward) => ward.engine().install(&installation).unwrap(),
        }
    }

    /// Does something as a service, or as the client.
    pub(crate) fn acting_as<T: Send>(&self, service: Option<u32>, act: impl FnOnce() -> T + Send) -> T {
        match (self, service) {
            (Self::Lab(lab), Some(service)) => lab.as_service(service, act),
            (Self::Lab(lab), None) => lab.as_application(act),
            (Self::Ward(ward), Some(service)) => ward.acting_as(Dialler::Service(ServiceId(service)), act),
            (Self::Ward(ward), None) => ward.acting_as(Dialler::Command, act),
        }
    }

    /// Asks about a socket: it is whose it is, or whose thread asks.
    pub(crate) fn asking_as<T: Send>(&self, service: Option<u32>, ask: impl FnOnce() -> T + Send) -> T {
        match self {
            Self::Lab(_) => ask(),
            Self::Ward(_) => self.acting_as(service, ask),
        }
    }

    /// The cgroup that the client is known by.
    pub(crate) fn of_the_client(&self) -> u64 {
        match self {
            Self::Lab(lab) => fs::metadata(lab.procs("app").parent().unwrap()).unwrap().ino(),
            // It is a thread of this process.
            Self::Ward(_) => waylay_host::cgroup::Cgroup::for_runs().unwrap().id().unwrap(),
        }
    }

    pub(crate) fn of_service(&self, service: u32) -> u64 {
        match self {
            Self::Lab(lab) => lab.cgroup_id(&format!("svc-{service}")),
            Self::Ward(_) => home_of(ServiceId(service)),
        }
    }
}
