//! Redirectors, services and clients on this machine, whichever interface the services use.

use std::{
    collections::{BTreeMap, VecDeque},
    mem::MaybeUninit,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
};

use socket2::{Domain, SockRef, Socket, Type};
use waylay_conformance::{
    Action, Ancillary, Answer, Code, Family, Need, Overlapped, Place, Subject, System, Target,
};
use waylay_core::{
    Conditions, FailurePolicy, Filter, FilterId, Layer, Policy, RedirectState, Service, ServiceId, Tables,
};
use waylay_engine::Endpoint;
use waylay_netlab::{Lab, patiently};

use crate::place::{Kind, Place as Ground};

/// An interface that services ask and set by.
pub(crate) trait Calls: Sync {
    fn lacks(&self, need: Need) -> Option<&'static str>;
    fn socket(&self, domain: Domain) -> Socket;
    fn query_records(&self, socket: &Socket) -> Result<Vec<u8>, Code>;
    fn probe_records(&self, socket: &Socket) -> (Code, usize);
    fn query_records_overlapped(&self, socket: &Socket) -> (Vec<u8>, Overlapped);
    /// The cgroup of the application that the context names.
    fn query_context(&self, socket: &Socket) -> Result<u64, Code>;
    fn original_destination(&self, socket: &Socket) -> SocketAddr;
    fn set_records(&self, socket: &Socket, records: &[u8]) -> Code;
    fn state(&self, socket: &Socket, service: u32) -> RedirectState;
    /// Whatever flow the socket has is one that has been idle for long enough.
    fn let_flows_be_idle(&self, socket: &Socket);
    /// Receives a datagram: what comes with it.
    fn receive_datagram(&self, socket: &Socket) -> Vec<Ancillary>;
}

/// An interface as a subject. Its services are this process, which goes from one
/// cgroup to the other.
pub(crate) struct LabSubject<C> {
    calls: C,
    engine: Kind,
    scene: Option<Scene>,
}

struct Scene {
    ground: Ground,
    redirectors: Vec<String>,
    /// By redirector: IPv4, IPv6.
    listeners: Vec<[TcpListener; 2]>,
    destination: TcpListener,
    /// By redirector, and the destination's.
    datagrams: Vec<Socket>,
    datagrams_to: UdpSocket,
    sockets: BTreeMap<String, Held>,
    /// What has reached a service and was not accepted in the script yet.
    waiting: BTreeMap<String, VecDeque<TcpStream>>,
    /// What has reached the destination stays open.
    arrived: Vec<TcpStream>,
    records: BTreeMap<String, Vec<u8>>,
    sizes: BTreeMap<String, usize>,
}

struct Held {
    owner: String,
    socket: Socket,
}

impl<C: Calls> LabSubject<C> {
    pub(crate) fn new(calls: C, engine: Kind) -> Self {
        Self { calls, engine, scene: None }
    }
}

impl<C: Calls> Subject for LabSubject<C> {
    fn system(&self) -> System {
        System::Waylay
    }

