//! What all ready-made services do with flows of datagrams: carry them on, and report each when it has ended.

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

use crate::{
    report::{DatagramReport, Outcome, Report, describe},
    sniff::DatagramSniffer,
};

/// What a service makes of datagrams.
pub(crate) trait Judge: Send + Sync + 'static {
    /// What it keeps of a flow.
    type Notes: Default + Send;

    /// Its name, in reports.
    fn name(&self) -> &str;

    /// Whether it dials without its redirect records.
    fn forgets(&self) -> bool;

    /// A datagram is about to be passed on.
    fn judge(&self, notes: &mut Self::Notes, direction: Direction, datagram: &[u8]) -> Verdict;

    /// What a flow was stopped for, and which way that was going.
    fn found(&self, notes: &Self::Notes) -> Option<(String, Direction)>;
}

/// Serves until the service's shutdown is triggered, and has written every report then.
pub(crate) async fn serve<J: Judge>(judge: Arc<J>, service: DatagramService) -> io::Result<()> {
    let (reports, to_write) = channel();
    // A reader that is slow holds up reports, not datagrams.
    let writing = spawn_blocking(move || write(&to_write));
    let watch = Watch { judge, reports, last: None };
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

struct Watch<J> {
    judge: Arc<J>,
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
pub(crate) struct Entry<N> {
    origin: Arc<Origin>,
    began: SystemTime,
    flow: u64,
    destination: SocketAddr,
    sniffer: DatagramSniffer,
    notes: N,
}

impl<J> Watch<J> {
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

impl<J: Judge> DatagramObserver for Watch<J> {
    type Flow = Entry<J::Notes>;

    fn opened(&mut self, facts: &FlowFacts) -> Self::Flow {
        Entry {
            origin: self.origin(facts),
            began: SystemTime::now(),
            flow: facts.context().flow(),
            destination: facts.original_destination(),
            sniffer: DatagramSniffer::new(),
            notes: J::Notes::default(),
        }
    }

    fn datagram(&mut self, entry: &mut Self::Flow, direction: Direction, datagram: &[u8]) -> Verdict {
        if entry.sniffer.looks(direction) {
            entry.sniffer.observe(direction, datagram);
        }
        self.judge.judge(&mut entry.notes, direction, datagram)
    }

    fn closed(&mut self, entry: Self::Flow, end: FlowEnd) {
        let mut report = entry.report(self.judge.name(), &end);
        if let Some((pattern, direction)) = self.judge.found(&entry.notes) {
            report.pattern = Some(pattern);
            report.direction = Some(direction);
        }
        // The other end is gone only if writing has ended.
        let _unread = self.reports.send(report);
    }

    fn dial(&mut self, facts: &FlowFacts) -> Result<UdpSocket, ConnectError> {
        if self.judge.forgets() { without_records(facts) } else { Ok(facts.outbound()?.into_socket()) }
    }
}

impl<N> Entry<N> {
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
