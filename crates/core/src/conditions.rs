//! What a filter asks of a leg: a conjunction of optional conditions.

use crate::address::{PortRange, Prefix};
use crate::leg::{Facts, Flags, Protocol};
use crate::process::{FileId, Process};

/// What must hold for a filter to match. An absent condition always holds.
///
/// `exe`, `uid` and `cgroup` are asked of the *original application*: they follow the chain through the services.
/// `via_exe` is asked of the process that dials this very leg.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conditions {
    /// The transport protocol.
    pub protocol: Option<Protocol>,
    /// A prefix the original destination lies in.
    pub remote: Option<Prefix>,
    /// A range the original destination's port lies in.
    pub remote_ports: Option<PortRange>,
    /// The original application's executable.
    pub exe: Option<FileId>,
    /// The original application's user.
    pub uid: Option<u32>,
    /// The original application's cgroup, exactly (not its descendants).
    pub cgroup: Option<u64>,
    /// The executable of the process that dials this leg.
    pub via_exe: Option<FileId>,
}

impl Conditions {
    /// Whether all of them hold.
    #[must_use]
    pub fn match_facts(&self, facts: &Facts) -> bool {
        holds(self.protocol, |protocol| protocol == facts.protocol)
            && holds(self.remote, |prefix| prefix.covers(facts.remote))
            && holds(self.remote_ports, |ports| ports.covers(facts.remote_port))
            && holds(self.exe, |exe| exe == facts.exe)
            && holds(self.uid, |uid| uid == facts.uid)
            && holds(self.cgroup, |cgroup| cgroup == facts.cgroup)
            && holds(self.via_exe, |exe| exe == facts.via_exe)
    }

    /// Whether those about the application hold of a process that acts for itself, whatever the others ask.
    #[must_use]
    pub fn match_application(&self, process: &Process) -> bool {
        holds(self.exe, |exe| exe == process.exe)
            && holds(self.uid, |uid| uid == process.uid)
            && holds(self.cgroup, |cgroup| cgroup == process.cgroup)
            && holds(self.via_exe, |exe| exe == process.exe)
    }
}

/// Conditions on what the redirect layer has made of a leg; only the auth layer can ask them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlagConditions {
    /// The leg will go to a service.
    pub redirected: Option<bool>,
    /// The leg comes from a service.
    pub proxied: Option<bool>,
}

impl FlagConditions {
    /// Whether both of them hold.
    #[must_use]
    pub fn match_flags(self, flags: Flags) -> bool {
        holds(self.redirected, |redirected| redirected == flags.redirected)
            && holds(self.proxied, |proxied| proxied == flags.proxied)
    }
}

fn holds<T>(condition: Option<T>, test: impl FnOnce(T) -> bool) -> bool {
    condition.is_none_or(test)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::normal_form;

    fn prefix(address: &str, length: u8) -> Prefix {
        Prefix::new(address.parse().unwrap(), length).unwrap()
    }

    #[test]
    fn every_condition_can_fail_alone() {
        let facts = Facts {
            protocol: Protocol::Tcp,
            remote: normal_form("192.0.2.1".parse().unwrap()),
            remote_port: 443,
            exe: FileId { device: 1, inode: 2 },
            uid: 1000,
            cgroup: 7,
            via_exe: FileId { device: 1, inode: 3 },
        };
        let matching = Conditions {
            protocol: Some(Protocol::Tcp),
            remote: Some(prefix("192.0.2.0", 24)),
            remote_ports: Some(PortRange::single(443)),
            exe: Some(facts.exe),
            uid: Some(1000),
            cgroup: Some(7),
            via_exe: Some(facts.via_exe),
        };
        assert!(matching.match_facts(&facts));
        assert!(Conditions::default().match_facts(&facts));
        let failing = [
            Conditions { protocol: Some(Protocol::Udp), ..matching.clone() },
            Conditions { remote: Some(prefix("198.51.100.0", 24)), ..matching.clone() },
            Conditions { remote_ports: Some(PortRange::single(80)), ..matching.clone() },
            Conditions { exe: Some(FileId { device: 2, inode: 2 }), ..matching.clone() },
            Conditions { uid: Some(0), ..matching.clone() },
            Conditions { cgroup: Some(8), ..matching.clone() },
            Conditions { via_exe: Some(facts.exe), ..matching.clone() },
        ];
        for conditions in failing {
            assert!(!conditions.match_facts(&facts), "{conditions:?}");
        }
    }
}