    fn lacks(&self, need: Need) -> Option<&'static str> {
        match need {
            Need::RedirectsWithoutContext => Some("every redirect of waylay has a context"),
            Need::RightsAtTheRedirectLayer => Some("the redirect layer of waylay knows no rights"),
            Need::Vetoes => Some("a hard permit of waylay stands: it knows no veto"),
            Need::UnredirectedSockets
            | Need::TwoRedirectors
            | Need::States
            | Need::RecordsAsBytes
            | Need::Buffers
            | Need::OthersWhoSet
            | Need::MappedAddresses
            | Need::Removal
            | Need::Overlapped
            | Need::Datagrams
            | Need::OriginalApplication => self.calls.lacks(need),
        }
    }

    fn set_scene(&mut self, redirectors: &[String]) {
        // The one before goes first: what it has on the host is named alike.
        self.scene = None;
        self.scene = Some(Scene::new(self.engine, redirectors));
    }

    fn perform(&mut self, action: &Action) -> Answer {
        let (scene, calls) = (self.scene.as_mut().unwrap(), &self.calls);
        match action {
            Action::Socket { by, name, family } => scene.make_socket(calls, by, name, *family),
            Action::Connect { socket, to } => Answer::Leg(scene.connect(socket, to)),
            Action::Accept { by, name } => scene.accept(by, name),
            Action::QueryRecords { on, name } => Answer::Code(scene.query_records(calls, on, name)),
            Action::ProbeRecords { on, name } => Answer::Code(scene.probe_records(calls, on, name)),
            Action::CompareLengths { probed, records } => {
                Answer::Equal(scene.sizes[probed] == scene.records[records].len())
            }
            Action::QueryRecordsOverlapped { on, name } => {
                Answer::Overlapped(scene.query_overlapped(calls, on, name))
            }
            Action::QueryContext { on } => {
                let asked = scene.ask(on, |socket| calls.query_context(socket));
                Answer::Code(asked.err().unwrap_or(Code::OK))
            }
            Action::SetRecords { on, records, cut } => {
                Answer::Code(scene.set_records(calls, on, records, *cut))
            }
            Action::State { on, of } => {
                let service = scene.service(of).unwrap();
                Answer::State(scene.ask(on, |socket| calls.state(socket, service)))
            }
            Action::Application { on } => Answer::Application(scene.application(calls, on)),
            Action::OriginalDestination { on } => {
                let destination = scene.ask(on, |socket| calls.original_destination(socket));
                Answer::Destination(scene.name_of(destination))
            }
            Action::RemoveRedirector { of } => scene.remove(of),
            Action::AttachNoContext { .. }
            | Action::PermitHard { .. }
            | Action::Insist { .. }
            | Action::Veto { .. }
            | Action::ReportedVetoes => panic!("{action:?} belongs to what waylay lacks"),
            Action::DatagramSocket { by, name } => scene.make_datagram_socket(by, name),
            Action::SendDatagram { socket, to } => Answer::Leg(scene.send_datagram(socket, to)),
            Action::ReceiveDatagram { by } => Answer::Ancillary(scene.receive_datagram(calls, by)),
            Action::LetFlowsBeIdle { of } => {
                let service = scene.service(of).unwrap();
                let socket = &scene.datagrams[service as usize - 1];
                scene.ground.asking_as(Some(service), || calls.let_flows_be_idle(socket));
                Answer::Done
            }
        }
    }
}

impl Scene {
    fn new(engine: Kind, redirectors: &[String]) -> Self {
        let mut ground = Ground::new(engine);
        let ids = 1..=u32::try_from(redirectors.len()).unwrap();
        let listeners: Vec<_> = ids.map(|id| ground.acting_as(Some(id), listeners)).collect();
        let ids = 1..=u32::try_from(redirectors.len()).unwrap();
        let datagrams: Vec<_> = ids.map(|id| ground.acting_as(Some(id), datagram_socket)).collect();
        let endpoints = endpoints(&ground, &listeners, &datagrams);
        ground.install(&policy(redirectors, &[]), endpoints);
        Self {
            ground,
            redirectors: redirectors.to_vec(),
            listeners,
            destination: listener(Ipv4Addr::LOCALHOST),
            datagrams,
            datagrams_to: UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap(),
            sockets: BTreeMap::new(),
            waiting: BTreeMap::new(),
            arrived: Vec::new(),
            records: BTreeMap::new(),
            sizes: BTreeMap::new(),
        }
    }

    /// Does something as who is called so.
    fn acting_as<T: Send>(&self, who: &str, act: impl FnOnce() -> T + Send) -> T {
        match (who, self.service(who)) {
            (_, Some(service)) => self.ground.acting_as(Some(service), act),
            ("client", None) => self.ground.acting_as(None, act),
            ("bystander", None) => act(),
            (other, None) => panic!("nobody is called {other}"),
        }
    }

