//! The sniffer of datagrams against those of real clients.

use waylay_inspect::sniff::{DatagramSniffer, Protocol};
use waylay_relay::Direction::{self, ToApplication, ToDestination};

fn sniff(datagrams: &[(Direction, &[u8])]) -> DatagramSniffer {
    let mut sniffer = DatagramSniffer::new();
    for (direction, datagram) in datagrams {
        sniffer.observe(*direction, datagram);
    }
    sniffer
}

/// ngtcp2 0.12 with GnuTLS, and aioquic 1.2; each sent its flight twice.
#[test]
fn the_host_that_clients_of_quic_ask_for_is_found() {
    let flights: [(&str, [&[u8]; 2]); 2] = [
        ("localhost", [include_bytes!("packets/gtls-v1-0"), include_bytes!("packets/gtls-v1-1")]),
        ("sni.example.test", [include_bytes!("packets/aioquic-0"), include_bytes!("packets/aioquic-1")]),
    ];
    for (host, flight) in flights {
        let mut sniffer = DatagramSniffer::new();
        for datagram in flight {
            sniffer.observe(ToDestination, datagram);
        }
        assert_eq!(sniffer.protocol(), Protocol::Quic);
        assert_eq!(sniffer.host(), Some(host));
        assert!(!sniffer.looks(ToDestination) && !sniffer.looks(ToApplication));
    }
}

const QUERY: &[u8] = b"\xab\xcd\x01\0\0\x01\0\0\0\0\0\0\x07example\x04test\0\0\x01\0\x01";
const ANSWER: &[u8] = b"\xab\xcd\x81\x80\0\x01\0\x01\0\0\0\0\x07eXample\x04test\0\0\x01\0\x01\
    \xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\xc0\0\x02\x01";

fn query(id: u8) -> Vec<u8> {
    [&[id, id][..], &QUERY[2..]].concat()
}

#[test]
fn questions_are_told_with_their_answers() {
    let nothing = [&[0xab, 0xcd, 0x81, 0x83, 0, 1, 0, 0][..], &QUERY[8..]].concat();
    let sniffer = sniff(&[
        (ToDestination, QUERY),
        (ToDestination, QUERY),
        (ToDestination, &query(7)),
        (ToApplication, ANSWER),
        (ToApplication, &nothing),
    ]);
    assert_eq!((sniffer.protocol(), sniffer.host()), (Protocol::Dns, None));
    let [answered, not_answered] = sniffer.queries() else { panic!("{:?}", sniffer.queries()) };
    assert_eq!((answered.question.name.as_str(), answered.question.kind.0), ("example.test", 1));
    let answer = answered.answer.as_ref();
    assert_eq!(answer.map(|answer| answer.rcode.to_string()).as_deref(), Some("NOERROR"));
    assert_eq!(
        answer.map(|answer| answer.addresses.clone()),
        Some(vec!["192.0.2.1".parse().expect("an address")])
    );
    assert_eq!(not_answered.answer, None);
}

#[test]
fn a_bounded_number_of_questions_is_kept_and_the_others_counted() {
    let mut sniffer = DatagramSniffer::new();
    for id in 0..100 {
        sniffer.observe(ToDestination, &query(id));
    }
    assert_eq!((sniffer.queries().len(), sniffer.unlisted_queries()), (16, 84));
}

#[test]
fn what_is_neither_is_unknown() {
    for datagram in [&b""[..], b"x", &[0; 64], &[0xc0; 1200], ANSWER] {
        let sniffer = sniff(&[(ToDestination, datagram)]);
        assert_eq!((sniffer.protocol(), sniffer.queries()), (Protocol::Unknown, &[][..]), "{datagram:?}");
    }
    assert_eq!(sniff(&[]).protocol(), Protocol::Silent);
    assert_eq!(sniff(&[(ToApplication, QUERY)]).protocol(), Protocol::ServerFirst);
}
