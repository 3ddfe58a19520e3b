//! The engine without privileges: a supervisor answers the system calls of one process tree that make connections
//! (`SECCOMP_RET_USER_NOTIF`, seccomp_unotify(2)), and connects in its place.
//!
//! It takes no policy decision: those are `waylay_core`'s, as the engine in memory (`waylay-engine`) carries them out. Nor does it start
//! anything: `waylay-host` does, and calls [`supervise`] between `fork` and the program. What it does is observation
//! and not enforcement: a program may get around it that wants to.

mod birthmark;
mod call;
mod caller;
mod connect;
mod engine;
mod filter;
mod flows;
mod given;
mod handles;
mod interrupted;
mod making;
mod names;
mod options;
mod pool;
mod probe;
mod program;
mod scout;
mod shared;
mod sight;
mod supervisor;
mod sys;
mod threads;
mod told;
mod udp;
mod ways;

use std::{io, os::fd::OwnedFd};

pub use caller::home_of;
pub use engine::{SeccompEngine, SeccompError};
pub use filter::{Datagrams, Part};
pub use flows::{Open, Path};
pub use probe::{Probe, probe};
pub use program::generation;
pub use supervisor::{Dialler, Watch};

/// Has this thread supervised from here on, and all that it starts, and for all that time by one filter. What it gives goes to the supervisor ([`SeccompEngine::watch`]):
/// until that watches, calls wait.
///
/// # Errors
/// [`io::ErrorKind::Unsupported`] on a machine whose system calls are not known; EACCES without `no_new_privs`
/// (<https://man7.org/linux/man-pages/man2/seccomp.2.html>).
pub fn supervise(part: Part, datagrams: Datagrams) -> io::Result<OwnedFd> {
    let program = filter::program(part, datagrams, probe::means()).ok_or(io::ErrorKind::Unsupported)?;
    sys::install(&program)
}
