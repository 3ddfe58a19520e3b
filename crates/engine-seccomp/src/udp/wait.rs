//! Whoever waits for a datagram: until one comes, or the wait is over for another reason.

use std::{
    io,
    os::fd::OwnedFd,
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::event::{
    PollFd, PollFlags, Timespec,
    epoll::{self, CreateFlags, Event, EventData, EventFlags},
    poll,
};

use super::Party;
use crate::{call::errno, interrupted, pool::Turn, shared::Shared, threads::Thread};

/// Between two looks at whether somebody who waits has to handle a signal or is gone.
const LOOK_PAUSE: Duration = Duration::from_millis(50);
/// By which it is told what has happened.
const SOCKET: u64 = 0;
const OWNER: u64 = 1;

/// How a wait ends that is not in vain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Woken {
    /// Something may have come, which others may have taken by now.
    ByDatagram,
    /// Nothing will come any more: the socket has been shut down (shutdown(2)).
    ByShutdown,
}

/// A wait.
pub(super) struct Wait<'w> {
    socket: &'w OwnedFd,
    thread: Arc<Thread>,
    tid: u32,
    turn: &'w Turn<'w>,
    looked: Instant,
    looks: u32,
    /// Errors stay in their queue (`IP_RECVERR`) whoever receives, and poll(2) waits for nothing then. Here it is told of what comes.
    news: Option<OwnedFd>,
}

/// What has become of the socket, and of who waits.
#[derive(Default)]
struct Seen {
    is_shut: bool,
    is_gone: bool,
    is_in_error: bool,
}

impl<'w> Wait<'w> {
    pub(super) fn begin(shared: &Shared, party: &'w Party<'_>, turn: &'w Turn<'w>) -> io::Result<Self> {
        let tid = party.call.tid;
        let thread = shared.threads.ask(tid, |thread| Ok(Arc::clone(thread)))?;
        Ok(Self { socket: &party.socket, thread, tid, turn, looked: Instant::now(), looks: 0, news: None })
    }

    /// Waits a while, and no longer than until then.
    pub(super) fn go_on(&mut self, until: Option<Instant>) -> io::Result<Woken> {
        let left = until.map_or(LOOK_PAUSE, |until| until.saturating_duration_since(Instant::now()));
        let pause = left.min(LOOK_PAUSE);
        let pause = Timespec { tv_sec: 0, tv_nsec: i64::from(pause.subsec_nanos()) };
        let seen = match &self.news {
            Some(news) => hear(news, &pause),
            None => self.see(&pause),
        };
        // As long as a copy is here whoever is next cannot bind to the port.
        if seen.is_gone {
            return Err(errno(libc::EINTR));
        }
        if seen.is_in_error && self.news.is_none() {
            self.news = Some(self.subscribe()?);
        }
        if self.looked.elapsed() >= LOOK_PAUSE {
            self.looked = Instant::now();
            self.looks = self.looks.wrapping_add(1);
            interrupted::look(self.turn, self.tid, self.looks, until.is_some())?;
        }
        Ok(if seen.is_shut { Woken::ByShutdown } else { Woken::ByDatagram })
    }

    fn see(&self, pause: &Timespec) -> Seen {
        let mut both = [
            PollFd::new(self.socket, PollFlags::IN | PollFlags::RDHUP),
            PollFd::from_borrowed_fd(self.thread.handle(), PollFlags::IN),
        ];
        let _woken = poll(&mut both, Some(pause));
        let [socket, owner] = both.map(|one| one.revents());
        Seen {
            is_shut: socket.contains(PollFlags::RDHUP),
            is_gone: owner.contains(PollFlags::IN),
            is_in_error: socket.contains(PollFlags::ERR),
        }
    }

    fn subscribe(&self) -> io::Result<OwnedFd> {
        let news = epoll::create(CreateFlags::CLOEXEC)?;
        let of_datagrams = EventFlags::IN | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(&news, self.socket, EventData::new_u64(SOCKET), of_datagrams)?;
        epoll::add(&news, self.thread.handle(), EventData::new_u64(OWNER), EventFlags::IN)?;
        Ok(news)
    }
}

fn hear(news: &OwnedFd, pause: &Timespec) -> Seen {
    let nothing = Event { flags: EventFlags::empty(), data: EventData::new_u64(SOCKET) };
    let mut events = [nothing; 2];
    let count = epoll::wait(news, &mut events[..], Some(pause)).unwrap_or(0);
    events[..count].iter().fold(Seen::default(), |seen, &Event { flags, data }| match data.u64() {
        OWNER => Seen { is_gone: true, ..seen },
        _ => Seen { is_shut: flags.contains(EventFlags::RDHUP), ..seen },
    })
}
