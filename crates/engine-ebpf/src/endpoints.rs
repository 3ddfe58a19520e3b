//! Where services listen, as the engine checks and registers it.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use waylay_core::{Limit, LimitError, Protocol, ServiceId};
use waylay_engine::{Endpoint, MAX_BANK, MAX_LISTENERS};

use crate::{error::EbpfError, registry::Registered};

/// By family.
fn listeners(endpoint: &Endpoint) -> [Vec<SocketAddr>; 2] {
    let tcp4 = endpoint.tcp4.iter().copied().map(SocketAddr::V4);
    let tcp6 = endpoint.tcp6.iter().copied().map(SocketAddr::V6);
    [tcp4.collect(), tcp6.collect()]
}

/// All that it listens on.
pub(crate) fn registered(endpoint: &Endpoint) -> Vec<Registered> {
    let tcp = listeners(endpoint).into_iter().flatten();
    let tcp = tcp.map(|address| Registered { protocol: Protocol::Tcp, address });
    let udp4 = endpoint.udp4.iter().map(|&port| SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)));
    let udp6 = endpoint
        .udp6
        .iter()
        .chain(&endpoint.behind6)
        .map(|&port| SocketAddr::from((Ipv6Addr::LOCALHOST, port)));
    tcp.chain(udp4.chain(udp6).map(|address| Registered { protocol: Protocol::Udp, address })).collect()
}

pub(crate) fn check_endpoint(endpoint: &Endpoint) -> Result<(), EbpfError> {
    for family in listeners(endpoint) {
        check_listeners(endpoint.service, &family)?;
    }
    let (need, allowed) = (endpoint.udp6.len(), MAX_BANK);
    if need > allowed {
        return Err(LimitError { limit: Limit::Listeners, need, allowed }.into());
    }
    Ok(())
}

fn check_listeners(service: ServiceId, family: &[SocketAddr]) -> Result<(), EbpfError> {
    let (need, allowed) = (family.len(), MAX_LISTENERS);
    if need > allowed {
        return Err(LimitError { limit: Limit::Listeners, need, allowed }.into());
    }
    if family.windows(2).any(|pair| pair[0].ip() != pair[1].ip()) {
        return Err(EbpfError::ListenersApart { service });
    }
    Ok(())
}
