//! Which sockets of this host are open where, and whose they are.
//!
//! Only the network namespace of the calling thread is looked at.

use std::{collections::BTreeSet, fs, io, path::PathBuf};

use waylay_core::Protocol;
use waylay_diag::{Kernel, state};

pub(crate) use waylay_diag::Socket;

/// What is open to connections or datagrams of anybody.
pub(crate) fn listeners(protocol: Protocol) -> io::Result<Vec<Socket>> {
    dump(
        protocol,
        match protocol {
            Protocol::Tcp => 1 << state::LISTEN,
            Protocol::Udp => 1 << state::CLOSE,
        },
    )
}

/// TCP connections that processes have.
pub(crate) fn connections() -> io::Result<Vec<Socket>> {
    let mut sockets = every(Protocol::Tcp)?;
    sockets.retain(|socket| socket.inode != 0);
    Ok(sockets)
}

/// All that is connected to somebody or about to be, whoever has it.
pub(crate) fn every(protocol: Protocol) -> io::Result<Vec<Socket>> {
    const ALL: u32 = 0xfff;
    dump(protocol, ALL & !(1 << state::LISTEN | 1 << state::CLOSE | 1 << state::TIME_WAIT))
}

/// UDP sockets that have a port.
pub(crate) fn of_datagrams() -> io::Result<Vec<Socket>> {
    dump(Protocol::Udp, 1 << state::ESTABLISHED | 1 << state::CLOSE)
}

/// UDP sockets that are connected to somebody.
pub(crate) fn associations() -> io::Result<Vec<Socket>> {
    dump(Protocol::Udp, 1 << state::ESTABLISHED)
}

/// Ends a connection, as [`Kernel::destroy`] says.
pub(crate) fn destroy(protocol: Protocol, socket: &Socket) -> io::Result<()> {
    Kernel::open()?.destroy(number(protocol), socket)
}

fn dump(protocol: Protocol, states: u32) -> io::Result<Vec<Socket>> {
    Kernel::open()?.dump(number(protocol), states)
}

const fn number(protocol: Protocol) -> i32 {
    match protocol {
        Protocol::Tcp => libc::IPPROTO_TCP,
        Protocol::Udp => libc::IPPROTO_UDP,
    }
}

/// The process that has it, in words; `None` if it has none, or one that cannot be looked at.
pub(crate) fn holder(socket: &Socket) -> Option<String> {
    let link = format!("socket:[{}]", socket.inode);
    let processes = fs::read_dir("/proc").ok()?.flatten();
    // Not `self` and the like, which are processes too.
    let numbered = |entry: &fs::DirEntry| entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit);
    let holds = |process: &fs::DirEntry| {
        let descriptors = fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten();
        descriptors
            .filter_map(|descriptor| fs::read_link(descriptor.path()).ok())
            .any(|target| target.as_os_str() == link.as_str())
    };
    let process = processes.into_iter().filter(numbered).find(holds)?;
    let name = fs::read_to_string(process.path().join("comm")).ok()?;
    Some(format!("{}[{}]", name.trim().escape_debug(), process.file_name().display()))
}

/// The processes of a session, by their folders in /proc.
fn members_of(leader: u32) -> impl Iterator<Item = PathBuf> {
    let leader = leader.to_string();
    let is_member = move |process: &PathBuf| {
        let stat = fs::read_to_string(process.join("stat")).unwrap_or_default();
        // Field 6 of proc_pid_stat(5), which the name comes before.
        stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(3)) == Some(&*leader)
    };
    fs::read_dir("/proc").into_iter().flatten().flatten().map(|entry| entry.path()).filter(is_member)
}

/// The processes of a session.
pub(crate) fn processes_of_session(leader: u32) -> Vec<u32> {
    members_of(leader).filter_map(|process| process.file_name()?.to_str()?.parse().ok()).collect()
}

/// Sockets that processes of a session have, by their inodes: as far as these may be looked at.
pub(crate) fn of_session(leader: u32) -> BTreeSet<u32> {
    let descriptors = members_of(leader).flat_map(|process| {
        fs::read_dir(process.join("fd")).into_iter().flatten().flatten().map(|entry| entry.path())
    });
    let links = descriptors.filter_map(|descriptor| fs::read_link(descriptor).ok());
    links
        .filter_map(|link| link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use std::{
        net::{SocketAddr, TcpListener, TcpStream},
        os::fd::OwnedFd,
        process::Command,
        thread,
        time::{Duration, Instant},
    };

    use super::*;

    fn find(sockets: Vec<Socket>, address: SocketAddr) -> Option<Socket> {
        sockets.into_iter().find(|socket| socket.local == address)
    }

    #[test]
    fn a_listener_is_found_with_its_holder_and_what_waits_for_it() {
        for any in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(any).unwrap();
            let address = listener.local_addr().unwrap();
            let _waits = TcpStream::connect(address).unwrap();
            let found = find(listeners(Protocol::Tcp).unwrap(), address).unwrap();
            assert_eq!(found.waiting, 1);
            assert_ne!(found.cgroup, 0);
            let holder = holder(&found).unwrap();
            assert!(holder.ends_with(&format!("[{}]", std::process::id())), "{holder}");
            drop(listener);
            assert_eq!(find(listeners(Protocol::Tcp).unwrap(), address), None);
        }
    }

    #[test]
    fn the_sockets_of_a_session_are_those_of_its_processes() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let inode = find(listeners(Protocol::Tcp).unwrap(), listener.local_addr().unwrap()).unwrap().inode;
        // Its own session may be one of outside of the PID namespace, which has no number here.
        let mut member = Command::new("setsid");
        let mut member = member.args(["sleep", "60"]).stdin(OwnedFd::from(listener)).spawn().unwrap();
        let session = member.id();
        let deadline = Instant::now() + Duration::from_secs(10);
        while processes_of_session(session) != [session] {
            assert!(Instant::now() < deadline, "no session {session}");
            thread::sleep(Duration::from_millis(5));
        }
        assert!(of_session(session).contains(&inode));
        assert!(of_session(u32::MAX).is_empty());
        member.kill().unwrap();
        member.wait().unwrap();
        assert!(!of_session(session).contains(&inode));
    }

    #[test]
    fn connections_are_those_that_a_process_has() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let _client = TcpStream::connect(address).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        assert!(find(connections().unwrap(), address).is_some());
        drop(accepted);
        assert_eq!(find(connections().unwrap(), address), None);
    }
}
