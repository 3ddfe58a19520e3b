//! The engine by itself: policies and listeners of a test's own, on real connects.

use std::{
    collections::BTreeSet,
    fs,
    net::{SocketAddr, TcpListener},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use waylay_core::{
    Conditions, Event, FailurePolicy, Filter, FilterId, Layer, Mark, Policy, Refusal, Resident, Service,
    ServiceId, Tables,
};
use waylay_engine::{Endpoint, Engine, Installation, Liveness, LocalName};
use waylay_engine_ebpf::{EbpfEngine, EbpfError, Limits, Residence, Scope, bpf_file_system};
use waylay_host::cgroup::Cgroup;

use crate::{instance::cgroup_file_system, run::Waylay};

/// An engine on a cgroup of its own, with a policy of the test's.
#[derive(Debug)]
pub struct Lab {
    /// The engine.
    pub engine: EbpfEngine,
    place: Place,
    adopted: BTreeSet<ServiceId>,
}

/// Removed when dropped, also when the engine does not load.
#[derive(Debug)]
struct Place {
    cgroup: Cgroup,
    scope: Scope,
}

impl Place {
    fn new(parent: &Cgroup, name: &str, limits: Limits, residents: bool) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let number = u64::from(std::process::id());
        let cgroup = parent.child(&format!("waylay-lab-{name}-{number}"));
        let pin_root = bpf_file_system().unwrap();
        let scope = Scope {
            cgroup: cgroup.path().into(),
            level: cgroup.level(),
            service_level: cgroup.level() + 1,
            instance: number << 16 | COUNT.fetch_add(1, Ordering::Relaxed),
            pins: pin_root.join(format!("waylay-lab-{name}-{number}")),
            pin_root,
            limits,
            residents,
        };
        let place = Self { cgroup, scope };
        place.cgroup.create().unwrap();
        for child in ["app", "app-2", "svc-1", "svc-2", "svc-3", "svc-4"] {
            place.cgroup.child(child).create().unwrap();
        }
        place
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.cgroup.kill();
        // What is not there need not be removed, and a failure here must not hide that of the test.
        let _unpinned = std::fs::remove_dir_all(&self.scope.pins);
        let _forgotten = waylay_engine_ebpf::forget_instance(&self.scope.pin_root, self.scope.instance);
        let _removed = self.cgroup.remove();
    }
}

impl Lab {
    /// Loads it; nothing is attached yet.
    pub fn new(name: &str, limits: Limits) -> Self {
        Self::at(&Cgroup::for_runs().unwrap(), name, limits, false)
    }

    /// One that can adopt services that run already.
    pub fn adopting(name: &str) -> Self {
        Self::at(&Cgroup::for_runs().unwrap(), name, Limits::default(), true)
    }

    /// Another one whose scope is in `app` or `svc-ID` of this.
    pub fn below(&self, part: &str, name: &str, limits: Limits) -> Self {
        Self::at(&self.place.cgroup.child(part), name, limits, self.place.scope.residents)
    }

    /// What comes of an engine on this one's scope, or on `app` or `svc-ID` in it.
    pub fn second_engine_on(&self, part: Option<&str>) -> Result<EbpfEngine, EbpfError> {
        self.second_engine_at(&self.cgroup(part))
    }

    /// What comes of one on any other cgroup.
    pub fn second_engine_at(&self, cgroup: &Path) -> Result<EbpfEngine, EbpfError> {
        let Scope { pins, instance, .. } = &self.place.scope;
        EbpfEngine::load(Scope {
            cgroup: cgroup.to_owned(),
            level: level_of(cgroup),
            service_level: level_of(cgroup) + 1,
            instance: instance | 1 << 60,
            pins: PathBuf::from(format!("{}-second", pins.display())),
            ..self.place.scope.clone()
        })
    }

    /// The name of its instance.
    pub fn instance(&self) -> String {
        format!("waylay-{:016x}", self.place.scope.instance)
    }

