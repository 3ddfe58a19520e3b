//! Finding out what a flow of datagrams is: DNS by its questions, QUIC by the server name in its first flight.

use waylay_relay::Direction;

use super::{Finding, Protocol, quic};
use crate::dns::{self, Message, Question, Rcode};

/// Questions of a flow that are kept. A resolver may ask over one socket for ever.
const MOST_QUERIES: usize = 16;

/// Watches the datagrams of one flow.
///
/// # Example
///
/// ```
/// use waylay_inspect::sniff::{DatagramSniffer, Protocol};
/// use waylay_relay::Direction;
///
/// let mut sniffer = DatagramSniffer::new();
/// let query = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x07example\x04test\0\0\x1c\0\x01";
/// sniffer.observe(Direction::ToDestination, query);
/// assert_eq!(sniffer.protocol(), Protocol::Dns);
/// assert_eq!(sniffer.queries()[0].question.name, "example.test");
/// ```
#[derive(Debug)]
pub struct DatagramSniffer {
    stage: Stage,
    protocol: Protocol,
    host: Option<String>,
}

/// A question and its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    id: u16,
    /// What was asked.
    pub question: Question,
    /// How it was answered, if it was.
    pub answer: Option<Answer>,
}

/// What an answer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// How it went.
    pub rcode: Rcode,
    /// Records in it.
    pub records: u16,
    /// The first few addresses among them.
    pub addresses: Vec<std::net::IpAddr>,
}

#[derive(Debug)]
enum Stage {
    Silent,
    Dns(Box<Dialogue>),
    Quic(Box<quic::FirstFlight>),
    Done,
}

impl DatagramSniffer {
    /// A sniffer for a flow without a datagram yet.
    #[must_use]
    pub fn new() -> Self {
        Self { stage: Stage::Silent, protocol: Protocol::Silent, host: None }
    }

    /// Takes the next datagram of one direction.
    pub fn observe(&mut self, direction: Direction, datagram: &[u8]) {
        if matches!(self.stage, Stage::Silent) {
            self.begin(direction, datagram);
        }
        match (&mut self.stage, direction) {
            (Stage::Dns(dialogue), _) => dialogue.read(datagram),
            (Stage::Quic(flight), Direction::ToDestination) => match flight.read(datagram) {
                Finding::Open(protocol) => self.protocol = protocol,
                Finding::Final(protocol, host) => {
                    (self.stage, self.protocol, self.host) = (Stage::Done, protocol, host);
                }
            },
            (Stage::Quic(_), Direction::ToApplication) | (Stage::Silent | Stage::Done, _) => {}
        }
    }

    /// What it speaks, as far as is known by now.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// The host that a client of QUIC asked for; see [`Sniffer::host`](super::Sniffer::host).
    #[must_use]
    pub fn host(&self) -> Option<&str> {
        self.host.as_deref()
    }

    /// The first questions, in order, with their answers.
    #[must_use]
    pub fn queries(&self) -> &[Query] {
        match &self.stage {
            Stage::Dns(dialogue) => &dialogue.queries,
            Stage::Silent | Stage::Quic(_) | Stage::Done => &[],
        }
    }

    /// Questions beyond those.
    #[must_use]
    pub fn unlisted_queries(&self) -> u64 {
        match &self.stage {
            Stage::Dns(dialogue) => dialogue.unlisted,
            Stage::Silent | Stage::Quic(_) | Stage::Done => 0,
        }
    }

    /// Whether the next datagram of this direction can still tell it something.
    #[must_use]
    pub fn looks(&self, direction: Direction) -> bool {
        match (&self.stage, direction) {
            (Stage::Silent | Stage::Dns(_), _) | (Stage::Quic(_), Direction::ToDestination) => true,
            (Stage::Quic(_), Direction::ToApplication) | (Stage::Done, _) => false,
        }
    }

    fn begin(&mut self, direction: Direction, datagram: &[u8]) {
        (self.stage, self.protocol) = match direction {
            Direction::ToApplication => (Stage::Done, Protocol::ServerFirst),
            Direction::ToDestination if dns::parse(datagram).is_some_and(|message| !message.response) => {
                (Stage::Dns(Box::default()), Protocol::Dns)
            }
            Direction::ToDestination if quic::may_begin(datagram) => {
                (Stage::Quic(Box::default()), Protocol::Unknown)
            }
            Direction::ToDestination => (Stage::Done, Protocol::Unknown),
        };
    }
}

impl Default for DatagramSniffer {
    fn default() -> Self {
        Self::new()
    }
}

/// Questions and answers of one flow.
#[derive(Debug, Default)]
struct Dialogue {
    queries: Vec<Query>,
    unlisted: u64,
}

impl Dialogue {
    fn read(&mut self, datagram: &[u8]) {
        match dns::parse(datagram) {
            Some(message) if message.response => self.answer(message),
            Some(message) => self.ask(message),
            None => {}
        }
    }

    fn ask(&mut self, Message { id, question, .. }: Message) {
        let asked_again = self.queries.iter().any(|query| query.id == id && query.question == question);
        if asked_again {
            return;
        }
        if self.queries.len() == MOST_QUERIES {
            self.unlisted += 1;
            return;
        }
        self.queries.push(Query { id, question, answer: None });
    }

    /// The first answer counts, as it does for whoever asked.
    fn answer(&mut self, message: Message) {
        let Message { id, rcode, question, answers, addresses, .. } = message;
        let asked = self.queries.iter_mut().find(|query| {
            // Names are equal in whatever case they come back (RFC 4343).
            query.id == id
                && query.answer.is_none()
                && query.question.kind == question.kind
                && query.question.name.eq_ignore_ascii_case(&question.name)
        });
        if let Some(query) = asked {
            query.answer = Some(Answer { rcode, records: answers, addresses });
        }
    }
}
