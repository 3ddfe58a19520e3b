//! The stage between `fork` and the program: a fresh process of waylay's own
//! binary that puts itself in its cgroup, makes its listeners there, gives up
//! its privileges, and becomes the program.
//!
//! The kernel's hooks follow the cgroup in which `socket()` was called, so a
//! service's listeners are made here, by the service's process, and no copy of
//! them exists anywhere else: when the service dies they stop listening.

use std::{
    env,
    error::Error,
    ffi::{OsStr, OsString},
    fs, io,
    io::Write,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket},
    os::{
        fd::{AsFd, BorrowedFd, IntoRawFd, OwnedFd},
        unix::{ffi::OsStrExt, process::CommandExt},
    },
    path::{Path, PathBuf},
    process::Command,
    sync::mpsc,
    thread,
};

use rustix::{
    fs::Access,
    io::Errno,
    process::{Pid, Signal},
    thread::{Gid, Uid},
};
use serde::{Deserialize, Serialize};
use socket2::{Domain, Protocol, SockFilter, SockRef, Socket, Type};
use thiserror::Error;

use waylay_engine_seccomp::{Datagrams, Part};

use crate::{families::refuse_other_families, handover, limits, sys, user::Identity};

/// Pending connections a listener holds before it counts as full; the kernel
/// caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;
/// Listeners of a service in each family. One ends at the local ports that are
/// left towards its address and port, some 28,000; these hold far more than the
/// engine has flows.
const LISTENERS: usize = 4;
/// UDP sockets of a service for IPv6: one socket of an application can have so
/// many destinations at a time.
const BANK: usize = waylay_engine::MAX_BANK;
/// Where a filter finds a datagram's destination (`SKF_NET_OFF`, linux/filter.h).
const IPV4_DESTINATION: u32 = (-0x10_0000_i32 + 16) as u32;
/// The first descriptor of `sd_listen_fds(3)`.
const FIRST_LISTEN_FD: i32 = 3;
/// Where services look for programs: nothing below root's home.
const SERVICE_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Above every descriptor that is passed.
const OUT_OF_THE_WAY: i32 = 100;

/// What the launched process is to become.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Launch {
    /// The directory of its cgroup; `None` leaves it where it is.
    pub cgroup: Option<PathBuf>,
    /// Whom it runs as; `None` keeps what it has.
    pub identity: Option<Identity>,
    /// Its part in the run.
    pub role: Role,
    /// Whether it becomes this binary again, with the arguments given.
    pub own_binary: bool,
    /// Whether it may make sockets of families that no engine is asked about.
    pub families: Families,
    /// Who is to answer its calls, in the engine without privileges.
    pub supervision: Option<Supervision>,
}

/// That a process's connections are made by a supervisor.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Supervision {
    /// The descriptor of a Unix socket, by which the supervisor gets what it answers through.
    pub socket: i32,
    /// Whether it may make sockets that cannot be redirected.
    pub any_socket: bool,
    /// Whether datagrams of the run might be led to a service or refused.
    pub judges_datagrams: bool,
    /// How many descriptors it may have, which its supervisor has more of; `None` for any number.
    pub descriptors: Option<u64>,
}

/// Of which families a launched process may make sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Families {
    /// Of all, or an engine is asked.
    Any,
    /// Of IP, and of those that stay on this host: a seccomp filter refuses the others.
    Filtered,
}

/// The hidden subcommand that leads to [`Launch::exec`], followed by the
/// launch as JSON, `--`, and the program with its arguments.
pub const SUBCOMMAND: &str = "__launch";

/// A launched process's part in the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// The command that is watched.
    Command,
    /// A redirect service: gets listeners, loses every privilege.
    Service,
    /// A program that listens by itself: loses every privilege too.
    Adopted,
}

impl std::str::FromStr for Launch {
    type Err = serde_json::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        serde_json::from_str(text)
    }
}

/// What a service's launcher says on its standard output, in one line of JSON, before it waits for a line on its standard
/// input and goes on; or why it cannot.
pub(crate) type Announcement = Result<Listening, String>;

/// Where a service takes what is redirected.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listening {
    /// The IPv4 listeners.
    pub tcp4: Vec<SocketAddrV4>,
    /// The IPv6 listeners, where the host has IPv6.
    pub tcp6: Vec<SocketAddrV6>,
    /// The port of the UDP socket for IPv4.
    pub udp4: Option<u16>,
    /// The ports of the UDP sockets for IPv6, where the host has IPv6.
    pub udp6: Vec<u16>,
}

