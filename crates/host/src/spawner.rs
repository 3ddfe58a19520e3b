//! The thread that starts services' processes.
//!
//! They end with whoever has started them, which the kernel takes for the thread that has forked (`PR_SET_PDEATHSIG`,
//! prctl(2)), and who asks for a change may be on a thread that does not last.

use std::{
    io,
    process::{Child, Command},
    sync::mpsc::{self, Sender},
    thread,
};

/// Lasts as long as the services may.
pub(crate) struct Spawner(Sender<Order>);

struct Order {
    command: Command,
    outcome: Sender<io::Result<Child>>,
}

impl Spawner {
    pub(crate) fn start() -> Self {
        let (orders, received) = mpsc::channel::<Order>();
        thread::spawn(move || {
            for Order { mut command, outcome } in received {
                // Who has ordered it waits.
                let _taken = outcome.send(command.spawn());
            }
        });
        Self(orders)
    }

    pub(crate) fn spawn(&self, command: Command) -> io::Result<Child> {
        let (outcome, started) = mpsc::channel();
        let ended = || io::Error::from(io::ErrorKind::BrokenPipe);
        self.0.send(Order { command, outcome }).map_err(|_unsent| ended())?;
        started.recv().map_err(|_ended| ended())?
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::{CommandExt, ExitStatusExt};

    use super::*;

    /// What is started dies with the thread that started it.
    fn mortal() -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "sleep", "600"]).process_group(0);
        command
    }

    #[test]
    fn what_it_starts_outlives_who_asked_for_it_and_ends_with_it() {
        let spawner = Spawner::start();
        let mut child = thread::scope(|scope| {
            let asking = scope.spawn(|| spawner.spawn(mortal()));
            asking.join().unwrap().unwrap()
        });
        thread::sleep(std::time::Duration::from_millis(200));
        assert_eq!(child.try_wait().unwrap(), None);
        drop(spawner);
        assert_eq!(child.wait().unwrap().signal(), Some(9));
    }

    #[test]
    fn what_cannot_be_started_says_why() {
        let error = Spawner::start().spawn(Command::new("/nobody/is/here")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
