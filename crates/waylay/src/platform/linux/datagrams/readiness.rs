//! Waiting for any of many sockets with one wake-up of the runtime: an epoll of our own, which the runtime watches.

use std::{
    io,
    mem::MaybeUninit,
    os::fd::{AsFd, OwnedFd},
};

use rustix::event::{
    Timespec,
    epoll::{self, CreateFlags, EventData, EventFlags},
};
use tokio::io::unix::AsyncFd;

use super::sys;
use crate::datagrams::Ready;

/// Sockets that are told of at once.
const MOST_EVENTS: usize = 256;

#[derive(Debug)]
pub(crate) struct Readiness {
    epoll: AsyncFd<OwnedFd>,
}

impl Readiness {
    pub(crate) fn new() -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let epoll = sys::watch(epoll)?;
        Ok(Self { epoll })
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

    fn look(&self, ready: &mut Vec<Ready>) -> io::Result<bool> {
        let mut room = [const { MaybeUninit::uninit() }; MOST_EVENTS];
        let (events, _) = epoll::wait(self.epoll.get_ref(), &mut room, Some(&Timespec::default()))?;
        ready.clear();
        ready.extend(events.iter().map(|event| {
            let flags = event.flags;
            Ready { key: event.data.u64(), has_error: flags.contains(EventFlags::ERR) }
        }));
        Ok(!ready.is_empty())
    }
}
