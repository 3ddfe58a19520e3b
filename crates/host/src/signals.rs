//! Signals to waylay while a command runs: the command's, not ours.

use std::thread;

use rustix::process::{Pid, Signal, kill_process};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2},
    iterator::{Handle, SignalsInfo, exfiltrator::origin::WithOrigin},
    low_level::siginfo::{Cause, Origin},
};

const FORWARDED: [i32; 6] = [SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2];

/// Passes signals on to the command until it is dropped.
#[derive(Debug)]
pub(crate) struct Forwarder {
    handle: Handle,
}

impl Forwarder {
    pub(crate) fn to(command: u32) -> std::io::Result<Self> {
        let mut signals = SignalsInfo::<WithOrigin>::new(FORWARDED)?;
        let handle = signals.handle();
        thread::spawn(move || {
            for origin in signals.forever() {
                forward(command, &origin);
            }
        });
        Ok(Self { handle })
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.handle.close();
    }
}

/// What the terminal sends reaches the command without us: it is in the same
/// foreground group. What somebody sent to this process alone is passed on.
fn forward(command: u32, origin: &Origin) {
    if matches!(origin.cause, Cause::Kernel) {
        return;
    }
    let pid = i32::try_from(command).ok().and_then(Pid::from_raw);
    if let (Some(pid), Some(signal)) = (pid, Signal::from_named_raw(origin.signal)) {
        let _gone_already = kill_process(pid, signal);
    }
}
