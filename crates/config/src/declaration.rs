//! What policy files say, with places and with names as they are written.

use std::fmt;
use std::net::SocketAddr;

use waylay_core::{
    CommandName, Errno, Existing, FailurePolicy, Family, ForeignNamespace, HostPattern, PortRange, Prefix,
    Protocol, Right, Sandboxes, Unredirectable,
};

use crate::source::{Located, Span};

/// All that the files of one policy say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Declarations {
    /// The services, as they come in the files.
    pub services: Vec<ServiceDeclaration>,
    /// Names of services that are declared and not above, as something is wrong with them.
    pub unreadable_services: Vec<Located<String>>,
    /// The sublayers, as they come in the files.
    pub sublayers: Vec<SublayerDeclaration>,
    /// The filters, as they come in the files.
    pub filters: Vec<FilterDeclaration>,
    /// Services in an order, each before the next; a text can give one.
    pub orders: Vec<Vec<Located<String>>>,
    /// What becomes of what cannot be redirected.
    pub unredirectable: Option<Located<Unredirectable>>,
    /// Whose answers names of hosts are learned from.
    pub resolvers: Option<Located<Vec<SocketAddr>>>,
    /// What becomes of legs of other network namespaces of which no filter says anything.
    pub other_namespaces: Option<Located<ForeignNamespace>>,
    /// What becomes of connections that are older than the policy.
    pub existing: Option<Located<Existing>>,
    /// What becomes of legs from sandboxes.
    pub override_sandbox: Option<Located<Sandboxes>>,
}

/// A service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceDeclaration {
    /// Its name.
    pub name: Located<String>,
    /// What it is.
    pub kind: ServiceKind,
    /// What it takes; where nothing is said TCP, and what comes with waylay UDP as well.
    pub transports: Vec<Protocol>,
    /// Services that see a connection after this one.
    pub before: Vec<Located<String>>,
    /// Services that see a connection ahead of this one.
    pub after: Vec<Located<String>>,
    /// What happens while it is absent.
    pub on_failure: FailurePolicy,
}

/// What a service is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServiceKind {
    /// One that comes with waylay.
    Builtin(Builtin),
    /// A program that cooperates; the command is for the shell.
    Cooperating {
        /// The command.
        command: String,
    },
    /// A transparent proxy that knows nothing of waylay.
    Adopted {
        /// Where it listens.
        listeners: Vec<SocketAddr>,
        /// Which process it is.
        identity: AdoptedIdentity,
        /// Where it looks for the original destination.
        destination: DestinationBy,
    },
}

/// A service that comes with waylay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Builtin {
    /// Lets everything pass and reports it.
    Log,
    /// Ends a connection in which a pattern passes.
    Scan,
}

/// Which process an adopted service is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdoptedIdentity {
    /// One that is started, by the shell.
    Started {
        /// The command.
        command: String,
    },
    /// Those of a systemd unit.
    Unit(Located<UnitName>),
    /// Those in a cgroup, by its path below the root of the hierarchy.
    Cgroup(Located<String>),
    /// Those that run an executable, by its path.
    Exe(Located<String>),
    /// Those of a user.
    User(Located<Account>),
}

/// Where an adopted service looks for the original destination.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DestinationBy {
    /// `SO_ORIGINAL_DST`, as with iptables' REDIRECT.
    #[default]
    Option,
    /// The local address of the accepted socket, as with TPROXY.
    LocalName,
    /// The same, and the header of datagrams, which have the destination itself there.
    Packet,
}

/// A sublayer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SublayerDeclaration {
    /// Its name.
    pub name: Located<String>,
    /// The higher, the earlier.
    pub weight: u16,
}

/// A filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterDeclaration {
    /// Its name, if it has one.
    pub name: Option<Located<String>>,
    /// Where it begins.
    pub span: Span,
    /// When it is in force.
    pub lifetime: FilterLifetime,
    /// The higher, the earlier among the filters of its service or sublayer.
    pub weight: u64,
    /// Where it stands and what it does there.
    pub layer: LayerDeclaration,
    /// What must hold.
    pub wanted: ConditionDeclarations,
    /// What must not.
    pub excluded: ConditionDeclarations,
}

/// When a filter of a file is in force.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FilterLifetime {
    /// While somebody keeps the policy in force.
    #[default]
    Persistent,
    /// Before that, from early boot until a daemon takes over.
    Boot,
}

