//! The sniffer against real, cut-up, damaged and arbitrary first bytes.

#![expect(clippy::unwrap_used, reason = "a failed set-up is a failed test")]

use proptest::collection::vec;
use proptest::prelude::*;
use waylay_inspect::sniff::{Protocol, Sniffer};
use waylay_relay::Direction::{self, ToApplication, ToDestination};

/// What OpenSSL 3.0 sends to `sni.example.test`: one record.
const CLIENT_HELLO: &str = "\
    1603010200010001fc0303d27546a0811b1d5b21c5c2efc8cc020c51630e69d74efe18c2937b1f9d9252a720ca99a73d0687644212d999\
    1f916031c808955e88fb2e5316534dd5781fee7b110024130213031301c02cc030c02bc02fcca9cca8c024c028c023c027009f009e006b\
    006700ff0100018f000000150013000010736e692e6578616d706c652e74657374000b000403000102000a00160014001d0017001e0019\
    001801000101010201030104002300000016000000170000000d002a0028040305030603080708080809080a080b080408050806040105\
    010601030303010302040205020602002b00050403040303002d00020101003300260024001d0020e830ce12067193c2963fe066b0f10f\
    f88e201ce3f92200f5104237d8af13b403001500dd00000000000000000000000000000000000000000000000000000000000000000000\
    00000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000\
    00000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000\
    00000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000\
    00000000000000000000000000000000000000000000\
    ";
const SERVER_NAME: &str = "sni.example.test";

const LIMIT: usize = 16 * 1024;

fn client_hello() -> Vec<u8> {
    let digits: Vec<u8> =
        CLIENT_HELLO.trim().bytes().map(|digit| (digit as char).to_digit(16).unwrap() as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// The same message in records of `size` bytes.
fn refragmented(hello: &[u8], size: usize) -> Vec<u8> {
    let record = |fragment: &[u8]| [&[22, 3, 1, 0, fragment.len() as u8], fragment].concat();
    hello[5..].chunks(size).flat_map(record).collect()
}

fn sniff<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> (Protocol, Option<String>) {
    let mut sniffer = Sniffer::new();
    chunks.into_iter().for_each(|chunk| sniffer.observe(ToDestination, chunk));
    (sniffer.protocol(), sniffer.host().map(str::to_owned))
}

fn http(head: &str) -> (Protocol, Option<String>) {
    sniff([head.as_bytes()])
}

fn found(protocol: Protocol, host: &str) -> (Protocol, Option<String>) {
    (protocol, Some(host.to_owned()))
}

/// What nobody looks at may be spliced: a request that is never recognised must not keep its answer from it.
#[test]
fn of_an_answer_only_the_first_byte_is_looked_at() {
    let directions = [ToDestination, ToApplication];
    let mut sniffer = Sniffer::new();
    assert_eq!(directions.map(|direction| sniffer.looks(direction)), [true, true]);
    sniffer.observe(ToDestination, b"get a-value");
    assert_eq!(directions.map(|direction| sniffer.looks(direction)), [true, false]);
    sniffer.observe(ToApplication, b"VALUE");
    assert_eq!(sniffer.protocol(), Protocol::Unknown);
    sniffer.observe(ToDestination, b"\n");
    assert_eq!(directions.map(|direction| sniffer.looks(direction)), [false, false]);
}

#[test]
fn nothing_is_silent() {
    let mut sniffer = Sniffer::new();
    sniffer.observe(ToApplication, b"");
    assert_eq!((sniffer.protocol(), sniffer.done()), (Protocol::Silent, false));
}

#[test]
fn whoever_greets_first_is_a_server_that_speaks_first() {
    let mut sniffer = Sniffer::new();
    sniffer.observe(ToApplication, b"SSH-2.0-OpenSSH_9.2\r\n");
    sniffer.observe(ToDestination, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!((sniffer.protocol(), sniffer.host(), sniffer.done()), (Protocol::ServerFirst, None, true));
}

#[test]
fn answers_do_not_disturb_a_request() {
    let mut sniffer = Sniffer::new();
    sniffer.observe(ToDestination, b"GET / HTTP/1.1\r\n");
    sniffer.observe(ToApplication, b"HTTP/1.1 100 Continue\r\n\r\n");
    sniffer.observe(ToDestination, b"Host: example.test\r\n\r\n");
    assert_eq!((sniffer.protocol(), sniffer.host()), (Protocol::Http, Some("example.test")));
}

#[test]
fn hosts_of_http_requests() {
    for (head, host) in [
        ("GET / HTTP/1.1\r\nHost: example.test\r\n\r\n", "example.test"),
        ("GET / HTTP/1.1\nhOST:example.test:8080 \n\n", "example.test"),
        ("GET http://a.test/ HTTP/1.1\r\nHost: b.test\r\n\r\n", "a.test"),
        ("GET http://user:secret@a.test:81?q=://b HTTP/1.1\r\n\r\n", "a.test"),
        ("GET /go?to=http://b.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n", "a.test"),
        ("CONNECT a.test:443 HTTP/1.1\r\nHost: b.test:443\r\n\r\n", "a.test"),
        ("CONNECT [2001:db8::1]:443 HTTP/1.1\r\n\r\n", "[2001:db8::1]"),
        ("OPTIONS * HTTP/1.0\r\nHost: a.test\r\n\r\n", "a.test"),
    ] {
        assert_eq!(http(head), found(Protocol::Http, host), "{head:?}");
    }
}

#[test]
fn http_whose_host_is_not_to_be_known() {
    let long = format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", "a".repeat(256));
    let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "a: b\r\n".repeat(200));
    let endless = format!("GET / HTTP/1.1\r\nHost: a\r\nb: {}\r\n\r\n", "c".repeat(LIMIT));
    for head in [
        "GET / HTTP/1.0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost:\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: b\u{fc}cher.test\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: unfinis",
        "GET / HTTP/1.1\r\nbroken\x00header\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        &long,
        &many,
        &endless,
    ] {
        assert_eq!(http(head), (Protocol::Http, None), "{head:?}");
    }
}

#[test]
fn what_is_neither() {
    let no_line = "a".repeat(2 * LIMIT);
    for bytes in [
        "\0",
        "\r\nGET",
        "GET / HTTP/1.1",
        "SSH-2.0-client\r\n",
        "get me\n",
        "\x16",
        "\x16\x03\x01\0\0",
        "\x16\x03\x01\0\x05\x02",
        &no_line,
    ] {
        assert_eq!(http(bytes), (Protocol::Unknown, None), "{bytes:?}");
    }
}

#[test]
fn a_client_hello_in_any_two_pieces_names_its_server() {
    let hello = client_hello();
    for cut in 0..hello.len() {
        let (first, second) = hello.split_at(cut);
        assert_eq!(sniff([first, second]), found(Protocol::Tls, SERVER_NAME), "cut at {cut}");
    }
}

#[test]
fn a_client_hello_in_small_records_names_its_server() {
    for size in 1..=255 {
        let records = refragmented(&client_hello(), size);
        assert_eq!(sniff(records.chunks(7)), found(Protocol::Tls, SERVER_NAME), "records of {size}");
    }
}

#[test]
fn a_client_hello_that_never_ends_is_tls() {
    let hello = client_hello();
    assert_eq!(sniff([&hello[..hello.len() - 1]]), (Protocol::Tls, None));

    let mut sniffer = Sniffer::new();
    sniffer.observe(ToDestination, &[22, 3, 1, 0x40, 0, 1, 0xff, 0xff, 0xff]);
    assert_eq!((sniffer.protocol(), sniffer.host(), sniffer.done()), (Protocol::Tls, None, true));
}

/// First bytes that get far into the parsers: real ones with some bytes replaced and cut anywhere.
fn damaged() -> impl Strategy<Value = Vec<u8>> {
    let whole = prop_oneof![
        Just(client_hello()),
        (1usize..=255).prop_map(|size| refragmented(&client_hello(), size)),
        Just(b"GET http://u@a.test:1/ HTTP/1.1\r\nHost: b.test\r\nAccept: */*\r\n\r\nbody".to_vec()),
        "[A-Z]{1,7} [!-~]{1,30} HTTP/1\\.[01]\r\n(([Hh]ost|[a-z]{1,5}): ?[ -~]{0,20}\r?\n){0,140}\r\n"
            .prop_map(String::into_bytes),
    ];
    (
        whole,
        vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        any::<prop::sample::Index>(),
        any::<bool>(),
    )
        .prop_map(|(mut bytes, damages, end, cut)| {
            damages.into_iter().for_each(|(place, byte)| {
                let place = place.index(bytes.len());
                bytes[place] = byte;
            });
            bytes.truncate(if cut { end.index(bytes.len()) } else { bytes.len() });
            bytes
        })
}

fn first_bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        3 => damaged(),
        1 => vec(any::<u8>(), 0..400),
        1 => (damaged(), vec(any::<u8>(), LIMIT - 200..LIMIT + 200)).prop_map(|(head, tail)| [head, tail].concat()),
    ]
}

