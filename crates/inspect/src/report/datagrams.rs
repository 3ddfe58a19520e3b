//! What the report of a flow of datagrams says beyond that of a connection.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use waylay_relay::datagrams::DatagramTransfer;

use crate::sniff::{self, DatagramSniffer};

/// The part of a [`Report`](super::Report) that only flows of datagrams have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatagramReport {
    /// `udp`.
    pub transport: Transport,
    /// Datagrams forwarded from the application.
    pub datagrams_to_destination: u64,
    /// Datagrams forwarded to the application.
    pub datagrams_to_application: u64,
    /// Datagrams that could not be forwarded, either way; left out of the line if there is none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub datagrams_dropped: u64,
    /// What was asked of the DNS, the first 16 questions; left out of the line if there is none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub queries: Vec<QueryReport>,
    /// Questions beyond those; left out of the line if there is none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unlisted_queries: u64,
}

/// What carries a flow of datagrams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Transport {
    /// UDP.
    Udp,
}

/// A question to the DNS, and how it was answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueryReport {
    /// The name, as [`Question`](crate::dns::Question) writes it.
    pub name: String,
    /// The type of record, such as `AAAA`.
    #[serde(rename = "type")]
    pub kind: String,
    /// How it went, such as `NXDOMAIN`; `null` if there was no answer.
    pub rcode: Option<String>,
    /// Records in the answer.
    pub answers: u16,
    /// The first few addresses among them.
    pub addresses: Vec<IpAddr>,
}

impl DatagramReport {
    pub(crate) fn new(transfer: DatagramTransfer, sniffer: &DatagramSniffer) -> Self {
        Self {
            transport: Transport::Udp,
            datagrams_to_destination: transfer.datagrams_to_destination,
            datagrams_to_application: transfer.datagrams_to_application,
            datagrams_dropped: transfer.dropped,
            queries: sniffer.queries().iter().map(QueryReport::from).collect(),
            unlisted_queries: sniffer.unlisted_queries(),
        }
    }
}

impl From<&sniff::Query> for QueryReport {
    fn from(query: &sniff::Query) -> Self {
        let answer = query.answer.as_ref();
        Self {
            name: query.question.name.clone(),
            kind: query.question.kind.to_string(),
            rcode: answer.map(|answer| answer.rcode.to_string()),
            answers: answer.map_or(0, |answer| answer.records),
            addresses: answer.map(|answer| answer.addresses.clone()).unwrap_or_default(),
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}