/// Where a filter stands and what it does there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LayerDeclaration {
    /// It redirects to a service.
    Redirect {
        /// The service's name.
        service: Located<String>,
    },
    /// It judges in a sublayer.
    Auth {
        /// The sublayer's name.
        sublayer: Located<String>,
        /// What it says.
        action: ActionDeclaration,
        /// Only for legs that will go to a service, or only for others.
        redirected: Option<bool>,
        /// Only for legs that come from a service, or only for others.
        proxied: Option<bool>,
    },
}

/// What a filter of a sublayer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ActionDeclaration {
    /// Let pass.
    Permit(Right),
    /// Refuse.
    Block(Right, Errno),
    /// Nothing.
    Continue,
}

/// Lists of values, each the one condition; what is not mentioned is no condition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConditionDeclarations {
    /// Transport protocols.
    pub protocol: Option<Box<Located<Vec<Protocol>>>>,
    /// Families of the original destination.
    pub family: Option<Box<Located<Vec<Family>>>>,
    /// Prefixes of the original destination.
    pub remote: Option<Box<Located<Vec<Prefix>>>>,
    /// Ports of the original destination.
    pub port: Option<Box<Located<Vec<PortRange>>>>,
    /// Prefixes of the source that was bound.
    pub local: Option<Box<Located<Vec<Prefix>>>>,
    /// Names of the original destination.
    pub host: Option<Box<Located<Vec<HostPattern>>>>,
    /// Network namespaces.
    pub namespace: Option<Box<Located<Vec<Located<NamespaceName>>>>>,
    /// The original application.
    pub application: ProcessDeclarations,
    /// The process that dials.
    pub via: ProcessDeclarations,
}

// A filter has two of them, and most filters ask for one or two things.
const _: () = assert!(size_of::<ConditionDeclarations>() <= 17 * size_of::<usize>());

/// Lists of values about a process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessDeclarations {
    /// Executables.
    pub exe: Option<Box<Located<Vec<Located<ExePattern>>>>>,
    /// Users, by the real id.
    pub user: Option<Box<Located<Vec<Located<Account>>>>>,
    /// Groups, by the real id.
    pub group: Option<Box<Located<Vec<Located<Account>>>>>,
    /// Command names.
    pub command: Option<Box<Located<Vec<CommandName>>>>,
    /// Cgroups, by path, unit or container.
    pub cgroup: Option<Box<Located<Vec<Located<CgroupName>>>>>,
}

/// How a network namespace is named.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum NamespaceName {
    /// The one that waylay is in.
    Own,
    /// By the path of a file that stands for it.
    Path(String),
}

impl NamespaceName {
    /// That of process 1.
    pub const HOST: &'static str = "/proc/1/ns/net";
}

/// A user or a group.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Account {
    /// By name.
    Named(String),
    /// By number.
    Number(u32),
}

/// An absolute path, or a pattern of such: `*` and `?` stay within a part, `**` is any number of parts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ExePattern {
    pattern: glob::Pattern,
}

/// How a cgroup is named.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum CgroupName {
    /// By its path below the root of the hierarchy.
    Path(String),
    /// By the systemd unit whose it is.
    Unit(UnitName),
    /// By the id of the container whose it is, or the beginning of that.
    Container(String),
}

/// The name of a systemd unit that has a cgroup: a service, socket, scope, slice, mount or swap
/// (<https://www.freedesktop.org/software/systemd/man/latest/systemd.unit.html>).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnitName(String);

impl ExePattern {
    pub(crate) fn new(pattern: &str) -> Result<Self, glob::PatternError> {
        Ok(Self { pattern: glob::Pattern::new(pattern)? })
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.pattern.as_str()
    }

    /// Whether it can cover more than one path.
    #[must_use]
    pub fn has_wildcards(&self) -> bool {
        self.as_str().contains(['*', '?', '['])
    }

    /// Whether it covers a path.
    #[must_use]
    pub fn covers(&self, path: &str) -> bool {
        let options = glob::MatchOptions {
            case_sensitive: true,
            require_literal_separator: true,
            require_literal_leading_dot: false,
        };
        self.pattern.matches_with(path, options)
    }
}

impl UnitName {
    /// What units that have a cgroup end in.
    pub const SUFFIXES: [&str; 6] = [".service", ".socket", ".scope", ".slice", ".mount", ".swap"];

    pub(crate) fn new(name: &str) -> Option<Self> {
        let stem = Self::SUFFIXES.iter().find_map(|suffix| name.strip_suffix(suffix))?;
        (!stem.is_empty() && !name.contains('/')).then(|| Self(name.to_owned()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(name) => f.write_str(name),
            Self::Number(number) => write!(f, "{number}"),
        }
    }
}
