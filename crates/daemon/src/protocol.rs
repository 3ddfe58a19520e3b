//! What is said on the control socket: one JSON object a line, a request and then its answer.
//!
//! ```
//! use waylay_daemon::protocol::{Lasting, Request};
//!
//! let line = r#"{"request":"change","add":["[[filter]]\n…"],"lifetime":"daemon"}"#;
//! let request: Request = serde_json::from_str(line)?;
//! let add = vec!["[[filter]]\n…".to_owned()];
//! assert_eq!(request, Request::Change { add, remove: Vec::new(), lifetime: Lasting::Daemon });
//! # Ok::<(), serde_json::Error>(())
//! ```

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    draft::Finding,
    why::{Subject, Why},
};

/// What somebody asks of a daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// Who is there, and what is in force.
    Status,
    /// The services, in their solved order.
    Services,
    /// The filters; of those who are not root, their own.
    Filters,
    /// The sublayers, in the order in which they are heard; of those who are not root, their own.
    Sublayers,
    /// The legs that are redirected now; of those who are not root, those of their programs.
    Flows,
    /// Why a connection goes as it does; of those who are not root, one of their programs.
    Why(Subject),
    /// All of this, or nothing.
    Change {
        /// Texts in the form of policy files.
        #[serde(default)]
        add: Vec<String>,
        /// What was added before.
        #[serde(default)]
        remove: Vec<Target>,
        /// How long what is added stays.
        #[serde(default)]
        lifetime: Lasting,
    },
    /// The policy's files are to be read again.
    Reload,
    /// From here on what happens is to be told, until the connection ends.
    Observe,
    /// A cgroup for a command of whoever asks, with services and filters that are for what is in it, until this connection ends:
    /// then all who are in it are ended. What happens to them is told from here on.
    Run {
        /// Texts in the form of policy files.
        texts: Vec<Text>,
        /// What no such text can say.
        terms: Terms,
    },
    /// The process at this end of the connection is to be moved into the cgroup of a run of its user.
    Enter {
        /// The run's number.
        run: u64,
    },
    /// The run of this connection is to end: who is in its cgroup, and then its services, of which each finishes what it has. When
    /// that is done it is told as something that has happened, `finished`.
    Finish,
}

/// A text in the form of policy files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Text {
    /// What it is called, for messages.
    pub name: String,
    /// What it says.
    pub text: String,
}

/// What a run says of its services besides what is in its texts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// What `scan` finds on its standard input.
    pub patterns: Vec<u8>,
    /// The services that come with waylay and are to leave their records out.
    pub forget: Vec<String>,
    /// After so many seconds without a datagram such services take a flow for ended.
    pub idle: u64,
    /// Where other services start.
    pub directory: PathBuf,
}

/// How long something is to stay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Lasting {
    /// Until this connection ends.
    #[default]
    Session,
    /// Until the daemon stops.
    Daemon,
    /// Until it is removed.
    Persistent,
    /// The same, of filters that are in force before there is a daemon and not while there is one.
    Boot,
}

/// What is to be removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Target {
    /// What was added as this number.
    Number(u64),
    /// A filter that was added, by its name.
    Filter(String),
    /// A service that was added, by its name.
    Service(String),
    /// A sublayer that was added, by its name.
    Sublayer(String),
}

/// A line of the daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Message {
    /// What was asked for.
    Answer(Answer),
    /// Why not.
    Error(Failure),
    /// Something that has happened.
    Event(Happening),
}

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Answer {
    /// Who is there.
    Status(Status),
    /// The services.
    Services {
        /// In their solved order.
        services: Vec<Service>,
    },
    /// The filters.
    Filters {
        /// In the order of the texts.
        filters: Vec<Filter>,
    },
    /// The sublayers.
    Sublayers {
        /// In the order in which they are heard.
        sublayers: Vec<Sublayer>,
    },
    /// What is redirected now.
    Flows {
        /// One for each leg.
        flows: Vec<Flow>,
    },
    /// Why.
    Why(Box<Why>),
    /// It is in force.
    Changed(Changed),
    /// What happens comes from here on.
    Observing,
    /// There is a cgroup for a command, and the services are there.
    Run(Run),
    /// The process is where it asked to be.
    Entered,
    /// The end has begun.
    Finishing,
}

/// A run at a daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// Its number.
    pub run: u64,
    /// What the names of its services, sublayers and filters begin with at the daemon.
    pub prefix: String,
    /// The directory of its cgroup.
    pub cgroup: PathBuf,
    /// What is allowed and probably not meant.
    pub warnings: Vec<Finding>,
}

/// Who is there, and what is in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The daemon's version.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// The file of its policy.
    pub policy: PathBuf,
    /// Whose connections are redirected: the path of a cgroup below the root of the hierarchy.
    pub scope: PathBuf,
    /// The names of the services, in their solved order.
    pub order: Vec<String>,
    /// How many filters there are.
    pub filters: usize,
    /// How many sublayers there are.
    pub sublayers: usize,
    /// How many policies have been in force, this one included.
    pub changes: u64,
    /// Whether filters have changed since all of them were compiled, which is done behind them.
    #[serde(default)]
    pub amended: bool,
    /// Why the last change did not come into force that nobody had asked for, if it did not.
    pub overdue: Option<String>,
}