    /// Asks about a socket as its owner.
    fn ask<T: Send>(&self, name: &str, ask: impl FnOnce(&Socket) -> T + Send) -> T {
        let Held { owner, socket } = &self.sockets[name];
        match (owner.as_str(), self.service(owner)) {
            ("bystander", None) => ask(socket),
            (_, service) => self.ground.asking_as(service, || ask(socket)),
        }
    }

    fn make_socket(&mut self, calls: &impl Calls, by: &str, name: &str, family: Family) -> Answer {
        let domain = match family {
            Family::V4 => Domain::IPV4,
            Family::V6 => Domain::IPV6,
        };
        let socket = self.acting_as(by, || calls.socket(domain));
        self.sockets.insert(name.to_owned(), Held { owner: by.to_owned(), socket });
        Answer::Done
    }

    fn make_datagram_socket(&mut self, by: &str, name: &str) -> Answer {
        let socket = self.acting_as(by, || Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap());
        self.sockets.insert(name.to_owned(), Held { owner: by.to_owned(), socket });
        Answer::Done
    }

    fn send_datagram(&self, name: &str, to: &Target) -> Place {
        assert_eq!(*to, Target::Destination);
        let (held, to) = (&self.sockets[name], self.datagrams_to.local_addr().unwrap());
        let sent = self.acting_as(&held.owner, || held.socket.send_to(b"datagram", &to.into()));
        match sent {
            Ok(_) => patiently("the datagram's arrival", || self.find_datagram()),
            Err(_) => Place::Refused,
        }
    }

    /// Whom a datagram has reached. It stays there.
    fn find_datagram(&self) -> Option<Place> {
        let waits = |socket: SockRef<'_>| socket.peek(&mut [MaybeUninit::uninit()]).is_ok();
        self.datagrams_to.set_nonblocking(true).unwrap();
        if waits(SockRef::from(&self.datagrams_to)) {
            return Some(Place::Destination);
        }
        let mut services = self.redirectors.iter().zip(&self.datagrams);
        let (name, _) = services.find(|(_, socket)| waits(SockRef::from(*socket)))?;
        Some(Place::Service(name.clone()))
    }

    fn receive_datagram(&self, calls: &impl Calls, by: &str) -> Vec<Ancillary> {
        let socket = &self.datagrams[self.service(by).unwrap() as usize - 1];
        self.acting_as(by, || calls.receive_datagram(socket))
    }

    fn connect(&mut self, name: &str, to: &Target) -> Place {
        let to = self.address(to);
        let held = &self.sockets[name];
        match self.acting_as(&held.owner, || held.socket.connect(&to.into())) {
            Ok(()) => patiently("the other end of a connection", || self.find_arrival()),
            Err(_) => Place::Refused,
        }
    }

    fn address(&self, target: &Target) -> SocketAddr {
        let destination = self.destination.local_addr().unwrap();
        match target {
            Target::Destination => destination,
            Target::MappedDestination => (Ipv4Addr::LOCALHOST.to_ipv6_mapped(), destination.port()).into(),
            Target::ListenerOf(redirector) => {
                self.listeners[self.service(redirector).unwrap() as usize - 1][0].local_addr().unwrap()
            }
        }
    }

    /// Whom the connection has reached that nobody has seen yet.
    fn find_arrival(&mut self) -> Option<Place> {
        if let Ok((stream, _)) = self.destination.accept() {
            self.arrived.push(stream);
            return Some(Place::Destination);
        }
        let accepted = self.listeners.iter().map(|pair| pair.iter().find_map(|one| one.accept().ok()));
        let (name, (stream, _)) =
            self.redirectors.iter().zip(accepted).find_map(|(name, accepted)| Some((name, accepted?)))?;
        self.waiting.entry(name.clone()).or_default().push_back(stream);
        Some(Place::Service(name.clone()))
    }

    fn accept(&mut self, by: &str, name: &str) -> Answer {
        let stream = self.waiting.get_mut(by).and_then(VecDeque::pop_front).unwrap();
        self.sockets.insert(name.to_owned(), Held { owner: by.to_owned(), socket: stream.into() });
        Answer::Done
    }

