//! Whoever waits for a datagram: until one comes, or the wait is over for another reason.

use std::{
    io,
    os::fd::OwnedFd,
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::event::{
    Timespec,
    epoll::{self, CreateFlags, Event, EventData, EventFlags},
};

use super::Party;
use crate::{call::errno, interrupted, pool::Turn, shared::Shared};

/// Between two looks at whether somebody who waits has to handle a signal or is gone.
const LOOK_PAUSE: Duration = Duration::from_millis(50);
/// By which it is told what has happened.
const SOCKET: u64 = 0;
const OWNER: u64 = 1;

/// How a wait ends that is not in vain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Woken {
    /// Something has come, which others may have taken by now.
    ByDatagram,
    /// Nothing will come any more: the socket has been shut down (shutdown(2)).
    ByShutdown,
}

/// A wait. It is told of what happens and not, as by poll(2), of what is so: errors stay in their queue (`IP_RECVERR`) whoever receives.
pub(super) struct Wait<'w> {
    happenings: OwnedFd,
    tid: u32,
    turn: &'w Turn<'w>,
    looked: Instant,
}

impl<'w> Wait<'w> {
    pub(super) fn begin(shared: &Shared, party: &Party<'_>, turn: &'w Turn<'w>) -> io::Result<Self> {
        let tid = party.call.tid;
        let happenings = epoll::create(CreateFlags::CLOEXEC)?;
        let of_datagrams = EventFlags::IN | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(&happenings, &party.socket, EventData::new_u64(SOCKET), of_datagrams)?;
        // As long as a copy is here whoever is next cannot bind to the port.
        let thread = shared.threads.ask(tid, |thread| Ok(Arc::clone(thread)))?;
        epoll::add(&happenings, thread.handle(), EventData::new_u64(OWNER), EventFlags::IN)?;
        Ok(Self { happenings, tid, turn, looked: Instant::now() })
    }

    /// Waits a while, and no longer than until then.
    pub(super) fn go_on(&mut self, until: Option<Instant>) -> io::Result<Woken> {
        let left = until.map_or(LOOK_PAUSE, |until| until.saturating_duration_since(Instant::now()));
        let pause = left.min(LOOK_PAUSE);
        let pause = Timespec { tv_sec: 0, tv_nsec: i64::from(pause.subsec_nanos()) };
        let nothing = Event { flags: EventFlags::empty(), data: EventData::new_u64(SOCKET) };
        let mut events = [nothing; 2];
        let count = epoll::wait(&self.happenings, &mut events[..], Some(&pause)).unwrap_or(0);
        let events = &events[..count];
        if events.iter().any(|event| event.data.u64() == OWNER) {
            return Err(errno(libc::EINTR));
        }
        if self.looked.elapsed() >= LOOK_PAUSE {
            self.looked = Instant::now();
            interrupted::look(self.turn, self.tid, until.is_some())?;
        }
        let is_shut = events.iter().any(|event| { event.flags }.contains(EventFlags::RDHUP));
        Ok(if is_shut { Woken::ByShutdown } else { Woken::ByDatagram })
    }
}
