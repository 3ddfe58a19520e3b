//! Services that run already, whoever has started them, and what of what they dial is of a connection they were sent.
//!
//! A *resident* is known by its cgroup, and where others share that by what is its own besides: its executable, or its user. Those
//! others are *bystanders*. An engine is asked about what is dialled in that cgroup, and leaves nearly all of it alone: what bystanders
//! dial, and what the resident dials for itself or for clients of its own. The [`Errand`] tells the rest.

use crate::process::{FileId, Process};
use crate::world::Sphere;

/// A service that runs already, as an engine tells its processes from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Resident {
    /// Its cgroup; cgroups below it count.
    pub cgroup: u64,
    /// What else its processes have that no bystander has.
    pub mark: Mark,
}

/// By what a resident's processes are told from others in their cgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mark {
    /// By nothing: whoever is in the cgroup is of the service.
    Cgroup,
    /// They run this file.
    Exe(FileId),
    /// They run as this user.
    Uid(u32),
}

/// What a leg is dialled for, as far as an engine can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Errand {
    /// It goes where a connection that the resident was sent was going, or to the token of such a flow of datagrams.
    OfAFlow,
    /// It goes elsewhere, and the resident has been led more connections than it has dialled for.
    Owed,
    /// It goes to the resident's own listener while it has connections that it was sent: the beginning of a loop.
    ToItself,
    /// Anything else: it is the resident's own, or of a client that has found it by itself.
    OfItsOwn,
}

impl Resident {
    /// Whether a process is of the service; `within` says whether it is in the resident's cgroup or one below.
    #[must_use]
    pub fn recognises(&self, process: &Process, within: bool) -> bool {
        within
            && match self.mark {
                Mark::Cgroup => true,
                Mark::Exe(exe) => process.exe == exe,
                Mark::Uid(uid) => process.uid == uid,
            }
    }

    /// Whether a leg that is dialled in the resident's cgroup is any concern of the policy's.
    ///
    /// ```
    /// use waylay_core::{Errand, Mark, Process, Resident, Sphere};
    ///
    /// let proxy = Process { pid: 7, uid: 33, cgroup: 5, ..Process::default() };
    /// let resident = Resident { cgroup: 5, mark: Mark::Uid(33) };
    /// assert_eq!(resident.sphere(&proxy, true, Errand::OfAFlow), Sphere::Inside);
    /// assert_eq!(resident.sphere(&proxy, true, Errand::OfItsOwn), Sphere::Outside);
    /// let bystander = Process { uid: 0, ..proxy };
    /// assert_eq!(resident.sphere(&bystander, true, Errand::OfAFlow), Sphere::Outside);
    /// ```
    #[must_use]
    pub fn sphere(&self, process: &Process, within: bool, errand: Errand) -> Sphere {
        match (self.recognises(process, within), errand) {
            (true, Errand::OfAFlow | Errand::Owed | Errand::ToItself) => Sphere::Inside,
            (true, Errand::OfItsOwn) | (false, _) => Sphere::Outside,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXE: FileId = FileId { device: 1, inode: 2 };
    fn proxy() -> Process {
        Process { pid: 7, uid: 33, exe: EXE, cgroup: 5, ..Process::default() }
    }

    #[test]
    fn a_bystander_lacks_the_mark_and_a_stranger_is_elsewhere() {
        let other_file = Process { exe: FileId { device: 2, inode: 2 }, ..proxy() };
        let other_user = Process { uid: 34, ..proxy() };
        for (mark, bystander) in
            [(Mark::Cgroup, None), (Mark::Exe(EXE), Some(other_file)), (Mark::Uid(33), Some(other_user))]
        {
            let resident = Resident { cgroup: 5, mark };
            assert!(resident.recognises(&proxy(), true), "{mark:?}");
            assert!(!resident.recognises(&proxy(), false), "{mark:?}");
            assert!(bystander.is_none_or(|process| !resident.recognises(&process, true)), "{mark:?}");
        }
    }

    #[test]
    fn what_a_resident_dials_for_itself_is_no_concern() {
        let resident = Resident { cgroup: 5, mark: Mark::Cgroup };
        assert_eq!(resident.sphere(&proxy(), true, Errand::OfAFlow), Sphere::Inside);
        assert_eq!(resident.sphere(&proxy(), true, Errand::Owed), Sphere::Inside);
        assert_eq!(resident.sphere(&proxy(), true, Errand::ToItself), Sphere::Inside);
        assert_eq!(resident.sphere(&proxy(), true, Errand::OfItsOwn), Sphere::Outside);
        assert_eq!(resident.sphere(&proxy(), false, Errand::OfAFlow), Sphere::Outside);
    }
}
