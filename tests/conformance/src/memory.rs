//! The engine in memory as a subject: no sockets, so nothing of buffers, bytes and errno.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use waylay_core::{
    Chain, Conditions, FailurePolicy, Filter, FilterId, Layer, Leg, Policy, Process, Protocol, RedirectState,
    Service, ServiceId, Tables, normal_form, state,
};
use waylay_engine::memory::{FlowId, Outcome, QueryRecordsError, RecordsHandle, SetRecordsError, SocketId};
use waylay_engine::{Endpoint, Engine, Installation, Liveness, LocalName, MemoryEngine};

use crate::vector::{Action, Answer, Code, Need, Place, Target};
use crate::{Subject, System};

const DESTINATION: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 443);
const CLIENT: u64 = 1;
const BYSTANDER: u64 = 2;
const FIRST_SERVICE: u64 = 1000;

/// The engine, and the names of what vectors keep.
#[derive(Debug, Default)]
pub struct MemorySubject {
    engine: MemoryEngine,
    redirectors: Vec<String>,
    removed: Vec<String>,
    sockets: BTreeMap<String, Socket>,
    last_socket: u64,
    /// Flows that no service has accepted yet, by service.
    waiting: BTreeMap<ServiceId, VecDeque<FlowId>>,
    inbound: BTreeMap<String, FlowId>,
    records: BTreeMap<String, (RecordsHandle, FlowId)>,
}

#[derive(Clone, Copy, Debug)]
struct Socket {
    id: SocketId,
    owner: Process,
    /// The flow whose chain was set on it.
    carries: Option<FlowId>,
}

impl Subject for MemorySubject {
    fn system(&self) -> System {
        System::Waylay
    }

    fn lacks(&self, need: Need) -> Option<&'static str> {
        match need {
            Need::UnredirectedSockets => Some("what was not redirected has no flow to ask about"),
            Need::RecordsAsBytes => Some("records are a value and no bytes that could be cut"),
            Need::Buffers => Some("there are no buffers"),
            Need::RedirectsWithoutContext => Some("every redirect of waylay has a context"),
            Need::Datagrams => Some("it knows no packets"),
            Need::Overlapped => Some("nothing is overlapped"),
            Need::RightsAtTheRedirectLayer => Some("the redirect layer of waylay knows no rights"),
            Need::Vetoes => Some("a hard permit of waylay stands: it knows no veto"),
            Need::TwoRedirectors
            | Need::States
            | Need::OthersWhoSet
            | Need::MappedAddresses
            | Need::Removal
            | Need::OriginalApplication => None,
        }
    }

    fn set_scene(&mut self, redirectors: &[String]) {
        *self = Self { redirectors: redirectors.to_vec(), ..Self::default() };
        self.install();
        for name in redirectors {
            let alive = self.engine.set_liveness(self.service(name), Liveness::Alive);
            alive.expect("it cannot fail");
        }
    }

    fn perform(&mut self, action: &Action) -> Answer {
        match action {
            Action::Socket { by, name, family: _ } => self.socket(by, name),
            Action::Connect { socket, to } => Answer::Leg(self.connect(socket, to)),
            Action::Accept { by, name } => self.accept(by, name),
            Action::QueryRecords { on, name } => Answer::Code(self.query_records(on, name)),
            Action::QueryContext { on } => Answer::Code(self.query_context(on)),
            Action::SetRecords { on, records, cut: 0 } => Answer::Code(self.set_records(on, records)),
            Action::State { on, of } => Answer::State(self.state(on, of)),
            Action::Application { on } => Answer::Application(self.application(on)),
            Action::OriginalDestination { on } => Answer::Destination(self.original_destination(on)),
            Action::RemoveRedirector { of } => self.remove(of),
            Action::SetRecords { .. }
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
            | Action::LetFlowsBeIdle { .. } => {
                panic!("{action:?} belongs to what the engine in memory lacks")
            }
        }
    }
}

impl MemorySubject {
    fn socket(&mut self, by: &str, name: &str) -> Answer {
        self.last_socket += 1;
        let socket = Socket { id: SocketId(self.last_socket), owner: self.process(by), carries: None };
        self.sockets.insert(name.to_owned(), socket);
        Answer::Done
    }

    fn connect(&mut self, socket: &str, to: &Target) -> Place {
        let socket = self.sockets[socket];
        let remote = match to {
            Target::Destination => DESTINATION,
            Target::MappedDestination => {
                (Ipv4Addr::new(192, 0, 2, 1).to_ipv6_mapped(), DESTINATION.port()).into()
            }
            Target::ListenerOf(name) => listener(self.service(name)),
        };
        let leg = Leg { protocol: Protocol::Tcp, local: None, remote, caller: socket.owner };
        match self.engine.connect(&leg, socket.id) {
            Outcome::Direct => Place::Destination,
            Outcome::Refused(_) => Place::Refused,
            Outcome::Redirected { service, flow } => {
                self.waiting.entry(service).or_default().push_back(flow);
                Place::Service(self.name(service))
            }
        }
    }

    fn accept(&mut self, by: &str, name: &str) -> Answer {
        let service = self.service(by);
        let flow = self.waiting.get_mut(&service).and_then(VecDeque::pop_front);
        self.inbound.insert(name.to_owned(), flow.expect("a connection that waits"));
        Answer::Done
    }

