//! Services that run already: by what they are known, and where that leads on this host.
//!
//! Nothing is changed here: cgroups, processes and sockets are looked at, by `/proc` and sock_diag(7).

use std::{
    collections::BTreeSet,
    fmt, fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    str::FromStr,
};

use nix::unistd::User;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use waylay_core::{Mark, Protocol, Resident};
use waylay_engine_ebpf::Residence;

use crate::{
    adopted::{A_TOKEN, reached_by, taking},
    cgroup::{Cgroup, Line},
    launch::Listening,
    processes::{self, Running},
    sockets::{self, Socket},
    spec::Transports,
};

/// By what a service is known that runs already.
///
/// ```
/// use waylay_host::KnownBy;
///
/// let known_by: KnownBy = "unit=haproxy.service".parse()?;
/// assert_eq!(known_by, KnownBy::Unit("haproxy.service".into()));
/// assert_eq!(known_by.to_string(), "unit=haproxy.service");
/// # Ok::<(), waylay_host::KnownByError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum KnownBy {
    /// The systemd unit that it is: all processes in the unit's cgroup.
    Unit(String),
    /// Its cgroup, with those below: a path in the hierarchy, or the directory.
    Cgroup(PathBuf),
    /// Its executable: the processes that run this file, in one cgroup.
    Exe(PathBuf),
    /// Its user: the processes that run as this one, in one cgroup.
    Uid(u32),
}

/// Why words do not say by what a service is known.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum KnownByError {
    /// No such way.
    #[error(
        "{0:?}: a service that runs already is known by unit=, cgroup=, exe= or uid=, as in unit=haproxy.service"
    )]
    NoSuchWay(String),
    /// Nothing after the equals sign.
    #[error("{0}= needs a value")]
    Empty(String),
    /// A relative path, which means another thing in every directory.
    #[error("{0}: a path has to begin with a slash")]
    Relative(String),
    /// A name of a unit with a slash in it.
    #[error("{0:?} is not the name of a unit")]
    NoUnitName(String),
    /// Neither a number nor a user's name.
    #[error("there is no user {0:?}")]
    NoSuchUser(String),
}

/// Why a service that runs already cannot be adopted.
#[derive(Debug, Error)]
pub enum ResidentError {
    /// No cgroup is called so.
    #[error("no cgroup is called {unit}: there is no such unit, or it is not running (yet)")]
    NoUnit {
        /// The unit.
        unit: String,
    },
    /// Several are.
    #[error("several cgroups are called {unit}: {}; name one, as in cgroup={}", list(cgroups), cgroups.first().map(|path| path.display().to_string()).unwrap_or_default())]
    SeveralUnits {
        /// The unit.
        unit: String,
        /// The cgroups, as in `/proc/PID/cgroup`.
        cgroups: Vec<PathBuf>,
    },
    /// It is not there.
    #[error("there is no cgroup {}", cgroup.display())]
    NoCgroup {
        /// The path.
        cgroup: PathBuf,
    },
    /// The executable is not there.
    #[error("there is no file {}", exe.display())]
    NoFile {
        /// The path.
        exe: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The listener.
    #[error("nobody listens on {address}; a service that runs already has to, before it can be adopted")]
    NobodyListens {
        /// Where.
        address: SocketAddr,
    },
    /// The listener is somebody else's.
    #[error("{known_by} does not listen on {address}, where {who} does")]
    SomebodyElse {
        /// By what the service should be known.
        known_by: KnownBy,
        /// Where.
        address: SocketAddr,
        /// Who it is: processes, and the cgroup of each.
        who: String,
    },
    /// The programs are attached to one.
    #[error("{known_by} is in several cgroups: {}; name it by its unit or its cgroup", list(cgroups))]
    SeveralCgroups {
        /// By what the service is known.
        known_by: KnownBy,
        /// The cgroups.
        cgroups: Vec<PathBuf>,
    },
    /// What is attached there would hold for every process of the host, or for waylay and the command.
    #[error(
        "{} is {}, so that what is attached there would hold for far more than {known_by}; start it in a cgroup of its own (systemd does, and so does systemd-run --scope)",
        cgroup.display(),
        if *is_root { "the root of all cgroups" } else { "around this process's own cgroup" }
    )]
    TooWide {
        /// By what the service is known.
        known_by: KnownBy,
        /// The cgroup in which it is or in which its listener was made.
        cgroup: PathBuf,
        /// Whether it is the root.
        is_root: bool,
    },
    /// The cgroup in which the listener was made is gone or out of sight.
    #[error("the listener on {address} was made in a cgroup that is not there (any more)")]
    ListenerFromNowhere {
        /// Where it listens.
        address: SocketAddr,
    },
    /// What is to be looked at cannot be.
    #[error("cannot look at this host's sockets and processes")]
    Look(#[from] io::Error),
}

