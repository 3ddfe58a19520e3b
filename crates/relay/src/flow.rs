//! One direction of a relay: bytes are read only when none are held back.
//!
//! That single rule is the back-pressure, the order of observing before forwarding, the order of bytes at
//! each change between copying and splicing, and the reason why an end-of-file can be passed on the moment it
//! is read: nothing is ever left in front of it.

use std::cell::RefCell;

use crate::allowance::Allowance;
use crate::error::{Direction, Halt};
use crate::observer::{BUFFER_BYTES, Observer, Verdict};
use crate::pace::Pace;
use crate::pipe::Pipe;
use crate::socket::Socket;

thread_local! {
    /// What is being read right now. A direction keeps only what its sink did not take, so a connection at
    /// rest holds no buffer.
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; BUFFER_BYTES]);
}

pub(crate) struct Flow {
    direction: Direction,
    /// Observed and not yet written, from `written` on.
    kept: Vec<u8>,
    written: usize,
    /// There while the direction is spliced.
    pipe: Option<Pipe>,
    pace: Pace,
    allowance: Allowance,
    forwarded: u64,
    ended: bool,
}

impl Flow {
    pub(crate) fn new(direction: Direction) -> Self {
        Self {
            direction,
            kept: Vec::new(),
            written: 0,
            pipe: None,
            pace: Pace::default(),
            allowance: Allowance::default(),
            forwarded: 0,
            ended: false,
        }
    }

    pub(crate) fn wants_read(&self) -> bool {
        !self.ended && !self.wants_write()
    }

    pub(crate) fn wants_write(&self) -> bool {
        !self.kept.is_empty() || self.pipe.as_ref().is_some_and(|pipe| pipe.held() > 0)
    }

    /// Whether the end-of-file has been passed on.
    pub(crate) fn ended(&self) -> bool {
        self.ended
    }

    #[cfg(test)]
    pub(crate) fn is_spliced(&self) -> bool {
        self.pipe.is_some()
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
        if let Some(allowance) = self.allowance.change(self.forwarded) {
            sink.allow_unsent(allowance);
        }
        self.choose_medium(observer.looks(self.direction));
        if let Some(pipe) = &mut self.pipe
            && let Some(count) = source.read_into(pipe)?
        {
            self.pace.spliced(count);
            // The sink nearly always has room; trying saves a wait for each chunk.
            return self.drain(sink);
        }
        SCRATCH.with_borrow_mut(|buffer| self.copy(buffer, source, sink, observer))
    }

    /// Nothing is held back now, so bytes can't pass each other.
    fn choose_medium(&mut self, observed: bool) {
        if observed || self.pace.has_dwindled() {
            self.pipe = None;
            self.pace = Pace::default();
        } else if self.pace.is_bulk() {
            self.pipe = self.pipe.take().or_else(Pipe::new);
            self.pace = Pace::default();
        }
    }

    fn copy<O: Observer + ?Sized>(
        &mut self,
        buffer: &mut [u8],
        source: &Socket,
        sink: &mut Socket,
        observer: &mut O,
    ) -> Result<(), Halt> {
        match source.read(buffer)? {
            Some(0) => self.end(sink),
            Some(count) => {
                self.pace.copied(count);
                self.forward(&buffer[..count], sink, observer)
            }
            // Broken, and yet neither bytes nor an error to be read: it would be reported for ever.
            None if source.broken() => Err(source.breakage()),
            None => Ok(()),
        }
    }

    fn forward<O: Observer + ?Sized>(
        &mut self,
        mut bytes: &[u8],
        sink: &Socket,
        observer: &mut O,
    ) -> Result<(), Halt> {
        match observer.bytes(self.direction, bytes) {
            Verdict::Forward => {}
            Verdict::Stop => return Err(Halt::Stopped(self.direction)),
        }
        while let Some(written) = sink.write(bytes)? {
            self.forwarded += written as u64;
            bytes = &bytes[written..];
            if bytes.is_empty() {
                return Ok(());
            }
        }
        self.kept = bytes.to_vec();
        Ok(())
    }

    fn drain(&mut self, sink: &Socket) -> Result<(), Halt> {
        while self.wants_write() {
            let progress = match &mut self.pipe {
                Some(pipe) if self.kept.is_empty() => sink.write_from(pipe)?,
                Some(_) | None => sink.write(&self.kept[self.written..])?,
            };
            let Some(count) = progress else { break };
            self.forwarded += count as u64;
            self.account_for_kept(count);
        }
        Ok(())
    }

    fn account_for_kept(&mut self, count: usize) {
        if !self.kept.is_empty() {
            self.written += count;
        }
        if self.written == self.kept.len() {
            self.kept = Vec::new();
            self.written = 0;
        }
    }

    fn end(&mut self, sink: &mut Socket) -> Result<(), Halt> {
        sink.finish()?;
        self.ended = true;
        self.pipe = None;
        Ok(())
    }
}
