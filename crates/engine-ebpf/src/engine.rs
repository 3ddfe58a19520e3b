use std::{
    fs,
    net::SocketAddr,
    os::fd::{AsFd, AsRawFd},
    path::{Path, PathBuf},
};

use libbpf_rs::{Link, MapCore, MapFlags, MapHandle};
use waylay_core::{ServiceId, Tables};
use waylay_engine::{Endpoint, Installation};
use zerocopy::IntoBytes;

use crate::{
    encode::encode,
    error::EbpfError,
    event::EventSource,
    load::{Loaded, SCOPE_PROGRAMS, SERVICE_PROGRAMS, tables_map},
    registry::Registry,
};

/// Where an engine works and under which name.
#[derive(Clone, Debug)]
pub struct Scope {
    /// Directory of the cgroup whose subtree is watched.
    pub cgroup: PathBuf,
    /// Depth of the services' cgroups, the hierarchy's root being 0.
    pub service_level: u32,
    /// Tells this engine's handles and listeners from those of others.
    pub instance: u64,
    /// Directory in the BPF file system that all engines of the host share.
    pub pin_root: PathBuf,
    /// Directory in the BPF file system for this engine's links; made here.
    pub pins: PathBuf,
    /// How many flows may be under way.
    pub limits: Limits,
}

/// How many flows may be under way, waiting ones included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Of the whole scope; at most 32,768.
    pub flows: u64,
    /// Of one cgroup in it.
    pub flows_per_cgroup: u64,
}

impl Default for Limits {
    /// All that the programs hold; one cgroup may take three quarters, so that
    /// it cannot keep the services from carrying on what they have accepted.
    fn default() -> Self {
        Self { flows: 32_768, flows_per_cgroup: 24_576 }
    }
}

/// The eBPF engine of one scope.
///
/// Dropping it leaves its pinned programs in force; [`EbpfEngine::remove`] ends them.
#[derive(Debug)]
pub struct EbpfEngine {
    loaded: Loaded,
    links: Vec<Link>,
    registry: Registry,
    scope: Scope,
}

impl EbpfEngine {
    /// Loads the programs. They take effect with [`EbpfEngine::attach`].
    ///
    /// # Errors
    /// [`EbpfError`] says what this kernel or process lacks.
    pub fn load(scope: Scope) -> Result<Self, EbpfError> {
        let loaded = Loaded::new(&scope)?;
        let registry = Registry::new(loaded.map("listeners")?, loaded.netns, scope.instance);
        fs::create_dir_all(&scope.pins)
            .map_err(|source| EbpfError::FileSystem { path: scope.pins.clone(), source })?;
        Ok(Self { loaded, links: Vec::new(), registry, scope })
    }

    /// Puts a policy in force, with the services that carry it out. A connect
    /// under way meets the old policy or the new one, never none.
    ///
    /// # Errors
    /// [`EbpfError`]; the old policy stays in force.
    pub fn install(&mut self, installation: &Installation) -> Result<(), EbpfError> {
        for endpoint in &installation.endpoints {
            self.admit(&installation.tables, endpoint)?;
        }
        let tables = encode(&installation.tables, &installation.endpoints);
        let inner = tables_map(&tables).map_err(|source| EbpfError::Map { map: "tables", source })?;
        let fd = inner.as_fd().as_raw_fd();
        self.write("tables", &0_u32.to_ne_bytes(), &fd.to_ne_bytes())
    }

    /// Attaches the programs that answer a service's questions to its cgroup.
    ///
    /// # Errors
    /// [`EbpfError::Attach`] or [`EbpfError::Pin`].
    pub fn serve_cgroup(&mut self, name: &str, cgroup: &Path) -> Result<(), EbpfError> {
        for program in SERVICE_PROGRAMS {
            self.attach_program(program, cgroup, &format!("{program}-{name}"))?;
        }
        Ok(())
    }

    /// Attaches the programs to the scope: from here on the policy is in force.
    ///
    /// # Errors
    /// [`EbpfError::Attach`] or [`EbpfError::Pin`].
    pub fn attach(&mut self) -> Result<(), EbpfError> {
        let cgroup = self.scope.cgroup.clone();
        for program in SCOPE_PROGRAMS {
            self.attach_program(program, &cgroup, program)?;
        }
        Ok(())
    }

