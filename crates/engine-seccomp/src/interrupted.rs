//! A connection that its caller waits for, unless a signal interrupts that.
//!
//! The caller waits for its answer where only a signal that ends it gets through (`SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV`), so that it is the supervisor
//! who looks whether there is one to be handled. Then it answers what the kernel itself says inside: what becomes of
//! that, EINTR or the same call again, is decided by the kernel as for every call (signal(7)).

use std::{
    fs, io,
    os::fd::BorrowedFd,
    thread,
    time::{Duration, Instant},
};

use rustix::{
    fs::OFlags,
    net::sockopt::{self, Timeout},
};

use crate::{
    call::{Named, errno, parse_address},
    pool::Turn,
    sys,
};

/// Between two looks.
pub(crate) const SLICE: Duration = Duration::from_millis(50);
/// As short as a wait can be: one of the kernel's ticks.
const MOMENT: Duration = Duration::from_micros(1);
/// `ERESTARTSYS` (linux/errno.h), which no program ever sees: there is a signal, before which it is replaced.
pub(crate) const RESTART: i32 = 512;

/// Whom a connection is made for.
pub(crate) struct Owner<'o> {
    pub(crate) tid: u32,
    /// Is told before it takes long, and may have it end there.
    pub(crate) waits: &'o dyn Fn() -> io::Result<()>,
    /// Whether it has not been killed meanwhile.
    pub(crate) is_there: &'o dyn Fn() -> bool,
}

/// connect(2) for a thread, which is interrupted by what would interrupt the thread's own.
pub(crate) fn connect(socket: BorrowedFd<'_>, address: &[u8], owner: &Owner<'_>) -> io::Result<()> {
    let blocks = || Ok::<_, io::Error>(!rustix::fs::fcntl_getfl(socket)?.contains(OFlags::NONBLOCK));
    let is_at_hand = is_at_hand(address);
    if !is_at_hand && !blocks()? {
        return sys::connect(socket, address);
    }
    let wait = Wait::begin(socket, is_at_hand, owner.waits)?;
    let first = match sys::connect(socket, address) {
        Err(error) if is_under_way(&error) && (!is_at_hand || blocks()?) => error,
        outcome => return outcome,
    };
    (owner.waits)()?;
    wait.take_time()?;
    loop {
        if wait.is_over() {
            return Err(first);
        }
        if !(owner.is_there)() {
            return Err(errno(libc::EINTR));
        }
        if has_signal(owner.tid) {
            // The kernel, too, interrupts a wait that has an end for good.
            return Err(errno(if wait.patience.is_some() { libc::EINTR } else { RESTART }));
        }
        match sys::connect(socket, address) {
            // Somebody else has it wait for nothing by now (fcntl(2)), which is not for a call that waits already.
            Err(error) if is_under_way(&error) && !blocks()? => thread::sleep(SLICE),
            Err(error) if is_under_way(&error) => {}
            outcome => return outcome,
        }
    }
}

/// Whether an address is of the loopback, which answers within the call unless too many wait there.
fn is_at_hand(address: &[u8]) -> bool {
    matches!(parse_address(address), Named::Ip(to) if to.ip().to_canonical().is_loopback())
}

fn is_under_way(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINPROGRESS | libc::EALREADY))
}

/// The time that a socket gives its connection (`SO_SNDTIMEO`), in slices.
struct Wait<'s> {
    socket: BorrowedFd<'s>,
    patience: Option<Duration>,
    /// Where there is an end to it.
    begun: Option<Instant>,
}

impl<'s> Wait<'s> {
    fn begin(
        socket: BorrowedFd<'s>,
        is_at_hand: bool,
        waits: impl Fn() -> io::Result<()>,
    ) -> io::Result<Self> {
        let patience = sockopt::socket_timeout(socket, Timeout::Send)?;
        let wait = Self { socket, patience, begun: patience.map(|_| Instant::now()) };
        if is_at_hand {
            sockopt::set_socket_timeout(socket, Timeout::Send, Some(MOMENT))?;
        } else {
            waits()?;
            wait.take_time()?;
        }
        Ok(wait)
    }

    fn take_time(&self) -> io::Result<()> {
        let slice = self.patience.map_or(SLICE, |patience| patience.min(SLICE));
        Ok(sockopt::set_socket_timeout(self.socket, Timeout::Send, Some(slice))?)
    }

    fn is_over(&self) -> bool {
        self.patience.zip(self.begun).is_some_and(|(patience, begun)| begun.elapsed() >= patience)
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        // As it was, which it took before.
        let _as_before = sockopt::set_socket_timeout(self.socket, Timeout::Send, self.patience);
    }
}

