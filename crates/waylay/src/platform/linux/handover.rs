//! The listening sockets that whoever started this process passed to it (`sd_listen_fds(3)`).

use std::{
    env, io,
    net::{SocketAddr, TcpListener},
    ops::Range,
    os::fd::RawFd,
    process,
    sync::atomic::{AtomicBool, Ordering},
};

use socket2::{SockRef, Type};

use super::{registration::check_registration, sys};
use crate::error::StartError;

/// The first descriptor of `sd_listen_fds(3)`.
const FIRST: RawFd = 3;
/// The names of descriptors that are listeners of TCP; each may occur several times.
const TCP_NAMES: [&str; 2] = ["tcp4", "tcp6"];

/// Descriptors that a process may have, unless somebody has raised `fs.nr_open` (proc(5)). Of more, some are
/// surely not open, and a list of them would take up to 8 GB.
const MOST: RawFd = 1 << 20;

/// Set once this process has been given its sockets: descriptors have one owner.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// Every TCP listener that was passed. None has to be made.
pub(crate) fn listeners_from_env(
    _listen: impl Fn(SocketAddr) -> Result<TcpListener, StartError>,
) -> Result<Vec<TcpListener>, StartError> {
    let listeners = take_listeners()?;
    for listener in &listeners {
        check_registration(listener)?;
    }
    Ok(listeners)
}

fn take_listeners() -> Result<Vec<TcpListener>, StartError> {
    let handover = Handover::from_env();
    let descriptors = handover.tcp_listeners(process::id())?;
    if TAKEN.swap(true, Ordering::AcqRel) {
        return Err(StartError::TakenAlready);
    }
    for fd in handover.all() {
        // Not for the programs this one may start. One that is not open is complained of if it is taken.
        let _not_open = sys::close_on_exec(fd);
    }
    descriptors.into_iter().map(take).collect()
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

    pub(super) fn all(&self) -> Range<RawFd> {
        FIRST..FIRST.saturating_add(self.count)
    }

    /// The descriptors that are, or without names ought to be, listeners of TCP.
    pub(super) fn tcp_listeners(&self, own_pid: u32) -> Result<Vec<RawFd>, StartError> {
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
        let descriptors: Vec<RawFd> = match &self.names {
            None => self.all().collect(),
            Some(names) => self.named(names)?,
        };
        if descriptors.is_empty() { Err(StartError::NoListeners) } else { Ok(descriptors) }
    }

    fn named(&self, names: &str) -> Result<Vec<RawFd>, StartError> {
        let names: Vec<&str> = if names.is_empty() { Vec::new() } else { names.split(':').collect() };
        if self.all().count() != names.len() {
            return Err(StartError::Names { sockets: self.all().count(), names: names.len() });
        }
        let named = self.all().zip(names);
        Ok(named.filter(|(_, name)| TCP_NAMES.contains(name)).map(|(fd, _)| fd).collect())
    }
}

fn take(fd: RawFd) -> Result<TcpListener, StartError> {
    let not_a_listener = |source| StartError::NotAListener { fd, source };
    sys::close_on_exec(fd).map_err(not_a_listener)?;
    let listener = sys::adopt_listener(fd);
    check(&listener).map_err(not_a_listener)?;
    Ok(listener)
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
    use std::{
        net::UdpSocket,
        os::{fd::IntoRawFd, unix::net::UnixListener},
    };

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
