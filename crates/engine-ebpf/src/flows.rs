//! What is redirected at this moment, for whoever asks.

use std::{
    ffi::OsStr,
    net::SocketAddr,
    os::{fd::AsFd, unix::ffi::OsStrExt},
    path::PathBuf,
    time::Duration,
};

use waylay_abi::{self as abi, comm_to_string};
use waylay_core::{FilterId, Hop, Protocol, ServiceId};
use zerocopy::FromBytes;

use crate::{error::EbpfError, load::Loaded, sys};

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
    for (map, protocol, size) in [
        ("flows", Protocol::Tcp, size_of::<abi::Flow>()),
        ("datagram_flows", Protocol::Udp, size_of::<abi::DatagramFlow>()),
    ] {
        let handle = loaded.map(map)?;
        // What either holds begins with a flow.
        sys::for_each_value(handle.as_fd(), size_of::<u64>(), size, |value| {
            found.extend(abi::Flow::read_from_prefix(value).ok().map(|(flow, _)| decode(&flow, protocol)));
        })
        .map_err(|source| EbpfError::Map { map, source: source.into() })?;
    }
    found.sort_by_key(|flow| flow.id);
    Ok(found)
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