impl Listening {
    /// Takes the addresses of a listener, where there is none of that family yet.
    pub(crate) fn take(&mut self, addresses: impl IntoIterator<Item = SocketAddr>) {
        for address in addresses {
            match address {
                SocketAddr::V4(address) if self.tcp4.is_empty() => self.tcp4.push(address),
                SocketAddr::V6(address) if self.tcp6.is_empty() => self.tcp6.push(address),
                SocketAddr::V4(_) | SocketAddr::V6(_) => {}
            }
        }
    }
}

/// Why a process could not be launched.
#[derive(Debug, Error)]
pub enum LaunchError {
    /// It cannot enter its cgroup.
    #[error("cannot enter the cgroup {path}")]
    Cgroup {
        /// The directory.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// No listening socket.
    #[error("cannot listen")]
    Listen(#[source] io::Error),
    /// The supervisor gave the service up before it was let go, or was told why it cannot start, and says why itself.
    #[error("dismissed by the supervisor")]
    Dismissed,
    /// The supervisor is gone or speaks another language.
    #[error("lost the supervisor")]
    Supervisor(#[source] io::Error),
    /// Sockets of other families could not be refused.
    #[error(
        "cannot keep the command from sockets that cannot be redirected (--unredirectable permit goes on without)"
    )]
    Families(#[source] io::Error),
    /// The supervisor cannot answer this process's calls.
    #[error("cannot be supervised (seccomp(2) with user notifications)")]
    Supervision(#[source] io::Error),
    /// Privileges could not be given up.
    #[error("cannot change to the uid {uid}")]
    Identity {
        /// The uid.
        uid: u32,
        /// What the kernel said.
        source: io::Error,
    },
    /// The running binary cannot be opened again.
    #[error("cannot open /proc/self/exe")]
    OwnBinary(#[source] io::Error),
    /// No program of that name.
    #[error("{}: command not found", program.display())]
    NotFound {
        /// What was to be run.
        program: OsString,
    },
    /// It is there but cannot be run.
    #[error("{}: cannot be executed", program.display())]
    NotExecutable {
        /// What was to be run.
        program: OsString,
        /// What the kernel said.
        source: io::Error,
    },
}

impl LaunchError {
    /// The exit status a shell would give.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::NotFound { .. } => 127,
            Self::NotExecutable { .. } => 126,
            Self::Cgroup { .. }
            | Self::Listen(_)
            | Self::Dismissed
            | Self::Supervisor(_)
            | Self::Families(_)
            | Self::Supervision(_)
            | Self::Identity { .. }
            | Self::OwnBinary(_) => 125,
        }
    }
}

impl Launch {
    /// Becomes the program. Returns only if that fails.
    #[must_use]
    pub fn exec(&self, command: &[OsString]) -> LaunchError {
        let name = command.first().cloned().unwrap_or_default();
        match self.prepare(command) {
            Ok(mut command) => exec_error(name, command.exec()),
            Err(error) => error,
        }
    }

    fn prepare(&self, command: &[OsString]) -> Result<Command, LaunchError> {
        if let Some(path) = &self.cgroup {
            let source = fs::write(path.join("cgroup.procs"), "0");
            source.map_err(|source| LaunchError::Cgroup { path: path.clone(), source })?;
        }
        let mut command = self.command(command)?;
        match self.role {
            Role::Command => {
                if self.families == Families::Filtered {
                    refuse_other_families().map_err(LaunchError::Families)?;
                }
                self.assume_identity()?;
                self.show_person(&mut command);
                self.enter_supervision()?;
            }
            Role::Service => {
                let supervisor = rustix::process::getppid();
                // Fails only where the process leads a session already. It keeps the terminal's signals away.
                let _own_session = rustix::process::setsid();
                let sockets = self.get_ready(supervisor, &mut command);
                announce(sockets.as_deref())?;
                let sockets = sockets.map_err(|_announced| LaunchError::Dismissed)?;
                wait_for_supervisor()?;
                pass(sockets, &mut command)?;
            }
            Role::Adopted => {
                let supervisor = rustix::process::getppid();
                // Fails only where the process leads a session already.
                let _own_session = rustix::process::setsid();
                wait_for_supervisor()?;
                self.give_up_privileges(supervisor, &mut command)?;
                self.enter_supervision()?;
                place_from(FIRST_LISTEN_FD, Vec::new()).map_err(LaunchError::Listen)?;
            }
        }
        Ok(command)
    }

    /// All that may fail and can be known to fail before anything is led to the service.
    fn get_ready(&self, supervisor: Option<Pid>, command: &mut Command) -> Result<Vec<Passed>, LaunchError> {
        let sockets = make_sockets().map_err(LaunchError::Listen)?;
        if self.supervision.is_some_and(|supervision| !supervision.judges_datagrams) {
            deafen(&sockets).map_err(LaunchError::Listen)?;
        }
        self.give_up_privileges(supervisor, command)?;
        if !self.own_binary {
            find_program(command.get_program())?;
        }
        self.enter_supervision()?;
        Ok(sockets)
    }

    /// From here on this process's connections are made by the supervisor.
    fn enter_supervision(&self) -> Result<(), LaunchError> {
        let Some(supervision) = self.supervision else { return Ok(()) };
        let Supervision { socket, any_socket, judges_datagrams, descriptors } = supervision;
        limits::restore_descriptors(descriptors);
        let part = match self.role {
            Role::Command => Part::Command { any_socket },
            Role::Service | Role::Adopted => Part::Service,
        };
        let datagrams = if judges_datagrams { Datagrams::Judged } else { Datagrams::Direct };
        let entered = || {
            rustix::thread::set_no_new_privs(true)?;
            let passage = sys::inherited(socket)?;
            // By a thread that is not supervised: whoever is would wait to send a message until somebody answers, who waits for this one.
            thread::scope(|threads| {
                let (made, to_be_given) = mpsc::channel();
                let giver = threads.spawn(move || {
                    to_be_given.recv().map_or(Ok(()), |calls| handover::give(&passage, calls))
                });
                let sent = waylay_engine_seccomp::supervise(part, datagrams);
                let sent = sent.map(|calls| made.send(calls));
                drop(made);
                let given = giver.join().unwrap_or_else(|_panic| Err(io::ErrorKind::Other.into()));
                sent.and(given)
            })
        };
        entered().map_err(LaunchError::Supervision)
    }

    fn give_up_privileges(&self, supervisor: Option<Pid>, command: &mut Command) -> Result<(), LaunchError> {
        self.assume_identity()?;
        rustix::thread::set_no_new_privs(true).map_err(|errno| LaunchError::Supervisor(errno.into()))?;
        die_with(supervisor).map_err(LaunchError::Supervisor)?;
        // Whatever the caller keeps in its environment is not for a process
        // that parses hostile bytes.
        command.env_clear().env("PATH", SERVICE_PATH).env("LANG", "C.UTF-8");
        Ok(())
    }

    fn command(&self, command: &[OsString]) -> Result<Command, LaunchError> {
        if self.own_binary {
            let mut own = Command::new(own_binary().map_err(LaunchError::OwnBinary)?);
            own.arg0("waylay").args(command);
            return Ok(own);
        }
        let (program, args) =
            command.split_first().ok_or_else(|| LaunchError::NotFound { program: OsString::new() })?;
        let mut command = Command::new(program);
        command.args(args);
        Ok(command)
    }

    fn assume_identity(&self) -> Result<(), LaunchError> {
        let Some(identity) = &self.identity else { return Ok(()) };
        set_credentials(identity)
            .map_err(|errno| LaunchError::Identity { uid: identity.uid, source: errno.into() })
    }

    fn show_person(&self, command: &mut Command) {
        if let Some(person) = self.identity.as_ref().and_then(|identity| identity.person.as_ref()) {
            command.env("HOME", &person.home).env("USER", &person.name).env("LOGNAME", &person.name);
        }
    }
}

fn exec_error(program: OsString, source: io::Error) -> LaunchError {
    if source.kind() == io::ErrorKind::NotFound {
        return LaunchError::NotFound { program };
    }
    LaunchError::NotExecutable { program, source }
}

fn set_credentials(identity: &Identity) -> rustix::io::Result<()> {
    let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
    let groups: Vec<Gid> = identity.groups.iter().copied().map(Gid::from_raw).collect();
    rustix::thread::set_thread_groups(&groups)?;
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)?;
    Ok(())
}

/// After the uid has changed, which would clear the death signal again. The
/// supervisor was there when it let this process go on; it may have gone since.
fn die_with(supervisor: Option<Pid>) -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    if rustix::process::getppid() != supervisor {
        return Err(io::ErrorKind::NotConnected.into());
    }
    Ok(())
}

