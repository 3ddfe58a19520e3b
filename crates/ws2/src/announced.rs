//! Which flows of datagrams a socket's owner has been told of.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{LazyLock, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use waylay::datagrams::FlowTable;

/// After so long without a datagram a flow is announced again, unless its socket was told otherwise.
const IDLE: Duration = Duration::from_secs(60);
/// Flows of a socket that are remembered: more than the kernel side has.
pub(crate) const MOST_FLOWS: usize = 1 << 17;

/// What has been announced, by the cookie of the socket.
static ANNOUNCED: LazyLock<Mutex<HashMap<u64, Announced>>> = LazyLock::new(Mutex::default);

/// The flows of a socket.
pub(crate) struct Announced {
    pub(crate) flows: FlowTable<()>,
    /// Which address stands for the flow that a peer was last heard on.
    pub(crate) tokens: HashMap<SocketAddr, IpAddr>,
}

impl Default for Announced {
    fn default() -> Self {
        Self { flows: FlowTable::new(MOST_FLOWS, IDLE), tokens: HashMap::new() }
    }
}

impl Announced {
    /// From now on a flow of that socket is announced again once it has been idle for so long.
    pub(crate) fn again_after(cookie: u64, idle: Duration) {
        all().entry(cookie).or_default().flows.expire_after(idle);
    }
}

/// Of every socket, by its cookie.
pub(crate) fn all() -> MutexGuard<'static, HashMap<u64, Announced>> {
    ANNOUNCED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Forgets a socket that is closed.
pub(crate) fn forget(cookie: u64) {
    all().remove(&cookie);
}
