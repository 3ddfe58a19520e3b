use std::fmt;

use serde::{Deserialize, Deserializer, de::Error};
use waylay_core::RedirectState;

/// One script.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vector {
    /// `T1` to `T17`.
    pub id: String,
    /// What it shows.
    pub says: String,
    /// The page that says so.
    pub source: String,
    /// Who redirects every connection that it may, first to last.
    pub redirectors: Vec<String>,
    /// What a subject has to be able to do, beyond redirecting to one service.
    pub needs: Vec<Need>,
    /// In this order.
    pub steps: Vec<Step>,
}

/// Something done, and what has to come of it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Step {
    /// What is done.
    #[serde(rename = "do")]
    pub action: Action,
    /// What comes of it on Windows.
    pub expect: Answer,
    /// What comes of it where waylay redirects, if that is something else.
    pub on_waylay: Option<Deviation>,
}

/// Where waylay means to differ.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deviation {
    /// What comes of the step instead.
    pub expect: Answer,
    /// Why.
    pub because: String,
}

/// What a vector may need.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the name is what there is to say; a subject that lacks one says why")]
pub enum Need {
    UnredirectedSockets,
    TwoRedirectors,
    States,
    RecordsAsBytes,
    Buffers,
    OthersWhoSet,
    RedirectsWithoutContext,
    Datagrams,
    MappedAddresses,
    Removal,
    Overlapped,
    RightsAtTheRedirectLayer,
    OriginalApplication,
    Vetoes,
}

/// What is done. Who acts is the redirector's service of that name, the `client`
/// whose connections are redirected, or a `bystander` whose are not. Sockets,
/// records and sizes are kept under the names they are given.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub enum Action {
    /// Makes a socket of TCP.
    Socket {
        /// Whose.
        by: String,
        /// Its name from now on.
        name: String,
        /// Of which protocol.
        family: Family,
    },
    /// Connects a socket.
    Connect {
        /// Which.
        socket: String,
        /// Where to.
        to: Target,
    },
    /// Takes the next connection that has reached a service.
    Accept {
        /// Which service.
        by: String,
        /// The accepted socket's name from now on.
        name: String,
    },
    /// Asks an accepted socket for its records, with room for them.
    QueryRecords {
        /// Which.
        on: String,
        /// The records' name from now on.
        name: String,
    },
    /// Asks for their size, with a buffer of no bytes.
    ProbeRecords {
        /// Which.
        on: String,
        /// The size's name from now on.
        name: String,
    },
    /// Whether a size that was probed is that of records that were read.
    CompareLengths {
        /// The size.
        probed: String,
        /// The records.
        records: String,
    },
    /// Asks for records by an overlapped operation with an event.
    QueryRecordsOverlapped {
        /// Which socket.
        on: String,
        /// The records' name from now on.
        name: String,
    },
    /// Asks an accepted socket for its context.
    QueryContext {
        /// Which.
        on: String,
    },
    /// Sets records on a socket, as its owner.
    SetRecords {
        /// Which.
        on: String,
        /// Which records.
        records: String,
        /// How many bytes of them are left out at the end.
        #[serde(default)]
        cut: usize,
    },
    /// How a redirector stands to the connection behind a socket.
    State {
        /// Which socket.
        on: String,
        /// Which redirector.
        of: String,
    },
    /// Who is at the head of the chain.
    Application {
        /// Asked of which socket.
        on: String,
    },
    /// Where the connection was going.
    OriginalDestination {
        /// Asked of which socket.
        on: String,
    },
    /// Ends a redirector; its service lives on.
    RemoveRedirector {
        /// Which.
        of: String,
    },
    /// A redirector attaches no context from now on.
    AttachNoContext {
        /// Which.
        of: String,
    },
    /// A redirector permits what it redirects, and clears the right to change that.
    PermitHard {
        /// Which.
        of: String,
    },
    /// A redirector redirects even what is redirected already.
    Insist {
        /// Which.
        of: String,
    },
    /// A redirector blocks without the right to.
    Veto {
        /// Which.
        of: String,
    },
    /// How many vetoes were reported.
    ReportedVetoes,
    /// Makes a socket of UDP.
    DatagramSocket {
        /// Whose.
        by: String,
        /// Its name from now on.
        name: String,
    },
    /// Sends a datagram.
    SendDatagram {
        /// From which socket.
        socket: String,
        /// Where to.
        to: Target,
    },
    /// Receives a datagram with what belongs to it.
    ReceiveDatagram {
        /// As which service.
        by: String,
    },
    /// Lets the flows of a service be idle for as long as it takes for one to begin anew.
    LetFlowsBeIdle {
        /// Whose.
        of: String,
    },
}

/// The Internet protocol of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "they are what they are called")]
pub enum Family {
    V4,
    V6,
}

/// Where to.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Target {
    /// A server, over IPv4.
    Destination,
    /// The same server, by its IPv4 address in IPv6 form.
    MappedDestination,
    /// The listener of a redirector's service.
    ListenerOf(String),
}

impl TryFrom<String> for Target {
    type Error = VectorError;

    fn try_from(text: String) -> Result<Self, VectorError> {
        match (text.as_str(), text.strip_prefix("listener-of-")) {
            ("destination", _) => Ok(Self::Destination),
            ("mapped-destination", _) => Ok(Self::MappedDestination),
            (_, Some(redirector)) => Ok(Self::ListenerOf(redirector.to_owned())),
            _ => Err(VectorError::Target(text)),
        }
    }
}

