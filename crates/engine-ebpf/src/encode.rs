//! Compiled tables as the bytes the programs read.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use waylay_abi::{self as abi, FilterCondition};
use waylay_core::{
    Action, Conditions, FailurePolicy, FilterId, FlagConditions, ForeignNamespace, Limit, LimitError, Mark,
    OneOf, ProcessConditions, Protocol, Right, TableAuthFilter, TableFilter, TableService, Tables,
    Unredirectable,
};
use waylay_engine::{Endpoint, LocalName};
use zerocopy::FromZeros;

use crate::residents::Residence;

/// A policy that the programs cannot hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// A filter asks what the programs do not know.
    #[error("{filter} has a condition on the {condition} that the kernel's programs cannot ask yet")]
    Condition {
        /// The filter.
        filter: FilterId,
        /// What it asks about.
        condition: &'static str,
    },
    /// There are too many filters, a list of values counting as one for each.
    #[error(transparent)]
    Limit(#[from] LimitError),
}

/// Puts tables and the services' listeners into the form the programs read.
///
/// A service without an endpoint is absent to them. Fails where the programs cannot hold the policy.
pub fn encode(tables: &Tables, endpoints: &[Endpoint]) -> Result<Box<abi::Tables>, EncodeError> {
    let mut out = Box::new(abi::Tables::new_zeroed());
    out.foreign_namespace = match tables.foreign_namespace() {
        ForeignNamespace::Permit => 0,
        ForeignNamespace::Block => 1,
    };
    out.unredirectable = match tables.unredirectable() {
        Unredirectable::Permit => 0,
        Unredirectable::Block => 1,
    };
    for service in tables.services() {
        let endpoint = endpoints.iter().find(|endpoint| endpoint.service == service.id);
        out.services[usize::from(service.slot)] = encode_service(service, endpoint);
        out.any_address |= u8::from(endpoint.is_some_and(listens_everywhere));
        out.service_count = out.service_count.max(u32::from(service.slot) + 1);
    }
    out.redirect_count = fill(&mut out.redirect, tables.redirect_filters(), encode_redirect)?;
    out.auth_count = fill(&mut out.auth, tables.auth_filters(), encode_auth)?;
    Ok(out)
}

fn fill<F>(
    to: &mut [abi::Filter],
    filters: &[F],
    encode: impl Fn(&F) -> Result<Vec<abi::Filter>, EncodeError>,
) -> Result<u32, EncodeError> {
    let encoded: Vec<Vec<abi::Filter>> = filters.iter().map(encode).collect::<Result<_, _>>()?;
    let encoded = encoded.concat();
    LimitError::check(Limit::Filters, encoded.len(), to.len())?;
    to.iter_mut().zip(&encoded).for_each(|(to, from)| *to = *from);
    Ok(encoded.len() as u32)
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
        reserved: 0,
        udp6,
        name,
    }
}

