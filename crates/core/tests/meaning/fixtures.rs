//! Short ways to say policies, processes, legs and worlds.

use std::net::{Ipv4Addr, SocketAddr};

use waylay_core::{
    Action, AuthRule, Availability, Conditions, FailurePolicy, FileId, Filter, FilterId, FlagConditions,
    Layer, Leg, Policy, Process, Protocol, Service, ServiceId, Sublayer, SublayerId, World,
};

pub(crate) const OPEN: FailurePolicy = FailurePolicy::Open;
pub(crate) const CLOSED: FailurePolicy = FailurePolicy::Closed;

/// Services `s1`, `s2`… in this order, each with the filter 100 + id that matches everything.
pub(crate) fn services_for_all(on_failure: &[FailurePolicy]) -> Policy {
    let services: Vec<Service> =
        (1..).zip(on_failure).map(|(id, &on_failure)| service(id, on_failure)).collect();
    let filters = services.iter().map(|service| redirect(100 + service.id.0, service.id.0)).collect();
    policy(services, vec![], filters)
}

pub(crate) fn policy(services: Vec<Service>, sublayers: Vec<Sublayer>, filters: Vec<Filter>) -> Policy {
    Policy::new(services, sublayers, filters).expect("the fixture is a policy")
}

pub(crate) fn service(id: u32, on_failure: FailurePolicy) -> Service {
    Service { id: ServiceId(id), name: format!("s{id}"), before: vec![], after: vec![], on_failure }
}

pub(crate) fn sublayer(id: u32, weight: u16) -> Sublayer {
    Sublayer { id: SublayerId(id), name: format!("l{id}"), weight }
}

pub(crate) fn redirect(id: u32, service: u32) -> Filter {
    let layer = Layer::Redirect { service: ServiceId(service) };
    Filter { id: FilterId(id), weight: 0, conditions: Conditions::default(), layer }
}

pub(crate) fn auth(id: u32, sublayer: u32, weight: u64, action: Action) -> Filter {
    let rule = AuthRule { sublayer: SublayerId(sublayer), flags: FlagConditions::default(), action };
    Filter { id: FilterId(id), weight, conditions: Conditions::default(), layer: Layer::Auth(rule) }
}

pub(crate) fn auth_if(id: u32, flags: FlagConditions, action: Action) -> Filter {
    let rule = AuthRule { sublayer: SublayerId(1), flags, action };
    Filter { id: FilterId(id), weight: 0, conditions: Conditions::default(), layer: Layer::Auth(rule) }
}

pub(crate) fn app() -> Process {
    let exe = FileId { device: 1, inode: 10 };
    Process { pid: 10, start_time_ns: 5, uid: 1000, gid: 1001, exe, cgroup: 1, ..Process::default() }
}

pub(crate) fn process_of(service: ServiceId) -> Process {
    let exe = FileId { device: 1, inode: 1000 + u64::from(service.0) };
    Process {
        pid: 1000 + service.0,
        start_time_ns: 6,
        uid: 0,
        exe,
        cgroup: 2,
        service: Some(service),
        ..Process::default()
    }
}

pub(crate) fn leg_to(caller: Process, port: u16) -> Leg {
    Leg {
        protocol: Protocol::Tcp,
        local: None,
        remote: SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), port)),
        caller,
    }
}

pub(crate) fn leg(caller: Process) -> Leg {
    leg_to(caller, 443)
}

pub(crate) fn all_available(policy: &Policy) -> World {
    with_availability(policy.services().iter().map(|service| (service.id.0, Availability::Available)))
}

pub(crate) fn with_availability(services: impl IntoIterator<Item = (u32, Availability)>) -> World {
    let availability = services.into_iter().map(|(id, availability)| (ServiceId(id), availability)).collect();
    World { availability, ..World::default() }
}
