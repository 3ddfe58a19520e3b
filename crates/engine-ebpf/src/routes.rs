//! The host's routes, as the programs look them up.

use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd};

use libbpf_rs::{MapCore, MapFlags, MapHandle, MapType};
use waylay_abi as abi;
use waylay_core::{Prefix, Reach, Route, Routes};
use zerocopy::{FromZeros, IntoBytes};

use crate::error::EbpfError;

const NAME: &str = "routes";
/// `WL_MAX_ROUTES` of `bpf/maps.h`.
const MAX_ROUTES: u32 = 16_384;

/// Publishes the host's routes to the programs.
#[derive(Debug)]
pub struct RoutePublisher {
    map: MapHandle,
}

impl RoutePublisher {
    pub(crate) fn new(map: MapHandle) -> Self {
        Self { map }
    }

    /// Replaces what the programs know, as a whole. More than 16,384 prefixes
    /// they do not hold; then nothing is known to them, and every destination
    /// counts as reachable.
    ///
    /// # Errors
    /// [`EbpfError::Map`]; what was known before stays.
    pub fn publish(&self, routes: &Routes) -> Result<(), EbpfError> {
        let inner = trie().map_err(error)?;
        if routes.len() <= MAX_ROUTES as usize {
            for (prefix, reach) in routes.iter() {
                inner
                    .update(key(prefix).as_bytes(), value(reach).as_bytes(), MapFlags::ANY)
                    .map_err(error)?;
            }
        }
        let fd = inner.as_fd().as_raw_fd();
        self.map.update(&0_u32.to_ne_bytes(), &fd.to_ne_bytes(), MapFlags::ANY).map_err(error)
    }
}

fn error(source: libbpf_rs::Error) -> EbpfError {
    EbpfError::Map { map: NAME, source }
}

fn trie() -> libbpf_rs::Result<MapHandle> {
    let mut options = libbpf_rs::libbpf_sys::bpf_map_create_opts::default();
    options.sz = size_of_val(&options) as _;
    options.map_flags = libbpf_rs::libbpf_sys::BPF_F_NO_PREALLOC;
    let (key, value) = (size_of::<abi::RouteKey>() as u32, size_of::<abi::Route>() as u32);
    MapHandle::create(MapType::LpmTrie, Some("routes_slot"), key, value, MAX_ROUTES, &options)
}

fn key(prefix: Prefix) -> abi::RouteKey {
    abi::RouteKey { length: u32::from(prefix.length()), ip: prefix.network().octets() }
}

fn value(reach: Reach) -> abi::Route {
    let mut route = abi::Route::new_zeroed();
    match reach {
        Reach::From(Some(source)) => route.source = mapped(source).octets(),
        Reach::From(None) => {}
        Reach::Here(source) => {
            route.source = mapped(source).octets();
            route.here = 1;
        }
        Reach::Group => route.group = 1,
        Reach::Never(_) => {}
    }
    if let Route::Missing(errno) = reach.route() {
        route.error = u32::from(errno.number());
    }
    route
}

fn mapped(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}