impl ResidentError {
    /// Whether it may only not be there yet.
    #[must_use]
    pub const fn is_absence(&self) -> bool {
        match self {
            Self::NoUnit { .. }
            | Self::NoCgroup { .. }
            | Self::NoFile { .. }
            | Self::NobodyListens { .. } => true,
            Self::SeveralUnits { .. }
            | Self::SomebodyElse { .. }
            | Self::SeveralCgroups { .. }
            | Self::TooWide { .. }
            | Self::ListenerFromNowhere { .. }
            | Self::Look(_) => false,
        }
    }
}

/// A service that runs already, found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Where the programs are attached, and whom they recognise there.
    pub residence: Residence,
    /// The cgroup in which its listeners were made.
    pub listener_cgroup: u64,
    pub(crate) listening: Listening,
}

impl KnownBy {
    /// What a service is called that is known by this.
    #[must_use]
    pub fn stem(&self) -> String {
        let last = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
        match self {
            Self::Unit(unit) => unit.rsplit_once('.').map_or(unit.as_str(), |(name, _)| name).to_owned(),
            Self::Cgroup(path) | Self::Exe(path) => last(path).unwrap_or_default(),
            Self::Uid(uid) => format!("uid-{uid}"),
        }
    }

    /// Finds the service: who listens at these addresses and is known by this.
    ///
    /// # Errors
    /// [`ResidentError`].
    pub fn find(
        &self,
        listens: &[SocketAddr],
        transports: Transports,
        line: &Line,
    ) -> Result<Found, ResidentError> {
        let search = Search { known_by: self, listens, transports, line };
        search.find()
    }

    /// Whether a process is of it, in whichever cgroup that is.
    pub(crate) fn is_mark_of(&self, process: &Running) -> bool {
        match self {
            Self::Unit(_) | Self::Cgroup(_) => true,
            Self::Exe(exe) => processes::file_id(exe, process.pid).is_ok_and(|id| process.exe == Some(id)),
            Self::Uid(uid) => process.uid == Some(*uid),
        }
    }
}

impl FromStr for KnownBy {
    type Err = KnownByError;

    fn from_str(text: &str) -> Result<Self, KnownByError> {
        let no_such_way = || KnownByError::NoSuchWay(text.to_owned());
        let (way, value) = text.split_once('=').ok_or_else(no_such_way)?;
        let path = || match value.starts_with('/') {
            true => Ok(PathBuf::from(value)),
            false => Err(KnownByError::Relative(value.to_owned())),
        };
        match way {
            "unit" | "cgroup" | "exe" | "uid" if value.is_empty() => Err(KnownByError::Empty(way.to_owned())),
            "unit" => unit(value).map(Self::Unit),
            "cgroup" => path().map(Self::Cgroup),
            "exe" => path().map(Self::Exe),
            "uid" => uid(value).map(Self::Uid),
            _ => Err(no_such_way()),
        }
    }
}

impl fmt::Display for KnownBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unit(unit) => write!(f, "unit={unit}"),
            Self::Cgroup(path) => write!(f, "cgroup={}", path.display()),
            Self::Exe(path) => write!(f, "exe={}", path.display()),
            Self::Uid(uid) => write!(f, "uid={uid}"),
        }
    }
}

