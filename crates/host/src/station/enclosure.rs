//! Cgroups for the commands of those who ask a station to have them inspected.
//!
//! One is made below the cgroup of whoever asks, so that what limits them limits the command too, and belongs to root, so
//! that nobody else can move processes into it or out of it. It is inside of the station's scope, and filters can name it.

use std::{fs, io, path::PathBuf};

use rustix::{
    event::{PollFd, PollFlags, Timespec},
    process::{Pid, PidfdFlags, pidfd_open},
};
use thiserror::Error;

use super::Station;
use crate::{
    assignment::Ground,
    cgroup::{Cgroup, CgroupError},
    error::RunError,
};

/// As many cgroups of an application as filters are asked about, from the root down.
const DEEPEST: u32 = 11;

/// A cgroup for a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enclosure {
    cgroup: Cgroup,
    /// Whom it was made for.
    uid: u32,
    /// Where they are.
    place: Cgroup,
}

/// Why there is no such cgroup, or somebody does not come into it.
#[derive(Debug, Error)]
pub enum EnclosureError {
    /// The station stands on a cgroup of its own.
    #[error("there are no clients here")]
    NoClients,
    /// What whoever asks does is none of the station's business.
    #[error("{} is outside of the scope {}", place.display(), scope.display())]
    OutsideOfScope {
        /// Where the process is.
        place: PathBuf,
        /// The scope.
        scope: PathBuf,
    },
    /// It is a service that asks.
    #[error("a service cannot have commands inspected")]
    OfAService,
    /// Filters could not name it.
    #[error("{} is too deep in the hierarchy: filters know {DEEPEST} cgroups below the root", place.display())]
    TooDeep {
        /// Where the process is.
        place: PathBuf,
    },
    /// It is another user's, or was started with the rights of one.
    #[error("process {pid} is not altogether of the user {uid}")]
    OfAnotherUser {
        /// The process.
        pid: u32,
        /// For whom the cgroup was made.
        uid: u32,
    },
    /// Other limits may hold where it is.
    #[error("process {pid} is in {}, and whoever asked was in {}", place.display(), asked.display())]
    FromElsewhere {
        /// The process.
        pid: u32,
        /// Where it is.
        place: PathBuf,
        /// Where it would have to be.
        asked: PathBuf,
    },
    /// It cannot be looked at.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// It has ended, or cannot be moved.
    #[error("process {pid} cannot be moved into the cgroup")]
    Move {
        /// The process.
        pid: u32,
        /// What the kernel said.
        source: io::Error,
    },
}

impl Enclosure {
    /// Its directory.
    #[must_use]
    pub fn cgroup(&self) -> &Cgroup {
        &self.cgroup
    }
}

impl Station {
    /// Makes a cgroup for a command of this user, below that of the process that asks.
    ///
    /// # Errors
    /// [`RunError::Enclosure`]; nothing is made then.
    pub fn enclose(&mut self, pid: u32, uid: u32) -> Result<Enclosure, RunError> {
        let Ground::Existing(scope) = &self.spec.ground else { return Err(EnclosureError::NoClients.into()) };
        see_whose(pid, uid)?;
        let place = place_of(pid)?;
        let here = || place.path().to_owned();
        if !place.path().starts_with(scope.path()) {
            let scope = scope.path().to_owned();
            return Err(EnclosureError::OutsideOfScope { place: here(), scope }.into());
        }
        if place.path().starts_with(self.cgroup().path()) {
            return Err(EnclosureError::OfAService.into());
        }
        if place.level() + 1 > DEEPEST {
            return Err(EnclosureError::TooDeep { place: here() }.into());
        }
        let cgroup = self.place.enclose(&place)?;
        Ok(Enclosure { cgroup, uid, place })
    }

    /// Moves a process into one: of the user for whom it was made, and from where that one has asked.
    ///
    /// # Errors
    /// [`RunError::Enclosure`].
    pub fn admit(&self, enclosure: &Enclosure, pid: u32) -> Result<(), RunError> {
        let failed = |source: io::Error| EnclosureError::Move { pid, source };
        let number = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let number = number.ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
        let held = pidfd_open(number, PidfdFlags::empty()).map_err(|errno| failed(errno.into()))?;
        see_whose(pid, enclosure.uid)?;
        let place = place_of(pid)?;
        if place != enclosure.place {
            let (place, asked) = (place.path().to_owned(), enclosure.place.path().to_owned());
            return Err(EnclosureError::FromElsewhere { pid, place, asked }.into());
        }
        fs::write(enclosure.cgroup.path().join("cgroup.procs"), pid.to_string()).map_err(failed)?;
        // If it has ended meanwhile, its number may be another's.
        let mut fds = [PollFd::new(&held, PollFlags::IN)];
        let ended = rustix::event::poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
        match ended {
            Ok(0) => Ok(()),
            Ok(_) => Err(failed(io::ErrorKind::NotFound.into()).into()),
            Err(errno) => Err(failed(errno.into()).into()),
        }
    }

    /// Ends all who are in one and removes it.
    pub fn dissolve(&mut self, enclosure: &Enclosure) {
        self.place.dissolve(&enclosure.cgroup);
    }
}

/// A cgroup that nobody but root has a say in, at or above that of a process.
fn place_of(pid: u32) -> Result<Cgroup, EnclosureError> {
    Ok(Cgroup::line_of(pid)?.place().clone())
}

/// A program with the set-user-ID bit is not its user's to move about.
fn see_whose(pid: u32, uid: u32) -> Result<(), EnclosureError> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))
        .map_err(|source| EnclosureError::Move { pid, source })?;
    let uids = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap_or_default();
    let mut uids = uids.split_whitespace().peekable();
    let is_of_the_user = uids.peek().is_some() && uids.all(|own| own.parse() == Ok(uid));
    if is_of_the_user { Ok(()) } else { Err(EnclosureError::OfAnotherUser { pid, uid }) }
}