/// Where a connection ends up.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(from = "String")]
pub enum Place {
    /// At the server it was for.
    Destination,
    /// At the service of a redirector.
    Service(String),
    /// Nowhere: connecting fails.
    Refused,
}

impl From<String> for Place {
    fn from(text: String) -> Self {
        match text.as_str() {
            "destination" => Self::Destination,
            "refused" => Self::Refused,
            _ => Self::Service(text),
        }
    }
}

/// What comes of a step.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub enum Answer {
    /// It is done.
    Done,
    /// Where the connection ended up.
    Leg(Place),
    /// The code it ended with.
    Code(Code),
    /// The state.
    #[serde(deserialize_with = "state_of_name")]
    State(RedirectState),
    /// Whether they are equal.
    Equal(bool),
    /// How the overlapped operation went.
    Overlapped(Overlapped),
    /// Who it is.
    Application(String),
    /// Where it was going: `destination`, or an address that is somewhere else.
    Destination(String),
    /// What came with a datagram.
    Ancillary(Vec<Ancillary>),
    /// How many there were.
    Vetoes(usize),
}

/// How an overlapped operation went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Overlapped {
    /// What the call itself ended with.
    pub code: Code,
    /// Whether the event was signalled afterwards.
    pub signalled: bool,
}

/// What comes with a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "they are what they are called")]
pub enum Ancillary {
    Records,
    Context,
}

/// What `WSAGetLastError` says; 0 is success.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Code(pub i32);

impl Code {
    /// It went well.
    pub const OK: Self = Self(0);
    /// A buffer is too short.
    pub const INSUFFICIENT_BUFFER: Self = Self(122);
    /// Not entitled.
    pub const ACCESS: Self = Self(10_013);
    /// An argument is not acceptable.
    pub const INVALID: Self = Self(10_022);
    /// Not connected, or not any more.
    pub const NOT_CONNECTED: Self = Self(10_057);
    /// There is no record, or no context.
    pub const NOT_FOUND: Self = Self(0x8032_0008_u32.cast_signed());

    const NAMED: [(Self, &str); 6] = [
        (Self::OK, "ok"),
        (Self::INSUFFICIENT_BUFFER, "ERROR_INSUFFICIENT_BUFFER"),
        (Self::ACCESS, "WSAEACCES"),
        (Self::INVALID, "WSAEINVAL"),
        (Self::NOT_CONNECTED, "WSAENOTCONN"),
        (Self::NOT_FOUND, "FWP_E_NOT_FOUND"),
    ];
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Self::NAMED.iter().find(|(code, _)| code == self) {
            Some((_, name)) => f.write_str(name),
            None => write!(f, "{}", self.0),
        }
    }
}

impl<'de> Deserialize<'de> for Code {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        let found = Self::NAMED.iter().find(|(_, known)| *known == name);
        found.map(|(code, _)| *code).ok_or_else(|| D::Error::custom(VectorError::Code(name)))
    }
}

fn state_of_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<RedirectState, D::Error> {
    let name = String::deserialize(deserializer)?;
    match name.as_str() {
        "not-redirected" => Ok(RedirectState::NotRedirected),
        "redirected-by-self" => Ok(RedirectState::RedirectedBySelf),
        "redirected-by-other" => Ok(RedirectState::RedirectedByOther),
        "previously-redirected-by-self" => Ok(RedirectState::PreviouslyRedirectedBySelf),
        _ => Err(D::Error::custom(VectorError::State(name))),
    }
}

/// Why a file is no vector.
#[derive(Debug, thiserror::Error)]
pub enum VectorError {
    /// No such place to connect to.
    #[error("{0:?} is no target")]
    Target(String),
    /// No such code.
    #[error("{0:?} is no code")]
    Code(String),
    /// No such state.
    #[error("{0:?} is no state")]
    State(String),
    /// It is not what this version reads.
    #[error("vector {number} cannot be read")]
    Shape {
        /// Which of [`vectors`], from 1 on.
        number: usize,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

/// The files, in order; they are part of the program, so that it can be taken elsewhere.
const FILES: [&str; 17] = [
    include_str!("../vectors/T01.json"),
    include_str!("../vectors/T02.json"),
    include_str!("../vectors/T03.json"),
    include_str!("../vectors/T04.json"),
    include_str!("../vectors/T05.json"),
    include_str!("../vectors/T06.json"),
    include_str!("../vectors/T07.json"),
    include_str!("../vectors/T08.json"),
    include_str!("../vectors/T09.json"),
    include_str!("../vectors/T10.json"),
    include_str!("../vectors/T11.json"),
    include_str!("../vectors/T12.json"),
    include_str!("../vectors/T13.json"),
    include_str!("../vectors/T14.json"),
    include_str!("../vectors/T15.json"),
    include_str!("../vectors/T16.json"),
    include_str!("../vectors/T17.json"),
];

/// All vectors.
///
/// # Errors
/// If one of the files is no vector.
///
/// # Example
/// ```
/// let vectors = waylay_conformance::vectors()?;
/// assert_eq!(vectors[3].says, "Two redirectors, A before B: the states on the three legs.");
/// # Ok::<(), waylay_conformance::VectorError>(())
/// ```
pub fn vectors() -> Result<Vec<Vector>, VectorError> {
    let parse =
        |(number, text)| serde_json::from_str(text).map_err(|source| VectorError::Shape { number, source });
    (1..).zip(FILES).map(parse).collect()
}
