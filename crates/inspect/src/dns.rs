//! Messages of the DNS (RFC 1035) as they travel in datagrams: what is asked, and how it is answered.
//!
//! Only the first question is decoded. It is the first name of a message, so that there is nothing before it that
//! it could be compressed against, and no pointer is ever followed.

use std::{fmt, net::IpAddr};

use serde::{Deserialize, Serialize};

/// Addresses of an answer that are kept.
const MOST_ADDRESSES: usize = 8;
/// Bytes of a name on the wire at most, and of a label (RFC 1035, section 2.3.4).
const LONGEST_NAME: usize = 255;
const LONGEST_LABEL: u8 = 63;

const HEADER_BYTES: usize = 12;
const INTERNET: u16 = 1;
const A: u16 = 1;
const AAAA: u16 = 28;
const OPT: u16 = 41;

/// What a message says.
///
/// # Example
///
/// ```
/// use waylay_inspect::dns::{self, Kind};
///
/// let query = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x07example\x04test\0\0\x1c\0\x01";
/// let message = dns::parse(query).expect("a query");
/// assert_eq!(message.question.name, "example.test");
/// assert_eq!(message.question.kind, Kind(28));
/// assert_eq!(message.question.kind.to_string(), "AAAA");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// What ties an answer to its question.
    pub id: u16,
    /// Whether it is an answer.
    pub response: bool,
    /// How it was answered; 0 in a question.
    pub rcode: Rcode,
    /// What is asked.
    pub question: Question,
    /// Records in the answer.
    pub answers: u16,
    /// The first few addresses among them.
    pub addresses: Vec<IpAddr>,
}

/// A name and a type.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Question {
    /// Labels with dots between them and none at the end; the root is `.`. What is not a printable character of
    /// ASCII is written `\DDD`, a dot or backslash inside of a label with a backslash in front (RFC 1035, section 5.1).
    pub name: String,
    /// The type of the records that are asked for.
    pub kind: Kind,
}

/// The type of a record, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Kind(pub u16);

impl fmt::Display for Kind {
    /// The mnemonic of a common one, `TYPE65280` of others (RFC 3597, section 5).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match KINDS.iter().find(|(number, _)| *number == self.0) {
            Some((_, name)) => f.write_str(name),
            None => write!(f, "TYPE{}", self.0),
        }
    }
}

const KINDS: [(u16, &str); 18] = [
    (A, "A"),
    (2, "NS"),
    (5, "CNAME"),
    (6, "SOA"),
    (12, "PTR"),
    (15, "MX"),
    (16, "TXT"),
    (AAAA, "AAAA"),
    (33, "SRV"),
    (35, "NAPTR"),
    (43, "DS"),
    (46, "RRSIG"),
    (48, "DNSKEY"),
    (52, "TLSA"),
    (64, "SVCB"),
    (65, "HTTPS"),
    (255, "ANY"),
    (257, "CAA"),
];

/// How a question was answered, by its number, the part in an OPT record included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Rcode(pub u16);

impl fmt::Display for Rcode {
    /// The mnemonic of a common one, `RCODE3841` of others.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match RCODES.iter().find(|(number, _)| *number == self.0) {
            Some((_, name)) => f.write_str(name),
            None => write!(f, "RCODE{}", self.0),
        }
    }
}

const RCODES: [(u16, &str); 8] = [
    (0, "NOERROR"),
    (1, "FORMERR"),
    (2, "SERVFAIL"),
    (3, "NXDOMAIN"),
    (4, "NOTIMP"),
    (5, "REFUSED"),
    (9, "NOTAUTH"),
    (16, "BADVERS"),
];

/// The message in a datagram. `None` unless it is an ordinary query of the Internet's with one question, or an
/// answer to one, and well-formed as far as it is looked at.
#[must_use]
pub fn parse(datagram: &[u8]) -> Option<Message> {
    let mut reader = Reader(datagram);
    let header = Header::read(&mut reader)?;
    let question = question(&mut reader)?;
    let mut message = Message {
        id: header.id,
        response: header.response,
        rcode: Rcode(header.rcode),
        question,
        answers: header.answers,
        addresses: Vec::new(),
    };
    if header.response {
        // What was cut off, or is not understood, takes nothing from what was read before it.
        let _rest = records(&mut reader, &header, &mut message);
    }
    Some(message)
}

struct Header {
    id: u16,
    response: bool,
    rcode: u16,
    answers: u16,
    authorities: u16,
    additional: u16,
}

impl Header {
    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let bytes: &[u8; HEADER_BYTES] = reader.array()?;
        let field = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        let flags = field(2);
        let header = Self {
            id: field(0),
            response: flags & 0x8000 != 0,
            rcode: flags & 0xf,
            answers: field(6),
            authorities: field(8),
            additional: field(10),
        };
        let standard = flags & 0x7800 == 0 && flags & 0x0040 == 0;
        let plausible = header.response || (header.rcode == 0 && header.answers == 0);
        (standard && plausible && field(4) == 1).then_some(header)
    }
}

fn question(reader: &mut Reader<'_>) -> Option<Question> {
    let name = reader.name()?;
    let kind = Kind(reader.number()?);
    let class = reader.number()?;
    // The top bit is mDNS's wish for a unicast answer (RFC 6762, section 5.4).
    (class & 0x7fff == INTERNET).then_some(Question { name, kind })
}