/// Adds by what a service is known that runs by itself.
pub(crate) fn encode_residence(residence: &Residence, out: &mut abi::Service) {
    out.flags |= abi::IS_RESIDENT;
    out.resident_cgroup = residence.resident.cgroup;
    out.resident_level = residence.level;
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

fn encode_redirect(filter: &TableFilter) -> Result<Vec<abi::Filter>, EncodeError> {
    let expanded = encode_conditions(&filter.conditions)
        .map_err(|condition| EncodeError::Condition { filter: filter.id, condition })?;
    Ok(expanded.into_iter().map(|out| abi::Filter { id: filter.id.0, slot: filter.slot, ..out }).collect())
}

fn encode_auth(filter: &TableAuthFilter) -> Result<Vec<abi::Filter>, EncodeError> {
    let expanded = encode_conditions(&filter.conditions)
        .map_err(|condition| EncodeError::Condition { filter: filter.id, condition })?;
    let (action, right, error) = match filter.action {
        Action::Continue => (0, Right::Soft, 0),
        Action::Permit(right) => (1, right, 0),
        Action::Block { right, errno } => (2, right, errno.number()),
    };
    let encode = |mut out: abi::Filter| {
        encode_flags(filter.flags, &mut out);
        let hard = u8::from(right == Right::Hard);
        abi::Filter { id: filter.id.0, sublayer: filter.sublayer, action, hard, error, ..out }
    };
    Ok(expanded.into_iter().map(encode).collect())
}

/// The filters that hold where the conditions do: one for each combination of values.
fn encode_conditions(conditions: &Conditions) -> Result<Vec<abi::Filter>, &'static str> {
    let Conditions { protocol, family, remote, remote_ports, local, application, via } = conditions;
    let mut out = vec![abi::Filter::default()];
    expand(&mut out, values("protocol", protocol)?, |out, protocol| {
        out.conditions |= FilterCondition::Protocol as u32;
        out.protocol = match protocol {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
        };
    });
    expand(&mut out, values("remote", remote)?, |out, prefix| {
        out.conditions |= FilterCondition::Remote as u32;
        out.remote = prefix.network().octets();
        out.remote_len = prefix.length();
    });
    expand(&mut out, values("remote_ports", remote_ports)?, |out, ports| {
        out.conditions |= FilterCondition::Ports as u32;
        (out.port_first, out.port_last) = (ports.first(), ports.last());
    });
    expand_processes(&mut out, application, via)?;
    refuse("family", family)?;
    refuse("local", local)?;
    Ok(out)
}

fn expand_processes(
    out: &mut Vec<abi::Filter>,
    application: &ProcessConditions,
    via: &ProcessConditions,
) -> Result<(), &'static str> {
    expand(out, values("exe", &application.exe)?, |out, exe| {
        out.conditions |= FilterCondition::Exe as u32;
        (out.exe_device, out.exe_inode) = (exe.device, exe.inode);
    });
    expand(out, values("uid", &application.uid)?, |out, uid| {
        out.conditions |= FilterCondition::Uid as u32;
        out.uid = *uid;
    });
    expand(out, values("cgroup", &application.cgroup)?, |out, cgroup| {
        out.conditions |= FilterCondition::Cgroup as u32;
        out.cgroup = *cgroup;
    });
    expand(out, values("via exe", &via.exe)?, |out, exe| {
        out.conditions |= FilterCondition::ViaExe as u32;
        (out.via_exe_device, out.via_exe_inode) = (exe.device, exe.inode);
    });
    refuse("gid", &application.gid)?;
    refuse("command", &application.command)?;
    refuse("via uid", &via.uid)?;
    refuse("via gid", &via.gid)?;
    refuse("via command", &via.command)?;
    refuse("via cgroup", &via.cgroup)
}

/// The values that are asked for; `None` if nothing is.
fn values<'a, T>(
    name: &'static str,
    condition: &'a Option<OneOf<T>>,
) -> Result<Option<&'a [T]>, &'static str> {
    match condition {
        Some(one_of) if one_of.is_negated() => Err(name),
        Some(one_of) => Ok(Some(one_of.values())),
        None => Ok(None),
    }
}

fn refuse<T>(name: &'static str, condition: &Option<OneOf<T>>) -> Result<(), &'static str> {
    if condition.is_some() { Err(name) } else { Ok(()) }
}

fn expand<T>(out: &mut Vec<abi::Filter>, values: Option<&[T]>, ask: impl Fn(&mut abi::Filter, &T)) {
    let Some(values) = values else { return };
    let combine = |filter: &abi::Filter| {
        values
            .iter()
            .map(|value| {
                let mut filter = *filter;
                ask(&mut filter, value);
                filter
            })
            .collect::<Vec<_>>()
    };
    *out = out.iter().flat_map(combine).collect();
}

fn encode_flags(flags: FlagConditions, out: &mut abi::Filter) {
    let redirected = flags.redirected.map(|yes| match yes {
        true => FilterCondition::Redirected,
        false => FilterCondition::NotRedirected,
    });
    let proxied = flags.proxied.map(|yes| match yes {
        true => FilterCondition::Proxied,
        false => FilterCondition::NotProxied,
    });
    for condition in [redirected, proxied].into_iter().flatten() {
        out.conditions |= condition as u32;
    }
}