    /// The directory of its scope, or of `app` or `svc-ID` in it.
    pub fn cgroup(&self, part: Option<&str>) -> PathBuf {
        part.map_or(self.place.cgroup.path().to_owned(), |part| self.place.cgroup.path().join(part))
    }

    fn at(parent: &Cgroup, name: &str, limits: Limits, residents: bool) -> Self {
        let place = Place::new(parent, name, limits, residents);
        let engine = EbpfEngine::load(place.scope.clone()).unwrap();
        Self { engine, place, adopted: BTreeSet::new() }
    }

    /// Makes another cgroup in the scope.
    pub fn add_cgroup(&self, name: &str) -> PathBuf {
        let cgroup = self.place.cgroup.child(name);
        cgroup.create().unwrap();
        cgroup.path().to_owned()
    }

    /// Adopts who runs in a cgroup and has the mark; to be installed after that.
    pub fn adopt(&mut self, service: u32, cgroup: &Path, mark: Mark) -> Result<(), EbpfError> {
        let residence = Residence {
            resident: Resident { cgroup: id_of(cgroup), mark },
            level: level_of(cgroup),
            hooked: vec![cgroup.to_owned()],
        };
        self.engine.adopt_resident(ServiceId(service), &residence)?;
        self.adopted.insert(ServiceId(service));
        Ok(())
    }

    /// Installs a policy with its services alive, and attaches the programs.
    pub fn install(&mut self, policy: &Policy, endpoints: Vec<Endpoint>) {
        self.install_tables(Tables::compile(policy).unwrap(), endpoints);
    }

    /// The same of tables that are there.
    pub fn install_tables(&mut self, tables: Tables, endpoints: Vec<Endpoint>) {
        let services: Vec<ServiceId> = endpoints.iter().map(|endpoint| endpoint.service).collect();
        self.engine.install(&Installation { tables, endpoints }).unwrap();
        for service in services {
            if !self.adopted.contains(&service) {
                let cgroup = self.place.cgroup.child(&format!("svc-{}", service.0));
                self.engine.serve_cgroup(service, cgroup.path()).unwrap();
            }
            self.engine.set_liveness(service, Liveness::Alive).unwrap();
        }
        self.engine.attach().unwrap();
    }

    /// Replaces the policy; services keep their slots.
    pub fn reload(&mut self, policy: &Policy, endpoints: Vec<Endpoint>) -> Result<(), EbpfError> {
        let tables = Tables::compile_keeping(policy, self.engine.slots()?)?;
        self.engine.install(&Installation { tables, endpoints })
    }

    /// Does something as a process of the service, such as making its listeners:
    /// what counts is where `socket()` is called.
    pub fn as_service<T>(&self, service: u32, act: impl FnOnce() -> T) -> T {
        self.inside(&format!("svc-{service}"), act)
    }

    /// Does something as the application, such as connecting.
    pub fn as_application<T>(&self, act: impl FnOnce() -> T) -> T {
        self.inside("app", act)
    }

    /// Does something as a process of a cgroup of the lab's, such as `app/one`.
    pub fn inside<T>(&self, cgroup: &str, act: impl FnOnce() -> T) -> T {
        Self::inside_of(self.place.cgroup.child(cgroup).path(), act)
    }

    /// The same in any other cgroup.
    pub fn inside_of<T>(cgroup: &Path, act: impl FnOnce() -> T) -> T {
        // It is the whole process that moves.
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let _moving = ONE_AT_A_TIME.lock().unwrap();
        let own = fs::read_to_string("/proc/self/cgroup").unwrap();
        let own = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap();
        fs::write(cgroup.join("cgroup.procs"), "0").unwrap();
        let done = act();
        fs::write(cgroup_file_system().join(own).join("cgroup.procs"), "0").unwrap();
        done
    }

