//! The `log` service: lets every connection pass and reports it when it has ended.
//!
//! Reports go to standard output, one JSON object a line; `waylay run` reads them there.

use std::{
    io,
    sync::Arc,
    time::{Instant, SystemTime},
};

use tokio::{net::TcpStream, task::spawn_blocking};
use waylay::{ConnectError, Inbound, RedirectService, ServeError};
use waylay_relay::{Direction, Observer, RelayError, Transfer, Verdict};

use crate::{
    report::{Outcome, Report, describe},
    sniff::Sniffer,
};

/// How this instance of the service behaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// Its name in reports and chains.
    pub name: String,
    /// Whether it dials without its redirect records, to show what happens then.
    pub forgets: bool,
}

impl Log {
    /// Serves until told to stop by the service's shutdown handle, then until
    /// the last connection has ended.
    ///
    /// # Errors
    ///
    /// [`ServeError`] if a listener fails.
    pub async fn serve(self, service: RedirectService) -> Result<(), ServeError> {
        let log = Arc::new(self);
        let handle = move |inbound| {
            let log = Arc::clone(&log);
            async move { log.handle(inbound).await }
        };
        service.serve(handle).await?;
        Ok(())
    }

    async fn handle(&self, inbound: Inbound) {
        let mut report = self.begin(&inbound);
        let started = Instant::now();
        let mut sniffer = Sniffer::new();
        let end = self.carry_on(inbound, &mut sniffer).await;
        report.duration_us = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        report.protocol = sniffer.protocol();
        report.host = sniffer.host().map(str::to_owned);
        end.write_into(&mut report);
        // A reader that is slow holds up reports, not connections. Without one there is nobody to tell; the
        // connection is what counts.
        let _unread = spawn_blocking(move || report.write_line(&mut io::stdout().lock())).await;
    }

    fn begin(&self, inbound: &Inbound) -> Report {
        let application = inbound.context().application();
        let path = if application.path.is_empty() { &application.command } else { &application.path };
        Report {
            time: SystemTime::now().into(),
            service: self.name.clone(),
            application: path.clone(),
            pid: application.pid,
            original_destination: inbound.original_destination(),
            protocol: Sniffer::new().protocol(),
            host: None,
            bytes_to_destination: 0,
            bytes_to_application: 0,
            duration_us: 0,
            chain: inbound.chain().iter().map(|hop| hop.service.clone()).collect(),
            verdict: Outcome::Forwarded,
            error: None,
        }
    }

    async fn carry_on(&self, inbound: Inbound, sniffer: &mut Sniffer) -> End {
        let outbound = match self.dial(&inbound).await {
            Ok(outbound) => outbound,
            Err(error) => return End::Unreachable(error),
        };
        match waylay_relay::relay_observed(inbound, outbound, &mut Look(sniffer)).await {
            Ok(transfer) => End::Relayed(transfer),
            Err(error) => End::Broken(error),
        }
    }

    async fn dial(&self, inbound: &Inbound) -> Result<TcpStream, ConnectError> {
        let destination = inbound.original_destination();
        if self.forgets {
            let dialled = TcpStream::connect(destination).await;
            return dialled.map_err(|source| ConnectError::Connect { destination, source });
        }
        Ok(inbound.connect().await?.into_stream())
    }
}

/// Lets everything pass, and looks at it until there is nothing more to learn.
struct Look<'a>(&'a mut Sniffer);

impl Observer for Look<'_> {
    fn bytes(&mut self, direction: Direction, bytes: &[u8]) -> Verdict {
        self.0.observe(direction, bytes);
        Verdict::Forward
    }

    fn looks(&self, _: Direction) -> bool {
        !self.0.done()
    }
}

enum End {
    Relayed(Transfer),
    Broken(RelayError),
    Unreachable(ConnectError),
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
