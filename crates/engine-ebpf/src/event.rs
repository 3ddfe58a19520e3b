//! Refusals as the programs report them, turned into the core's events.

use std::time::Duration;

use libbpf_rs::{MapCore, MapFlags, MapHandle, RingBufferBuilder};
use waylay_abi::{self as abi, comm_to_string};
use waylay_core::{
    Errno, Event, FilterId, LegSummary, Protocol, Reason, Refusal, Resource, ServiceId, SocketKind,
    SocketSummary,
};
use zerocopy::FromBytes;

use crate::error::EbpfError;

/// Number of the IP protocol.
const UDP: u32 = 17;

/// The programs' ring buffer. It may be read from any one thread.
#[derive(Debug)]
pub struct EventSource {
    events: MapHandle,
    lost: Counter,
    dropped: Counter,
}

/// A number that the programs count up.
#[derive(Debug)]
struct Counter {
    map: MapHandle,
    seen: u64,
}

impl EventSource {
    pub(crate) fn new(events: MapHandle, lost: MapHandle, dropped: MapHandle) -> Self {
        let counter = |map| Counter { map, seen: 0 };
        Self { events, lost: counter(lost), dropped: counter(dropped) }
    }

    /// What happened since the last call; waits for it no longer than `timeout`.
    ///
    /// # Errors
    /// [`EbpfError::Map`] if the buffer cannot be read.
    pub fn poll(&mut self, timeout: Duration) -> Result<Vec<Event>, EbpfError> {
        let mut events = Vec::new();
        {
            let mut builder = RingBufferBuilder::new();
            let collect = |bytes: &[u8]| {
                events.extend(decode(bytes));
                0
            };
            builder.add(&self.events, collect).map_err(error)?;
            builder.build().and_then(|ring| ring.poll(timeout)).map_err(error)?;
        }
        events.extend(self.dropped.newly()?.map(|count| Event::Dropped { count }));
        events.extend(self.lost.newly()?.map(|count| Event::Lost { count }));
        Ok(events)
    }
}

impl Counter {
    /// By how much it has grown since it was asked last.
    fn newly(&mut self) -> Result<Option<u64>, EbpfError> {
        let bytes = self.map.lookup(&0_u32.to_ne_bytes(), MapFlags::ANY).map_err(error)?;
        let total = bytes.and_then(|bytes| u64::read_from_bytes(&bytes).ok()).unwrap_or(self.seen);
        let count = total.saturating_sub(self.seen);
        self.seen = total;
        Ok((count > 0).then_some(count))
    }
}

fn error(source: libbpf_rs::Error) -> EbpfError {
    EbpfError::Map { map: "events", source }
}

pub(crate) fn decode(bytes: &[u8]) -> Option<Event> {
    match abi::SocketEvent::read_from_bytes(bytes) {
        Ok(event) => decode_socket(&event),
        Err(_) => decode_leg(&abi::Event::read_from_bytes(bytes).ok()?),
    }
}

fn decode_socket(event: &abi::SocketEvent) -> Option<Event> {
    let kind = SocketKind {
        family: event.family,
        socket_type: event.socket_type,
        protocol: u16::try_from(event.protocol).ok()?,
    };
    let refusal = match abi::Refusal::from_code(event.refusal)? {
        abi::Refusal::Unredirectable => Refusal::Unredirectable,
        abi::Refusal::ForeignNamespace => Refusal::ForeignNamespace,
        abi::Refusal::NoTables => Refusal::Shortage(Resource::Flows),
        abi::Refusal::Blocked
        | abi::Refusal::ServiceAbsent
        | abi::Refusal::BacklogFull
        | abi::Refusal::HopLimit
        | abi::Refusal::ListenerDialled
        | abi::Refusal::NoFlows
        | abi::Refusal::NoFlowsOfCgroup
        | abi::Refusal::NoSocketStorage
        | abi::Refusal::NoPorts
        | abi::Refusal::NoRoute => return None,
    };
    let socket = SocketSummary {
        kind,
        pid: event.process.pid,
        uid: event.process.uid,
        comm: comm_to_string(&event.process.comm),
    };
    Some(Event::SocketRefused { refusal, socket })
}

fn decode_leg(event: &abi::Event) -> Option<Event> {
    let leg = LegSummary {
        protocol: if event.protocol == UDP { Protocol::Udp } else { Protocol::Tcp },
        pid: event.process.pid,
        uid: event.process.uid,
        comm: comm_to_string(&event.process.comm),
        destination: event.destination.into(),
    };
    let left_alone = |reason| Some(Event::LeftAlone { reason, leg: leg.clone() });
    match event.refusal {
        abi::PASSED_FOREIGN_NAMESPACE => return left_alone(Reason::ForeignNamespace),
        abi::PASSED_SANDBOX => return left_alone(Reason::Sandbox),
        _ => {}
    }
    Some(Event::Refused { refusal: decode_refusal(event)?, leg })
}

fn decode_refusal(event: &abi::Event) -> Option<Refusal> {
    let (service, filter) = (ServiceId(event.service), FilterId(event.filter));
    let refusal = match abi::Refusal::from_code(event.refusal)? {
        abi::Refusal::Blocked => {
            let errno = Errno::new(u16::try_from(event.error).ok()?)?;
            Refusal::Blocked { filter, errno }
        }
        abi::Refusal::ServiceAbsent => Refusal::ServiceAbsent { service },
        abi::Refusal::BacklogFull => Refusal::BacklogFull { service },
        abi::Refusal::HopLimit => Refusal::HopLimit { service },
        abi::Refusal::ListenerDialled => Refusal::ListenerDialled { service },
        abi::Refusal::ForeignNamespace => Refusal::ForeignNamespace,
        abi::Refusal::Unredirectable => Refusal::Unredirectable,
        abi::Refusal::NoRoute => Refusal::NoRoute { errno: Errno::new(u16::try_from(event.error).ok()?)? },
        abi::Refusal::NoFlows | abi::Refusal::NoTables => Refusal::Shortage(Resource::Flows),
        abi::Refusal::NoFlowsOfCgroup => Refusal::Shortage(Resource::FlowsOfCgroup),
        abi::Refusal::NoSocketStorage => Refusal::Shortage(Resource::SocketStorage),
        abi::Refusal::NoPorts => Refusal::Shortage(Resource::Ports),
    };
    Some(refusal)
}
