//! A socket of whoever calls: by a copy of its descriptor or, where there is none, by what is told of it.

use std::{
    io,
    net::SocketAddr,
    os::fd::{AsFd, OwnedFd},
};

use rustix::net::sockopt;
use socket2::SockRef;

use crate::{flows::Path, told::Told, udp};

/// A socket that is looked at and not touched.
#[derive(Debug)]
pub(crate) enum Sight {
    Copy(OwnedFd),
    Told(Told),
}

impl Sight {
    pub(crate) fn cookie(&self) -> io::Result<u64> {
        match self {
            Self::Copy(socket) => Ok(sockopt::socket_cookie(socket.as_fd())?),
            Self::Told(told) => Ok(told.cookie),
        }
    }

    pub(crate) fn is_v6(&self) -> io::Result<bool> {
        match self {
            Self::Copy(socket) => Ok(sockopt::socket_domain(socket)? == rustix::net::AddressFamily::INET6),
            Self::Told(told) => Ok(told.is_v6),
        }
    }

    pub(crate) fn is_udp(&self) -> io::Result<bool> {
        match self {
            Self::Copy(socket) => Ok(udp::family_of(socket)?.is_some()),
            Self::Told(told) => Ok(told.is_udp),
        }
    }

    pub(crate) fn local(&self) -> Option<SocketAddr> {
        match self {
            Self::Copy(socket) => SockRef::from(socket).local_addr().ok()?.as_socket(),
            Self::Told(told) => Some(told.local),
        }
    }

    pub(crate) fn peer(&self) -> Option<SocketAddr> {
        match self {
            Self::Copy(socket) => SockRef::from(socket).peer_addr().ok()?.as_socket(),
            Self::Told(told) => told.peer,
        }
    }

    /// Whom an accepted socket is connected to, and where.
    pub(crate) fn path(&self) -> Option<Path> {
        Some(Path::new(self.peer()?, self.local()?))
    }
}
