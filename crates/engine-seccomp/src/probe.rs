//! What supervising takes, tried on this process itself. Nothing of it outlives the look.

use std::{
    io,
    net::{Ipv4Addr, UdpSocket},
    os::fd::{AsFd, AsRawFd},
    sync::LazyLock,
    thread,
};

use crate::{filter, sys};

/// What was found, each part of it apart.
#[derive(Debug)]
pub struct Probe {
    /// A filter that asks: EBUSY where one above has a listener already, of which the kernel allows one to each process.
    pub notifications: io::Result<()>,
    /// A copy of a descriptor by pidfd_getfd(2), which some containers forbid.
    pub descriptors: io::Result<()>,
    /// Memory by process_vm_readv(2).
    pub memory: io::Result<()>,
}

/// Tries it. What the kernel's rules for tracing (Yama) say of other processes shows on none of one's own.
#[must_use]
pub fn probe() -> Probe {
    Probe { notifications: listen(), descriptors: copy(), memory: read() }
}

/// How a socket of whoever calls is come by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Means {
    /// By a copy of the caller's descriptor.
    Copying,
    /// It is made by the supervisor and given to the caller, where copying is forbidden.
    Giving,
}

/// By which means it goes here: who is supervised and who supervises are forbidden the same.
#[must_use]
pub(crate) fn means() -> Means {
    if copy().is_ok() { Means::Copying } else { Means::Giving }
}

/// Whether the supervisor may mark sockets (`SO_MARK`, socket(7)).
pub(crate) fn may_mark() -> bool {
    static MAY: LazyLock<bool> = LazyLock::new(|| {
        let own = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0));
        own.is_ok_and(|own| sys::set_mark(own.as_fd(), 0).is_ok())
    });
    *MAY
}

/// Filters are a thread's own, as `no_new_privs` is; this one does nothing else, and ends.
fn listen() -> io::Result<()> {
    let tried = thread::Builder::new().name("probe".into()).spawn(|| {
        rustix::thread::set_no_new_privs(true)?;
        sys::install(&filter::harmless()).map(drop)
    })?;
    tried.join().unwrap_or_else(|_panic| Err(io::ErrorKind::Other.into()))
}

fn copy() -> io::Result<()> {
    let some = std::fs::File::open("/proc/self/comm")?;
    let own = sys::open_process(std::process::id())?;
    sys::copy_descriptor(own.as_fd(), some.as_raw_fd()).map(drop)
}

fn read() -> io::Result<()> {
    let (there, mut here) = ([7_u8], [0_u8]);
    sys::read_memory(std::process::id(), there.as_ptr().addr() as u64, &mut here)?;
    if here == there { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_tried_stays_with_the_thread_that_tries() {
        let Probe { notifications, descriptors, memory } = probe();
        notifications.unwrap();
        descriptors.unwrap();
        memory.unwrap();
        // A filter with a listener that stayed would be in the way of the next.
        probe().notifications.unwrap();
    }
}