/// Cuts bytes into chunks of the given sizes, again and again.
fn cut<'a>(mut bytes: &'a [u8], sizes: &[usize]) -> Vec<&'a [u8]> {
    let mut chunks = Vec::new();
    for size in sizes.iter().cycle() {
        if bytes.is_empty() {
            break;
        }
        let (chunk, rest) = bytes.split_at(bytes.len().min(*size));
        chunks.push(chunk);
        bytes = rest;
    }
    chunks
}

fn directions() -> impl Strategy<Value = Direction> {
    prop_oneof![Just(ToDestination), Just(ToApplication)]
}

proptest! {
    #[test]
    fn how_bytes_are_cut_does_not_matter(bytes in first_bytes(), sizes in vec(1usize..600, 1..6)) {
        let whole = sniff([&bytes[..]]);
        prop_assert_eq!(&sniff(cut(&bytes, &sizes)), &whole);
        prop_assert_eq!(&sniff(bytes.chunks(1)), &whole);
    }

    #[test]
    fn no_bytes_are_too_strange(chunks in vec((directions(), first_bytes()), 0..4)) {
        let mut sniffer = Sniffer::new();
        for (direction, bytes) in &chunks {
            let settled = sniffer.done().then(|| (sniffer.protocol(), sniffer.host().map(str::to_owned)));
            sniffer.observe(*direction, bytes);
            if let Some((protocol, host)) = settled {
                prop_assert_eq!((sniffer.protocol(), sniffer.host()), (protocol, host.as_deref()));
            }
        }
        if let Some(host) = sniffer.host() {
            prop_assert!((1..=255).contains(&host.len()) && host.bytes().all(|byte| byte.is_ascii_graphic()));
        }
    }
}