    fn query_records(&mut self, on: &str, name: &str) -> Code {
        let flow = self.inbound[on];
        let owner = self.owner_of(flow);
        match self.engine.query_records(flow, &owner) {
            Ok(handle) => {
                self.records.insert(name.to_owned(), (handle, flow));
                Code::OK
            }
            Err(QueryRecordsError::FlowEnded) => Code::NOT_CONNECTED,
            Err(QueryRecordsError::NotItsService) => Code::NOT_FOUND,
        }
    }

    /// What a context of waylay tells is here told by the engine itself.
    fn query_context(&self, on: &str) -> Code {
        match self.engine.original_destination(self.inbound[on]) {
            Some(_) => Code::OK,
            None => Code::NOT_FOUND,
        }
    }

    fn set_records(&mut self, on: &str, records: &str) -> Code {
        let (handle, flow) = self.records[records];
        let socket = self.sockets.get_mut(on).expect("a socket of that name");
        match self.engine.set_records(socket.id, handle, &socket.owner) {
            Ok(()) => {
                socket.carries = Some(flow);
                Code::OK
            }
            Err(SetRecordsError::NotItsService) => Code::ACCESS,
            Err(SetRecordsError::FlowEnded | SetRecordsError::Connected) => Code::INVALID,
        }
    }

    fn state(&self, on: &str, of: &str) -> RedirectState {
        let flow = self.inbound.get(on).copied().or_else(|| self.sockets[on].carries);
        let chain = flow.and_then(|flow| self.engine.chain(flow)).cloned().unwrap_or_default();
        state(self.service(of), &chain)
    }

    fn application(&self, on: &str) -> String {
        let origin = self.engine.chain(self.inbound[on]).and_then(Chain::origin);
        match origin {
            Some(process) if process.cgroup == CLIENT => "client".to_owned(),
            other => format!("{other:?}"),
        }
    }

    fn original_destination(&self, on: &str) -> String {
        let destination = self.engine.original_destination(self.inbound[on]);
        let same = |address: SocketAddr| {
            (normal_form(address.ip()), address.port()) == (normal_form(DESTINATION.ip()), DESTINATION.port())
        };
        match destination {
            Some(address) if same(address) => "destination".to_owned(),
            other => format!("{other:?}"),
        }
    }

    fn remove(&mut self, of: &str) -> Answer {
        self.removed.push(of.to_owned());
        self.install();
        Answer::Done
    }

    /// Services stay, those of redirectors that were removed without a filter.
    fn install(&mut self) {
        let ids: Vec<ServiceId> = self.redirectors.iter().map(|name| self.service(name)).collect();
        let redirecting = self.redirectors.iter().filter(|name| !self.removed.contains(name));
        let filters = redirecting.map(|name| filter(self.service(name))).collect();
        let services = ids.iter().map(|&id| declare(id)).collect();
        let policy = Policy::new(services, Vec::new(), filters).expect("a policy");
        let slots = self.engine.slots().expect("it cannot fail");
        let tables = Tables::compile_keeping(&policy, slots).expect("few services");
        let endpoints = ids.into_iter().map(endpoint).collect();
        self.engine.install(&Installation { tables, endpoints }).expect("it cannot fail");
    }

    fn service(&self, name: &str) -> ServiceId {
        let at = self.redirectors.iter().position(|known| known == name).expect("a redirector of that name");
        ServiceId(u32::try_from(at).expect("few redirectors") + 1)
    }

    fn name(&self, service: ServiceId) -> String {
        self.redirectors[service.0 as usize - 1].clone()
    }

    fn process(&self, name: &str) -> Process {
        let cgroup = match name {
            "client" => CLIENT,
            "bystander" => BYSTANDER,
            service => cgroup_of(self.service(service)),
        };
        Process { pid: 10, start_time_ns: 5, uid: 1000, cgroup, ..Process::default() }
    }

    /// A process of the service that the flow was redirected to.
    fn owner_of(&self, flow: FlowId) -> Process {
        let last = self.engine.chain(flow).and_then(|chain| chain.hops().last().copied());
        last.map_or_else(|| self.process("bystander"), |hop| self.process(&self.name(hop.service)))
    }
}

fn declare(id: ServiceId) -> Service {
    let after = (1..id.0).map(|earlier| ServiceId(earlier).to_string()).collect();
    Service { id, name: id.to_string(), before: Vec::new(), after, on_failure: FailurePolicy::Closed }
}

fn filter(service: ServiceId) -> Filter {
    let layer = Layer::Redirect { service };
    Filter { id: FilterId(service.0), weight: 0, conditions: Conditions::default(), layer }
}

fn endpoint(service: ServiceId) -> Endpoint {
    let port = port_of(service);
    let (v4, v6) = (format!("127.0.0.1:{port}"), format!("[::1]:{port}"));
    let tcp4 = vec![v4.parse().expect("an address")];
    let tcp6 = vec![v6.parse().expect("an address")];
    Endpoint {
        service,
        cgroup: cgroup_of(service),
        tcp4,
        tcp6,
        udp4: None,
        udp6: Vec::new(),
        behind6: None,
        local_name: LocalName::Listener,
    }
}

fn listener(service: ServiceId) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port_of(service)).into()
}

fn port_of(service: ServiceId) -> u16 {
    9000 + u16::try_from(service.0).expect("few services")
}

fn cgroup_of(service: ServiceId) -> u64 {
    FIRST_SERVICE + u64::from(service.0)
}
