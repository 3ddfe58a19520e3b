//! Waiting for any of many sockets with one wake-up of the runtime: an epoll of our own, which the runtime watches.

use std::{
    fmt, io,
    os::fd::{AsFd, OwnedFd},
};

use rustix::{
    buffer::spare_capacity,
    event::{
        Timespec,
        epoll::{self, CreateFlags, Event, EventData, EventFlags},
    },
};
use tokio::io::unix::AsyncFd;

use super::sys;
use crate::datagrams::Ready;

/// Sockets that are told of at once.
const MOST_EVENTS: usize = 256;

pub(crate) struct Readiness {
    epoll: AsyncFd<OwnedFd>,
    events: Vec<Event>,
}

impl fmt::Debug for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Readiness").field("epoll", &self.epoll).finish_non_exhaustive()
    }
}

impl Readiness {
    pub(crate) fn new() -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let epoll = sys::watch(epoll)?;
        Ok(Self { epoll, events: Vec::with_capacity(MOST_EVENTS) })
    }

    /// A socket that is closed is forgotten.
    pub(crate) fn add(&self, socket: &impl AsFd, key: u64) -> io::Result<()> {
        epoll::add(self.epoll.get_ref(), socket, EventData::new_u64(key), EventFlags::IN)?;
        Ok(())
    }

    /// The keys of those that are ready, and of each whether there is an error to be taken.
    pub(crate) async fn wait(&mut self, ready: &mut Vec<Ready>) -> io::Result<()> {
        while !self.look(ready)? {
            let mut guard = self.epoll.readable().await?;
            // Before the next look, or what comes between the two would go unnoticed.
            guard.clear_ready();
        }
        Ok(())
    }

    fn look(&mut self, ready: &mut Vec<Ready>) -> io::Result<bool> {
        ready.clear();
        self.events.clear();
        epoll::wait(self.epoll.get_ref(), spare_capacity(&mut self.events), Some(&Timespec::default()))?;
        let ready_now = self.events.iter().map(|event| {
            let flags = event.flags;
            Ready { key: event.data.u64(), has_error: flags.contains(EventFlags::ERR) }
        });
        ready.extend(ready_now);
        Ok(!ready.is_empty())
    }
}
