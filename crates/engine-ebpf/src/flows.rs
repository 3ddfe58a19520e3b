//! What is redirected at this moment, for whoever asks.

use std::{
    ffi::OsStr,
    net::SocketAddr,
    os::{fd::AsFd, unix::ffi::OsStrExt},
    path::PathBuf,
    time::Duration,
};

use libbpf_rs::{MapCore, MapFlags};
use waylay_abi::{self as abi, comm_to_string};
use waylay_core::{FilterId, Hop, Protocol, ServiceId};
use zerocopy::FromBytes;

use crate::{error::EbpfError, load::Loaded, sys};

/// Flows of connections, and which of its cells are taken.
const FLOWS: &str = "flows";
const CELLS: &str = "cells";

const DATAGRAM_FLOWS: &str = "datagram_flows";

/// Of [`abi::Flow::state`]: the service's end exists.
const LIVE: u32 = 1;

/// A leg that is redirected at this moment. A connection through n services has n of them, with longer and longer chains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveFlow {
    /// Unique in its instance.
    pub id: u64,
    /// The flow of the connection's first leg: it is one with the other legs that have the same.
    pub first: u64,
    /// When it began, by the monotonic clock.
    pub began: Duration,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Whether the service's end exists; a flow without one is about to be accepted.
    pub accepted: bool,
    /// The process at the head of the chain.
    pub application: FlowApplication,
    /// The application's own address, as getsockname(2) shows it to it; `None` while that is not known.
    pub source: Option<SocketAddr>,
    /// Where the application wanted to go.
    pub destination: SocketAddr,
    /// The services of the chain so far and the filters that led there; the last one is where this leg goes. Filters are those of the
    /// policy that was in force when the leg began.
    pub hops: Vec<Hop>,
}

/// Who is at the head of a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowApplication {
    /// Its id in the initial pid namespace; the process may be gone.
    pub pid: u32,
    /// Its effective user.
    pub uid: u32,
    /// Its group, the real one.
    pub gid: u32,
    /// Its command name.
    pub comm: String,
    /// Its executable, as far as the kernel has kept the path.
    pub exe: PathBuf,
    /// Id of its cgroup.
    pub cgroup: u64,
}

pub(crate) fn live(loaded: &Loaded) -> Result<Vec<LiveFlow>, EbpfError> {
    let mut found = Vec::new();
    for_each_connection(loaded, |flow| found.push(decode(flow, Protocol::Tcp)))?;
    for_each_datagram_flow(loaded, |flow| found.push(decode(flow, Protocol::Udp)))?;
    found.sort_by_key(|flow| (flow.began, flow.id));
    Ok(found)
}

/// How many flows are under way.
pub(crate) fn count(loaded: &Loaded) -> Result<usize, EbpfError> {
    let connections = cells(loaded)?.iter().map(|word| word.count_ones() as usize).sum::<usize>();
    Ok(connections + loaded.map(DATAGRAM_FLOWS)?.keys().count())
}

/// Looks at each flow of a connection. One that comes while this looks may be missed.
pub(crate) fn for_each_connection(
    loaded: &Loaded,
    mut look: impl FnMut(&abi::Flow),
) -> Result<(), EbpfError> {
    let flows = loaded.map(FLOWS)?;
    let failed = |source| EbpfError::Map { map: FLOWS, source };
    let numbers = cells(loaded)?.into_iter().enumerate().flat_map(|(word, taken)| {
        (0..u64::BITS).filter(move |bit| taken >> bit & 1 == 1).map(move |bit| word as u32 * u64::BITS + bit)
    });
    for number in numbers {
        let value = flows.lookup(&number.to_ne_bytes(), MapFlags::ANY).map_err(failed)?;
        let flow = value.and_then(|bytes| abi::Flow::read_from_bytes(&bytes).ok());
        if let Some(flow) = flow.filter(|flow| flow.id != 0) {
            look(&flow);
        }
    }
    Ok(())
}

/// Looks at each flow of datagrams.
pub(crate) fn for_each_datagram_flow(
    loaded: &Loaded,
    mut look: impl FnMut(&abi::Flow),
) -> Result<(), EbpfError> {
    let handle = loaded.map(DATAGRAM_FLOWS)?;
    // What it holds begins with a flow.
    sys::for_each_value(handle.as_fd(), size_of::<u64>(), size_of::<abi::DatagramFlow>(), |value| {
        if let Ok((flow, _)) = abi::Flow::read_from_prefix(value) {
            look(&flow);
        }
    })
    .map_err(|source| EbpfError::Map { map: DATAGRAM_FLOWS, source: source.into() })
}

/// Which cells of the map of connections are taken, a bit each.
fn cells(loaded: &Loaded) -> Result<Vec<u64>, EbpfError> {
    let failed = |source| EbpfError::Map { map: CELLS, source };
    let bytes = loaded.map(CELLS)?.lookup(&0_u32.to_ne_bytes(), MapFlags::ANY).map_err(failed)?;
    let words = bytes.unwrap_or_default();
    Ok(words.chunks_exact(size_of::<u64>()).filter_map(|word| u64::read_from_bytes(word).ok()).collect())
}

pub(crate) fn decode(flow: &abi::Flow, protocol: Protocol) -> LiveFlow {
    let hops = flow.chain.hops.iter().take(flow.chain.hop_count as usize);
    LiveFlow {
        id: flow.id,
        first: flow.first,
        began: Duration::from_nanos(flow.began),
        protocol,
        accepted: flow.state == LIVE,
        application: FlowApplication {
            pid: flow.application.pid,
            uid: flow.application.uid,
            gid: flow.gid,
            comm: comm_to_string(&flow.application.comm),
            exe: path(&flow.exe_path),
            cgroup: flow.application.cgroup,
        },
        source: (flow.source.port != 0).then(|| flow.source.into()),
        destination: flow.destination.into(),
        hops: hops.map(|hop| Hop { service: ServiceId(hop.service), filter: FilterId(hop.filter) }).collect(),
    }
}

fn path(bytes: &[u8]) -> PathBuf {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    PathBuf::from(OsStr::from_bytes(&bytes[..end]))
}
