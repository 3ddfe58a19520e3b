//! Compiled tables as the bytes the programs read.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use waylay_abi as abi;
use waylay_core::{FailurePolicy, ForeignNamespace, Mark, Sandboxes, TableService, Tables, Unredirectable};
use waylay_engine::{Endpoint, LocalName};
use zerocopy::FromZeros;

use crate::residents::Residence;

/// Puts tables and the services' listeners into the form the programs read.
///
/// A service without an endpoint is absent to them. Filters are not here: they are the words of [`Tables::index`].
#[must_use]
pub fn encode(tables: &Tables, endpoints: &[Endpoint]) -> Box<abi::Tables> {
    let mut out = Box::new(abi::Tables::new_zeroed());
    out.foreign_namespace = match tables.foreign_namespace() {
        ForeignNamespace::Permit => 0,
        ForeignNamespace::Block => 1,
    };
    out.unredirectable = match tables.unredirectable() {
        Unredirectable::Permit => 0,
        Unredirectable::Block => 1,
    };
    out.override_sandboxes = match tables.sandboxes() {
        Sandboxes::Stay => 0,
        Sandboxes::Overridden => 1,
    };
    out.asks_for_hosts = tables.ask_for_hosts().into();
    for service in tables.services() {
        let endpoint = endpoints.iter().find(|endpoint| endpoint.service == service.id);
        out.services[usize::from(service.slot)] = encode_service(service, endpoint);
        out.any_address |= u8::from(endpoint.is_some_and(listens_everywhere));
        out.service_count = out.service_count.max(u32::from(service.slot) + 1);
    }
    out
}

fn encode_service(service: &TableService, endpoint: Option<&Endpoint>) -> abi::Service {
    let of =
        |family: fn(&Endpoint) -> Vec<SocketAddr>| Listeners::new(endpoint.map(family).unwrap_or_default());
    let tcp4 = of(|endpoint| endpoint.tcp4.iter().copied().map(SocketAddr::V4).collect());
    let tcp6 = of(|endpoint| endpoint.tcp6.iter().copied().map(SocketAddr::V6).collect());
    let bank = endpoint.map(|endpoint| endpoint.udp6.as_slice()).unwrap_or_default();
    let mut udp6 = [0; abi::MAX_BANK];
    udp6.iter_mut().zip(bank).for_each(|(to, from)| *to = *from);
    let mut name = [0; abi::NAME_LEN];
    for (to, from) in name[..abi::NAME_LEN - 1].iter_mut().zip(service.name.bytes()) {
        *to = from;
    }
    abi::Service {
        prefix_mask: service.prefix_mask,
        cgroup: endpoint.map_or(0, |endpoint| endpoint.cgroup),
        id: service.id.0,
        on_failure: match service.on_failure {
            FailurePolicy::Open => 0,
            FailurePolicy::Closed => 1,
        },
        listen4: tcp4.ip,
        listen6: tcp6.ip,
        ports4: tcp4.ports,
        ports6: tcp6.ports,
        count4: tcp4.count,
        count6: tcp6.count,
        flags: endpoint.map_or(0, |endpoint| flags(endpoint.local_name)),
        udp4: endpoint.and_then(|endpoint| endpoint.udp4).unwrap_or(0),
        bank: u16::try_from(bank.len()).unwrap_or(0),
        resident_level: 0,
        resident_cgroup: 0,
        resident_exe_device: 0,
        resident_exe_inode: 0,
        resident_uid: 0,
        resident_shared_level: 0,
        udp6,
        behind6: endpoint.and_then(|endpoint| endpoint.behind6).unwrap_or(0),
        reserved: [0; 3],
        name,
    }
}

/// Adds by what the service in a slot is known that runs by itself. `shared_level` is the depth of the innermost cgroup that is around it and
/// around the scope.
pub fn encode_residence(residence: &Residence, shared_level: u32, slot: u8, tables: &mut abi::Tables) {
    tables.residents = 1;
    let out = &mut tables.services[usize::from(slot)];
    out.flags |= abi::IS_RESIDENT;
    out.resident_cgroup = residence.resident.cgroup;
    out.resident_level = residence.level;
    out.resident_shared_level = shared_level;
    match residence.resident.mark {
        Mark::Cgroup => {}
        Mark::Exe(exe) => {
            out.flags |= abi::RESIDENT_BY_EXE;
            (out.resident_exe_device, out.resident_exe_inode) = (exe.device, exe.inode);
        }
        Mark::Uid(uid) => {
            out.flags |= abi::RESIDENT_BY_UID;
            out.resident_uid = uid;
        }
    }
}

fn flags(local_name: LocalName) -> u32 {
    match local_name {
        LocalName::Listener => 0,
        LocalName::Destination => abi::SHOWS_DESTINATION,
        LocalName::Packet => abi::SHOWS_DESTINATION | abi::IN_PACKETS,
    }
}

fn listens_everywhere(endpoint: &Endpoint) -> bool {
    endpoint.tcp4.iter().any(|address| address.ip().is_unspecified())
        || endpoint.tcp6.iter().any(|address| address.ip().is_unspecified())
}

/// Where connections to a listener are sent.
pub(crate) fn reached_by(listener: SocketAddr) -> SocketAddr {
    let loopback: IpAddr = match listener {
        SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    if listener.ip().is_unspecified() { SocketAddr::new(loopback, listener.port()) } else { listener }
}

const _: () = assert!(abi::CHUNK == waylay_core::CHUNK);
const _: () = assert!(abi::MAX_LISTENERS == waylay_engine::MAX_LISTENERS);
const _: () = assert!(abi::MAX_BANK == waylay_engine::MAX_BANK);

/// One family's listeners of a service.
#[derive(Default)]
struct Listeners {
    ip: [u8; 16],
    ports: [u16; abi::MAX_LISTENERS],
    count: u16,
}

impl Listeners {
    fn new(addresses: Vec<SocketAddr>) -> Self {
        let mut listeners = Self::default();
        let addresses = addresses.into_iter().map(|address| abi::Address::from(reached_by(address)));
        for (port, address) in listeners.ports.iter_mut().zip(addresses) {
            *port = address.port;
            listeners.ip = address.ip;
            listeners.count += 1;
        }
        listeners
    }
}