    /// What says whether services live; it can go to another thread.
    ///
    /// # Errors
    /// [`EbpfError::Map`].
    pub fn liveness(&self) -> Result<Liveness, EbpfError> {
        Ok(Liveness { map: self.loaded.map("service_alive")? })
    }

    /// The refusals the programs report.
    ///
    /// # Errors
    /// [`EbpfError::Map`].
    pub fn events(&self) -> Result<EventSource, EbpfError> {
        Ok(EventSource::new(self.loaded.map("events")?))
    }

    /// How many flows are under way.
    ///
    /// # Errors
    /// [`EbpfError::Map`].
    pub fn flow_count(&self) -> Result<usize, EbpfError> {
        Ok(self.loaded.map("flows")?.keys().count())
    }

    /// Ends what is in force and removes every trace of it.
    ///
    /// # Errors
    /// [`EbpfError::Pin`] if a pin stays.
    pub fn remove(mut self) -> Result<(), EbpfError> {
        for mut link in self.links.drain(..).rev() {
            let path = link.pin_path().unwrap_or_default();
            link.unpin().map_err(|source| EbpfError::Pin { path, source })?;
        }
        let pins = self.scope.pins.clone();
        fs::remove_dir_all(&pins).map_err(|source| EbpfError::Pin { path: pins, source: source.into() })?;
        crate::registry::forget_instance(&self.scope.pin_root, self.scope.instance)
    }

    /// What a service needs before tables may send connections to it.
    fn admit(&self, tables: &Tables, endpoint: &Endpoint) -> Result<(), EbpfError> {
        let Some(service) = tables.service(endpoint.service) else { return Ok(()) };
        let slot = u32::from(service.slot);
        let addresses = [endpoint.tcp4.map(SocketAddr::V4), endpoint.tcp6.map(SocketAddr::V6)];
        for address in addresses.into_iter().flatten() {
            self.registry.register(address, endpoint.service.0)?;
        }
        self.write("slot_of_cgroup", endpoint.cgroup.as_bytes(), slot.as_bytes())?;
        self.liveness()?.set(slot, true)
    }

    fn write(&self, map: &'static str, key: &[u8], value: &[u8]) -> Result<(), EbpfError> {
        self.loaded.map(map)?.update(key, value, MapFlags::ANY).map_err(|source| EbpfError::Map { map, source })
    }

    fn attach_program(&mut self, program: &'static str, cgroup: &Path, pin: &str) -> Result<(), EbpfError> {
        let failed = |source| EbpfError::Attach { program, cgroup: cgroup.into(), source };
        let directory = fs::File::open(cgroup).map_err(|source| failed(source.into()))?;
        let loaded = self.loaded.program(program);
        let loaded = loaded.ok_or_else(|| failed(std::io::Error::from(std::io::ErrorKind::NotFound).into()))?;
        let mut link = loaded.attach_cgroup(directory.as_raw_fd()).map_err(failed)?;
        let path = self.scope.pins.join(pin);
        link.pin(&path).map_err(|source| EbpfError::Pin { path, source })?;
        self.links.push(link);
        Ok(())
    }
}

/// Says whether services live.
#[derive(Debug)]
pub struct Liveness {
    map: MapHandle,
}

impl Liveness {
    /// Marks the service in a slot as living or dead.
    ///
    /// # Errors
    /// [`EbpfError::Map`].
    pub fn set(&self, slot: u32, alive: bool) -> Result<(), EbpfError> {
        self.map
            .update(slot.as_bytes(), u32::from(alive).as_bytes(), MapFlags::ANY)
            .map_err(|source| EbpfError::Map { map: "service_alive", source })
    }

    /// The same, by the service's id.
    ///
    /// # Errors
    /// [`EbpfError::Map`].
    pub fn set_service(&self, tables: &Tables, service: ServiceId, alive: bool) -> Result<(), EbpfError> {
        match tables.service(service) {
            Some(service) => self.set(u32::from(service.slot), alive),
            None => Ok(()),
        }
    }
}