/// As systemctl(1) has it, a name without a kind is a service's.
fn unit(name: &str) -> Result<String, KnownByError> {
    if name.contains('/') || name.starts_with('.') {
        return Err(KnownByError::NoUnitName(name.to_owned()));
    }
    Ok(if name.contains('.') { name.to_owned() } else { format!("{name}.service") })
}

fn uid(name: &str) -> Result<u32, KnownByError> {
    if let Ok(uid) = name.parse() {
        return Ok(uid);
    }
    match User::from_name(name) {
        Ok(Some(user)) => Ok(user.uid.as_raw()),
        Ok(None) | Err(_) => Err(KnownByError::NoSuchUser(name.to_owned())),
    }
}

fn list(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

struct Search<'s> {
    known_by: &'s KnownBy,
    listens: &'s [SocketAddr],
    transports: Transports,
    line: &'s Line,
}

impl Search<'_> {
    fn find(&self) -> Result<Found, ResidentError> {
        let named = self.named_cgroup()?;
        if let KnownBy::Exe(exe) = self.known_by
            && let Err(source) = fs::metadata(exe)
        {
            return Err(ResidentError::NoFile { exe: exe.clone(), source });
        }
        let sockets = self.sockets()?;
        let owners = self.owners(&sockets, named.as_ref())?;
        let cgroup = match named {
            Some(cgroup) => cgroup,
            None => self.only_cgroup(&owners)?,
        };
        let made_in = self.made_in(&sockets)?;
        let hooked = apart(&cgroup, &made_in);
        hooked.iter().try_for_each(|cgroup| self.check_width(cgroup))?;
        let mark = self.mark(&owners);
        Ok(Found {
            residence: Residence {
                resident: Resident { cgroup: cgroup.id()?, mark },
                level: cgroup.level(),
                hooked: hooked.iter().map(|cgroup| cgroup.path().to_owned()).collect(),
            },
            listener_cgroup: made_in.id()?,
            listening: self.listening(&sockets),
        })
    }

    fn root(&self) -> &Cgroup {
        self.line.root()
    }

    /// The cgroup that the words name, if they name one.
    fn named_cgroup(&self) -> Result<Option<Cgroup>, ResidentError> {
        match self.known_by {
            KnownBy::Unit(unit) => match &self.root().all_called(unit)[..] {
                [] => Err(ResidentError::NoUnit { unit: unit.clone() }),
                [one] => Ok(Some(one.clone())),
                several => Err(ResidentError::SeveralUnits {
                    unit: unit.clone(),
                    cgroups: several.iter().map(|cgroup| self.shown(cgroup)).collect(),
                }),
            },
            KnownBy::Cgroup(path) => match self.root().at(path).filter(|cgroup| cgroup.path().is_dir()) {
                Some(cgroup) => Ok(Some(cgroup)),
                None => Err(ResidentError::NoCgroup { cgroup: path.clone() }),
            },
            KnownBy::Exe(_) | KnownBy::Uid(_) => Ok(None),
        }
    }

    /// As `/proc/PID/cgroup` has it.
    fn shown(&self, cgroup: &Cgroup) -> PathBuf {
        let below = cgroup.path().strip_prefix(self.root().path()).unwrap_or(cgroup.path());
        Path::new("/").join(below)
    }

    /// Every socket at which what is sent to the service arrives: several, if they share a port.
    fn sockets(&self) -> Result<Sockets, ResidentError> {
        let mut found = Sockets::default();
        if self.transports.include_tcp() {
            let all = sockets::listeners(Protocol::Tcp)?;
            for &address in self.listens {
                let takes = all.iter().filter(|socket| socket.takes(reached_by(address)));
                found.tcp.extend(takes.map(|socket| (address, socket.clone())));
                if taking(&all, address).is_none() {
                    return Err(ResidentError::NobodyListens { address });
                }
            }
        }
        if self.transports.include_udp() {
            let all = sockets::listeners(Protocol::Udp)?;
            for &address in self.listens {
                let takes = all.iter().filter(|socket| socket.takes((A_TOKEN, address.port()).into()));
                found.udp.extend(takes.map(|socket| (address, socket.clone())));
            }
            if let (true, Some(&address)) = (found.udp.is_empty(), self.listens.first()) {
                return Err(ResidentError::NobodyListens { address });
            }
        }
        Ok(found)
    }

    /// Those of the service who hold its listeners.
    fn owners(&self, sockets: &Sockets, named: Option<&Cgroup>) -> Result<Vec<Running>, ResidentError> {
        let mut owners = Vec::new();
        for &address in self.listens {
            let inodes: BTreeSet<u32> = sockets.at(address).map(|socket| socket.inode).collect();
            if inodes.is_empty() {
                continue;
            }
            let (own, others): (Vec<_>, Vec<_>) = processes::holding(&inodes)
                .into_iter()
                .partition(|holder| self.is_of_the_service(holder, named));
            if own.is_empty() {
                let who = self.in_words(&others);
                return Err(ResidentError::SomebodyElse { known_by: self.known_by.clone(), address, who });
            }
            owners.extend(own);
        }
        Ok(owners)
    }

    fn is_of_the_service(&self, process: &Running, named: Option<&Cgroup>) -> bool {
        let place = process.cgroup.as_deref().and_then(|path| self.root().at(path));
        let is_within =
            |cgroup: &Cgroup| place.as_ref().is_some_and(|place| place.path().starts_with(cgroup.path()));
        named.is_none_or(is_within) && self.known_by.is_mark_of(process)
    }

    fn in_words(&self, processes: &[Running]) -> String {
        let one = |process: &Running| {
            let cgroup = process.cgroup.as_deref().unwrap_or(Path::new("?")).display();
            let user = process.uid.map_or_else(String::new, |uid| format!(", uid {uid}"));
            format!("{process} (cgroup {cgroup}{user})")
        };
        match processes {
            [] => "a process that cannot be looked at".to_owned(),
            some => some.iter().map(one).collect::<Vec<_>>().join(", "),
        }
    }

    fn only_cgroup(&self, owners: &[Running]) -> Result<Cgroup, ResidentError> {
        let cgroups: BTreeSet<&Path> = owners.iter().filter_map(|owner| owner.cgroup.as_deref()).collect();
        match Vec::from_iter(cgroups)[..] {
            [one] => self.root().at(one).ok_or_else(|| ResidentError::NoCgroup { cgroup: one.to_owned() }),
            ref several => Err(ResidentError::SeveralCgroups {
                known_by: self.known_by.clone(),
                cgroups: several.iter().map(|path| (*path).to_owned()).collect(),
            }),
        }
    }

    /// The cgroup in which the listeners were made, by which the kernel's programs know them.
    fn made_in(&self, sockets: &Sockets) -> Result<Cgroup, ResidentError> {
        let mut found: Option<Cgroup> = None;
        for (address, socket) in sockets.tcp.iter().chain(&sockets.udp) {
            let nowhere = || ResidentError::ListenerFromNowhere { address: *address };
            let cgroup = self.root().with_id(socket.cgroup).ok_or_else(nowhere)?;
            match &found {
                Some(other) if *other != cgroup => {
                    return Err(ResidentError::SeveralCgroups {
                        known_by: self.known_by.clone(),
                        cgroups: vec![self.shown(other), self.shown(&cgroup)],
                    });
                }
                Some(_) | None => found = Some(cgroup),
            }
        }
        found.ok_or_else(|| ResidentError::Look(io::ErrorKind::NotFound.into()))
    }

    fn check_width(&self, cgroup: &Cgroup) -> Result<(), ResidentError> {
        let is_root = cgroup == self.root();
        if is_root || self.line.own().path().starts_with(cgroup.path()) {
            let (known_by, cgroup) = (self.known_by.clone(), self.shown(cgroup));
            return Err(ResidentError::TooWide { known_by, cgroup, is_root });
        }
        Ok(())
    }

    /// The file that they run, as the kernel has it, and not what is now at its path.
    fn mark(&self, owners: &[Running]) -> Mark {
        match self.known_by {
            KnownBy::Unit(_) | KnownBy::Cgroup(_) => Mark::Cgroup,
            KnownBy::Exe(_) => Mark::Exe(owners.iter().find_map(|owner| owner.exe).unwrap_or_default()),
            KnownBy::Uid(uid) => Mark::Uid(*uid),
        }
    }

    fn listening(&self, sockets: &Sockets) -> Listening {
        let mut listening = Listening::default();
        for address in self.listens.iter().filter_map(|&at| {
            let taking = sockets.tcp.iter().find(|(address, _)| *address == at);
            taking.map(|(_, socket)| socket.addresses())
        }) {
            listening.take(address);
        }
        listening.udp4 = sockets.udp.first().map(|(_, socket)| socket.local.port());
        listening
    }
}