/// Says where it listens, or why it does not.
fn announce(sockets: Result<&[Passed], &LaunchError>) -> Result<(), LaunchError> {
    let announcement: Announcement = sockets.map(listening).map_err(in_words);
    let mut line =
        serde_json::to_vec(&announcement).map_err(|error| LaunchError::Supervisor(error.into()))?;
    line.push(b'\n');
    let mut out = io::stdout().lock();
    out.write_all(&line).and_then(|()| out.flush()).map_err(LaunchError::Supervisor)
}

fn listening(sockets: &[Passed]) -> Listening {
    let at = |name| sockets.iter().filter(move |socket| socket.name == name).map(|socket| socket.address);
    Listening {
        tcp4: at("tcp4").filter_map(only_v4).collect(),
        tcp6: at("tcp6").filter_map(only_v6).collect(),
        udp4: at("udp4").map(|address| address.port()).next(),
        udp6: at("udp6").map(|address| address.port()).collect(),
    }
}

/// With its causes.
fn in_words(error: &LaunchError) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        words.push_str(&format!(": {error}"));
        cause = error.source();
    }
    words
}

/// As execvp(3) will look for it, with the rights that the service has.
fn find_program(program: &OsStr) -> Result<(), LaunchError> {
    let named = Path::new(program);
    let candidates: Vec<PathBuf> = match program.as_bytes().contains(&b'/') {
        true => vec![named.to_owned()],
        false => env::split_paths(SERVICE_PATH).map(|directory| directory.join(named)).collect(),
    };
    let mut error = io::Error::from(io::ErrorKind::NotFound);
    for candidate in candidates {
        match rustix::fs::access(&candidate, Access::EXEC_OK) {
            Ok(()) if candidate.is_dir() => error = io::ErrorKind::IsADirectory.into(),
            Ok(()) => return Ok(()),
            Err(errno) if errno == Errno::NOENT => {}
            Err(errno) => error = errno.into(),
        }
    }
    Err(exec_error(program.to_owned(), error))
}

