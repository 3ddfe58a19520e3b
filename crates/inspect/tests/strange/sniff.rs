//! The first bytes of a connection. The first byte of the input says in which pieces the rest comes.

use waylay_inspect::sniff::{Protocol, Sniffer};
use waylay_relay::Direction::{ToApplication, ToDestination};

/// When it is done may depend on the pieces; what it has found by then does not.
type Found = (Protocol, Option<String>);

/// What is found is the same however the bytes are cut, and may be shown.
pub(crate) fn check(bytes: &[u8]) {
    let Some((&piece, stream)) = bytes.split_first() else { return };
    let whole = sniff(stream, stream.len());
    assert_eq!(sniff(stream, piece.into()), whole, "in pieces of {piece}");
    let (protocol, host) = whole;
    assert!(
        host.is_none() || matches!(protocol, Protocol::Http | Protocol::Tls),
        "{protocol:?} names {host:?}"
    );
    if let Some(host) = host {
        assert!(
            (1..=255).contains(&host.len()) && host.bytes().all(|byte| byte.is_ascii_graphic()),
            "{host:?}"
        );
    }
    answered(stream);
}

fn sniff(stream: &[u8], piece: usize) -> Found {
    let mut sniffer = Sniffer::new();
    for bytes in stream.chunks(piece.max(1)) {
        sniffer.observe(ToDestination, bytes);
    }
    (sniffer.protocol(), sniffer.host().map(str::to_owned))
}

/// What the destination says after the application has spoken changes nothing.
fn answered(stream: &[u8]) {
    let mut sniffer = Sniffer::new();
    for bytes in stream.chunks(stream.len() / 2 + 1) {
        sniffer.observe(ToDestination, bytes);
        sniffer.observe(ToApplication, stream);
    }
    assert_eq!(sniffer.protocol(), sniff(stream, stream.len()).0);
}
