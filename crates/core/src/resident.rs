//! Services that run already, whoever has started them, and what of what they dial is of a connection they were sent.
//!
//! A *resident* is known by its cgroup, and where others share that by what is its own besides: its executable, or its user. Those
//! others are *bystanders*. Where an engine is asked in that cgroup for the resident's sake only, it leaves nearly all of it alone: what
//! bystanders dial, and what the resident dials for itself or for clients of its own. The [`Errand`] tells the rest.
//!
//! Inside of the scope nobody is left alone. Bystanders are applications there, and a resident is a service like any other that sets no
//! records, whatever a leg is for: it excludes the resident and every earlier service. To tell a resident's own legs from
//! errands there would take a guess, and one wrong guess in favour of its own would lead a proxy's leg to the proxy, which dials for
//! that in turn, for ever. So a resident's own legs, and those for clients that are not of the scope, pass only the services after it.

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

/// Where an engine is asked about a leg. That follows from the cgroup in which the socket was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Asked {
    /// In the scope.
    InTheScope,
    /// Outside of it, where it is asked for a resident's sake only; with what the leg is for, if a resident dials it.
    ForAResident(Errand),
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

    /// Whether a leg that a process dials is any concern of the policy's; `within` as above.
    ///
    /// ```
    /// use waylay_core::{Asked, Errand, Mark, Process, Resident, Sphere};
    ///
    /// let proxy = Process { pid: 7, uid: 33, cgroup: 5, ..Process::default() };
    /// let resident = Resident { cgroup: 5, mark: Mark::Uid(33) };
    /// let outside = Asked::ForAResident;
    /// assert_eq!(resident.sphere(&proxy, true, outside(Errand::OfAFlow)), Sphere::Inside);
    /// assert_eq!(resident.sphere(&proxy, true, outside(Errand::OfItsOwn)), Sphere::Outside);
    /// let bystander = Process { uid: 0, ..proxy };
    /// assert_eq!(resident.sphere(&bystander, true, outside(Errand::OfAFlow)), Sphere::Outside);
    /// assert_eq!(resident.sphere(&bystander, true, Asked::InTheScope), Sphere::Inside);
    /// ```
    #[must_use]
    pub fn sphere(&self, process: &Process, within: bool, asked: Asked) -> Sphere {
        match asked {
            Asked::InTheScope => Sphere::Inside,
            Asked::ForAResident(errand) => match (self.recognises(process, within), errand) {
                (true, Errand::OfAFlow | Errand::Owed | Errand::ToItself) => Sphere::Inside,
                (true, Errand::OfItsOwn) | (false, _) => Sphere::Outside,
            },
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
    fn what_a_resident_dials_for_itself_is_no_concern_outside_of_the_scope() {
        let resident = Resident { cgroup: 5, mark: Mark::Cgroup };
        let sphere = |within, errand| resident.sphere(&proxy(), within, Asked::ForAResident(errand));
        assert_eq!(sphere(true, Errand::OfAFlow), Sphere::Inside);
        assert_eq!(sphere(true, Errand::Owed), Sphere::Inside);
        assert_eq!(sphere(true, Errand::ToItself), Sphere::Inside);
        assert_eq!(sphere(true, Errand::OfItsOwn), Sphere::Outside);
        assert_eq!(sphere(false, Errand::OfAFlow), Sphere::Outside);
    }

    #[test]
    fn within_the_scope_everybody_is_a_concern() {
        let resident = Resident { cgroup: 5, mark: Mark::Uid(33) };
        let bystander = Process { uid: 0, ..proxy() };
        for process in [proxy(), bystander] {
            assert_eq!(resident.sphere(&process, true, Asked::InTheScope), Sphere::Inside);
        }
    }
}
