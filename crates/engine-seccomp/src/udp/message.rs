//! Messages as their owners have them in memory: `struct msghdr` and `struct mmsghdr` of 64 bits (sendmsg(2), recvmmsg(2)).

use std::io;

use crate::call::{Call, errno};

use super::{LONGEST_NAME, MOST_BYTES};

/// Bytes of `struct msghdr`, and of `struct mmsghdr`, where the length of what was sent or received follows.
const HEADER: usize = 56;
const OF_MANY: u64 = 64;
const LENGTH: u64 = 56;
/// Where things are in it.
const NAME: usize = 0;
const NAME_LENGTH: usize = 8;
const PARTS: usize = 16;
const PART_COUNT: usize = 24;
const CONTROL: usize = 32;
const CONTROL_LENGTH: usize = 40;
const FLAGS: u64 = 48;
/// `UIO_MAXIOV`: pieces of a message, and messages of a call.
pub(super) const MOST_PIECES: u64 = 1024;
/// More than all messages take that come beside a datagram.
const MOST_CONTROL: usize = 64 * 1024;

/// A message of another process.
pub(super) struct Message {
    at: u64,
    pub(super) name_at: u64,
    name_length: usize,
    parts: Vec<(u64, usize)>,
    control_at: u64,
    control_length: usize,
}

fn word(bytes: &[u8], at: usize) -> u64 {
    bytes[at..].first_chunk().map_or(0, |word| u64::from_ne_bytes(*word))
}

/// Where the message with this number is in a call for many.
pub(super) fn in_turn(first: u64, number: u64) -> u64 {
    first.wrapping_add(number.wrapping_mul(OF_MANY))
}

/// Says of a message of many how much of it was sent or received.
pub(super) fn tell_length(call: &Call, message: u64, length: i64) -> io::Result<()> {
    call.write(message.wrapping_add(LENGTH), &(length as u32).to_ne_bytes())
}

impl Message {
    pub(super) fn read(call: &Call, at: u64) -> io::Result<Self> {
        let header = call.read(at, HEADER)?;
        let name_at = word(&header, NAME);
        // Where there is nothing the kernel does not look how long it is.
        let name_length = if name_at == 0 { 0 } else { word(&header, NAME_LENGTH) as u32 as i32 };
        let name_length = usize::try_from(name_length).map_err(|_negative| errno(libc::EINVAL))?;
        let name_length = name_length.min(LONGEST_NAME);
        let count = word(&header, PART_COUNT);
        if count > MOST_PIECES {
            return Err(errno(libc::EMSGSIZE));
        }
        let parts = call.read(word(&header, PARTS), count as usize * 16)?;
        let parts = parts.chunks_exact(16).map(|part| (word(part, 0), word(part, 8) as usize)).collect();
        let control_length = word(&header, CONTROL_LENGTH) as usize;
        let control_at = word(&header, CONTROL);
        Ok(Self { at, name_at, name_length, parts, control_at, control_length })
    }

    /// Whom a message is for; empty if that is not said.
    pub(super) fn name(&self, call: &Call) -> io::Result<Vec<u8>> {
        call.read(self.name_at, self.name_length)
    }

    pub(super) fn bytes(&self, call: &Call) -> io::Result<Vec<u8>> {
        let length: usize = self.parts.iter().fold(0, |sum, (_, len)| sum.saturating_add(*len));
        if length > MOST_BYTES {
            return Err(errno(libc::EMSGSIZE));
        }
        let mut bytes = Vec::with_capacity(length);
        for &(at, len) in &self.parts {
            bytes.extend(call.read(at, len)?);
        }
        Ok(bytes)
    }

    pub(super) fn control(&self, call: &Call) -> io::Result<Vec<u8>> {
        if i32::try_from(self.control_length).is_err() {
            return Err(errno(libc::ENOBUFS));
        }
        call.read(self.control_at, self.control_length.min(MOST_CONTROL))
    }

    pub(super) fn has_control(&self) -> bool {
        self.control_length > 0
    }

    /// Bytes that what comes beside it may have.
    pub(super) fn control_room(&self) -> usize {
        if self.control_at == 0 { 0 } else { self.control_length.min(MOST_CONTROL) }
    }

    /// Bytes that a message may have.
    pub(super) fn room(&self) -> usize {
        self.parts.iter().fold(0, |sum: usize, (_, len)| sum.saturating_add(*len)).min(MOST_BYTES)
    }

    pub(super) fn put_bytes(&self, call: &Call, mut bytes: &[u8]) -> io::Result<()> {
        for &(at, len) in &self.parts {
            let (here, rest) = bytes.split_at(len.min(bytes.len()));
            call.write(at, here)?;
            bytes = rest;
        }
        Ok(())
    }

    /// Whom it is from, if that is asked for, and what comes beside it.
    pub(super) fn put_rest(&self, call: &Call, name: &[u8], control: &[u8], flags: i32) -> io::Result<()> {
        if self.name_at != 0 {
            call.write_cut(self.name_at, self.at.wrapping_add(NAME_LENGTH as u64), name)?;
        }
        call.write(self.control_at, control)?;
        call.write(self.at.wrapping_add(FLAGS), &flags.to_ne_bytes())?;
        call.write(self.at.wrapping_add(CONTROL_LENGTH as u64), &(control.len() as u64).to_ne_bytes())
    }
}

/// Takes out of what goes beside a datagram where it is to start from, and by which device: it goes over the loopback.
pub(super) fn without_source(control: &[u8]) -> Vec<u8> {
    const HEADER: usize = size_of::<libc::cmsghdr>();
    let mut kept = Vec::with_capacity(control.len());
    let mut rest = control;
    while let Some(len) = rest.first_chunk().map(|len| usize::from_ne_bytes(*len)) {
        if len < HEADER || len > rest.len() {
            break;
        }
        let number = |at: usize| rest[at..].first_chunk().map_or(0, |number| i32::from_ne_bytes(*number));
        let padded = len.next_multiple_of(size_of::<usize>()).min(rest.len());
        let says_where = [(libc::IPPROTO_IP, libc::IP_PKTINFO), (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO)];
        if !says_where.contains(&(number(8), number(12))) {
            kept.extend(&rest[..padded]);
        }
        rest = &rest[padded..];
    }
    // The kernel complains of what is no message.
    kept.extend(rest);
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn beside(level: i32, kind: i32, data: &[u8]) -> Vec<u8> {
        let mut bytes =
            [&(16 + data.len()).to_ne_bytes()[..], &level.to_ne_bytes(), &kind.to_ne_bytes(), data].concat();
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes
    }

    #[test]
    fn where_a_datagram_starts_from_is_left_out_and_nothing_else() {
        let class = beside(libc::IPPROTO_IP, libc::IP_TOS, &[1, 0, 0, 0]);
        let source = beside(libc::IPPROTO_IP, libc::IP_PKTINFO, &[7; 12]);
        let segment = beside(libc::SOL_UDP, libc::UDP_SEGMENT, &[0, 4]);
        let all = [class.clone(), source, segment.clone()].concat();
        assert_eq!(without_source(&all), [class, segment].concat());
        assert_eq!(without_source(&[]), [0_u8; 0]);
        assert_eq!(without_source(&[200, 0, 0, 0, 0, 0, 0, 0, 9]), [200, 0, 0, 0, 0, 0, 0, 0, 9]);
    }
}
