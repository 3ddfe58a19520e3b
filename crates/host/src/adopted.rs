//! One adopted service: a program that takes connections at an address of its
//! own and knows nothing of waylay.
//!
//! What it is known by is its cgroup. It is there as long as that holds a
//! process, whichever: programs that fork and whose first process ends are
//! services as others are. Whether it takes connections the kernel's programs
//! see by its listener.

use std::{
    io::{self, BufReader, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    process::{Child, ExitStatus},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use waylay_core::Protocol;
use waylay_engine::LocalName;

use crate::{
    assignment::Interruption,
    cgroup::Cgroup,
    deadline::Deadline,
    error::RunError,
    launch::{Families, Launch, Listening, Role},
    service::{self, STOP_PATIENCE, STOP_STEP, launcher, read_reports},
    sockets::{self, Socket},
    spawner::Spawner,
    spec::{Adoption, Observer, ServiceSpec, Step, Transports},
    user::Identity,
};

/// One of the addresses by which datagrams are led to a service.
pub(crate) const A_TOKEN: Ipv4Addr = Ipv4Addr::new(127, 128, 0, 1);
const START_STEP: Duration = Duration::from_millis(10);
/// Between looks at a service's connections, of which there may be many.
const DRAIN_STEP: Duration = Duration::from_millis(20);

/// An adopted service whose process has started.
pub(crate) struct Adopted {
    child: Child,
    reader: JoinHandle<()>,
    name: String,
    adoption: Adoption,
    transports: Transports,
    cgroup: Cgroup,
    uid: u32,
}

/// An adopted service that listens.
pub(crate) struct Working {
    pid: Option<Pid>,
    first_has_ended: Arc<AtomicBool>,
    stopping: Arc<AtomicBool>,
    watcher: JoinHandle<()>,
    door: Door,
    cgroup: Cgroup,
}

/// How the last process of a service ended.
pub(crate) enum Ending {
    /// It was the one that was started.
    First(ExitStatus),
    /// It was not, and nobody knows.
    Another,
}

/// The listeners of an adopted service.
#[derive(Clone, Debug)]
pub(crate) struct Door {
    cgroup: u64,
    ports: Vec<u16>,
}

impl Adopted {
    /// Starts its process, if nobody is where it is to listen.
    pub(crate) fn start(
        spec: &ServiceSpec,
        adoption: &Adoption,
        cgroup: Cgroup,
        identity: Identity,
        spawner: &Spawner,
        observer: &Arc<dyn Observer>,
    ) -> Result<Self, RunError> {
        for &address in &adoption.listens {
            check_address(spec, address)?;
        }
        let failed = |source| RunError::ServiceStart { service: spec.name.clone(), source };
        let uid = identity.uid;
        let launch = Launch {
            cgroup: Some(cgroup.path().into()),
            identity: Some(identity),
            role: Role::Adopted,
            own_binary: false,
            families: Families::Any,
            supervision: None,
        };
        let (mut child, mut stdin, stdout) = launcher(&launch, &spec.command)
            .and_then(|command| service::start(command, spawner))
            .map_err(failed)?;
        stdin.write_all(b"go\n").inspect_err(|_| service::end(&mut child)).map_err(failed)?;
        let reader = read_reports(spec.name.clone(), BufReader::new(stdout), Arc::clone(observer));
        Ok(Self {
            child,
            reader,
            name: spec.name.clone(),
            adoption: adoption.clone(),
            transports: spec.transports,
            cgroup,
            uid,
        })
    }

    /// Where it listens, as soon as it does at every address where it is to.
    pub(crate) fn wait_until_it_listens(
        &mut self,
        patience: Duration,
        interruption: &Interruption,
        observer: &Arc<dyn Observer>,
    ) -> Result<Listening, RunError> {
        let cgroup = self.cgroup_id()?;
        let started = Instant::now();
        loop {
            let own = OwnSockets::find(cgroup).map_err(RunError::Sockets)?;
            let Some(address) = self.missing(&own) else { return Ok(self.listening(&own)) };
            observer.step(Step::WaitingForListener { name: &self.name, address });
            if let Some(signal) = interruption.take() {
                return Err(RunError::Interrupted { signal });
            }
            self.check_alive(address)?;
            if started.elapsed() >= patience {
                let elsewhere = own.tcp.iter().chain(&own.udp).map(|socket| socket.local).collect();
                let service = self.name.clone();
                return Err(RunError::NotListening { service, address, waited: patience, elsewhere });
            }
            thread::sleep(START_STEP);
        }
    }

    /// `on_end` is called if its last process ends before it is told to.
    pub(crate) fn work(self, on_end: impl FnOnce(Ending) + Send + 'static) -> Result<Working, RunError> {
        let door = self.door()?;
        let Self { mut child, reader, cgroup, .. } = self;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let stopping = Arc::new(AtomicBool::new(false));
        let first_has_ended = Arc::new(AtomicBool::new(false));
        let (stopped, ended, watched) = (Arc::clone(&stopping), Arc::clone(&first_has_ended), cgroup.clone());
        let watcher = thread::spawn(move || {
            let ending = wait_for_the_last(&mut child, &watched, &ended);
            if !stopped.load(Ordering::Acquire) {
                on_end(ending);
            }
            // A reader that panicked has read all it will.
            let _read = reader.join();
        });
        Ok(Working { pid, first_has_ended, stopping, watcher, door, cgroup })
    }

    fn door(&self) -> Result<Door, RunError> {
        let ports = self.adoption.listens.iter().map(SocketAddr::port).collect();
        Ok(Door { cgroup: self.cgroup_id()?, ports })
    }

    /// Ends it, when it cannot be of use.
    pub(crate) fn give_up(mut self) {
        self.cgroup.kill();
        // It may be a launcher that has not entered its cgroup.
        service::end(&mut self.child);
        let _read = self.reader.join();
    }

    fn cgroup_id(&self) -> Result<u64, RunError> {
        self.cgroup.id().map_err(|source| RunError::ServiceStart { service: self.name.clone(), source })
    }

    fn check_alive(&mut self, address: SocketAddr) -> Result<(), RunError> {
        let failed = |source| RunError::ServiceStart { service: self.name.clone(), source };
        match self.child.try_wait().map_err(failed)? {
            Some(status) if !self.cgroup.is_populated() => {
                Err(RunError::AdoptedEnded { service: self.name.clone(), status, address, uid: self.uid })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Where it is to listen and does not.
    fn missing(&self, own: &OwnSockets) -> Option<SocketAddr> {
        let (tcp, udp) = (self.transports.include_tcp(), self.transports.include_udp());
        let listens = &self.adoption.listens;
        let missing = listens.iter().find(|address| tcp && taking(&own.tcp, **address).is_none());
        let takes_no_datagrams = |address: &&SocketAddr| match address {
            SocketAddr::V6(_) if self.is_told_in_packets() => taking(&own.udp, **address).is_none(),
            SocketAddr::V4(_) | SocketAddr::V6(_) => self.token_port(own).is_none(),
        };
        missing.or(listens.iter().find(takes_no_datagrams).filter(|_| udp)).copied()
    }

    fn is_told_in_packets(&self) -> bool {
        self.adoption.local_name == LocalName::Packet
    }

    /// At which datagrams arrive for addresses that nobody has, as tokens are.
    fn token_port(&self, own: &OwnSockets) -> Option<u16> {
        let ports = self.adoption.listens.iter().map(SocketAddr::port);
        ports.into_iter().find(|&port| own.udp.iter().any(|socket| socket.takes((A_TOKEN, port).into())))
    }

    /// At which it takes datagrams over IPv6, if it is told in packets where these were going: there is one address for all of them.
    fn port_of_ipv6(&self, own: &OwnSockets) -> Option<u16> {
        let at = |address: &SocketAddr| SocketAddr::from((Ipv6Addr::LOCALHOST, address.port()));
        let mut listens = self.adoption.listens.iter().filter(|address| address.is_ipv6());
        let found = listens.find(|address| own.udp.iter().any(|socket| socket.takes(at(address))));
        found.filter(|_| self.is_told_in_packets()).map(SocketAddr::port)
    }

    fn listening(&self, own: &OwnSockets) -> Listening {
        let udp4 = self.token_port(own).filter(|_| self.transports.include_udp());
        let udp6 = self.port_of_ipv6(own).filter(|_| self.transports.include_udp());
        let mut listening = Listening { udp4, udp6: udp6.into_iter().collect(), ..Listening::default() };
        if !self.transports.include_tcp() {
            return listening;
        }
        let found = self.adoption.listens.iter().filter_map(|&address| taking(&own.tcp, address));
        listening.take(found.flat_map(Socket::addresses));
        listening
    }
}

impl Working {
    /// Its listeners, for whoever wants to know how they get on.
    pub(crate) fn door(&self) -> &Door {
        &self.door
    }

    /// Ends it at once.
    pub(crate) fn give_up(self) {
        self.stopping.store(true, Ordering::Release);
        self.cgroup.kill();
        let _ended = self.watcher.join();
    }

    /// Lets it finish the connections it has until a deadline, and tells it to end. Programs that were not made for waylay drop
    /// what they have when they are told.
    pub(crate) fn tell_to_stop(&self, deadline: &Deadline) {
        while !self.watcher.is_finished() && !deadline.is_over() && self.door.has_connections() {
            thread::sleep(DRAIN_STEP);
        }
        self.stopping.store(true, Ordering::Release);
        if self.first_has_ended.load(Ordering::Acquire) {
            for pid in self.cgroup.processes() {
                send(i32::try_from(pid).ok().and_then(Pid::from_raw), Signal::TERM);
            }
        } else {
            send(self.pid, Signal::TERM);
        }
    }

    /// Until all its processes have ended and its last line has been read; kills them if that takes too long.
    pub(crate) fn wait(self) {
        let deadline = Deadline::within(STOP_PATIENCE);
        while !self.watcher.is_finished() {
            if deadline.is_over() {
                self.cgroup.kill();
                break;
            }
            thread::sleep(STOP_STEP);
        }
        // A watcher that panicked has ended too.
        let _ended = self.watcher.join();
    }
}

impl Door {
    /// Connections that have arrived and that it has not accepted; `None` if that cannot be seen now.
    pub(crate) fn waiting(&self) -> Option<u64> {
        let listeners = sockets::listeners(Protocol::Tcp).ok()?;
        let own = listeners.iter().filter(|socket| self.is_of(socket));
        Some(own.map(|socket| u64::from(socket.waiting)).sum())
    }

    fn has_connections(&self) -> bool {
        sockets::connections().is_ok_and(|sockets| sockets.iter().any(|socket| self.is_of(socket)))
    }

    fn is_of(&self, socket: &Socket) -> bool {
        socket.cgroup == self.cgroup && self.ports.contains(&socket.local.port())
    }
}

fn wait_for_the_last(first: &mut Child, cgroup: &Cgroup, first_has_ended: &AtomicBool) -> Ending {
    let status = first.wait();
    first_has_ended.store(true, Ordering::Release);
    match status {
        Ok(status) if !cgroup.is_populated() => Ending::First(status),
        Ok(_) | Err(_) => {
            cgroup.wait_until_empty();
            Ending::Another
        }
    }
}

fn send(pid: Option<Pid>, signal: Signal) {
    if let Some(pid) = pid {
        let _gone_already = kill_process(pid, signal);
    }
}

/// What a service has open.
struct OwnSockets {
    tcp: Vec<Socket>,
    udp: Vec<Socket>,
}

impl OwnSockets {
    fn find(cgroup: u64) -> io::Result<Self> {
        let mut own =
            Self { tcp: sockets::listeners(Protocol::Tcp)?, udp: sockets::listeners(Protocol::Udp)? };
        own.tcp.retain(|socket| socket.cgroup == cgroup);
        own.udp.retain(|socket| socket.cgroup == cgroup);
        Ok(own)
    }
}

/// The socket at which connections to an address arrive.
pub(crate) fn taking(sockets: &[Socket], address: SocketAddr) -> Option<&Socket> {
    let address = reached_by(address);
    sockets.iter().find(|socket| socket.takes(address))
}

/// Somebody may be there whom only a look shows: both may have said that they share their port.
pub(crate) fn check_address(spec: &ServiceSpec, address: SocketAddr) -> Result<(), RunError> {
    let service = spec.name.clone();
    if let Err(source) = UdpSocket::bind((address.ip(), 0)) {
        return Err(RunError::AddressElsewhere { service, address, source });
    }
    let mut others = Vec::new();
    if spec.transports.include_tcp() {
        others.extend(sockets::listeners(Protocol::Tcp).map_err(RunError::Sockets)?);
    }
    if spec.transports.include_udp() {
        others.extend(sockets::listeners(Protocol::Udp).map_err(RunError::Sockets)?);
    }
    match others.iter().find(|socket| overlap(socket, address)) {
        Some(socket) => Err(RunError::AddressTaken { service, address, holder: sockets::holder(socket) }),
        None => Ok(()),
    }
}

fn overlap(socket: &Socket, address: SocketAddr) -> bool {
    let is_within = address.ip().is_unspecified()
        && address.is_ipv4() == socket.local.is_ipv4()
        && address.port() == socket.local.port();
    is_within || socket.takes(reached_by(address))
}

/// Of an address that stands for all of them, one.
pub(crate) fn reached_by(address: SocketAddr) -> SocketAddr {
    let loopback: IpAddr = match address {
        SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    if address.ip().is_unspecified() { SocketAddr::new(loopback, address.port()) } else { address }
}
