//! The listening sockets that whoever started this process passed to it (`sd_listen_fds(3)`).

use std::{
    env, io,
    net::{SocketAddr, TcpListener, UdpSocket},
    ops::Range,
    os::fd::RawFd,
    process,
    sync::atomic::{AtomicBool, Ordering},
};

use socket2::{Protocol, SockRef, Type};

use super::{registration::check_registration, sys};
use crate::{error::StartError, platform::Sockets};

/// The first descriptor of `sd_listen_fds(3)`.
const FIRST: RawFd = 3;
/// The names of descriptors that are listeners of TCP; each may occur several times.
const TCP_NAMES: [&str; 2] = ["tcp4", "tcp6"];
/// The names of descriptors that datagrams are redirected to.
const UDP_NAMES: [&str; 2] = ["udp4", "udp6"];

/// Descriptors that a process may have, unless somebody has raised `fs.nr_open` (proc(5)). Of more, some are
/// surely not open, and a list of them would take up to 8 GB.
const MOST: RawFd = 1 << 20;

/// Set once this process has been given its sockets: descriptors have one owner.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// Every TCP listener that was passed, of which there must be one, and every UDP socket. None has to be made.
pub(crate) fn sockets_from_env(
    _listen: impl Fn(SocketAddr) -> Result<TcpListener, StartError>,
) -> Result<Sockets, StartError> {
    let handover = Handover::from_env();
    let listeners = handover.tcp_listeners(process::id())?;
    let datagrams = handover.datagram_sockets(process::id())?;
    handover.take_all()?;
    let listeners: Vec<_> = listeners.into_iter().map(take).collect::<Result<_, _>>()?;
    let datagrams = datagrams.into_iter().map(take_datagrams).collect::<Result<_, _>>()?;
    for listener in &listeners {
        check_registration(listener)?;
    }
    Ok(Sockets { listeners, datagrams })
}

/// Every UDP socket that was passed. Listeners that were as well are closed.
pub(crate) fn datagram_sockets_from_env() -> Result<Vec<UdpSocket>, StartError> {
    let handover = Handover::from_env();
    let datagrams = handover.datagram_sockets(process::id())?;
    let listeners = match handover.tcp_listeners(process::id()) {
        Ok(listeners) if handover.names.is_some() => listeners,
        Ok(_) | Err(_) => Vec::new(),
    };
    handover.take_all()?;
    let _closed: Vec<_> = listeners.into_iter().map(take).collect();
    datagrams.into_iter().map(take_datagrams).collect()
}

/// The environment's part of it.
#[derive(Debug, Default)]
pub(super) struct Handover {
    count: RawFd,
    names: Option<String>,
    pid: Option<String>,
}

impl Handover {
    fn from_env() -> Self {
        let variable = |name| env::var(name).ok();
        Self::new(variable("LISTEN_FDS"), variable("LISTEN_FDNAMES"), variable("LISTEN_PID"))
    }

    pub(super) fn new(count: Option<String>, names: Option<String>, pid: Option<String>) -> Self {
        let count = count.and_then(|count| count.parse().ok());
        Self { count: count.unwrap_or(0), names, pid }
    }

    /// Once for this process.
    fn take_all(&self) -> Result<(), StartError> {
        if TAKEN.swap(true, Ordering::AcqRel) {
            return Err(StartError::TakenAlready);
        }
        for fd in self.all() {
            // Not for the programs this one may start. One that is not open is complained of if it is taken.
            let _not_open = sys::close_on_exec(fd);
        }
        Ok(())
    }

    pub(super) fn all(&self) -> Range<RawFd> {
        FIRST..FIRST.saturating_add(self.count)
    }

    /// The descriptors that are, or without names ought to be, listeners of TCP.
    pub(super) fn tcp_listeners(&self, own_pid: u32) -> Result<Vec<RawFd>, StartError> {
        self.check(own_pid)?;
        let descriptors: Vec<RawFd> = match &self.names {
            None => self.all().collect(),
            Some(names) => self.named(names, &TCP_NAMES)?,
        };
        if descriptors.is_empty() { Err(StartError::NoListeners) } else { Ok(descriptors) }
    }

    /// The descriptors that are sockets of UDP; without names none is.
    pub(super) fn datagram_sockets(&self, own_pid: u32) -> Result<Vec<RawFd>, StartError> {
        self.check(own_pid)?;
        match &self.names {
            None => Ok(Vec::new()),
            Some(names) => self.named(names, &UDP_NAMES),
        }
    }

    fn check(&self, own_pid: u32) -> Result<(), StartError> {
        match &self.pid {
            Some(pid) if *pid != own_pid.to_string() => {
                return Err(StartError::ForAnotherProcess { meant: pid.clone(), pid: own_pid });
            }
            Some(_) | None => {}
        }
        if self.count > MOST {
            let source = io::Error::from_raw_os_error(libc::EBADF);
            return Err(StartError::NotAListener { fd: FIRST + MOST, source });
        }
        Ok(())
    }

    fn named(&self, names: &str, wanted: &[&str]) -> Result<Vec<RawFd>, StartError> {
        let names: Vec<&str> = if names.is_empty() { Vec::new() } else { names.split(':').collect() };
        if self.all().count() != names.len() {
            return Err(StartError::Names { sockets: self.all().count(), names: names.len() });
        }
        let named = self.all().zip(names);
        Ok(named.filter(|(_, name)| wanted.contains(name)).map(|(fd, _)| fd).collect())
    }
}