/// Whether a thread goes on waiting for its answer: an error if it is gone or has to handle a signal, which interrupts a wait that has an end for good.
pub(crate) fn look(turn: &Turn<'_>, tid: u32, has_end: bool) -> io::Result<()> {
    match (turn.is_waited_for(), has_signal(tid)) {
        (false, _) => Err(errno(libc::EINTR)),
        (true, true) => Err(errno(if has_end { libc::EINTR } else { RESTART })),
        (true, false) => Ok(()),
    }
}

/// Whether a thread will have to handle a signal once it has its answer, or to stop. Of those to a whole process, those that are another thread's to
/// handle are none.
fn has_signal(tid: u32) -> bool {
    status_of(tid).is_ok_and(|status| {
        shows_signal(&status, tid)
            || stops_with(&status, tid)
                .is_some_and(|first| status_of(first).is_ok_and(|first| shows_stop(&first)))
    })
}

fn status_of(tid: u32) -> io::Result<String> {
    fs::read_to_string(format!("/proc/{tid}/status"))
}

fn field<'s>(status: &'s str, name: &str) -> Option<&'s str> {
    status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

fn number(status: &str, name: &str) -> Option<u32> {
    field(status, name)?.parse().ok()
}

fn shows_signal(status: &str, tid: u32) -> bool {
    let set =
        |name: &str| field(status, name).and_then(|text| u64::from_str_radix(text, 16).ok()).unwrap_or(0);
    // The kernel gives those to the first thread, if that can take them.
    let is_first = number(status, "Tgid:") == Some(tid) || number(status, "Threads:") == Some(1);
    let shared = if is_first { set("ShdPnd:") } else { 0 };
    (set("SigPnd:") | shared) & !set("SigBlk:") & !set("SigIgn:") != 0
}

/// The first thread of the process: what has stopped that stops all, and is shown by nothing of those that have yet to. Of one that is traced another decides.
fn stops_with(status: &str, tid: u32) -> Option<u32> {
    let is_traced = number(status, "TracerPid:") != Some(0);
    number(status, "Tgid:").filter(|first| *first != tid && !is_traced)
}

fn shows_stop(status: &str) -> bool {
    field(status, "State:").is_some_and(|state| state.starts_with('T'))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    fn status(tgid: u32, threads: u32, sets: [u64; 4]) -> String {
        let [own, shared, blocked, ignored] = sets;
        format!(
            "Name:\tx\nTgid:\t{tgid}\nThreads:\t{threads}\nSigPnd:\t{own:016x}\nShdPnd:\t{shared:016x}\n\
             SigBlk:\t{blocked:016x}\nSigIgn:\t{ignored:016x}\n"
        )
    }

    #[test]
    fn signals_count_that_this_thread_will_handle() {
        for (tgid, threads, sets, counts) in [
            (7, 1, [0, 0, 0, 0], false),
            (7, 1, [0x2000, 0, 0, 0], true),
            (7, 1, [0x2000, 0, 0x2000, 0], false),
            (7, 1, [0, 0x2000, 0, 0x2000], false),
            (7, 1, [0, 0x2000, 0, 0], true),
            (7, 3, [0, 0x2000, 0, 0], true),
            (6, 3, [0, 0x2000, 0, 0], false),
            (6, 3, [0x2000, 0, 0, 0], true),
        ] {
            assert_eq!(shows_signal(&status(tgid, threads, sets), 7), counts, "{tgid} {threads} {sets:x?}");
        }
    }

    #[test]
    fn a_thread_stops_with_the_first_of_its_process_unless_it_is_traced() {
        let status = |tracer: u32| format!("State:\tS (sleeping)\nTgid:\t6\nTracerPid:\t{tracer}\n");
        assert_eq!([7, 6].map(|tid| stops_with(&status(0), tid)), [Some(6), None]);
        assert_eq!(stops_with(&status(9), 7), None);
        for (state, is_stop) in [("T (stopped)", true), ("t (tracing stop)", false), ("S (sleeping)", false)]
        {
            assert_eq!(shows_stop(&format!("Name:\tT\nState:\t{state}\n")), is_stop, "{state}");
        }
    }

    #[test]
    fn a_socket_keeps_the_patience_that_it_had() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        for patience in [None, Some(Duration::from_secs(3))] {
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
            socket.set_write_timeout(patience).unwrap();
            let address = crate::call::write_address(listener.local_addr().unwrap(), false);
            let owner = Owner { tid: std::process::id(), waits: &|| Ok(()), is_there: &|| true };
            connect(socket.as_fd(), &address, &owner).unwrap();
            assert_eq!(socket.write_timeout().unwrap(), patience);
        }
    }
}