    /// A service behind listeners of the test's own, each of any family.
    pub fn endpoint<'l>(
        &self,
        service: u32,
        listeners: impl IntoIterator<Item = &'l TcpListener>,
    ) -> Endpoint {
        Self::endpoint_in(self.cgroup_id(&format!("svc-{service}")), service, listeners)
    }

    /// The same of a service in any cgroup.
    pub fn endpoint_in<'l>(
        cgroup: u64,
        service: u32,
        listeners: impl IntoIterator<Item = &'l TcpListener>,
    ) -> Endpoint {
        let (mut tcp4, mut tcp6) = (Vec::new(), Vec::new());
        for listener in listeners {
            match listener.local_addr().unwrap() {
                SocketAddr::V4(address) => tcp4.push(address),
                SocketAddr::V6(address) => tcp6.push(address),
            }
        }
        Endpoint {
            service: ServiceId(service),
            cgroup,
            tcp4,
            tcp6,
            udp4: None,
            udp6: Vec::new(),
            behind6: None,
            local_name: LocalName::Listener,
        }
    }

    /// The number of `app`, `app-2` or `svc-ID`.
    pub fn cgroup_id(&self, cgroup: &str) -> u64 {
        self.place.cgroup.child(cgroup).id().unwrap()
    }

    /// The file by which a process enters `app`, `app-2` or `svc-ID`.
    pub fn procs(&self, cgroup: &str) -> PathBuf {
        self.place.cgroup.child(cgroup).path().join("cgroup.procs")
    }

    /// What connecting to each address comes to, for a process in `cgroup`.
    pub fn dial(&self, cgroup: &str, addresses: &[SocketAddr]) -> Vec<Dialled> {
        let output = Command::new("sh")
            .args(["-c", "echo $$ > \"$0\"; exec \"$@\""])
            .arg(self.procs(cgroup))
            .arg(Waylay::binary().with_file_name("netlab-load"))
            .arg("dial")
            .args(addresses.iter().map(ToString::to_string))
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap().lines().map(Dialled::read).collect()
    }

    /// What the engine has reported since the last call.
    pub fn refusals(&mut self) -> Vec<Refusal> {
        let refused = |event| match event {
            Event::Refused { refusal, .. } => Some(refusal),
            Event::SocketRefused { refusal, .. } => Some(refusal),
            Event::LeftAlone { .. }
            | Event::Redirected { .. }
            | Event::Ended { .. }
            | Event::Dropped { .. }
            | Event::Lost { .. } => None,
        };
        self.engine.events(Duration::from_millis(20)).unwrap().into_iter().filter_map(refused).collect()
    }
}

fn id_of(cgroup: &Path) -> u64 {
    fs::metadata(cgroup).unwrap().ino()
}

fn level_of(cgroup: &Path) -> u32 {
    u32::try_from(cgroup.strip_prefix(cgroup_file_system()).unwrap().components().count()).unwrap()
}

/// One service, number 1, for everything.
pub fn one_service(on_failure: FailurePolicy) -> Policy {
    let id = ServiceId(1);
    let service = Service { id, name: "only".into(), before: Vec::new(), after: Vec::new(), on_failure };
    let layer = Layer::Redirect { service: id };
    let filter = Filter { id: FilterId(1), weight: 0, conditions: Conditions::default(), layer };
    Policy::new(vec![service], Vec::new(), vec![filter]).unwrap()
}

/// What a connect() came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dialled {
    /// It succeeded; this address getpeername shows.
    Connected(SocketAddr),
    /// It failed with this errno.
    Refused(i32),
}

impl Dialled {
    fn read(line: &str) -> Self {
        match line.split(' ').collect::<Vec<_>>()[..] {
            [_, "connected", peer] => Self::Connected(peer.parse().unwrap()),
            [_, "errno", errno] => Self::Refused(errno.parse().unwrap()),
            _ => panic!("{line}"),
        }
    }
}
