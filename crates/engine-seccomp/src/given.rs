//! Where copies of others' descriptors are forbidden (pidfd_getfd(2), as in some containers), the supervisor makes the sockets that may be redirected itself, in
//! the place of socket(2), and gives a copy away (`SECCOMP_IOCTL_NOTIF_ADDFD`). The one that it keeps is of the same open file, so that
//! options, a bound address and copies of the descriptor make no difference.
//!
//! A descriptor is known by the number of its socket's inode, which /proc shows. As long as a copy is kept here a connection does not end by its owner's
//! close(); so it is given up as soon as there is nothing more to be done with it: when a connection is under way, when
//! a socket listens, and, of those that were closed before, when somebody binds and every few seconds.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::fd::{AsFd, OwnedFd},
    sync::{Mutex, MutexGuard, PoisonError},
};

use rustix::net::sockopt;
use socket2::SockRef;

use crate::{call::errno, told::Hearsay};

/// All that have been given.
#[derive(Debug, Default)]
pub(crate) struct Given {
    by_inode: Mutex<BTreeMap<u64, Socket>>,
    /// Of those that there is no copy of.
    pub(crate) hearsay: Hearsay,
}

/// A socket that was given.
#[derive(Debug)]
enum Socket {
    Kept(OwnedFd),
    /// There is no copy any more.
    LetGo(Identity),
}

/// What is known of a socket for as long as there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) cookie: u64,
    pub(crate) is_v6: bool,
}

impl Identity {
    fn of(socket: &OwnedFd) -> io::Result<Self> {
        let is_v6 = sockopt::socket_domain(socket)? == rustix::net::AddressFamily::INET6;
        Ok(Self { cookie: sockopt::socket_cookie(socket)?, is_v6 })
    }
}

impl Given {
    /// Keeps a copy of one that is about to be given.
    pub(crate) fn keep(&self, socket: &OwnedFd) -> io::Result<u64> {
        let inode = inode_of_own(socket)?;
        let copy = socket.try_clone()?;
        self.lock().insert(inode, Socket::Kept(copy));
        Ok(inode)
    }

    /// Of one that could not be given.
    pub(crate) fn forget(&self, inode: u64) {
        self.lock().remove(&inode);
    }

    /// A copy of the one with this inode. EACCES if it is not known here.
    pub(crate) fn copy(&self, inode: u64) -> io::Result<OwnedFd> {
        match self.lock().get(&inode) {
            Some(Socket::Kept(socket)) => socket.try_clone(),
            Some(Socket::LetGo(_)) | None => Err(errno(libc::EACCES)),
        }
    }

    /// One of which there is no copy any more.
    pub(crate) fn identity(&self, inode: u64) -> Option<Identity> {
        match self.lock().get(&inode)? {
            Socket::Kept(_) => None,
            Socket::LetGo(identity) => Some(*identity),
        }
    }

    /// From here on it is its owner's alone.
    pub(crate) fn let_go(&self, inode: u64) {
        let mut given = self.lock();
        if let Some(Socket::Kept(socket)) = given.get(&inode)
            && let Ok(identity) = Identity::of(socket)
        {
            given.insert(inode, Socket::LetGo(identity));
        }
    }

    /// The same of a connection that is made, or under way.
    pub(crate) fn let_go_of_stream(&self, socket: &OwnedFd) {
        if sockopt::socket_type(socket).is_ok_and(|kind| kind == rustix::net::SocketType::STREAM)
            && let Ok(inode) = inode_of_own(socket)
        {
            self.let_go(inode);
        }
    }

    /// Before something is sent to a port: one that was closed answers no more there.
    pub(crate) fn free(&self, port: u16) {
        let is_there = |socket: &Socket| match socket {
            Socket::Kept(socket) => SockRef::from(socket).local_addr().ok().and_then(|at| at.as_socket()),
            Socket::LetGo(_) => None,
        };
        let is_taken = self.lock().values().filter_map(is_there).any(|at| at.port() == port);
        if is_taken {
            self.sweep();
        }
    }

    /// Closes those that nobody else has any more.
    pub(crate) fn sweep(&self) {
        let known: BTreeSet<u64> = self.lock().keys().copied().collect();
        // One may be on its way from one process to another while they are looked through.
        let gone = [(), ()].into_iter().fold(known, |missing, ()| match missing.is_empty() {
            true => missing,
            false => &missing - &held_by_others(),
        });
        let mut given = self.lock();
        gone.iter().for_each(|inode| drop(given.remove(inode)));
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Socket>> {
        // Every change is whole before anything can panic.
        self.by_inode.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn inode_of_own(socket: &OwnedFd) -> io::Result<u64> {
    Ok(rustix::fs::fstat(socket.as_fd())?.st_ino)
}

/// As /proc shows a socket: `socket:[4711]`.
pub(crate) fn read_inode(shown: &[u8]) -> Option<u64> {
    let number = shown.strip_prefix(b"socket:[")?.strip_suffix(b"]")?;
    std::str::from_utf8(number).ok()?.parse().ok()
}

/// Of processes that can be looked at.
fn held_by_others() -> BTreeSet<u64> {
    let own = std::process::id().to_string();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let others = processes.filter(|process| {
        let name = process.file_name();
        name.as_encoded_bytes().iter().all(u8::is_ascii_digit) && name != *own
    });
    let descriptors =
        others.filter_map(|process| fs::read_dir(process.path().join("fd")).ok()).flatten().flatten();
    descriptors
        .filter_map(|descriptor| {
            let shown = fs::read_link(descriptor.path()).ok()?;
            read_inode(shown.as_os_str().as_encoded_bytes())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_told_by_its_link_and_nothing_else_is() {
        assert_eq!(read_inode(b"socket:[4711]"), Some(4711));
        for other in [&b"pipe:[4711]"[..], b"/dev/null", b"socket:[]", b"socket:[-1]", b"socket:[1", b""] {
            assert_eq!(read_inode(other), None);
        }
    }

    #[test]
    fn copies_are_there_until_they_are_let_go_or_nobody_else_has_the_socket() {
        let given = Given::default();
        let socket = || OwnedFd::from(std::net::UdpSocket::bind("127.0.0.1:0").unwrap());
        let (kept, let_go) = (socket(), socket());
        let inodes = [&kept, &let_go].map(|socket| given.keep(socket).unwrap());
        given.let_go(inodes[1]);
        assert_eq!(inode_of_own(&given.copy(inodes[0]).unwrap()).unwrap(), inodes[0]);
        assert_eq!(given.copy(inodes[1]).unwrap_err().raw_os_error(), Some(libc::EACCES));
        assert_eq!(given.identity(inodes[1]), Some(Identity::of(&let_go).unwrap()));
        // This process does not count.
        given.sweep();
        assert!(given.lock().is_empty());
    }

    #[test]
    fn what_another_process_has_stays() {
        let given = Given::default();
        let (own, other) = std::os::unix::net::UnixStream::pair().unwrap();
        let mut child = std::process::Command::new("cat").stdin(OwnedFd::from(other)).spawn().unwrap();
        let socket = rustix::process::pidfd_open(
            rustix::process::Pid::from_child(&child),
            rustix::process::PidfdFlags::empty(),
        );
        let socket = crate::sys::copy_descriptor(socket.unwrap().as_fd(), 0).unwrap();
        let inode = given.keep(&socket).unwrap();
        given.sweep();
        assert!(given.copy(inode).is_ok());
        drop((own, socket));
        given.forget(inode);
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
