//! Destinations that there is a way to: what was found stays so until the kernel tells of a change (rtnetlink(7)), which takes no privilege to hear
//! and is told before whoever has made it goes on. What nobody tells of (a route of IPv6 that is over by itself, programs of eBPF) is looked at again after a moment.

use std::{
    collections::BTreeSet,
    io,
    net::SocketAddr,
    os::fd::OwnedFd,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use rustix::{
    io::Errno,
    net::{AddressFamily, RecvFlags, SocketFlags, SocketType, netlink::SocketAddrNetlink},
};

/// As long as anything is believed.
const MOMENT: Duration = Duration::from_secs(1);
/// Destinations that are kept.
const MOST: usize = 1000;
/// Links, addresses, routes, rules, and what is set of all of them.
const CHANGES: [u32; 10] = [
    libc::RTNLGRP_LINK,
    libc::RTNLGRP_IPV4_IFADDR,
    libc::RTNLGRP_IPV4_ROUTE,
    libc::RTNLGRP_IPV4_RULE,
    libc::RTNLGRP_IPV6_IFADDR,
    libc::RTNLGRP_IPV6_ROUTE,
    libc::RTNLGRP_IPV6_RULE,
    libc::RTNLGRP_IPV4_NETCONF,
    libc::RTNLGRP_IPV6_NETCONF,
    libc::RTNLGRP_NEXTHOP,
];

/// Those that are known of.
#[derive(Debug, Default)]
pub(crate) struct Ways(Mutex<Option<Known>>);

#[derive(Debug)]
struct Known {
    changes: OwnedFd,
    since: Instant,
    open: BTreeSet<SocketAddr>,
}

impl Ways {
    /// Looks for a way unless there was one a moment ago, and nothing has changed since.
    pub(crate) fn look(&self, to: SocketAddr, look: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        if self.lock().as_mut().is_some_and(|known| known.has(to)) {
            return Ok(());
        }
        look()?;
        let mut known = self.lock();
        match known.as_mut() {
            // What has changed meanwhile may be this.
            Some(known) => known.note(to),
            // Without it, each is looked for each time.
            None => *known = Known::begin().ok(),
        }
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn begin() -> rustix::io::Result<Self> {
        let (domain, kind) = (AddressFamily::NETLINK, SocketType::RAW);
        // The protocol by default is NETLINK_ROUTE.
        let changes = rustix::net::socket_with(domain, kind, SocketFlags::CLOEXEC, None)?;
        let groups = CHANGES.iter().fold(0, |groups, group| groups | 1 << (group - 1));
        rustix::net::bind(&changes, &SocketAddrNetlink::new(0, groups))?;
        Ok(Self { changes, since: Instant::now(), open: BTreeSet::new() })
    }

    fn has(&mut self, to: SocketAddr) -> bool {
        if self.has_changed() || self.since.elapsed() > MOMENT {
            self.open.clear();
            self.since = Instant::now();
        }
        self.open.contains(&to)
    }

    fn note(&mut self, to: SocketAddr) {
        if self.has_changed() || self.open.len() >= MOST {
            self.open.clear();
        } else {
            self.open.insert(to);
        }
    }

    fn has_changed(&self) -> bool {
        let mut has_changed = false;
        loop {
            match rustix::net::recv(&self.changes, &mut [0_u8; 1][..], RecvFlags::DONTWAIT) {
                Err(Errno::AGAIN) => return has_changed,
                // One of them, or too many.
                Ok(_) | Err(_) => has_changed = true,
            }
        }
    }
}
