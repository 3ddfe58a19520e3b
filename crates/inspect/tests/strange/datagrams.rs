//! The datagrams of a flow. Each begins with its length in units of sixteen bytes, and its direction in the top bit.

use waylay_inspect::{
    dns,
    sniff::{DatagramSniffer, Protocol},
};
use waylay_relay::Direction::{ToApplication, ToDestination};

/// Bytes in the text of a name at most: each of 255 may be written as four.
const LONGEST_NAME: usize = 4 * 255;

/// What is found may be shown, and is bounded.
pub(crate) fn check(bytes: &[u8]) {
    let mut sniffer = DatagramSniffer::new();
    let mut rest = bytes;
    while let Some((&head, after)) = rest.split_first() {
        let (datagram, after) = after.split_at(after.len().min(usize::from(head & 0x7f) * 16));
        let direction = if head & 0x80 == 0 { ToDestination } else { ToApplication };
        sniffer.observe(direction, datagram);
        rest = after;
        message(datagram);
    }
    message(bytes);
    assert!(sniffer.host().is_none() || sniffer.protocol() == Protocol::Quic);
    assert!(sniffer.host().is_none_or(is_harmless));
    assert!(sniffer.queries().len() <= 16);
    assert!(sniffer.queries().is_empty() || sniffer.protocol() == Protocol::Dns);
}

fn message(datagram: &[u8]) {
    let Some(message) = dns::parse(datagram) else { return };
    assert!(is_harmless(&message.question.name) && message.question.name.len() <= LONGEST_NAME);
    assert!(message.addresses.len() <= 8);
    assert!(is_harmless(&message.question.kind.to_string()) && is_harmless(&message.rcode.to_string()));
}

fn is_harmless(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}