/// Goes through all records: for the addresses of the answer, and for the upper part of the rcode, which is in
/// one of the last.
fn records(reader: &mut Reader<'_>, header: &Header, message: &mut Message) -> Option<()> {
    let counts = [header.answers, header.authorities, header.additional].map(u32::from);
    for index in 0..counts.iter().sum() {
        reader.skip_name()?;
        let (kind, class) = (reader.number()?, reader.number()?);
        let ttl = reader.array::<4>()?;
        let length = reader.number()?;
        let data = reader.take(length.into())?;
        match kind {
            A if class == INTERNET && index < counts[0] => message.keep(<[u8; 4]>::try_from(data).ok()?),
            AAAA if class == INTERNET && index < counts[0] => message.keep(<[u8; 16]>::try_from(data).ok()?),
            OPT => message.rcode.0 |= u16::from(ttl[0]) << 4,
            _ => {}
        }
    }
    Some(())
}

impl Message {
    fn keep(&mut self, address: impl Into<IpAddr>) {
        if self.addresses.len() < MOST_ADDRESSES {
            self.addresses.push(address.into());
        }
    }
}

/// What is left of a datagram.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<&'a [u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(*self.array()?))
    }

    fn name(&mut self) -> Option<String> {
        let mut name = String::new();
        let mut bytes = 0;
        loop {
            let [length] = *self.array()?;
            bytes += 1 + usize::from(length);
            if length > LONGEST_LABEL || bytes > LONGEST_NAME {
                return None;
            }
            if length == 0 {
                return Some(if name.is_empty() { ".".to_owned() } else { name });
            }
            if !name.is_empty() {
                name.push('.');
            }
            push_label(&mut name, self.take(length.into())?);
        }
    }

    /// Steps over a name, which may end in a pointer.
    fn skip_name(&mut self) -> Option<()> {
        loop {
            match *self.array()? {
                [0] => return Some(()),
                [length @ ..=LONGEST_LABEL] => self.take(length.into())?,
                [0xc0..=0xff] => return self.take(1).map(|_| ()),
                [_] => return None,
            };
        }
    }
}

fn push_label(name: &mut String, label: &[u8]) {
    for &byte in label {
        match byte {
            b'.' | b'\\' => name.extend(['\\', byte.into()]),
            byte if byte.is_ascii_graphic() => name.push(byte.into()),
            byte => name.push_str(&format!("\\{byte:03}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What dig 9.18 asks and a BIND 9.18 answers, with EDNS.
    const QUERY: &[u8] = b"\xab\xcd\x01\x20\0\x01\0\0\0\0\0\x01\x03www\x07example\x04test\0\0\x01\0\x01\
        \0\0\x29\x10\0\0\0\0\0\0\x0c\0\x0a\0\x08\x01\x02\x03\x04\x05\x06\x07\x08";
    const ANSWER: &[u8] = b"\xab\xcd\x85\x80\0\x01\0\x02\0\0\0\x01\x03www\x07example\x04test\0\0\x01\0\x01\
        \xc0\x0c\0\x05\0\x01\0\0\x01\x2c\0\x06\x03web\xc0\x10\
        \xc0\x2e\0\x01\0\x01\0\0\x01\x2c\0\x04\xc0\0\x02\x07\
        \0\0\x29\x10\0\x01\0\0\0\0\0";

    #[test]
    fn a_question_and_its_answer_are_understood() {
        let question = parse(QUERY).unwrap();
        assert!(!question.response);
        assert_eq!(question.question, Question { name: "www.example.test".into(), kind: Kind(1) });
        let answer = parse(ANSWER).unwrap();
        assert!(answer.response);
        assert_eq!((answer.id, &answer.question), (question.id, &question.question));
        assert_eq!((answer.answers, answer.addresses), (2, vec![IpAddr::from([192, 0, 2, 7])]));
        assert_eq!(answer.rcode.to_string(), "BADVERS");
    }

    #[test]
    fn what_is_cut_off_takes_nothing_from_what_was_read() {
        let answer = parse(&ANSWER[..ANSWER.len() - 20]).unwrap();
        assert_eq!((answer.answers, answer.addresses.len(), answer.rcode), (2, 0, Rcode(0)));
        for length in 0..33 {
            assert_eq!(parse(&QUERY[..length]), None, "{length}");
        }
    }

    #[test]
    fn names_may_have_any_bytes_and_are_shown_harmlessly() {
        let asked = |name: &[u8]| {
            let query = [&b"\0\0\x01\0\0\x01\0\0\0\0\0\0"[..], name, b"\0\0\x01\0\x01"].concat();
            parse(&query).map(|message| message.question.name)
        };
        assert_eq!(asked(b"").as_deref(), Some("."));
        assert_eq!(asked(b"\x05a.b\\c\x02\x1b\xff").as_deref(), Some("a\\.b\\\\c.\\027\\255"));
        assert_eq!(asked(&[&[63][..], &[b'a'; 63]].concat().repeat(3)).map(|name| name.len()), Some(191));
        assert_eq!(asked(&[&[63][..], &[b'a'; 63]].concat().repeat(4)), None, "256 bytes");
        assert_eq!(asked(b"\x40a"), None);
        assert_eq!(asked(b"\xc0\x0c"), None, "a pointer");
    }

    #[test]
    fn what_is_no_ordinary_query_is_none() {
        for (at, value, what) in [
            (2, 0x29, "an update"),
            (3, 0x40, "a bit that must be zero"),
            (3, 0x05, "a query that says refused"),
            (5, 2, "two questions"),
            (7, 1, "a query with an answer"),
            (33, 3, "another class"),
        ] {
            let mut query = QUERY.to_vec();
            query[at] = value;
            assert_eq!(parse(&query), None, "{what}");
        }
        assert_eq!(parse(&[0; 64]), None);
        assert_eq!(parse(&[b'x'; 64]), None);
    }
}