/// With the address by which each was looked for.
#[derive(Default)]
struct Sockets {
    tcp: Vec<(SocketAddr, Socket)>,
    udp: Vec<(SocketAddr, Socket)>,
}

impl Sockets {
    fn at(&self, address: SocketAddr) -> impl Iterator<Item = &Socket> {
        let at = move |found: &&(SocketAddr, Socket)| found.0 == address;
        self.tcp.iter().chain(&self.udp).filter(at).map(|(_, socket)| socket)
    }
}

/// Of two, the outer one if one is within the other.
fn apart(one: &Cgroup, other: &Cgroup) -> Vec<Cgroup> {
    match (one.path().starts_with(other.path()), other.path().starts_with(one.path())) {
        (true, _) => vec![other.clone()],
        (false, true) => vec![one.clone()],
        (false, false) => vec![one.clone(), other.clone()],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_known_by_four_things() {
        let parse = |text: &str| text.parse::<KnownBy>();
        assert_eq!(parse("unit=haproxy").unwrap(), KnownBy::Unit("haproxy.service".into()));
        assert_eq!(parse("unit=a@1.socket").unwrap(), KnownBy::Unit("a@1.socket".into()));
        assert_eq!(parse("cgroup=/a/b").unwrap(), KnownBy::Cgroup("/a/b".into()));
        assert_eq!(parse("exe=/usr/sbin/x=y").unwrap(), KnownBy::Exe("/usr/sbin/x=y".into()));
        assert_eq!(parse("uid=33").unwrap(), KnownBy::Uid(33));
        assert_eq!(parse("uid=root").unwrap(), KnownBy::Uid(0));
    }

    #[test]
    fn other_words_are_refused_with_the_reason() {
        for (text, words) in [
            ("pid=7", "known by unit=, cgroup=, exe= or uid="),
            ("haproxy", "known by unit=, cgroup=, exe= or uid="),
            ("unit=", "unit= needs a value"),
            ("unit=a/b", "not the name of a unit"),
            ("cgroup=a", "has to begin with a slash"),
            ("exe=nginx", "has to begin with a slash"),
            ("uid=nobody-of-that-name", "there is no user"),
        ] {
            let error = text.parse::<KnownBy>().unwrap_err().to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
    }

    #[test]
    fn a_name_follows_from_what_it_is_known_by() {
        for (text, stem) in [
            ("unit=haproxy", "haproxy"),
            ("cgroup=/my.slice/envoy", "envoy"),
            ("exe=/usr/sbin/nginx", "nginx"),
            ("uid=33", "uid-33"),
        ] {
            assert_eq!(text.parse::<KnownBy>().unwrap().stem(), stem);
        }
    }

    #[test]
    fn of_two_cgroups_the_outer_one_is_hooked() {
        let cgroup = |path: &str| Cgroup::from((PathBuf::from(path), 1));
        let (outer, inner, other) = (cgroup("/c/a"), cgroup("/c/a/b"), cgroup("/c/ab"));
        for (one, other) in [(&inner, &outer), (&outer, &inner), (&outer, &outer)] {
            assert_eq!(apart(one, other), std::slice::from_ref(&outer));
        }
        assert_eq!(apart(&outer, &other), [outer, other]);
    }
}
