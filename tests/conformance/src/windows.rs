//! Windows as a subject, through the crate `waylay`: this process is the service of
//! the one redirector there is, somebody's driver. Where it has to be, is in [`Setup`].

use std::{
    collections::{BTreeMap, VecDeque},
    env, fmt,
    io::{BufRead, BufReader},
    net::{SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use socket2::{Domain, Protocol, Socket, Type};
use waylay::{
    QueryError, RedirectRecords, query_original_destination, query_redirect_context, query_redirect_records,
    set_redirect_records,
};

use crate::vector::{Action, Answer, Code, Family, Need, Place, Target};
use crate::{Subject, System};

/// Until what was connected must have arrived.
const PATIENCE: Duration = Duration::from_secs(10);

/// What has to be known of the machine.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Where the driver redirects connections to: an address of this host.
    pub listen: SocketAddr,
    /// What it redirects: another IPv4 address of this host, with a port.
    pub destination: SocketAddr,
    /// The program `conformance-client`, whose connections it redirects.
    pub client: PathBuf,
}

/// What is missing in the environment, or is no address.
#[derive(Debug, thiserror::Error)]
#[error("{variable} has to be {meaning}")]
pub struct SetupError {
    variable: &'static str,
    meaning: &'static str,
}

impl Setup {
    /// From `WAYLAY_CONFORMANCE_LISTEN` and `WAYLAY_CONFORMANCE_DESTINATION`.
    ///
    /// # Errors
    /// If one is missing.
    pub fn from_env(client: PathBuf) -> Result<Self, SetupError> {
        let address = |variable, meaning| {
            let value = env::var(variable).ok().and_then(|text| text.parse().ok());
            value.ok_or(SetupError { variable, meaning })
        };
        let listen =
            address("WAYLAY_CONFORMANCE_LISTEN", "the address and port that the driver redirects to")?;
        let destination = address(
            "WAYLAY_CONFORMANCE_DESTINATION",
            "an IPv4 address of this host and a port that the driver redirects",
        )?;
        Ok(Self { listen, destination, client })
    }
}

/// Windows with a driver.
#[derive(Debug)]
pub struct WindowsSubject {
    setup: Setup,
    scene: Option<Scene>,
}

#[derive(Debug)]
struct Scene {
    service: TcpListener,
    destination: TcpListener,
    /// Sockets that have not connected yet, or have.
    sockets: BTreeMap<String, Held>,
    waiting: VecDeque<TcpStream>,
    /// What has reached the destination stays open.
    arrived: Vec<TcpStream>,
    records: BTreeMap<String, Vec<u8>>,
}

enum Held {
    /// Of this process.
    Own(Socket),
    /// Of a client that is not started before it connects.
    Client(Option<Client>),
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Own(_) => "a socket",
            Self::Client(_) => "a client",
        })
    }
}

/// Ends with its owner.
struct Client(Child);

impl Drop for Client {
    fn drop(&mut self) {
        // An error means that it has ended.
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}

impl WindowsSubject {
    /// Nothing is listening yet.
    #[must_use]
    pub fn new(setup: Setup) -> Self {
        Self { setup, scene: None }
    }
}

impl Subject for WindowsSubject {
    fn system(&self) -> System {
        System::Windows
    }

    fn lacks(&self, need: Need) -> Option<&'static str> {
        match need {
            Need::TwoRedirectors => Some("it takes the drivers of two redirectors"),
            Need::States => Some("user mode is not told the states: redirectors ask, in the kernel"),
            Need::Buffers => Some("the functions return values and take no buffers"),
            Need::OthersWhoSet => Some("it takes a service that is no elevated administrator"),
            Need::RedirectsWithoutContext => Some("whether there is a context is the driver's affair"),
            Need::Datagrams => Some("the library has no datagrams"),
            Need::Removal => Some("this process cannot unload the driver"),
            Need::Overlapped => Some("the functions return when they are done"),
            Need::RightsAtTheRedirectLayer => Some("it takes two drivers that are told what to do"),
            Need::OriginalApplication => Some("user mode is not told it"),
            Need::Vetoes => Some("it takes a driver that is told what to do"),
            Need::UnredirectedSockets | Need::RecordsAsBytes | Need::MappedAddresses => None,
        }
    }

    fn set_scene(&mut self, redirectors: &[String]) {
        assert_eq!(redirectors, ["A"], "there is one driver");
        // The one before gives the addresses back first.
        self.scene = None;
        self.scene = Some(Scene::new(&self.setup));
    }

    fn perform(&mut self, action: &Action) -> Answer {
        let scene = self.scene.as_mut().expect("a scene was set");
        match action {
            Action::Socket { by, name, family } => scene.make_socket(by, name, *family),
            Action::Connect { socket, to } => Answer::Leg(scene.connect(&self.setup, socket, to)),
            Action::Accept { by: _, name } => scene.accept(name),
            Action::QueryRecords { on, name } => Answer::Code(scene.query_records(on, name)),
            Action::QueryContext { on } => Answer::Code(scene.query_context(on)),
            Action::SetRecords { on, records, cut } => Answer::Code(scene.set_records(on, records, *cut)),
            Action::OriginalDestination { on } => {
                Answer::Destination(scene.original_destination(&self.setup, on))
            }
            Action::State { .. }
            | Action::Application { .. }
            | Action::RemoveRedirector { .. }
            | Action::ProbeRecords { .. }
            | Action::CompareLengths { .. }
            | Action::QueryRecordsOverlapped { .. }
            | Action::AttachNoContext { .. }
            | Action::PermitHard { .. }
            | Action::Insist { .. }
            | Action::Veto { .. }
            | Action::ReportedVetoes
            | Action::DatagramSocket { .. }
            | Action::SendDatagram { .. }
            | Action::ReceiveDatagram { .. }
            | Action::LetFlowsBeIdle { .. } => panic!("{action:?} belongs to what the subject lacks"),
        }
    }
}

