//! What all ready-made services do with a connection: carry it on, and give account of it.

use std::{
    io,
    time::{Instant, SystemTime},
};

use tokio::{net::TcpStream, task::spawn_blocking};
use waylay::{ConnectError, Inbound};
use waylay_relay::{Observer, RelayError, Transfer};

use crate::{
    report::{Outcome, Report, describe},
    sniff::Sniffer,
};

/// Dials on and relays until both directions have ended. A service that `forgets` dials without its
/// redirect records.
pub(crate) async fn carry_on(inbound: Inbound, forgets: bool, observer: &mut (impl Observer + Send)) -> End {
    let outbound = match dial(&inbound, forgets).await {
        Ok(outbound) => outbound,
        Err(error) => return End::Unreachable(error),
    };
    match waylay_relay::relay_observed(inbound, outbound, observer).await {
        Ok(transfer) => End::Relayed(transfer),
        Err(error) => End::Broken(error),
    }
}

async fn dial(inbound: &Inbound, forgets: bool) -> Result<TcpStream, ConnectError> {
    let destination = inbound.original_destination();
    if forgets {
        let dialled = TcpStream::connect(destination).await;
        return dialled.map_err(|source| ConnectError::Connect { destination, source });
    }
    Ok(inbound.connect().await?.into_stream())
}

/// A report under way.
#[derive(Debug)]
pub(crate) struct Account {
    report: Report,
    started: Instant,
}

/// How the service's part in a connection ended.
#[derive(Debug)]
pub(crate) enum End {
    Relayed(Transfer),
    Broken(RelayError),
    Unreachable(ConnectError),
}

impl Account {
    pub(crate) fn open(service: &str, inbound: &Inbound) -> Self {
        let application = inbound.context().application();
        let path = if application.path.is_empty() { &application.command } else { &application.path };
        let report = Report {
            time: SystemTime::now().into(),
            service: service.to_owned(),
            flow: inbound.flow(),
            application: path.clone(),
            pid: application.pid,
            original_destination: inbound.original_destination(),
            protocol: Sniffer::new().protocol(),
            host: None,
            datagrams: None,
            bytes_to_destination: 0,
            bytes_to_application: 0,
            duration_us: 0,
            chain: inbound.chain().iter().map(|hop| hop.service.clone()).collect(),
            verdict: Outcome::Forwarded,
            pattern: None,
            direction: None,
            error: None,
        };
        Self { report, started: Instant::now() }
    }

    /// The report as it is now.
    pub(crate) fn report(&mut self) -> &mut Report {
        &mut self.report
    }

    /// Writes it to standard output, one JSON object a line; `waylay run` reads it there.
    pub(crate) async fn close(mut self, sniffer: &Sniffer, end: End) {
        self.report.duration_us = u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.report.protocol = sniffer.protocol();
        self.report.host = sniffer.host().map(str::to_owned);
        end.write_into(&mut self.report);
        // A reader that is slow holds up reports, not connections. Without one there is nobody to tell; the
        // connection is what counts.
        let _unread = spawn_blocking(move || self.report.write_line(&mut io::stdout().lock())).await;
    }
}

impl End {
    fn write_into(self, report: &mut Report) {
        let (transfer, outcome, error) = match self {
            Self::Relayed(transfer) => (transfer, Outcome::Forwarded, None),
            Self::Broken(error) => (error.transfer(), Outcome::from(&error), error.io_error().map(describe)),
            Self::Unreachable(error) => (
                Transfer::default(),
                Outcome::Unreachable,
                Some(error.io_error().map_or_else(|| error.to_string(), describe)),
            ),
        };
        report.bytes_to_destination = transfer.to_destination;
        report.bytes_to_application = transfer.to_application;
        report.verdict = outcome;
        report.error = error;
    }
}
