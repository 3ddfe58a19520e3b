//! What a run without root needs: the supervisor's means.

use std::{fs, io};

use rustix::{io::Errno, thread::CapabilitySet};
use waylay_engine::{Capabilities, Engine};
use waylay_engine_seccomp::{Probe, probe};

use super::checks::{Check, Need, State, effective};
use crate::supervised::new_engine;

/// What Yama lets processes see of others: from 2 on, their children neither.
const PTRACE_SCOPE: &str = "/proc/sys/kernel/yama/ptrace_scope";
const ADMINISTRATORS_ONLY: u8 = 2;

pub(super) fn checks() -> Vec<Check> {
    let Probe { notifications, descriptors, memory } = probe();
    let [notifications, sole] = listener(notifications);
    [notifications, sole, sockets(descriptors), tried(Need::Memory, memory), tracing()].into()
}

pub(super) fn capabilities() -> Option<Capabilities> {
    new_engine().ok().map(|engine| engine.capabilities())
}

/// Where no descriptor may be copied, the supervisor makes the sockets: what takes filters that ask takes that too.
fn sockets(copying: io::Result<()>) -> Check {
    let instead = |error| format!("{error}; sockets are made in its place instead, and given to it");
    Check { need: Need::Descriptors, state: State::Fine, found: copying.err().map(instead) }
}

fn tried(need: Need, outcome: io::Result<()>) -> Check {
    let (state, found) = match outcome {
        Ok(()) => (State::Fine, None),
        Err(error) => (State::Missing, Some(error.to_string())),
    };
    Check { need, state, found }
}

fn listener(outcome: io::Result<()>) -> [Check; 2] {
    let is_taken =
        outcome.as_ref().is_err_and(|error| error.raw_os_error() == Some(Errno::BUSY.raw_os_error()));
    if is_taken {
        return [tried(Need::Notifications, Ok(())), tried(Need::SoleSupervisor, outcome)];
    }
    let state = if outcome.is_ok() { State::Fine } else { State::Unknown };
    let sole = Check { need: Need::SoleSupervisor, state, found: None };
    [tried(Need::Notifications, outcome), sole]
}

fn tracing() -> Check {
    let text = fs::read_to_string(PTRACE_SCOPE).ok();
    let scope = text.as_deref().and_then(|text| text.trim().parse::<u8>().ok());
    let is_open = scope.is_none_or(|scope| scope < ADMINISTRATORS_ONLY);
    let may_anyway = scope == Some(ADMINISTRATORS_ONLY) && effective().contains(CapabilitySet::SYS_PTRACE);
    let state = if is_open || may_anyway { State::Fine } else { State::Missing };
    Check { need: Need::Tracing, state, found: scope.map(|scope| scope.to_string()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_above_is_told_from_a_kernel_without_any() {
        let states = |number| {
            let [notifications, sole] = listener(Err(io::Error::from_raw_os_error(number)));
            (notifications.state, sole.state)
        };
        assert_eq!(states(libc::EBUSY), (State::Fine, State::Missing));
        assert_eq!(states(libc::ENOSYS), (State::Missing, State::Unknown));
        let [notifications, sole] = listener(Ok(()));
        assert_eq!((notifications.state, sole.state), (State::Fine, State::Fine));
    }
}