fn only_v4(address: SocketAddr) -> Option<SocketAddrV4> {
    match address {
        SocketAddr::V4(address) => Some(address),
        SocketAddr::V6(_) => None,
    }
}

fn only_v6(address: SocketAddr) -> Option<SocketAddrV6> {
    match address {
        SocketAddr::V4(_) => None,
        SocketAddr::V6(address) => Some(address),
    }
}

/// A socket for the service, under the name that tells it what it is.
struct Passed {
    name: &'static str,
    address: SocketAddr,
    socket: OwnedFd,
}

/// Listeners and UDP sockets of both families. Without IPv6 on the host there are
/// none for it. The UDP socket for IPv4 has to be reached by every address of the
/// loopback, and by nothing else; for IPv6, where that has one, there are many.
fn make_sockets() -> io::Result<Vec<Passed>> {
    let (v4, v6) = (IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST));
    let mut sockets = Vec::new();
    for _ in 0..LISTENERS {
        sockets.push(listen("tcp4", v4)?);
    }
    sockets.extend((0..LISTENERS).map_while(|_| listen("tcp6", v6).ok()));
    sockets.push(bind_udp("udp4", Ipv4Addr::UNSPECIFIED.into())?);
    sockets.extend(bank(v6));
    Ok(sockets)
}

fn bank(v6: IpAddr) -> impl Iterator<Item = Passed> {
    (0..BANK).map_while(move |_| bind_udp("udp6", v6).ok())
}

/// Those that a service for datagrams over IPv6 gets, for one that has sockets of its own.
pub(crate) fn bank_sockets() -> Vec<UdpSocket> {
    bank(Ipv6Addr::LOCALHOST.into()).map(|passed| passed.socket.into()).collect()
}

fn listen(name: &'static str, ip: IpAddr) -> io::Result<Passed> {
    let address = SocketAddr::new(ip, 0);
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    let address = socket.local_addr()?.as_socket().unwrap_or(address);
    Ok(Passed { name, address, socket: socket.into() })
}

fn bind_udp(name: &'static str, ip: IpAddr) -> io::Result<Passed> {
    let address = SocketAddr::new(ip, 0);
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if address.is_ipv4() {
        socket.attach_filter(&only_tokens())?;
    }
    socket.bind(&address.into())?;
    let address = socket.local_addr()?.as_socket().unwrap_or(address);
    Ok(Passed { name, address, socket: socket.into() })
}

