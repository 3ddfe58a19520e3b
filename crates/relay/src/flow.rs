//! One direction of a relay: a buffer that is read into only when it is empty.
//!
//! That single rule is the back-pressure, the order of observing before forwarding, and the reason why an
//! end-of-file can be passed on the moment it is read: nothing is ever left in front of it.

use std::ops::Range;

use crate::error::{Direction, Halt};
use crate::observer::{Observer, Verdict};
use crate::socket::Socket;

/// Bytes held for each direction at most: 64 KiB, the default capacity of a pipe, so that copying and
/// splicing relays hold back alike.
pub const BUFFER_BYTES: usize = 64 * 1024;

pub(crate) struct Flow {
    direction: Direction,
    buffer: Vec<u8>,
    /// The part of the buffer that was observed and not yet written.
    pending: Range<usize>,
    forwarded: u64,
    ended: bool,
}

impl Flow {
    pub(crate) fn new(direction: Direction) -> Self {
        Self { direction, buffer: Vec::new(), pending: 0..0, forwarded: 0, ended: false }
    }

    pub(crate) fn wants_read(&self) -> bool {
        !self.ended && self.pending.is_empty()
    }

    pub(crate) fn wants_write(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Whether the end-of-file has been passed on.
    pub(crate) fn ended(&self) -> bool {
        self.ended
    }

    /// Bytes the sink's kernel has taken.
    pub(crate) fn forwarded(&self) -> u64 {
        self.forwarded
    }

    /// Does what the two sockets were found ready for.
    pub(crate) fn advance<O: Observer + ?Sized>(
        &mut self,
        source: &Socket,
        sink: &mut Socket,
        observer: &mut O,
    ) -> Result<(), Halt> {
        if self.wants_write() && sink.writable() {
            self.drain(sink)
        } else if self.wants_read() && source.readable() && !sink.broken() {
            // A broken sink is left alone so that what it had sent before can still be read from it.
            self.fill(source, sink, observer)
        } else {
            Ok(())
        }
    }

    fn fill<O: Observer + ?Sized>(
        &mut self,
        source: &Socket,
        sink: &mut Socket,
        observer: &mut O,
    ) -> Result<(), Halt> {
        self.buffer.resize(BUFFER_BYTES, 0);
        match source.read(&mut self.buffer)? {
            Some(0) => self.end(sink),
            Some(count) => self.accept(count, sink, observer),
            // Broken, and yet neither bytes nor an error to be read: it would be reported for ever.
            None if source.broken() => Err(source.breakage()),
            None => Ok(()),
        }
    }

    fn accept<O: Observer + ?Sized>(
        &mut self,
        count: usize,
        sink: &Socket,
        observer: &mut O,
    ) -> Result<(), Halt> {
        match observer.bytes(self.direction, &self.buffer[..count]) {
            Verdict::Forward => {
                self.pending = 0..count;
                // The sink nearly always has room; trying saves a wait for each chunk.
                self.drain(sink)
            }
            Verdict::Stop => Err(Halt::Stopped(self.direction)),
        }
    }

    fn drain(&mut self, sink: &Socket) -> Result<(), Halt> {
        while let Some(written) = sink.write(&self.buffer[self.pending.clone()])? {
            self.pending.start += written;
            self.forwarded += written as u64;
            if self.pending.is_empty() {
                break;
            }
        }
        Ok(())
    }

    fn end(&mut self, sink: &mut Socket) -> Result<(), Halt> {
        sink.finish()?;
        self.ended = true;
        self.buffer = Vec::new();
        Ok(())
    }
}
