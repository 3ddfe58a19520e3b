//! Compiled tables as the bytes the programs read.

use std::net::SocketAddr;

use waylay_abi::{self as abi, FilterCondition};
use waylay_core::{
    Action, Conditions, FailurePolicy, FlagConditions, Protocol, Right, TableAuthFilter, TableFilter,
    TableService, Tables,
};
use waylay_engine::Endpoint;
use zerocopy::FromZeros;

/// Puts tables and the services' listeners into the form the programs read.
///
/// A service without an endpoint is absent to them.
#[must_use]
pub fn encode(tables: &Tables, endpoints: &[Endpoint]) -> Box<abi::Tables> {
    let mut out = Box::new(abi::Tables::new_zeroed());
    for service in tables.services() {
        let endpoint = endpoints.iter().find(|endpoint| endpoint.service == service.id);
        out.services[usize::from(service.slot)] = encode_service(service, endpoint);
        out.service_count = out.service_count.max(u32::from(service.slot) + 1);
    }
    for (to, from) in out.redirect.iter_mut().zip(tables.redirect_filters()) {
        *to = encode_redirect(from);
        out.redirect_count += 1;
    }
    for (to, from) in out.auth.iter_mut().zip(tables.auth_filters()) {
        *to = encode_auth(from);
        out.auth_count += 1;
    }
    out
}

fn encode_service(service: &TableService, endpoint: Option<&Endpoint>) -> abi::Service {
    let tcp4 = endpoint
        .and_then(|endpoint| endpoint.tcp4)
        .map(|address| abi::Address::from(SocketAddr::V4(address)));
    let tcp6 = endpoint
        .and_then(|endpoint| endpoint.tcp6)
        .map(|address| abi::Address::from(SocketAddr::V6(address)));
    let mut name = [0; abi::NAME_LEN];
    for (to, from) in name[..abi::NAME_LEN - 1].iter_mut().zip(service.name.bytes()) {
        *to = from;
    }
    abi::Service {
        prefix_mask: service.prefix_mask,
        id: service.id.0,
        on_failure: match service.on_failure {
            FailurePolicy::Open => 0,
            FailurePolicy::Closed => 1,
        },
        listen4: tcp4.unwrap_or_default().ip,
        listen6: tcp6.unwrap_or_default().ip,
        port4: tcp4.unwrap_or_default().port,
        port6: tcp6.unwrap_or_default().port,
        reserved: 0,
        name,
    }
}

fn encode_redirect(filter: &TableFilter) -> abi::Filter {
    let mut out = encode_conditions(&filter.conditions);
    out.id = filter.id.0;
    out.slot = filter.slot;
    out
}

fn encode_auth(filter: &TableAuthFilter) -> abi::Filter {
    let mut out = encode_conditions(&filter.conditions);
    out.id = filter.id.0;
    out.sublayer = filter.sublayer;
    encode_flags(filter.flags, &mut out);
    let (action, right, error) = match filter.action {
        Action::Continue => (0, Right::Soft, 0),
        Action::Permit(right) => (1, right, 0),
        Action::Block { right, errno } => (2, right, errno.number()),
    };
    out.action = action;
    out.hard = u8::from(right == Right::Hard);
    out.error = error;
    out
}

fn encode_conditions(conditions: &Conditions) -> abi::Filter {
    let mut out = abi::Filter::default();
    if let Some(protocol) = conditions.protocol {
        out.conditions |= FilterCondition::Protocol as u32;
        out.protocol = match protocol {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
        };
    }
    if let Some(prefix) = conditions.remote {
        out.conditions |= FilterCondition::Remote as u32;
        out.remote = prefix.network().octets();
        out.remote_len = prefix.length();
    }
    if let Some(ports) = conditions.remote_ports {
        out.conditions |= FilterCondition::Ports as u32;
        (out.port_first, out.port_last) = (ports.first(), ports.last());
    }
    encode_process_conditions(conditions, &mut out);
    out
}

fn encode_process_conditions(conditions: &Conditions, out: &mut abi::Filter) {
    if let Some(exe) = conditions.exe {
        out.conditions |= FilterCondition::Exe as u32;
        (out.exe_device, out.exe_inode) = (exe.device, exe.inode);
    }
    if let Some(uid) = conditions.uid {
        out.conditions |= FilterCondition::Uid as u32;
        out.uid = uid;
    }
    if let Some(cgroup) = conditions.cgroup {
        out.conditions |= FilterCondition::Cgroup as u32;
        out.cgroup = cgroup;
    }
    if let Some(exe) = conditions.via_exe {
        out.conditions |= FilterCondition::ViaExe as u32;
        (out.via_exe_device, out.via_exe_inode) = (exe.device, exe.inode);
    }
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
