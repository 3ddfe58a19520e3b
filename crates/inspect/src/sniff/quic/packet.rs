//! The packets of a datagram, as far as their headers are not protected (RFC 9000, section 17.2; RFC 9369).

/// Bytes of a connection id at most.
const LONGEST_ID: usize = 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    One,
    Two,
}

impl Version {
    fn of(number: u32) -> Option<Self> {
        match number {
            0x0000_0001 => Some(Self::One),
            0x6b33_43cf => Some(Self::Two),
            _ => None,
        }
    }

    fn kind(self, first_byte: u8) -> Kind {
        // Version 2 has the same kinds, each with the next number.
        let number = match self {
            Self::One => (first_byte >> 4) & 3,
            Self::Two => (first_byte >> 4).wrapping_sub(1) & 3,
        };
        match number {
            0 => Kind::Initial,
            1 | 2 => Kind::Other,
            _ => Kind::Retry,
        }
    }
}

enum Kind {
    Initial,
    /// 0-RTT and Handshake, which have a length, too.
    Other,
    /// Takes the rest of the datagram.
    Retry,
}

/// An Initial packet, its header still protected.
#[derive(Debug)]
pub(super) struct Initial<'a> {
    pub(super) version: Version,
    pub(super) destination_id: &'a [u8],
    /// All of it, tag included.
    pub(super) bytes: &'a [u8],
    /// Where in it the packet number begins.
    pub(super) number_at: usize,
}

/// The Initial packets of a datagram; others are stepped over. It ends at the first that cannot be one of QUIC.
pub(super) struct Packets<'a>(&'a [u8]);

impl<'a> Packets<'a> {
    pub(super) fn of(datagram: &'a [u8]) -> Self {
        Self(datagram)
    }

    /// The next packet: an Initial one, or nothing if it is another.
    fn step(&mut self) -> Option<Option<Initial<'a>>> {
        let bytes = self.0;
        let mut reader = Reader { bytes, at: 0 };
        let [first] = *reader.array()?;
        // The form and the fixed bit.
        if first & 0xc0 != 0xc0 {
            return None;
        }
        let version = Version::of(u32::from_be_bytes(*reader.array()?))?;
        let destination_id = reader.id()?;
        let _source_id = reader.id()?;
        let is_initial = match version.kind(first) {
            Kind::Initial => true,
            Kind::Other => false,
            Kind::Retry => return None,
        };
        if is_initial {
            let token = reader.varint()?;
            reader.take(token)?;
        }
        let length = reader.varint()?;
        let number_at = reader.at;
        reader.take(length)?;
        let (bytes, rest) = bytes.split_at(reader.at);
        self.0 = rest;
        Some(is_initial.then_some(Initial { version, destination_id, bytes, number_at }))
    }
}

impl<'a> Iterator for Packets<'a> {
    type Item = Initial<'a>;

    fn next(&mut self) -> Option<Initial<'a>> {
        loop {
            if let Some(initial) = self.step()? {
                return Some(initial);
            }
        }
    }
}

/// Reads the fields of packets and frames.
pub(super) struct Reader<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn array<const N: usize>(&mut self) -> Option<&'a [u8; N]> {
        let array = self.bytes.get(self.at..)?.first_chunk()?;
        self.at += N;
        Some(array)
    }

    pub(super) fn take(&mut self, count: u64) -> Option<&'a [u8]> {
        let count = usize::try_from(count).ok()?;
        let taken = self.bytes.get(self.at..)?.get(..count)?;
        self.at += count;
        Some(taken)
    }

    /// RFC 9000, section 16: the first two bits say how many bytes it has.
    pub(super) fn varint(&mut self) -> Option<u64> {
        let [first] = *self.array()?;
        let mut value = u64::from(first & 0x3f);
        for _ in 1..1 << (first >> 6) {
            let [next] = *self.array()?;
            value = value << 8 | u64::from(next);
        }
        Some(value)
    }

    fn id(&mut self) -> Option<&'a [u8]> {
        let [length] = *self.array()?;
        if usize::from(length) > LONGEST_ID { None } else { self.take(length.into()) }
    }
}
