//! What can be wrong with policy files.

use std::fmt;

use waylay_core::{HostNameError, LimitError, PolicyError, PrefixError};

use crate::source::Span;

/// One thing that is wrong, where, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// What is wrong.
    pub problem: Problem,
    /// Where; nothing if it is nowhere in particular.
    pub span: Option<Span>,
    /// Other places that have to do with it, with what is there.
    pub related: Vec<(Span, &'static str)>,
    /// What to do.
    pub help: Option<String>,
}

/// Whether a policy can be used all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// It cannot.
    Error,
    /// It can, and is probably not what was meant.
    Warning,
    /// It can, and may well be meant.
    Note,
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// It is no TOML.
    #[error("{0}")]
    Syntax(String),
    /// A key that means nothing there.
    #[error("{table} has no key {key:?}")]
    UnknownKey {
        /// The key.
        key: String,
        /// What the table is.
        table: &'static str,
    },
    /// A key that has to be there.
    #[error("{table} needs the key {key:?}")]
    MissingKey {
        /// The key.
        key: &'static str,
        /// What the table is.
        table: &'static str,
    },
    /// A key that another one rules out.
    #[error("{key:?} goes with {with} only")]
    MisplacedKey {
        /// The key.
        key: &'static str,
        /// What it goes with.
        with: &'static str,
    },
    /// Two keys of which there can be one.
    #[error("{first:?} and {second:?} rule each other out")]
    Exclusive {
        /// One.
        first: &'static str,
        /// The other.
        second: &'static str,
    },
    /// Something of another type than is wanted.
    #[error("{wanted} expected, not {found}")]
    WrongType {
        /// What is wanted.
        wanted: &'static str,
        /// What is there.
        found: &'static str,
    },
    /// A number beyond what it may be.
    #[error("{number} is not from {least} to {most}")]
    OutOfRange {
        /// The number.
        number: String,
        /// The least that is allowed.
        least: u64,
        /// The most that is allowed.
        most: u64,
    },
    /// A word other than those there are.
    #[error("{found:?} is none of {}", allowed.join(", "))]
    UnknownWord {
        /// The word.
        found: String,
        /// Those there are.
        allowed: &'static [&'static str],
    },
    /// A list without anything in it.
    #[error("an empty list never holds")]
    EmptyList,
    /// Not an address, or not with a length.
    #[error("{0:?} is no address and no prefix")]
    Address(String),
    /// An address and a length that do not go together.
    #[error(transparent)]
    Prefix(PrefixError),
    /// Not a port, nor a range of them.
    #[error("{0:?} is no port and no range of ports")]
    Ports(String),
    /// The range ends before it begins.
    #[error("the range {0} ends before it begins")]
    ReversedPorts(String),
    /// Not an address with a port.
    #[error("{0:?} is no address with a port")]
    Listener(String),
    /// Not an address of a resolver.
    #[error("{0:?} is no address, nor one with a port")]
    Resolver(String),
    /// Not a name of a host.
    #[error("{name:?} is no name of a host, nor \"*.\" before one: {error}")]
    HostName {
        /// The text.
        name: String,
        /// What is wrong with it.
        error: HostNameError,
    },
    /// No network namespace.
    #[error("{0:?} is no network namespace: \"own\", \"host\", or a path such as \"/run/netns/{0}\"")]
    NetworkNamespace(String),
    /// A connection would pass, or pass by a service, because of a name.
    #[error(
        "nothing passes by a name: answers can be forged, and an address can have many names, so `host` cannot stand in `{place}` of {action:?}"
    )]
    PassesByName {
        /// `if` or `unless`.
        place: &'static str,
        /// What the filter does.
        action: &'static str,
    },
    /// A path that does not begin at the root.
    #[error("{0:?} is no absolute path")]
    RelativePath(String),
    /// A pattern that cannot be read.
    #[error("{pattern:?} is no pattern: {reason}")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Not the name of a unit.
    #[error("{0:?} is no name of a systemd unit that has a cgroup")]
    Unit(String),
    /// Not a container's id.
    #[error("{0:?} is no container's id")]
    Container(String),
    /// A name that has something in it that names have not.
    #[error("{name:?} is no name: letters, digits, '-', '_' and '.', at most {longest}")]
    Name {
        /// The name.
        name: String,
        /// How many characters it may have.
        longest: usize,
    },
    /// Not an error number's name.
    #[error("{0:?} is no error number that a filter can give")]
    Errno(String),
    /// A name that is there already.
    #[error("there is a {what} {name:?} already")]
    Duplicate {
        /// What it is.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// A name that nothing has.
    #[error("there is no {what} {name:?}")]
    Unknown {
        /// What it would be.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// Services of which each is to come before the next.
    #[error("these services are each ordered before the next: {}", names.join(" -> "))]
    OrderCycle {
        /// The services, the first repeated at the end.
        names: Vec<String>,
    },
    /// More than there may be.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// What the policy as a whole does not hold together by, beside all this.
    #[error(transparent)]
    Policy(PolicyError),
    /// Something that cannot hold before there is a daemon.
    #[error("a filter that is in force from boot on cannot {0}")]
    NotAtBoot(&'static str),
    /// Something that whoever says it may not say.
    #[error("{0}")]
    NotAllowed(String),
    /// A condition and its exception that cannot be told apart before the names in them are known.
    #[error("`if` and `unless` cannot both ask for {0:?}")]
    Entangled(&'static str),
    /// Nothing that is wanted is left by what is excluded.
    #[error("no connection can match: `unless` excludes every value of {0:?} that `if` wants")]
    NeverMatches(&'static str),
    /// An earlier filter matches whatever this one matches.
    #[error("this filter never decides: {by} matches all that it matches, and is asked before it")]
    Shadowed {
        /// The earlier filter.
        by: String,
    },
    /// A service that takes none of what a filter redirects to it.
    #[error("the service {0:?} takes nothing of what this filter redirects to it")]
    NotTaken(String),
    /// A service that no filter redirects to.
    #[error("nothing is redirected to the service {0:?}")]
    UnusedService(String),
    /// Filters of which a lookup has to go through many.
    #[error(
        "{filters} filters overlap in several conditions, so that looking one up takes up to {steps} steps: connect() takes noticeably longer"
    )]
    Overlapping {
        /// How many filters do.
        filters: usize,
        /// Steps of the longest lookup.
        steps: u32,
    },
    /// A name that nobody has on this host.
    #[error("this host has no {what} {name:?}: the condition covers nobody")]
    Nobody {
        /// What it would be.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// A name that nobody has on this host, and that comes and goes.
    #[error("this host has no {what} {name:?}: the condition covers nobody until there is")]
    NobodyYet {
        /// What it would be.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// Longer than the kernel keeps.
    #[error("the kernel keeps 15 bytes of a command name: this one is matched as {kept:?}")]
    LongCommand {
        /// What it keeps.
        kept: String,
    },
}

impl Problem {
    /// Whether a policy can be used all the same.
    #[must_use]
    pub const fn severity(&self) -> Severity {
        match self {
            Self::NeverMatches(_)
            | Self::Shadowed { .. }
            | Self::NotTaken(_)
            | Self::UnusedService(_)
            | Self::Overlapping { .. }
            | Self::Nobody { .. }
            | Self::LongCommand { .. } => Severity::Warning,
            Self::NobodyYet { .. } => Severity::Note,
            Self::Syntax(_)
            | Self::UnknownKey { .. }
            | Self::MissingKey { .. }
            | Self::MisplacedKey { .. }
            | Self::Exclusive { .. }
            | Self::WrongType { .. }
            | Self::OutOfRange { .. }
            | Self::UnknownWord { .. }
            | Self::EmptyList
            | Self::Address(_)
            | Self::Prefix(_)
            | Self::Ports(_)
            | Self::ReversedPorts(_)
            | Self::Listener(_)
            | Self::Resolver(_)
            | Self::HostName { .. }
            | Self::NetworkNamespace(_)
            | Self::PassesByName { .. }
            | Self::RelativePath(_)
            | Self::Pattern { .. }
            | Self::Unit(_)
            | Self::Container(_)
            | Self::Name { .. }
            | Self::Errno(_)
            | Self::Duplicate { .. }
            | Self::Unknown { .. }
            | Self::OrderCycle { .. }
            | Self::Limit(_)
            | Self::Policy(_)
            | Self::NotAtBoot(_)
            | Self::NotAllowed(_)
            | Self::Entangled(_) => Severity::Error,
        }
    }

    /// At a place.
    #[must_use]
    pub fn at(self, span: &Span) -> Diagnostic {
        Diagnostic { problem: self, span: Some(*span), related: Vec::new(), help: None }
    }

    /// At no place in particular.
    #[must_use]
    pub fn somewhere(self) -> Diagnostic {
        Diagnostic { problem: self, span: None, related: Vec::new(), help: None }
    }
}

impl Diagnostic {
    /// Whether the policy can be used all the same.
    #[must_use]
    pub const fn severity(&self) -> Severity {
        self.problem.severity()
    }

    /// With what to do.
    #[must_use]
    pub fn help(self, help: impl Into<Option<String>>) -> Self {
        Self { help: help.into(), ..self }
    }

    pub(crate) fn related(mut self, span: &Span, what: &'static str) -> Self {
        self.related.push((*span, what));
        self
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        })
    }
}
