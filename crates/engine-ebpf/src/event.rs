//! Refusals as the programs report them, turned into the core's events.

use std::{sync::mpsc, time::Duration};

use libbpf_rs::{MapHandle, RingBuffer, RingBufferBuilder};
use waylay_abi::{self as abi, comm_to_string};
use waylay_core::{Errno, Event, FilterId, LegSummary, Protocol, Refusal, Resource, ServiceId};
use zerocopy::FromBytes;

use crate::error::EbpfError;

/// The programs' ring buffer. Move it to the thread that is to read it.
#[derive(Debug)]
pub struct EventSource {
    map: MapHandle,
}

impl EventSource {
    pub(crate) fn new(map: MapHandle) -> Self {
        Self { map }
    }

    /// Gives every event to `handle` until it returns false; `handle` is also
    /// asked, with no event, whenever `patience` has passed.
    ///
    /// # Errors
    /// [`EbpfError::Map`] if the buffer cannot be read.
    pub fn run(self, patience: Duration, mut handle: impl FnMut(Option<Event>) -> bool) -> Result<(), EbpfError> {
        let (sender, receiver) = mpsc::channel();
        let ring = self.ring(sender).map_err(error)?;
        loop {
            ring.poll(patience).map_err(error)?;
            for event in receiver.try_iter() {
                if !handle(Some(event)) {
                    return Ok(());
                }
            }
            if !handle(None) {
                return Ok(());
            }
        }
    }

    fn ring(&self, sender: mpsc::Sender<Event>) -> libbpf_rs::Result<RingBuffer<'static>> {
        let mut builder = RingBufferBuilder::new();
        builder.add(&self.map, move |bytes| match decode(bytes).map(|event| sender.send(event)) {
            Some(Err(_receiver_gone)) => -1,
            Some(Ok(())) | None => 0,
        })?;
        builder.build()
    }
}

fn error(source: libbpf_rs::Error) -> EbpfError {
    EbpfError::Map { map: "events", source }
}

fn decode(bytes: &[u8]) -> Option<Event> {
    let event = abi::Event::read_from_bytes(bytes).ok()?;
    let refusal = decode_refusal(&event)?;
    let leg = LegSummary {
        protocol: Protocol::Tcp,
        pid: event.process.pid,
        uid: event.process.uid,
        comm: comm_to_string(&event.process.comm),
        destination: event.destination.into(),
    };
    Some(Event::Refused { refusal, leg })
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
        abi::Refusal::NoFlows | abi::Refusal::NoTables => Refusal::Shortage(Resource::Flows),
        abi::Refusal::NoFlowsOfCgroup => Refusal::Shortage(Resource::FlowsOfCgroup),
        abi::Refusal::NoSocketStorage => Refusal::Shortage(Resource::SocketStorage),
    };
    Some(refusal)
}
