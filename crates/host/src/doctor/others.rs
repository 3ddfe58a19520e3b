//! Programs of others that have a say on a run's connections.

use std::{io, path::PathBuf};

use waylay_engine_ebpf::{Hook, HookedProgram, hooked};

use crate::cgroup::{Cgroup, Line};

/// A program on the way from the root to a run, or on the caller's own cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Other {
    /// The cgroup it is attached to.
    pub cgroup: PathBuf,
    /// At which hook.
    pub hook: Hook,
    /// The program.
    pub program: HookedProgram,
    /// Whether it is that of another run of waylay, inside of which this process is.
    pub ours: bool,
    /// Whether it would hold for a run.
    pub relation: Relation,
}

/// Where a program is, seen from a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// Above it: the program holds for the command and for the services.
    Above,
    /// On the caller's own cgroup or above it, and not above a run, which would be placed outside of a
    /// subtree that is delegated to a user.
    Evaded,
}

/// What a program of others means for a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// It may drop packets: an egress sandbox, such as that of systemd's `IPAddressDeny=`.
    Sandbox,
    /// It sees, and may refuse or change, where connections go.
    Connections,
    /// It sees, and may refuse or change, where datagrams go.
    Datagrams,
    /// It may refuse sockets, or the addresses they are bound to.
    Sockets,
    /// It sees, and may change, what sockets answer.
    Answers,
}

impl Other {
    /// What it means for a run.
    #[must_use]
    pub fn meaning(&self) -> Meaning {
        match self.hook {
            Hook::InetIngress | Hook::InetEgress => Meaning::Sandbox,
            Hook::Inet4Connect | Hook::Inet6Connect => Meaning::Connections,
            Hook::Udp4Sendmsg | Hook::Udp6Sendmsg | Hook::Udp4Recvmsg | Hook::Udp6Recvmsg => {
                Meaning::Datagrams
            }
            Hook::InetSockCreate | Hook::InetSockRelease | Hook::Inet4Bind | Hook::Inet6Bind => {
                Meaning::Sockets
            }
            Hook::SockOps
            | Hook::Getsockopt
            | Hook::Setsockopt
            | Hook::Inet4Getpeername
            | Hook::Inet6Getpeername
            | Hook::Inet4Getsockname
            | Hook::Inet6Getsockname => Meaning::Answers,
        }
    }
}

pub(super) fn others(line: &Line) -> io::Result<Vec<Other>> {
    let above = line.to_place().iter().map(|cgroup| (cgroup, Relation::Above));
    let evaded = line.beyond_place().iter().map(|cgroup| (cgroup, Relation::Evaded));
    let mut others = Vec::new();
    for (cgroup, relation) in above.chain(evaded) {
        others.extend(on(cgroup, relation)?);
    }
    Ok(others)
}

fn on(cgroup: &Cgroup, relation: Relation) -> io::Result<Vec<Other>> {
    let is_of_a_run = cgroup.path().ancestors().any(super::runs::is_of_a_run);
    let mut others = Vec::new();
    for hooked in hooked(cgroup.path())? {
        for program in hooked.programs {
            let named_ours = program.name.as_ref().is_none_or(|name| name.starts_with("wl_"));
            let (cgroup, ours) = (cgroup.path().to_owned(), is_of_a_run && named_ours);
            others.push(Other { cgroup, hook: hooked.hook, program, ours, relation });
        }
    }
    Ok(others)
}