impl Scene {
    fn new(setup: &Setup) -> Self {
        Self {
            service: listener(setup.listen),
            destination: listener(setup.destination),
            sockets: BTreeMap::new(),
            waiting: VecDeque::new(),
            arrived: Vec::new(),
            records: BTreeMap::new(),
        }
    }

    fn make_socket(&mut self, by: &str, name: &str, family: Family) -> Answer {
        let held = if by == "client" { Held::Client(None) } else { Held::Own(stream_socket(family)) };
        self.sockets.insert(name.to_owned(), held);
        Answer::Done
    }

    fn connect(&mut self, setup: &Setup, name: &str, to: &Target) -> Place {
        let to = match (to, setup.destination) {
            (Target::Destination, destination) => destination,
            (Target::MappedDestination, SocketAddr::V4(v4)) => (v4.ip().to_ipv6_mapped(), v4.port()).into(),
            (Target::MappedDestination, SocketAddr::V6(v6)) => panic!("{v6} is no IPv4 address"),
            (Target::ListenerOf(_), _) => setup.listen,
        };
        let connected = match self.sockets.get_mut(name).expect("a socket of that name") {
            Held::Own(socket) => socket.connect(&to.into()).is_ok(),
            Held::Client(client) => {
                let (started, connected) = start_client(setup, to);
                *client = Some(started);
                connected
            }
        };
        if connected { self.arrival() } else { Place::Refused }
    }

    /// Whom the connection has reached that nobody has seen yet.
    fn arrival(&mut self) -> Place {
        let give_up = Instant::now() + PATIENCE;
        while Instant::now() < give_up {
            if let Ok((stream, _)) = self.destination.accept() {
                self.arrived.push(stream);
                return Place::Destination;
            }
            if let Ok((stream, _)) = self.service.accept() {
                self.waiting.push_back(stream);
                return Place::Service("A".to_owned());
            }
            thread::sleep(Duration::from_millis(10));
        }
        panic!("what was connected has arrived neither at the service nor at the destination");
    }

    fn accept(&mut self, name: &str) -> Answer {
        let stream = self.waiting.pop_front().expect("a connection that waits");
        self.sockets.insert(name.to_owned(), Held::Own(stream.into()));
        Answer::Done
    }

    fn query_records(&mut self, on: &str, name: &str) -> Code {
        match query_redirect_records(self.own(on)) {
            Ok(records) => {
                self.records.insert(name.to_owned(), records.as_bytes().to_vec());
                Code::OK
            }
            Err(error) => Code(error.winsock_code()),
        }
    }

    fn query_context(&self, on: &str) -> Code {
        let code = |error: QueryError| Code(error.winsock_code());
        query_redirect_context(self.own(on)).map_or_else(code, |_| Code::OK)
    }

    fn set_records(&self, on: &str, records: &str, cut: usize) -> Code {
        let records = &self.records[records];
        let records = RedirectRecords::from_bytes(&records[..records.len() - cut]);
        let set = set_redirect_records(self.own(on), &records);
        set.map_or_else(|error| Code(error.winsock_code()), |()| Code::OK)
    }

    fn original_destination(&self, setup: &Setup, on: &str) -> String {
        let same = |address: SocketAddr| {
            (address.ip().to_canonical(), address.port())
                == (setup.destination.ip().to_canonical(), setup.destination.port())
        };
        match query_original_destination(self.own(on)) {
            Ok(address) if same(address) => "destination".to_owned(),
            other => format!("{other:?}"),
        }
    }

    fn own(&self, name: &str) -> &Socket {
        match self.sockets.get(name) {
            Some(Held::Own(socket)) => socket,
            other => panic!("{name} is {other:?}"),
        }
    }
}

fn start_client(setup: &Setup, to: SocketAddr) -> (Client, bool) {
    let mut command = Command::new(&setup.client);
    command.arg(to.to_string()).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("the client starts");
    let mut said = String::new();
    let output = child.stdout.take().expect("it is piped");
    BufReader::new(output).read_line(&mut said).expect("the client says how it went");
    (Client(child), said.trim() == "connected")
}

/// Not bound: the sample sets the records before it binds.
fn stream_socket(family: Family) -> Socket {
    let domain = match family {
        Family::V4 => Domain::IPV4,
        Family::V6 => Domain::IPV6,
    };
    Socket::new(domain, Type::STREAM, Some(Protocol::TCP)).expect("a socket")
}

fn listener(at: SocketAddr) -> TcpListener {
    let listener = TcpListener::bind(at).unwrap_or_else(|error| panic!("{at}: {error}"));
    listener.set_nonblocking(true).expect("a listener that does not wait");
    listener
}