/// Where something was declared, and by whom.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// Text and line.
    pub place: String,
    /// The number of what was added; nothing for files.
    pub number: Option<u64>,
    /// The user whose it is.
    pub owner: u32,
    /// How long it stays; files do.
    pub lifetime: Lasting,
}

/// A service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// `serving`, `gone` or `unknown`.
    pub state: String,
    /// `open` or `closed`.
    pub on_failure: String,
    /// Where it listens.
    pub listens: Vec<String>,
    /// Its processes.
    pub processes: Vec<u32>,
    /// Where it is declared.
    pub source: Source,
}

/// A filter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filter {
    /// Its name, if it has one.
    pub name: Option<String>,
    /// `redirect`, `permit`, `block` or `continue`.
    pub action: String,
    /// The service or the sublayer.
    pub target: String,
    /// The higher, the earlier.
    pub weight: u64,
    /// Where it is declared.
    pub source: Source,
}

/// A sublayer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sublayer {
    /// Its name.
    pub name: String,
    /// The higher, the earlier.
    pub weight: u16,
    /// Where it is declared.
    pub source: Source,
}

/// A leg that is redirected now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flow {
    /// The flow's number.
    pub id: u64,
    /// `tcp` or `udp`.
    pub protocol: String,
    /// The application's process.
    pub pid: u32,
    /// Its user.
    pub uid: u32,
    /// Its executable, or its command name.
    pub application: String,
    /// The application's own address, if it is known.
    pub from: Option<String>,
    /// Where it wanted to go.
    pub to: String,
    /// The services it has been led to so far, and by which filters.
    pub chain: Vec<Hop>,
}

/// A step of a connection's way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hop {
    /// Where to.
    pub service: String,
    /// By which filter.
    pub filter: String,
}

/// What came of a change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// As what each text was added.
    pub added: Vec<u64>,
    /// What was removed.
    pub removed: Vec<u64>,
    /// What is allowed and probably not meant.
    pub warnings: Vec<Finding>,
}

/// Why something was not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// What kind of reason it is.
    pub code: Code,
    /// The reason.
    pub message: String,
    /// What is wrong with which text.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub diagnostics: Vec<Finding>,
    /// The same with the lines of the texts, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub rendered: String,
}

/// A kind of reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Code {
    /// The request cannot be read.
    Malformed,
    /// Whoever asks may not.
    NotAllowed,
    /// There is nothing of that name or number.
    Unknown,
    /// The policy would not hold together, or say what its owner may not.
    Wrong,
    /// It could not be put into force, or not be kept; what was in force is.
    Failed,
    /// There are too many connections, or changes.
    Busy,
    /// Whoever asks is outside of the scope.
    OutOfScope,
}

/// Something that has happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Happening {
    /// `report`, `refused`, `service`, `policy`, `missed` or `finished`.
    pub about: String,
    /// The service concerned.
    pub service: Option<String>,
    /// In words.
    pub text: String,
    /// What a service reported, if that was an object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<Value>,
}

impl Failure {
    /// The same without what names begin with.
    pub(crate) fn without(self, prefix: &str) -> Self {
        Self {
            code: self.code,
            message: self.message.replace(prefix, ""),
            diagnostics: self.diagnostics.into_iter().map(|finding| finding.without(prefix)).collect(),
            rendered: self.rendered.replace(prefix, ""),
        }
    }

    /// For this reason.
    #[must_use]
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), diagnostics: Vec::new(), rendered: String::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_short_to_write_and_slips_are_refused() {
        let read = |line| serde_json::from_str::<Request>(line);
        assert_eq!(read(r#"{"request":"status"}"#).unwrap(), Request::Status);
        let remove = vec![Target::Number(3), Target::Filter("web".into())];
        assert_eq!(
            read(r#"{"request":"change","remove":[{"number":3},{"filter":"web"}]}"#).unwrap(),
            Request::Change { add: Vec::new(), remove, lifetime: Lasting::Session }
        );
        for slip in [
            r#"{"request":"stop"}"#,
            r#"{"request":"change","lifetim":"daemon"}"#,
            r#"{"request":"change","lifetime":"for ever"}"#,
            "[]",
            "",
        ] {
            assert!(read(slip).is_err(), "{slip}");
        }
    }

    #[test]
    fn a_message_says_first_what_it_is() {
        let error = Message::Error(Failure::new(Code::NotAllowed, "no"));
        let line = serde_json::to_string(&error).unwrap();
        assert_eq!(line, r#"{"error":{"code":"not-allowed","message":"no"}}"#);
        assert_eq!(serde_json::from_str::<Message>(&line).unwrap(), error);
        let answer = serde_json::to_string(&Message::Answer(Answer::Observing)).unwrap();
        assert_eq!(answer, r#"{"answer":{"kind":"observing"}}"#);
    }
}
