//! Short ways to say policies, processes, legs and worlds.

use std::net::{Ipv4Addr, SocketAddr};

use waylay_core::{
    Availability, Conditions, FailurePolicy, FileId, Filter, FilterId, Layer, Leg, Policy, PortRange,
    Process, ProcessConditions, Protocol, Service, ServiceId, World,
};

/// A set of services, service 1 being the lowest bit.
pub type Set = u32;

/// The set of one service.
#[must_use]
pub const fn only(service: u32) -> Set {
    1 << (service - 1)
}

/// Whether the service is one of the set.
#[must_use]
pub const fn contains(set: Set, service: u32) -> bool {
    set & only(service) != 0
}

/// The services of a set, by ascending id.
pub fn members(set: Set) -> impl Iterator<Item = u32> {
    (1..=Set::BITS).filter(move |&service| contains(set, service))
}

/// Every set of the services 1 to n.
pub fn subsets(n: u32) -> impl Iterator<Item = Set> + Clone {
    0..1 << n
}

/// What a policy declares, as far as chains depend on it.
///
/// A destination is named by the set of services that look at it: each has a filter for every destination whose set it is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declaration {
    /// The services, in their order.
    pub order: Vec<u32>,
    /// Those that fail closed.
    pub closed: Set,
    /// Those without any filter.
    pub idle: Set,
    /// Pairs of which the first looks at nothing but what the second dials (`via_exe`).
    pub via: Vec<(u32, u32)>,
}

/// The port of the destination that nobody looks at.
pub const FIRST_PORT: u16 = 1000;

impl Declaration {
    /// Services 1 to n in this order, all open, each for all destinations that are its own.
    #[must_use]
    pub fn of(n: u32) -> Self {
        Self { order: (1..=n).collect(), closed: 0, idle: 0, via: Vec::new() }
    }

    /// The same, and these fail closed.
    #[must_use]
    pub fn closing(self, closed: Set) -> Self {
        Self { closed, ..self }
    }

    /// How many services there are.
    #[must_use]
    pub fn services(&self) -> u16 {
        u16::try_from(self.order.len()).expect("few services")
    }

    /// The services as a set.
    #[must_use]
    pub fn all(&self) -> Set {
        self.order.iter().fold(0, |set, &service| set | only(service))
    }

    /// Whether a service looks at a destination that this one dials.
    #[must_use]
    pub fn looks(&self, service: u32, destination: Set, dialled_by: Option<u32>) -> bool {
        let via = self.via.iter().find(|(to, _)| *to == service).map(|(_, from)| *from);
        let path = via.is_none() || via == dialled_by;
        contains(destination, service) && !contains(self.idle, service) && path
    }

    /// The policy that says so, for these destinations.
    ///
    /// # Panics
    /// If it is none.
    #[must_use]
    pub fn policy(&self, destinations: &[Set]) -> Policy {
        let services = self.order.iter().map(|&id| self.service(id)).collect();
        let looking = destinations.iter().flat_map(|&destination| {
            self.order.iter().filter(move |&&id| contains(destination, id)).map(move |&id| (id, destination))
        });
        let looking = looking.filter(|(id, _)| !contains(self.idle, *id));
        let filters = looking.map(|(id, destination)| self.filter(id, destination)).collect();
        Policy::new(services, Vec::new(), filters).expect("a policy")
    }

    fn service(&self, id: u32) -> Service {
        let closed = contains(self.closed, id);
        Service {
            id: ServiceId(id),
            name: format!("s{id}"),
            before: Vec::new(),
            after: Vec::new(),
            on_failure: if closed { FailurePolicy::Closed } else { FailurePolicy::Open },
        }
    }

    fn filter(&self, service: u32, destination: Set) -> Filter {
        let via = self.via.iter().find(|(to, _)| *to == service);
        let conditions = Conditions {
            remote_ports: Some(PortRange::single(port_of(destination)).into()),
            via: ProcessConditions {
                exe: via.map(|(_, from)| process_of(*from).exe.into()),
                ..ProcessConditions::default()
            },
            ..Conditions::default()
        };
        let layer = Layer::Redirect { service: ServiceId(service) };
        Filter { id: FilterId(service << 16 | destination), weight: 0, conditions, layer }
    }
}

fn port_of(destination: Set) -> u16 {
    FIRST_PORT + u16::try_from(destination).expect("few services")
}

/// The application.
#[must_use]
pub fn app() -> Process {
    let exe = FileId { device: 1, inode: 10 };
    Process { pid: 10, start_time_ns: 5, uid: 1000, exe, cgroup: 1, ..Process::default() }
}

/// The process of a service.
#[must_use]
pub fn process_of(service: u32) -> Process {
    let exe = FileId { device: 1, inode: 1000 + u64::from(service) };
    let (cgroup, id) = (cgroup_of(service), ServiceId(service));
    Process {
        pid: 1000 + service,
        start_time_ns: 6,
        uid: 0,
        exe,
        cgroup,
        service: Some(id),
        ..Process::default()
    }
}

/// The cgroup of a service.
#[must_use]
pub fn cgroup_of(service: u32) -> u64 {
    1000 + u64::from(service)
}

/// A leg that a service, or the application, dials.
#[must_use]
pub fn leg_from(dialled_by: Option<u32>, destination: Set) -> Leg {
    let remote = SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), port_of(destination)));
    Leg { protocol: Protocol::Tcp, local: None, remote, caller: dialled_by.map_or_else(app, process_of) }
}

/// The world in which these services are available and no others.
#[must_use]
pub fn world_of(present: Set) -> World {
    let availability =
        members(present).map(|service| (ServiceId(service), Availability::Available)).collect();
    World { availability, ..World::default() }
}
