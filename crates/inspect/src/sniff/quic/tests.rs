use super::*;
use packet::Version;

/// RFC 9001, appendix A.2, and RFC 9369, appendix A.2.
const RFC_9001: &[u8] = include_bytes!("../../../tests/packets/rfc9001-a2");
const RFC_9369: &[u8] = include_bytes!("../../../tests/packets/rfc9369-a2");

const ID: [u8; 8] = [1, 2, 3, 4, 5, 6, 7, 8];
const ONE: [u8; 4] = [0, 0, 0, 1];
const TWO: [u8; 4] = [0x6b, 0x33, 0x43, 0xcf];

fn host(finding: Finding) -> Option<String> {
    let Finding::Final(Protocol::Quic, host) = finding else { panic!("{finding:?}") };
    host
}

fn open(packet: &[u8]) -> Vec<u8> {
    let initial = Packets::of(packet).next().unwrap();
    Keys::of_client(initial.version, initial.destination_id).open(&initial).unwrap()
}

/// The ClientHello of the RFC's example, for `example.com`.
fn client_hello() -> Vec<u8> {
    let mut hello = Vec::new();
    frames::each_crypto(&open(RFC_9001), |offset, data| {
        assert_eq!(offset, 0);
        hello.extend_from_slice(data);
    });
    hello
}

fn varint(value: usize) -> [u8; 2] {
    (0x4000 | value as u16).to_be_bytes()
}

fn crypto(offset: usize, data: &[u8]) -> Vec<u8> {
    [&[6][..], &varint(offset), &varint(data.len()), data].concat()
}

#[test]
fn the_examples_of_the_standards_are_understood() {
    for packet in [RFC_9001, RFC_9369] {
        assert!(may_begin(packet));
        assert_eq!(host(FirstFlight::default().read(packet)).as_deref(), Some("example.com"));
    }
    assert_eq!(open(RFC_9001), open(RFC_9369));
    assert_eq!(open(RFC_9001).len(), 1162);
}

#[test]
fn a_hello_in_several_packets_is_put_together_in_any_order() {
    let hello = client_hello();
    for (version, number) in [(Version::One, ONE), (Version::Two, TWO)] {
        let keys = Keys::of_client(version, &ID);
        for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
            let mut flight = FirstFlight::default();
            let (mut last, third) = (None, hello.len().div_ceil(3));
            for part in order {
                assert!(!matches!(last, Some(Finding::Final(..))), "{order:?}");
                let piece = &hello[part * third..hello.len().min((part + 1) * third)];
                let frames = [&[1, 0, 0][..], &crypto(part * third, piece), &[0; 40]].concat();
                last = Some(flight.read(&keys.seal(number, &ID, part as u8, &frames)));
            }
            assert_eq!(host(last.unwrap()).as_deref(), Some("example.com"), "{order:?}");
        }
    }
}

#[test]
fn packets_in_one_datagram_are_all_read() {
    let (hello, keys) = (client_hello(), Keys::of_client(Version::One, &ID));
    let first = keys.seal(ONE, &ID, 0, &crypto(100, &hello[100..]));
    // A 0-RTT packet between them.
    let other = [&[0xd5, 0, 0, 0, 1, 0, 0][..], &varint(30), &[9; 30]].concat();
    let second = keys.seal(ONE, &ID, 1, &crypto(0, &hello[..100]));
    let datagram = [first, other, second, vec![0; 100]].concat();
    assert_eq!(host(FirstFlight::default().read(&datagram)).as_deref(), Some("example.com"));
}

/// After a Retry the client's keys follow from the id that the server chose.
#[test]
fn a_client_that_is_told_to_retry_begins_anew() {
    let mut flight = FirstFlight::default();
    let keys = Keys::of_client(Version::One, &ID);
    let unfinished = flight.read(&keys.seal(ONE, &ID, 0, &crypto(0, &[1, 0, 9, 9, 9])));
    assert!(matches!(unfinished, Finding::Open(Protocol::Quic)));
    assert_eq!(host(flight.read(RFC_9001)).as_deref(), Some("example.com"));
}

/// The client goes on with the id that the server chose, and with its first keys.
#[test]
fn the_servers_id_changes_no_keys() {
    let (hello, keys) = (client_hello(), Keys::of_client(Version::One, &ID));
    let mut flight = FirstFlight::default();
    flight.read(&keys.seal(ONE, &ID, 0, &crypto(0, &hello[..100])));
    let end = flight.read(&keys.seal(ONE, &[0xee; 20], 1, &crypto(100, &hello[100..])));
    assert_eq!(host(end).as_deref(), Some("example.com"));
}

#[test]
fn a_packet_with_a_bit_changed_is_none() {
    for at in [0, 5, 6, 10, 20, 100, 1199] {
        let mut packet = RFC_9001.to_vec();
        packet[at] ^= 0x04;
        assert!(matches!(FirstFlight::default().read(&packet), Finding::Open(Protocol::Unknown)), "{at}");
    }
}

#[test]
fn who_never_finishes_is_given_up() {
    let keys = Keys::of_client(Version::One, &ID);
    let mut flight = FirstFlight::default();
    for number in 1..MOST_DATAGRAMS as u8 {
        let unfinished = flight.read(&keys.seal(ONE, &ID, number, &[1; 20]));
        assert!(matches!(unfinished, Finding::Open(Protocol::Quic)));
    }
    assert!(matches!(flight.read(&[]), Finding::Final(Protocol::Quic, None)));
}
