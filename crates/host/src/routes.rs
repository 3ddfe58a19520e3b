//! The host's routes, for the engine: what has none is refused with the
//! kernel's own error instead of being redirected, and `getsockname` tells the
//! address a connection would have started from.
//!
//! A thread watches rtnetlink(7). Whatever changes, all of it is looked at
//! again (`survey`): which prefixes there are is read from the kernel's tables,
//! and what becomes of each the kernel is asked itself, so that no rule or
//! source selection is done over again here.

mod asker;
mod dump;
mod survey;

use std::{
    io,
    net::IpAddr,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::Instant,
};

use rustix::{
    event::{EventfdFlags, PollFd, PollFlags},
    io::Errno,
    net::{AddressFamily, RecvFlags, SocketFlags, SocketType, netlink},
};
use waylay_core::{Reach, Routes};
use waylay_engine_ebpf::RoutePublisher;

use asker::Asker;

/// Links, addresses, routes and rules of both families (linux/rtnetlink.h): a
/// bit for each group, numbered from 1.
const GROUPS: u32 = group(1) | group(5) | group(7) | group(8) | group(9) | group(11) | group(19);

const fn group(number: u32) -> u32 {
    1 << (number - 1)
}

/// The routes as they stand.
fn current(asker: &Asker) -> io::Result<Routes> {
    Ok(survey::survey(&dump::dump()?, |destination| asker.ask(destination)))
}

/// Those of a datagram of messages; `ask` is the kernel's answer, as for `survey`.
#[cfg(any(test, fuzzing))]
pub(crate) fn of_messages(
    bytes: &[u8],
    ask: impl Fn(std::net::IpAddr) -> io::Result<std::net::IpAddr>,
) -> io::Result<Routes> {
    let mut messages = Vec::new();
    dump::read_messages(bytes, &mut messages)?;
    let routes: Vec<_> = messages.iter().filter_map(dump::read_route).collect();
    Ok(survey::survey(&routes, ask))
}

/// Publishes the routes whenever they change, until it is stopped.
pub(crate) struct RouteWatcher {
    stop: OwnedFd,
    thread: JoinHandle<()>,
    published: Arc<Mutex<Option<Routes>>>,
}

impl RouteWatcher {
    /// Publishes the routes as they stand, and watches from there on.
    pub(crate) fn start(publisher: RoutePublisher) -> io::Result<Self> {
        // Subscribed first: what changes from here on is not missed.
        let changes = subscribe()?;
        let asker = Asker::new();
        let first = publish(&publisher, &asker, None);
        let published = Arc::new(Mutex::new(first));
        let shared = Arc::clone(&published);
        let stop = rustix::event::eventfd(0, EventfdFlags::CLOEXEC)?;
        let stopped = rustix::io::fcntl_dupfd_cloexec(&stop, 0)?;
        let thread = thread::spawn(move || watch(&changes, &stopped, &publisher, &asker, &shared));
        Ok(Self { stop, thread, published })
    }

    /// What the programs know of a destination.
    pub(crate) fn reach(&self, destination: IpAddr) -> Reach {
        locked(&self.published).as_ref().map_or_else(Reach::default, |routes| routes.to(destination))
    }

    pub(crate) fn stop(self) {
        // Both fail only if the thread has ended.
        let _told = rustix::io::write(&self.stop, &1_u64.to_ne_bytes());
        let _ended = self.thread.join();
    }
}

fn locked(published: &Mutex<Option<Routes>>) -> MutexGuard<'_, Option<Routes>> {
    published.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The protocol is NETLINK_ROUTE, which is 0 and the default.
fn subscribe() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
    rustix::net::bind(&socket, &netlink::SocketAddrNetlink::new(0, GROUPS))?;
    Ok(socket)
}

fn watch(
    changes: &OwnedFd,
    stopped: &OwnedFd,
    publisher: &RoutePublisher,
    asker: &Asker,
    published: &Mutex<Option<Routes>>,
) {
    while wait(changes, stopped) {
        let started = Instant::now();
        drain(changes);
        let former = locked(published).clone();
        let routes = publish(publisher, asker, former);
        *locked(published) = routes;
        // A host whose routes never rest gets no more than half of a processor.
        thread::sleep(started.elapsed());
    }
}

/// Until something has changed; false once it is to stop.
fn wait(changes: &OwnedFd, stopped: &OwnedFd) -> bool {
    loop {
        let mut fds = [PollFd::new(stopped, PollFlags::IN), PollFd::new(changes, PollFlags::IN)];
        match rustix::event::poll(&mut fds, None) {
            Ok(_) => return fds[0].revents().is_empty(),
            Err(Errno::INTR) => {}
            Err(_) => return false,
        }
    }
}

/// That something has changed is all there is to know; ENOBUFS says so too.
fn drain(changes: &OwnedFd) {
    let mut buffer = [0; 8192];
    loop {
        match rustix::net::recv(changes, &mut buffer, RecvFlags::DONTWAIT) {
            Ok(_) | Err(Errno::NOBUFS | Errno::INTR) => {}
            Err(_) => return,
        }
    }
}

/// What the engine knows afterwards. Routes that cannot be read leave it with
/// what it knew; the next change is another occasion.
fn publish(publisher: &RoutePublisher, asker: &Asker, published: Option<Routes>) -> Option<Routes> {
    let Ok(routes) = current(asker) else { return published };
    if published.as_ref() == Some(&routes) {
        return published;
    }
    match publisher.publish(&routes) {
        Ok(()) => Some(routes),
        Err(_) => published,
    }
}
