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
/// Looks at a thread for one at the first of its process, which costs as much.
const LOOKS_FOR_A_STOP: u32 = 4;
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
    for look in 1.. {
        if wait.is_over() {
            return Err(first);
        }
        if !(owner.is_there)() {
            return Err(errno(libc::EINTR));
        }
        if has_signal(owner.tid, look) {
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
    Err(first)
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

/// Whether a thread goes on waiting for its answer, by so many looks: an error if it is gone or has to handle a signal, which interrupts a wait that has an end for good.
pub(crate) fn look(turn: &Turn<'_>, tid: u32, look: u32, has_end: bool) -> io::Result<()> {
    match (turn.is_waited_for(), has_signal(tid, look)) {
        (false, _) => Err(errno(libc::EINTR)),
        (true, true) => Err(errno(if has_end { libc::EINTR } else { RESTART })),
        (true, false) => Ok(()),
    }
}

/// Whether a thread will have to handle a signal once it has its answer, or to stop. Of those to a whole process, those that are another thread's to
/// handle are none.
fn has_signal(tid: u32, look: u32) -> bool {
    let Ok(own) = status_of(tid) else { return false };
    let is_of_interest = look.is_multiple_of(LOOKS_FOR_A_STOP) || set(&own, "ShdPnd:") != 0;
    let first = number(&own, "Tgid:").filter(|first| *first != tid);
    let first = first.map(|first| match is_of_interest {
        true => status_of(first).unwrap_or_default(),
        false => String::new(),
    });
    shows_signal(&own, first.as_deref()) || first.is_some_and(|first| shows_stop(&own, &first))
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

fn set(status: &str, name: &str) -> u64 {
    field(status, name).and_then(|text| u64::from_str_radix(text, 16).ok()).unwrap_or(0)
}

fn has_state(status: &str, state: char) -> bool {
    field(status, "State:").is_some_and(|shown| shown.starts_with(state))
}

/// `first` is of the first thread of its process, where it is not that itself.
fn shows_signal(own: &str, first: Option<&str>) -> bool {
    let pending = |name: &str| set(own, name) & !set(own, "SigBlk:") & !set(own, "SigIgn:");
    // The kernel gives those of a process to its first thread, if that can take them; of several others nobody knows to which.
    let taken = match (first, number(own, "Threads:")) {
        (None, _) | (Some(_), Some(1)) => u64::MAX,
        (Some(first), Some(2)) if has_state(first, 'Z') => u64::MAX,
        (Some(first), Some(2)) => set(first, "SigBlk:"),
        (Some(_), Some(_) | None) => 0,
    };
    pending("SigPnd:") | pending("ShdPnd:") & taken != 0
}

/// What has stopped the first thread stops all, and is shown by nothing of those that have yet to. Of one that is traced another decides.
fn shows_stop(own: &str, first: &str) -> bool {
    number(own, "TracerPid:") == Some(0) && has_state(first, 'T')
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    fn status(state: &str, threads: u32, tracer: u32, sets: [u64; 4]) -> String {
        let [own, shared, blocked, ignored] = sets;
        format!(
            "Name:\tT\nState:\t{state}\nTracerPid:\t{tracer}\nThreads:\t{threads}\nSigPnd:\t{own:016x}\nShdPnd:\t{shared:016x}\n\
             SigBlk:\t{blocked:016x}\nSigIgn:\t{ignored:016x}\n"
        )
    }

    #[test]
    fn signals_count_that_this_thread_will_handle() {
        let shared = [0, 0x2000, 0, 0];
        let first = |state: &str, blocked: u64| Some(status(state, 2, 0, [0, 0x2000, blocked, 0]));
        for (first, threads, sets, counts) in [
            (None, 1, [0, 0, 0, 0], false),
            (None, 1, [0x2000, 0, 0, 0], true),
            (None, 1, [0x2000, 0, 0x2000, 0], false),
            (None, 1, [0, 0x2000, 0, 0x2000], false),
            (None, 1, shared, true),
            (None, 3, shared, true),
            (first("S (sleeping)", 0), 2, shared, false),
            (first("S (sleeping)", 0x2000), 2, shared, true),
            (first("S (sleeping)", 0x2000), 2, [0, 0x2000, 0x2000, 0], false),
            (first("S (sleeping)", 0x2000), 3, shared, false),
            (first("Z (zombie)", 0), 2, shared, true),
            (first("Z (zombie)", 0), 3, shared, false),
            (first("S (sleeping)", 0), 3, [0x2000, 0, 0, 0], true),
        ] {
            let own = status("S (sleeping)", threads, 0, sets);
            assert_eq!(shows_signal(&own, first.as_deref()), counts, "{first:?} {threads} {sets:x?}");
        }
    }

    #[test]
    fn a_thread_stops_with_the_first_of_its_process_unless_it_is_traced() {
        for (tracer, state, is_stop) in [
            (0, "T (stopped)", true),
            (9, "T (stopped)", false),
            (0, "t (tracing stop)", false),
            (0, "S (sleeping)", false),
        ] {
            let [own, first] = [("S (sleeping)", tracer), (state, 0)]
                .map(|(state, tracer)| status(state, 2, tracer, [0; 4]));
            assert_eq!(shows_stop(&own, &first), is_stop, "{tracer} {state}");
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
