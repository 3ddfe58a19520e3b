//! Flows of datagrams: lets all pass, and reports each flow when it has ended.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::{
        Arc,
        mpsc::{Receiver, Sender, channel},
    },
    time::SystemTime,
};

use tokio::task::spawn_blocking;
use waylay::{
    ConnectError,
    datagrams::{DatagramService, FlowFacts, Unreachable},
};
use waylay_relay::{
    Direction, Verdict,
    datagrams::{DatagramObserver, EndCause, FlowEnd, relay_datagrams},
};

use super::Log;
use crate::{
    report::{DatagramReport, Outcome, Report, describe},
    sniff::DatagramSniffer,
};

/// Serves until the service's shutdown is triggered, and has written every report then.
pub(super) async fn serve(log: Arc<Log>, service: DatagramService) -> io::Result<()> {
    let (reports, to_write) = channel();
    // A reader that is slow holds up reports, not datagrams.
    let writing = spawn_blocking(move || write(&to_write));
    let watch = Watch { log, reports, last: None };
    drop(relay_datagrams(service, watch).await?);
    // It ends with the last report.
    let _ended = writing.await;
    Ok(())
}

/// Until there are no more. Without a reader there is nobody to tell.
fn write(reports: &Receiver<Report>) {
    for report in reports {
        let _unread = report.write_line(&mut io::stdout().lock());
    }
}

struct Watch {
    log: Arc<Log>,
    reports: Sender<Report>,
    /// Most flows are of the application that has begun the one before.
    last: Option<Arc<Origin>>,
}

/// What many flows have in common.
#[derive(PartialEq, Eq)]
struct Origin {
    application: String,
    pid: u32,
    chain: Vec<String>,
}

/// What is kept of a flow until its report is written.
pub(super) struct Entry {
    origin: Arc<Origin>,
    began: SystemTime,
    flow: u64,
    destination: SocketAddr,
    sniffer: DatagramSniffer,
}

impl Watch {
    fn origin(&mut self, facts: &FlowFacts) -> Arc<Origin> {
        let application = facts.context().application();
        let path = if application.path.is_empty() { &application.command } else { &application.path };
        let origin = Origin {
            application: path.clone(),
            pid: application.pid,
            chain: facts.chain().iter().map(|hop| hop.service.clone()).collect(),
        };
        match &self.last {
            Some(last) if **last == origin => Arc::clone(last),
            Some(_) | None => Arc::clone(self.last.insert(Arc::new(origin))),
        }
    }
}

impl DatagramObserver for Watch {
    type Flow = Entry;

    fn opened(&mut self, facts: &FlowFacts) -> Entry {
        Entry {
            origin: self.origin(facts),
            began: SystemTime::now(),
            flow: facts.context().flow(),
            destination: facts.original_destination(),
            sniffer: DatagramSniffer::new(),
        }
    }

    fn datagram(&mut self, entry: &mut Entry, direction: Direction, datagram: &[u8]) -> Verdict {
        if entry.sniffer.looks(direction) {
            entry.sniffer.observe(direction, datagram);
        }
        Verdict::Forward
    }

    fn closed(&mut self, entry: Entry, end: FlowEnd) {
        // The other end is gone only if writing has ended.
        let _unread = self.reports.send(entry.report(&self.log.name, &end));
    }

    fn dial(&mut self, facts: &FlowFacts) -> Result<UdpSocket, ConnectError> {
        if self.log.forgets { without_records(facts) } else { Ok(facts.outbound()?.into_socket()) }
    }
}

impl Entry {
    fn report(&self, service: &str, end: &FlowEnd) -> Report {
        Report {
            time: self.began.into(),
            service: service.to_owned(),
            flow: self.flow,
            application: self.origin.application.clone(),
            pid: self.origin.pid,
            original_destination: self.destination,
            protocol: self.sniffer.protocol(),
            host: self.sniffer.host().map(str::to_owned),
            datagrams: Some(DatagramReport::new(end.transfer, &self.sniffer)),
            bytes_to_destination: end.transfer.bytes_to_destination,
            bytes_to_application: end.transfer.bytes_to_application,
            duration_us: u64::try_from(end.lasted.as_micros()).unwrap_or(u64::MAX),
            chain: self.origin.chain.clone(),
            verdict: outcome(end),
            pattern: None,
            direction: None,
            error: end.error.as_ref().map(describe),
        }
    }
}

fn outcome(end: &FlowEnd) -> Outcome {
    match (end.cause, &end.error) {
        (EndCause::Stopped, _) => Outcome::Stopped,
        (EndCause::Idle | EndCause::Evicted | EndCause::Ended | EndCause::Shutdown, Some(_)) => {
            Outcome::Unreachable
        }
        (EndCause::Idle | EndCause::Evicted | EndCause::Ended | EndCause::Shutdown, None) => {
            Outcome::Forwarded
        }
    }
}

fn without_records(facts: &FlowFacts) -> Result<UdpSocket, ConnectError> {
    let destination = facts.original_destination();
    let dial = || {
        let any: SocketAddr = match destination {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = UdpSocket::bind(any)?;
        Unreachable::watch(&socket)?;
        if facts.is_connected() {
            socket.connect(destination)?;
        }
        Ok(socket)
    };
    dial().map_err(|source| ConnectError::Connect { destination, source })
}
