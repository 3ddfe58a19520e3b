//! The report of one connection or flow of datagrams: what a service writes when it has ended, one JSON object a line.

mod datagrams;
mod direction;
mod human;
mod json;
mod outcome;
mod time;

use std::io;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use waylay_relay::Direction;

pub use datagrams::{DatagramReport, QueryReport, Transport};
pub use json::harmless as harmless_json;
pub use outcome::{Outcome, describe};
pub use time::{Timestamp, TimestampError};

use crate::sniff::Protocol;

/// One connection, or flow of datagrams, as one service saw it. The fields are written in this order, under these names.
///
/// # Example
///
/// ```
/// use std::time::SystemTime;
/// use waylay_inspect::report::{Outcome, Report};
/// use waylay_inspect::sniff::Protocol;
///
/// let report = Report {
///     time: SystemTime::UNIX_EPOCH.into(),
///     service: "log".into(),
///     flow: 3,
///     application: "/usr/bin/curl".into(),
///     pid: 4711,
///     original_destination: "127.0.0.1:8080".parse()?,
///     protocol: Protocol::Http,
///     host: Some("example.test".into()),
///     datagrams: None,
///     bytes_to_destination: 78,
///     bytes_to_application: 1256,
///     duration_us: 3400,
///     chain: vec!["log".into(), "log-2".into()],
///     verdict: Outcome::Forwarded,
///     pattern: None,
///     direction: None,
///     error: None,
/// };
/// let mut line = Vec::new();
/// report.write_line(&mut line)?;
/// assert_eq!(Report::from_line(std::str::from_utf8(&line)?)?, report);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// When the service accepted the connection, or the first datagram came.
    pub time: Timestamp,
    /// The service that reports.
    pub service: String,
    /// The number of the leg to this service, unique within a run: `waylay::RedirectContext::flow`.
    pub flow: u64,
    /// The path of the application's executable.
    pub application: String,
    /// The application's process.
    pub pid: u32,
    /// Where the application asked to be connected to.
    pub original_destination: SocketAddr,
    /// What the connection spoke.
    pub protocol: Protocol,
    /// The host the application asked for, if it said so.
    pub host: Option<String>,
    /// What only flows of datagrams have; its fields are the line's.
    #[serde(flatten)]
    pub datagrams: Option<DatagramReport>,
    /// Bytes forwarded from the application.
    pub bytes_to_destination: u64,
    /// Bytes forwarded to the application.
    pub bytes_to_application: u64,
    /// Microseconds from acceptance to end; from the first datagram to the last.
    pub duration_us: u64,
    /// The services the connection has been through, this one included, in order.
    pub chain: Vec<String>,
    /// How it ended.
    pub verdict: Outcome,
    /// What the connection was stopped for; left out of the line unless it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pattern: Option<String>,
    /// Which way that was going, `to-destination` or `to-application`; left out of the line unless the
    /// connection was stopped.
    #[serde(default, with = "direction", skip_serializing_if = "Option::is_none")]
    pub direction: Option<Direction>,
    /// The system's reason, as [`describe`] words it; left out of the line when there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Report {
    /// Writes the report as one line of JSON, line feed included, by a single write. Nothing in it steers a
    /// terminal: see [`harmless_json`].
    ///
    /// # Errors
    ///
    /// Those of the writer.
    pub fn write_line(&self, to: &mut impl io::Write) -> io::Result<()> {
        let line = json::harmless(&serde_json::to_string(self)?) + "\n";
        // In one piece, so that the lines of services which share a pipe aren't mixed.
        to.write_all(line.as_bytes())?;
        Ok(())
    }

    /// Reads a line back; a trailing line feed and unknown fields are ignored.
    ///
    /// # Errors
    ///
    /// [`ReportError`] if the line isn't a report.
    pub fn from_line(line: &str) -> Result<Self, ReportError> {
        let report = serde_json::from_str(line)?;
        Ok(report)
    }

    /// The report as one line for people: no line feed, and no control character whatever the application is
    /// called.
    ///
    /// For example `log  curl[4711] → 127.0.0.1:8080  http example.test  ↑ 78 B  ↓ 1.2 KiB  3.4 ms  via log ›
    /// log-2`, followed by the verdict and its reason unless the connection was simply forwarded.
    pub fn human(&self) -> String {
        human::line(self)
    }
}

/// A line that isn't a report.
///
/// # Example
///
/// ```
/// let error = waylay_inspect::report::Report::from_line("{}").unwrap_err();
/// assert_eq!(error.to_string(), "not a connection report");
/// ```
#[derive(Debug, thiserror::Error)]
#[error("not a connection report")]
pub struct ReportError(#[from] serde_json::Error);

#[cfg(test)]
mod tests;
