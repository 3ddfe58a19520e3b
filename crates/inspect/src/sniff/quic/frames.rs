//! The frames that an Initial packet may have (RFC 9000, section 17.2.2).

use super::packet::Reader;

const PADDING: u64 = 0x00;
const PING: u64 = 0x01;
const ACK: u64 = 0x02;
const ACK_WITH_ECN: u64 = 0x03;
const CRYPTO: u64 = 0x06;

/// Calls `take` with the offset and bytes of each CRYPTO frame, up to the first frame that may not be here.
pub(super) fn each_crypto(payload: &[u8], mut take: impl FnMut(u64, &[u8])) {
    let mut reader = Reader { bytes: payload, at: 0 };
    while let Some(kind) = reader.varint() {
        let read = match kind {
            PADDING | PING => Some(()),
            ACK | ACK_WITH_ECN => skip_ack(&mut reader, kind),
            CRYPTO => crypto(&mut reader).map(|(offset, data)| take(offset, data)),
            _ => None,
        };
        if read.is_none() {
            return;
        }
    }
}

fn crypto<'a>(reader: &mut Reader<'a>) -> Option<(u64, &'a [u8])> {
    let offset = reader.varint()?;
    let length = reader.varint()?;
    Some((offset, reader.take(length)?))
}

fn skip_ack(reader: &mut Reader<'_>, kind: u64) -> Option<()> {
    let (_largest, _delay) = (reader.varint()?, reader.varint()?);
    let ranges = reader.varint()?;
    let _first = reader.varint()?;
    for _ in 0..ranges {
        let (_gap, _length) = (reader.varint()?, reader.varint()?);
    }
    if kind == ACK_WITH_ECN {
        let _counts = (reader.varint()?, reader.varint()?, reader.varint()?);
    }
    Some(())
}
