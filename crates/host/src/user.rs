//! Who runs as whom.

use std::{env, ffi::CString, io, path::PathBuf};

use nix::unistd::{Gid, Uid, User, getgrouplist};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The first uid of services, in the range no distribution assigns
/// (1,879,048,192 and up; systemd's "Users, Groups, UIDs and GIDs").
const FIRST_SERVICE_UID: u32 = 1_900_000_000;
/// Uids set aside for one run.
pub(crate) const UIDS_OF_A_RUN: u32 = 64;
/// Runs before the range is used again.
const RUNS: u32 = 1 << 20;

/// Credentials for a process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// Its home and name, for a person; services have none.
    pub person: Option<Person>,
}

/// The part of an identity that shows in the environment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Person {
    /// Login name.
    pub name: String,
    /// Home directory.
    pub home: PathBuf,
}

/// Why the command's user is not clear.
#[derive(Debug, Error)]
pub enum UserError {
    /// No such user.
    #[error("there is no user {name:?}")]
    Unknown {
        /// What was asked for.
        name: String,
    },
    /// The user database failed.
    #[error("cannot look up the user {name:?}")]
    Lookup {
        /// What was asked for.
        name: String,
        /// What the system said.
        source: io::Error,
    },
}

impl Identity {
    /// The person who typed the command: behind sudo, the one who called it.
    ///
    /// # Errors
    /// [`UserError`] if `--user` names nobody, or the user database fails.
    pub fn of_the_caller(user: Option<&str>) -> Result<Option<Self>, UserError> {
        match user {
            Some(name) => Self::named(name).map(Some),
            None => match env::var("SUDO_UID").ok().and_then(|uid| uid.parse().ok()) {
                Some(0) | None => Ok(None),
                Some(uid) => Self::with_uid(uid).map(Some),
            },
        }
    }

    /// One of its own for service number `index` of the run `run`: no groups, no home.
    #[must_use]
    pub fn of_a_service(run: u64, index: u32) -> Self {
        let uid = FIRST_SERVICE_UID + place_in_range(run) * UIDS_OF_A_RUN + index % UIDS_OF_A_RUN;
        Self { uid, gid: uid, groups: Vec::new(), person: None }
    }

    fn named(name: &str) -> Result<Self, UserError> {
        let found = User::from_name(name).map_err(|errno| lookup(name, errno))?;
        match found.or_else(|| name.parse().ok().and_then(|uid| User::from_uid(Uid::from_raw(uid)).ok()?)) {
            Some(user) => Self::of(&user),
            None => Err(UserError::Unknown { name: name.into() }),
        }
    }

    /// The person of that number, with all their groups.
    ///
    /// # Errors
    /// [`UserError`] if there is nobody, or the user database fails.
    pub fn with_uid(uid: u32) -> Result<Self, UserError> {
        let name = uid.to_string();
        match User::from_uid(Uid::from_raw(uid)).map_err(|errno| lookup(&name, errno))? {
            Some(user) => Self::of(&user),
            None => Err(UserError::Unknown { name }),
        }
    }

    fn of(user: &User) -> Result<Self, UserError> {
        let name = CString::new(user.name.clone())
            .map_err(|source| UserError::Lookup { name: user.name.clone(), source: source.into() })?;
        let groups = getgrouplist(&name, user.gid).map_err(|errno| lookup(&user.name, errno))?;
        Ok(Self {
            uid: user.uid.as_raw(),
            gid: user.gid.as_raw(),
            groups: groups.into_iter().map(Gid::as_raw).collect(),
            person: Some(Person { name: user.name.clone(), home: user.dir.clone() }),
        })
    }
}

/// Whether the services of two runs would have the same users.
pub(crate) fn share_users(one: u64, other: u64) -> bool {
    place_in_range(one) == place_in_range(other)
}

fn place_in_range(run: u64) -> u32 {
    u32::try_from(run % u64::from(RUNS)).unwrap_or(0)
}

fn lookup(name: &str, errno: nix::Error) -> UserError {
    UserError::Lookup { name: name.into(), source: errno.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_of_one_run_have_users_of_their_own() {
        let uids: std::collections::BTreeSet<u32> =
            (0..UIDS_OF_A_RUN).map(|index| Identity::of_a_service(u64::MAX, index).uid).collect();
        assert_eq!(uids.len(), 64);
        assert!(uids.iter().all(|uid| (FIRST_SERVICE_UID..1 << 31).contains(uid)));
    }

    #[test]
    fn root_is_known_by_name_and_by_number() {
        let by_name = Identity::named("root").unwrap();
        assert_eq!(by_name, Identity::named("0").unwrap());
        assert_eq!(by_name.person.unwrap().home, PathBuf::from("/root"));
    }

    #[test]
    fn an_unknown_user_is_named() {
        let error = Identity::named("nobody-by-that-name").unwrap_err();
        assert_eq!(error.to_string(), "there is no user \"nobody-by-that-name\"");
    }
}
