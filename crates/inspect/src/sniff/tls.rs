//! The server name of a TLS ClientHello, over however many records it is spread.

use tls_parser::{SNIType, TlsExtension, parse_tls_extension_sni_content, parse_tls_handshake_client_hello};

use super::{Finding, Protocol, host};
use crate::bounded::Bounded;

/// The type of a handshake record.
pub(super) const FIRST_BYTE: u8 = 22;

/// RFC 8446, section 5.1: the most a plaintext record carries.
const MAX_RECORD_BYTES: usize = 1 << 14;
const RECORD_HEADER_BYTES: usize = 5;
/// A handshake message begins with its type and a length of three bytes.
const MESSAGE_HEADER_BYTES: usize = 4;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;

/// Strips the record headers as the bytes come, so that they are looked at once and only the message is kept.
#[derive(Debug, Default)]
pub(super) struct ClientHello {
    header: [u8; RECORD_HEADER_BYTES],
    header_bytes: usize,
    /// Bytes left of the record that the header announced.
    record_left: usize,
    message: Bounded,
}

impl ClientHello {
    pub(super) fn read(&mut self, mut bytes: &[u8]) -> Finding {
        while let Some((&first, rest)) = bytes.split_first() {
            if self.record_left == 0 {
                bytes = rest;
                if !self.read_header(first) {
                    return Finding::Final(self.protocol(), None);
                }
            } else {
                let (fragment, rest) = bytes.split_at(bytes.len().min(self.record_left));
                bytes = rest;
                self.record_left -= fragment.len();
                self.message.append(fragment);
                if let Some(finding) = self.finding() {
                    return finding;
                }
            }
        }
        Finding::Open(self.protocol())
    }

    /// Whether the header is, as far as it goes, one of a handshake record. An empty record is not: a stream
    /// of them would keep us waiting for ever.
    fn read_header(&mut self, byte: u8) -> bool {
        self.header[self.header_bytes] = byte;
        self.header_bytes += 1;
        if self.header_bytes < RECORD_HEADER_BYTES {
            return true;
        }
        self.header_bytes = 0;
        let [kind, major, minor, high, low] = self.header;
        self.record_left = usize::from(u16::from_be_bytes([high, low]));
        kind == FIRST_BYTE && major == 3 && minor <= 4 && (1..=MAX_RECORD_BYTES).contains(&self.record_left)
    }

    /// TLS from the moment in which a well-formed record turns out to begin a ClientHello.
    fn protocol(&self) -> Protocol {
        if self.message.bytes().first() == Some(&CLIENT_HELLO) { Protocol::Tls } else { Protocol::Unknown }
    }

    fn finding(&self) -> Option<Finding> {
        match message_so_far(self.message.bytes()) {
            Message::Incomplete => None,
            Message::Other => Some(Finding::Final(Protocol::Unknown, None)),
            Message::TooLong => Some(Finding::Final(Protocol::Tls, None)),
            Message::ClientHello(host) => Some(Finding::Final(Protocol::Tls, host)),
        }
    }
}

/// What the first bytes of a handshake are.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Message {
    /// A ClientHello as far as it goes.
    Incomplete,
    /// No ClientHello.
    Other,
    /// One that is longer than what is kept.
    TooLong,
    /// All of one, and its server name.
    ClientHello(Option<String>),
}

pub(super) fn message_so_far(message: &[u8]) -> Message {
    let Some(&first) = message.first() else { return Message::Incomplete };
    if first != CLIENT_HELLO {
        return Message::Other;
    }
    let Some(&[_, high, middle, low]) = message.first_chunk::<MESSAGE_HEADER_BYTES>() else {
        return Message::Incomplete;
    };
    let body_bytes = u32::from_be_bytes([0, high, middle, low]) as usize;
    if body_bytes > Bounded::LIMIT - MESSAGE_HEADER_BYTES {
        return Message::TooLong;
    }
    match message[MESSAGE_HEADER_BYTES..].get(..body_bytes) {
        Some(body) => Message::ClientHello(server_name(body)),
        None => Message::Incomplete,
    }
}

fn server_name(body: &[u8]) -> Option<String> {
    let (_, hello) = parse_tls_handshake_client_hello(body).ok()?;
    let content = extension(hello.ext?, SERVER_NAME)?;
    let (_, TlsExtension::SNI(names)) = parse_tls_extension_sni_content(content).ok()? else { return None };
    match names[..] {
        // RFC 6066, section 3: at most one name of a type, and there is one type.
        [(SNIType::HostName, name)] => host::sanitise(name),
        _ => None,
    }
}

/// The content of the first extension of a type. Others are stepped over unparsed, so none of them can be in
/// the way.
fn extension(mut extensions: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let (&[kind_high, kind_low, high, low], rest) = extensions.split_first_chunk::<4>()?;
        let (content, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes([high, low])))?;
        if u16::from_be_bytes([kind_high, kind_low]) == wanted {
            return Some(content);
        }
        extensions = rest;
    }
}