/// Every address of the host leads to the socket; nothing may arrive at it but
/// what the engine has led there, to an address in 127.128.0.0/9. (To bind it to
/// the loopback's device would hide it from the engine.)
fn only_tokens() -> [SockFilter; 5] {
    let op = |code: u32, jt, jf, k| SockFilter::new(code as u16, jt, jf, k);
    [
        op(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, IPV4_DESTINATION),
        op(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, 0, 0, 0xff80_0000),
        op(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 1, 0, 0x7f80_0000),
        op(libc::BPF_RET | libc::BPF_K, 0, 0, 0),
        op(libc::BPF_RET | libc::BPF_K, 0, 0, u32::MAX),
    ]
}

/// To UDP sockets that nothing is led to nothing comes: who finds one by its port is not kept from sending there.
fn deafen(sockets: &[Passed]) -> io::Result<()> {
    let nothing = [SockFilter::new((libc::BPF_RET | libc::BPF_K) as u16, 0, 0, 0)];
    let mut of_datagrams = sockets.iter().filter(|passed| passed.name.starts_with("udp"));
    of_datagrams.try_for_each(|passed| SockRef::from(&passed.socket).attach_filter(&nothing))
}

/// Until it lets this process go on.
fn wait_for_supervisor() -> Result<(), LaunchError> {
    match wait_for_line(io::stdin().as_fd()).map_err(LaunchError::Supervisor)? {
        Some(()) => Ok(()),
        None => Err(LaunchError::Dismissed),
    }
}

/// Reads a line and not a byte more: what follows is for the program. `None` if
/// there is none.
fn wait_for_line(from: BorrowedFd<'_>) -> io::Result<Option<()>> {
    let mut byte = [0];
    loop {
        match rustix::io::read(from, &mut byte) {
            Ok(0) => return Ok(None),
            Ok(_) if byte == *b"\n" => return Ok(Some(())),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Puts the sockets where `sd_listen_fds(3)` says, in order.
fn pass(sockets: Vec<Passed>, command: &mut Command) -> Result<(), LaunchError> {
    let names: Vec<&str> = sockets.iter().map(|socket| socket.name).collect();
    let addresses: Vec<String> = sockets.iter().map(|socket| socket.address.to_string()).collect();
    command
        .env("LISTEN_FDS", sockets.len().to_string())
        .env("LISTEN_FDNAMES", names.join(":"))
        .env("LISTEN_PID", std::process::id().to_string())
        .env("WAYLAY_LISTEN", addresses.join(","));
    place_from(FIRST_LISTEN_FD, sockets.into_iter().map(|socket| socket.socket).collect())
        .map_err(LaunchError::Listen)?;
    Ok(())
}

/// Puts sockets at consecutive descriptors, open across exec; every other
/// descriptor this process inherited is closed by it.
fn place_from(first: i32, sockets: Vec<OwnedFd>) -> io::Result<()> {
    sys::close_on_exec_from(first)?;
    let mut out_of_the_way = Vec::new();
    for socket in sockets {
        out_of_the_way.push(rustix::io::fcntl_dupfd_cloexec(socket.as_fd(), OUT_OF_THE_WAY)?);
    }
    for (target, socket) in (first..).zip(&out_of_the_way) {
        sys::place(socket.as_fd(), target)?;
    }
    Ok(())
}

/// The running binary as a path that works after its file was replaced, and
/// for a user who may not look into its directory. The descriptor behind it is
/// closed by exec.
fn own_binary() -> io::Result<OsString> {
    let file = fs::File::open("/proc/self/exe")?;
    let file = rustix::io::fcntl_dupfd_cloexec(file.as_fd(), OUT_OF_THE_WAY)?;
    Ok(format!("/proc/self/fd/{}", file.into_raw_fd()).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_to_a_socket_that_nothing_is_led_to_is_lost() {
        let v6 = IpAddr::from(Ipv6Addr::LOCALHOST);
        for (name, ip, to) in [("udp4", Ipv4Addr::UNSPECIFIED.into(), "127.128.0.1"), ("udp6", v6, "::1")] {
            let passed = bind_udp(name, ip).unwrap();
            let receiver = UdpSocket::from(passed.socket.try_clone().unwrap());
            receiver.set_nonblocking(true).unwrap();
            let sender = UdpSocket::bind((ip, 0)).unwrap();
            // Over the loopback it is there when it has been sent.
            let arrives =
                || sender.send_to(b"x", (to, passed.address.port())).and_then(|_| receiver.recv(&mut [0]));
            assert_eq!(arrives().unwrap(), 1, "{name}");
            deafen(std::slice::from_ref(&passed)).unwrap();
            assert_eq!(arrives().unwrap_err().kind(), io::ErrorKind::WouldBlock, "{name}");
        }
    }
}
