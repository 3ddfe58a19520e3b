//! Sockets by what sock_diag(7) tells of them, for those of which there is no copy.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::{Mutex, PoisonError},
};

use waylay_diag::{Kernel, Socket, state};

use crate::flows::Path;

/// What is remembered is forgotten at so many.
const MOST_KNOWN: usize = 4096;
/// States of those that have no peer.
const LONELY: [u8; 3] = [state::SYN_SENT, state::CLOSE, state::LISTEN];
/// All but those of which no process has a socket.
const STATES: u32 = !(1 << state::TIME_WAIT);

/// A socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) cookie: u64,
    pub(crate) is_v6: bool,
    pub(crate) is_udp: bool,
    pub(crate) local: SocketAddr,
    /// Whom it is connected to.
    pub(crate) peer: Option<SocketAddr>,
    /// Of what has a peer, listens or is not connected at all nothing changes.
    is_settled: bool,
}

impl Told {
    fn new(found: &Socket, is_udp: bool) -> Self {
        let peer = Some(found.remote).filter(|_| !LONELY.contains(&found.state));
        let is_settled = is_udp || peer.is_some() || found.state == state::LISTEN;
        let (cookie, is_v6) = (found.cookie(), found.is_v6());
        Self { cookie, is_v6, is_udp, local: found.local, peer, is_settled }
    }
}

/// What was told last.
#[derive(Debug, Default)]
pub(crate) struct Hearsay {
    by_inode: Mutex<BTreeMap<u64, Told>>,
}

impl Hearsay {
    /// The socket with this inode, among those of this network namespace that have a port. It is looked for first among connections that it is `likely`
    /// to be, from its own address to its peer's: to look through all takes a thousand times as long.
    pub(crate) fn of(&self, inode: u64, likely: impl FnOnce() -> Vec<Path>) -> io::Result<Option<Told>> {
        let mut known = self.by_inode.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(told) = known.get(&inode).filter(|told| told.is_settled) {
            return Ok(Some(told.clone()));
        }
        if known.len() >= MOST_KNOWN {
            known.clear();
        }
        let kernel = Kernel::open()?;
        for Path { from, to } in likely() {
            let found = kernel.find(libc::IPPROTO_TCP, (from, to))?;
            let connected = found.filter(|found| Path::new(found.local, found.remote) == Path::new(from, to));
            // What nobody has accepted has no inode yet.
            let Some(found) = connected.filter(|found| found.inode != 0) else { continue };
            let told = Told::new(&found, false);
            known.insert(found.inode.into(), told.clone());
            if u64::from(found.inode) == inode {
                return Ok(Some(told));
            }
        }
        // All of them at once, as many may be asked about at one time.
        *known = everything()?;
        Ok(known.get(&inode).cloned())
    }

    /// As it is at this moment, for one that may be connected to nobody by now.
    pub(crate) fn anew(&self, inode: u64, likely: impl FnOnce() -> Vec<Path>) -> io::Result<Option<Told>> {
        self.forget(inode);
        self.of(inode, likely)
    }

    pub(crate) fn forget(&self, inode: u64) {
        self.by_inode.lock().unwrap_or_else(PoisonError::into_inner).remove(&inode);
    }
}

fn everything() -> io::Result<BTreeMap<u64, Told>> {
    let mut all = BTreeMap::new();
    for protocol in [libc::IPPROTO_TCP, libc::IPPROTO_MPTCP, libc::IPPROTO_UDP] {
        let found = Kernel::open()?.dump(protocol, STATES)?;
        let is_udp = protocol == libc::IPPROTO_UDP;
        all.extend(found.iter().map(|found| (found.inode.into(), Told::new(found, is_udp))));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use std::{
        net::{TcpListener, TcpStream, UdpSocket},
        os::fd::AsFd,
    };

    use rustix::net::sockopt;

    use super::*;

    fn told(socket: impl AsFd) -> Told {
        let inode = rustix::fs::fstat(socket.as_fd()).unwrap().st_ino;
        let told = Hearsay::default().of(inode, Vec::new).unwrap().unwrap();
        assert_eq!(told.cookie, sockopt::socket_cookie(socket).unwrap());
        told
    }

    #[test]
    fn what_is_told_is_what_the_socket_says_itself() {
        for ip in ["127.0.0.1", "::1"] {
            let listener = TcpListener::bind((ip, 0)).unwrap();
            let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let datagrams = UdpSocket::bind((ip, 0)).unwrap();
            let is_v6 = ip == "::1";
            let (of_listener, of_stream, of_datagrams) = (told(&listener), told(&stream), told(&datagrams));
            assert_eq!((of_listener.is_v6, of_listener.is_udp, of_listener.peer), (is_v6, false, None));
            assert_eq!(of_stream.local, stream.local_addr().unwrap());
            assert_eq!(of_stream.peer, Some(listener.local_addr().unwrap()));
            assert_eq!((of_datagrams.is_udp, of_datagrams.peer), (true, None));
            assert_eq!(of_datagrams.local, datagrams.local_addr().unwrap());
        }
    }

    #[test]
    fn where_a_socket_is_likely_to_be_it_is_found_as_it_is_among_all() {
        for (bound, dialled) in [("127.0.0.1", "127.0.0.1"), ("::1", "::1"), ("::", "127.0.0.1")] {
            let listener = TcpListener::bind((bound, 0)).unwrap();
            let stream = TcpStream::connect((dialled, listener.local_addr().unwrap().port())).unwrap();
            let waits = Path::new(stream.peer_addr().unwrap(), stream.local_addr().unwrap());
            let (accepted, _) = listener.accept().unwrap();
            let _later = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let inode = rustix::fs::fstat(&accepted).unwrap().st_ino;
            let hearsay = Hearsay::default();
            let nowhere = Path::new("127.0.0.1:1".parse().unwrap(), waits.to);
            assert_eq!(hearsay.of(inode, || vec![nowhere, waits]).unwrap(), Some(told(&accepted)));
            // Nothing else was looked at.
            assert_eq!(hearsay.by_inode.lock().unwrap().len(), 1, "{bound}");
            assert_eq!(hearsay.of(inode, || unreachable!()).unwrap(), Some(told(&accepted)));
        }
    }

    #[test]
    fn what_is_not_there_is_not_found() {
        assert_eq!(Hearsay::default().of(u64::MAX, Vec::new).unwrap(), None);
    }
}