fn take(fd: RawFd) -> Result<TcpListener, StartError> {
    let not_a_listener = |source| StartError::NotAListener { fd, source };
    sys::close_on_exec(fd).map_err(not_a_listener)?;
    let listener = sys::adopt_listener(fd);
    check(&listener).map_err(not_a_listener)?;
    Ok(listener)
}

fn take_datagrams(fd: RawFd) -> Result<UdpSocket, StartError> {
    let refused = |source| StartError::NotADatagramSocket { fd, source };
    sys::close_on_exec(fd).map_err(refused)?;
    let socket = sys::adopt_datagram_socket(fd);
    check_datagrams(&socket).map_err(refused)?;
    Ok(socket)
}

/// That it is a socket of UDP.
fn check_datagrams(socket: &UdpSocket) -> io::Result<()> {
    let socket = SockRef::from(socket);
    let is_ip = socket.local_addr()?.as_socket().is_some();
    if is_ip && socket.protocol()? == Some(Protocol::UDP) {
        return Ok(());
    }
    Err(io::ErrorKind::InvalidInput.into())
}

/// That it is a stream socket of IPv4 or IPv6, and listens.
fn check(listener: &TcpListener) -> io::Result<()> {
    let socket = SockRef::from(listener);
    let is_ip = socket.local_addr()?.as_socket().is_some();
    if is_ip && socket.r#type()? == Type::STREAM && socket.is_listener()? {
        return Ok(());
    }
    Err(io::ErrorKind::InvalidInput.into())
}

#[cfg(test)]
mod tests {
    use std::os::{fd::IntoRawFd, unix::net::UnixListener};

    use socket2::{Domain, Socket};

    use super::*;

    fn handover(count: RawFd, names: Option<&str>, pid: Option<&str>) -> Handover {
        Handover { count, names: names.map(str::to_owned), pid: pid.map(str::to_owned) }
    }

    #[test]
    fn without_names_every_descriptor_is_one() {
        assert_eq!(handover(3, None, None).tcp_listeners(7).unwrap(), [3, 4, 5]);
    }

    #[test]
    fn names_may_repeat_and_those_of_other_sockets_are_left_alone() {
        let names = Some("tcp4:tcp4:tcp6:udp4:tcp6:udp6:metrics");
        assert_eq!(handover(7, names, Some("7")).tcp_listeners(7).unwrap(), [3, 4, 5, 7]);
        assert_eq!(handover(7, names, Some("7")).datagram_sockets(7).unwrap(), [6, 8]);
        assert_eq!(handover(3, None, None).datagram_sockets(7).unwrap(), []);
    }

    #[test]
    fn what_is_for_another_process_is_not_taken() {
        let error = handover(2, None, Some("8")).tcp_listeners(7).unwrap_err();
        assert_eq!(error.to_string(), "the sockets were passed to process 8, and this is 7");
        assert!(handover(2, None, Some("")).tcp_listeners(7).is_err());
    }

    #[test]
    fn there_must_be_as_many_names_as_sockets() {
        for (count, names) in [(2, "tcp4"), (1, "tcp4:tcp6"), (1, ""), (0, "tcp4")] {
            let error = handover(count, Some(names), None).tcp_listeners(7).unwrap_err();
            assert!(matches!(error, StartError::Names { .. }), "{count} {names:?}: {error}");
        }
    }

    #[test]
    fn nothing_passed_is_an_error_that_says_so() {
        for nothing in [
            Handover::default(),
            handover(-1, None, None),
            handover(0, Some(""), None),
            handover(2, Some("udp4:udp6"), None),
        ] {
            let error = nothing.tcp_listeners(7).unwrap_err();
            assert!(matches!(error, StartError::NoListeners), "{nothing:?}: {error}");
        }
    }

    #[test]
    fn more_than_a_process_can_have_are_not_even_listed() {
        for names in [None, Some("tcp4")] {
            let error = handover(RawFd::MAX, names, None).tcp_listeners(7).unwrap_err();
            assert!(matches!(error, StartError::NotAListener { fd: 0x10_0003, .. }), "{error}");
        }
    }

    #[test]
    fn only_a_socket_of_udp_is_taken_for_datagrams() {
        take_datagrams(UdpSocket::bind("127.0.0.1:0").unwrap().into_raw_fd()).unwrap();
        for fd in [TcpListener::bind("127.0.0.1:0").unwrap().into_raw_fd(), 1_000_000] {
            assert!(matches!(take_datagrams(fd), Err(StartError::NotADatagramSocket { .. })), "{fd}");
        }
    }

    #[test]
    fn only_a_listening_tcp_socket_is_taken() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        take(listener.into_raw_fd()).unwrap();
        let bound = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let directory = env::temp_dir().join(format!("waylay-handover-{}", process::id()));
        let others = [
            bound.into_raw_fd(),
            UdpSocket::bind("127.0.0.1:0").unwrap().into_raw_fd(),
            UnixListener::bind(&directory).unwrap().into_raw_fd(),
            1_000_000,
        ];
        std::fs::remove_file(directory).unwrap();
        for fd in others {
            assert!(matches!(take(fd), Err(StartError::NotAListener { .. })), "{fd}");
        }
    }
}