    fn query_records(&mut self, calls: &impl Calls, on: &str, name: &str) -> Code {
        match self.ask(on, |socket| calls.query_records(socket)) {
            Ok(records) => {
                self.records.insert(name.to_owned(), records);
                Code::OK
            }
            Err(code) => code,
        }
    }

    fn probe_records(&mut self, calls: &impl Calls, on: &str, name: &str) -> Code {
        let (code, size) = self.ask(on, |socket| calls.probe_records(socket));
        self.sizes.insert(name.to_owned(), size);
        code
    }

    fn query_overlapped(&mut self, calls: &impl Calls, on: &str, name: &str) -> Overlapped {
        let (records, outcome) = self.ask(on, |socket| calls.query_records_overlapped(socket));
        self.records.insert(name.to_owned(), records);
        outcome
    }

    fn set_records(&self, calls: &impl Calls, on: &str, records: &str, cut: usize) -> Code {
        let (held, records) = (&self.sockets[on], &self.records[records]);
        let records = &records[..records.len() - cut];
        self.acting_as(&held.owner, || calls.set_records(&held.socket, records))
    }

    fn application(&self, calls: &impl Calls, on: &str) -> String {
        let client = self.ground.of_the_client();
        match self.ask(on, |socket| calls.query_context(socket)) {
            Ok(cgroup) if cgroup == client => "client".to_owned(),
            other => format!("{other:?}"),
        }
    }

    fn name_of(&self, address: SocketAddr) -> String {
        let destination = self.destination.local_addr().unwrap();
        if address == destination { "destination".to_owned() } else { address.to_string() }
    }

    fn remove(&mut self, redirector: &str) -> Answer {
        let tables = Tables::compile(&policy(&self.redirectors, &[redirector])).unwrap();
        let endpoints = endpoints(&self.ground, &self.listeners, &self.datagrams);
        self.ground.replace(tables, endpoints);
        Answer::Done
    }

    fn service(&self, redirector: &str) -> Option<u32> {
        let at = self.redirectors.iter().position(|name| name == redirector)?;
        Some(u32::try_from(at).unwrap() + 1)
    }
}

/// Each service takes everything, in this order; those of redirectors that are gone take nothing.
fn policy(redirectors: &[String], gone: &[&str]) -> Policy {
    let ids = || (1..).map(ServiceId).zip(redirectors);
    let declare = |(id, name): (ServiceId, &String)| Service {
        id,
        name: name.clone(),
        before: Vec::new(),
        after: redirectors[..id.0 as usize - 1].to_vec(),
        on_failure: FailurePolicy::Closed,
    };
    let filter = |(service, _): (ServiceId, &String)| Filter {
        id: FilterId(service.0),
        weight: 0,
        conditions: Conditions::default(),
        layer: Layer::Redirect { service },
    };
    let filters = ids().filter(|(_, name)| !gone.contains(&name.as_str())).map(filter).collect();
    Policy::new(ids().map(declare).collect(), Vec::new(), filters).unwrap()
}

fn endpoints(ground: &Ground, listeners: &[[TcpListener; 2]], datagrams: &[Socket]) -> Vec<Endpoint> {
    let endpoint = |((id, pair), datagrams): ((u32, &[TcpListener; 2]), &Socket)| Endpoint {
        udp4: Some(datagrams.local_addr().unwrap().as_socket().unwrap().port()),
        ..Lab::endpoint_in(ground.of_service(id), id, pair)
    };
    (1..).zip(listeners).zip(datagrams).map(endpoint).collect()
}

/// As `waylay run` makes it: reached by every address of the loopback.
fn datagram_socket() -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
    socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)).into()).unwrap();
    socket.set_nonblocking(true).unwrap();
    socket
}

fn listeners() -> [TcpListener; 2] {
    let six = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).unwrap();
    six.set_nonblocking(true).unwrap();
    [listener(Ipv4Addr::LOCALHOST), six]
}

fn listener(at: Ipv4Addr) -> TcpListener {
    let listener = TcpListener::bind((at, 0)).unwrap();
    listener.set_nonblocking(true).unwrap();
    listener
}
