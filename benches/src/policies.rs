//! The policies under which things are measured.

use std::net::SocketAddr;

use waylay_core::{
    Conditions, FailurePolicy, Filter, FilterId, Layer, Policy, PortRange, Prefix, Service, ServiceId,
};

/// One service, of id 1, for what goes to an address; so many filters in all, the others for ports that nobody dials.
#[must_use]
pub fn policy_for(address: SocketAddr, filters: u16) -> Policy {
    let conditions = |port| Conditions {
        remote: Some(Prefix::host(address.ip()).into()),
        remote_ports: Some(PortRange::single(port).into()),
        ..Conditions::default()
    };
    let filter = |(id, port)| Filter {
        id: FilterId(id),
        weight: 0,
        conditions: conditions(port),
        layer: Layer::Redirect { service: ServiceId(1) },
    };
    let ports = std::iter::once(address.port()).chain(60_000..).take(filters.into());
    let service = Service {
        id: ServiceId(1),
        name: "s1".into(),
        before: Vec::new(),
        after: Vec::new(),
        on_failure: FailurePolicy::Closed,
    };
    Policy::new(vec![service], Vec::new(), (1..).zip(ports).map(filter).collect()).expect("a policy")
}
