//! Finding out what a connection speaks, and with which host, from its first bytes.
//!
//! A connection on which the destination speaks first is `ServerFirst` (SSH, SMTP, most databases). Otherwise
//! the first byte of the application picks the only parser that may succeed, and the application's bytes are
//! kept, 16 KiB at most, until it has. How the bytes were cut into chunks never matters to the result.

mod datagrams;
mod host;
mod http;
mod quic;
mod tls;

use serde::{Deserialize, Serialize};
use waylay_relay::Direction;

pub use datagrams::{Answer, DatagramSniffer, Query};
#[cfg(fuzzing)]
pub use quic::strange::frames as quic_frames;

/// What a connection speaks.
///
/// # Example
///
/// ```
/// use waylay_inspect::sniff::Protocol;
///
/// assert_eq!(Protocol::ServerFirst.name(), "server-first");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// HTTP/1 by its request line, or the preface of HTTP/2 without TLS.
    Http,
    /// TLS: the application sent the beginning of a ClientHello.
    Tls,
    /// The application asked a question of the DNS, in a datagram.
    Dns,
    /// QUIC, version 1 or 2: the application sent an Initial packet.
    Quic,
    /// The destination sent the first byte.
    ServerFirst,
    /// The application sent the first byte, and it isn't, or not yet, known to be one of the above.
    Unknown,
    /// No byte in either direction.
    Silent,
}

impl Protocol {
    /// The name by which reports call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Tls => "tls",
            Self::Dns => "dns",
            Self::Quic => "quic",
            Self::ServerFirst => "server-first",
            Self::Unknown => "unknown",
            Self::Silent => "silent",
        }
    }
}

/// Watches the first bytes of one connection.
///
/// # Example
///
/// ```
/// use waylay_inspect::sniff::{Protocol, Sniffer};
/// use waylay_relay::Direction;
///
/// let mut sniffer = Sniffer::new();
/// sniffer.observe(Direction::ToDestination, b"GET / HTTP/1.1\r\nHost: exam");
/// sniffer.observe(Direction::ToDestination, b"ple.test\r\n\r\n");
/// assert_eq!(sniffer.protocol(), Protocol::Http);
/// assert_eq!(sniffer.host(), Some("example.test"));
/// assert!(sniffer.done());
/// ```
#[derive(Debug)]
pub struct Sniffer {
    stage: Stage,
    protocol: Protocol,
    host: Option<String>,
}

#[derive(Debug)]
enum Stage {
    Silent,
    Http(http::RequestHead),
    Tls(tls::ClientHello),
    Done,
}

/// What a parser knows so far.
#[derive(Debug, PartialEq, Eq)]
enum Finding {
    /// More bytes are needed; this is what it looks like by now.
    Open(Protocol),
    /// No further byte would change it.
    Final(Protocol, Option<String>),
}

impl Sniffer {
    /// A sniffer for a connection that hasn't carried a byte yet.
    pub fn new() -> Self {
        Self { stage: Stage::Silent, protocol: Protocol::Silent, host: None }
    }

    /// Takes the next bytes of one direction. Cheap once [`done`](Self::done).
    pub fn observe(&mut self, direction: Direction, bytes: &[u8]) {
        let Some(&first) = bytes.first() else { return };
        if matches!(self.stage, Stage::Silent) {
            self.begin(direction, first);
        }
        match direction {
            Direction::ToDestination => self.read(bytes),
            Direction::ToApplication => {}
        }
    }

    /// What it speaks, as far as is known by now.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// The host the application asked for, without a port and as the application spelled it; printable ASCII.
    ///
    /// `None` as long as the head isn't complete, if it names no host or several, and if the name isn't one.
    /// It is a claim of the application, unrelated to the address it connects to. With Encrypted Client Hello
    /// it is the outer name.
    pub fn host(&self) -> Option<&str> {
        self.host.as_deref()
    }

    /// Whether nothing more will be learned.
    pub fn done(&self) -> bool {
        matches!(self.stage, Stage::Done)
    }

    /// Whether the next bytes of this direction can still tell it something. Of the destination's only the
    /// very first can, and only before the application has spoken.
    pub fn looks(&self, direction: Direction) -> bool {
        match direction {
            Direction::ToDestination => !self.done(),
            Direction::ToApplication => matches!(self.stage, Stage::Silent),
        }
    }

    fn begin(&mut self, direction: Direction, first: u8) {
        (self.stage, self.protocol) = match direction {
            Direction::ToApplication => (Stage::Done, Protocol::ServerFirst),
            Direction::ToDestination if first == tls::FIRST_BYTE => {
                (Stage::Tls(tls::ClientHello::default()), Protocol::Unknown)
            }
            Direction::ToDestination if first.is_ascii_alphabetic() => {
                (Stage::Http(http::RequestHead::default()), Protocol::Unknown)
            }
            Direction::ToDestination => (Stage::Done, Protocol::Unknown),
        };
    }

    fn read(&mut self, bytes: &[u8]) {
        let finding = match &mut self.stage {
            Stage::Silent => return,
            Stage::Http(head) => head.read(bytes),
            Stage::Tls(hello) => hello.read(bytes),
            Stage::Done => return,
        };
        match finding {
            Finding::Open(protocol) => self.protocol = protocol,
            Finding::Final(protocol, host) => {
                (self.stage, self.protocol, self.host) = (Stage::Done, protocol, host);
            }
        }
    }
}

impl Default for Sniffer {
    fn default() -> Self {
        Self::new()
    }
}
