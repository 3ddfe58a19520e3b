//! Connections that are older than the policy: found by sock_diag(7), judged by `waylay-core` as if they were made now, and
//! ended where it says so.
//!
//! What is looked at are sockets made in the scope, by their cgroup, and not those of the services. A connection that somebody
//! has accepted is none that a process of the scope has made: one at whose local address somebody listens, or from a port
//! below those that the kernel gives out (`net.ipv4.ip_local_port_range`), is left alone.
//!
//! Other network namespaces are those that a process of the scope is in.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs, io,
    net::{IpAddr, SocketAddr},
};

use waylay_core::{
    ExistingVerdict, Filter, ForeignNamespace, Leg, Namespace, Policy, Process, Protocol, Reach, Verdict,
    World, decide_existing,
};
use waylay_engine::Endpoint;

use crate::{
    caller::Caller,
    cgroup::Cgroup,
    netns::Netns,
    processes::{self, Running},
    sockets::{self, Socket},
    surroundings::Around,
};

const PORT_RANGE: &str = "/proc/sys/net/ipv4/ip_local_port_range";
/// The kernel's own default (ip(7)).
const FIRST_PORT: u16 = 32_768;

/// A connection that was there before the policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExistingConnection {
    /// Its transport protocol.
    pub protocol: Protocol,
    /// Who has it, as `curl[123]`.
    pub process: String,
    /// Where it comes from.
    pub local: SocketAddr,
    /// Where it goes.
    pub remote: SocketAddr,
    /// What would become of it if it were made now.
    pub verdict: Verdict,
}

impl fmt::Display for ExistingConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} -> {}", self.process, self.protocol, self.remote)
    }
}

/// What was done about them.
#[derive(Debug, Default)]
pub struct Swept {
    /// Those that were reset.
    pub reset: Vec<ExistingConnection>,
    /// Those that should have been, and why they go on.
    pub left: Vec<(ExistingConnection, io::Error)>,
    /// Why nobody could look for them, if that is so.
    pub unseen: Option<io::Error>,
}

/// Where they are looked for.
pub(crate) struct Past<'p> {
    /// The cgroup whose subtree is watched.
    pub(crate) scope: &'p Cgroup,
    /// In it, what the station has made for itself.
    pub(crate) own: &'p Cgroup,
    pub(crate) policy: &'p Policy,
    /// Whether a connection that goes there has been led to a service.
    pub(crate) is_led: &'p dyn Fn(Protocol, SocketAddr) -> bool,
    /// How far the host gets.
    pub(crate) reach: &'p dyn Fn(IpAddr) -> Reach,
    pub(crate) around: &'p Around<'p>,
}

impl Past<'_> {
    /// Ends those that the policy ends. The programs have to be attached: what is made meanwhile is theirs.
    pub(crate) fn sweep(&self) -> Swept {
        let mut swept = Swept::default();
        let swept_all = self.places().and_then(|places| {
            let watched = self.watched();
            places.iter().try_for_each(|place| self.sweep_in(place, &watched, &mut swept))
        });
        swept.unseen = swept_all.err();
        swept
    }

    /// The network namespaces that matter: in others than the own one nobody is led anywhere, but may be refused.
    fn places(&self) -> io::Result<Vec<Netns>> {
        let mut places = vec![Netns::own()];
        let asks = |filter: &Filter| filter.conditions.namespace.is_some();
        match self.policy.foreign_namespace() {
            ForeignNamespace::Permit if !self.policy.filters().iter().any(asks) => {}
            ForeignNamespace::Permit | ForeignNamespace::Block => {
                places.extend(Netns::others_of(self.scope.processes())?);
            }
        }
        Ok(places)
    }

    fn sweep_in(&self, place: &Netns, watched: &BTreeSet<u64>, swept: &mut Swept) -> io::Result<()> {
        let ending = self.ending(place, watched)?;
        let destroyed = place.within(|| {
            let destroy = |(protocol, socket, _): &(Protocol, Socket, ExistingConnection)| {
                sockets::destroy(*protocol, socket)
            };
            ending.iter().map(destroy).collect::<Vec<_>>()
        })?;
        for ((_, _, connection), destroyed) in ending.into_iter().zip(destroyed) {
            match destroyed {
                Ok(()) => swept.reset.push(connection),
                // Over by itself.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => swept.left.push((connection, error)),
            }
        }
        Ok(())
    }

    fn ending(
        &self,
        place: &Netns,
        watched: &BTreeSet<u64>,
    ) -> io::Result<Vec<(Protocol, Socket, ExistingConnection)>> {
        let mut candidates = place.within(|| made_by(watched))??;
        if place.namespace() == Namespace::Own {
            candidates.retain(|(protocol, socket)| !(self.is_led)(*protocol, socket.remote));
        }
        let holders = holders(&candidates);
        let judged = candidates.into_iter().filter_map(|(protocol, socket)| {
            let holder = holders.get(&socket.inode)?;
            let connection = self.judge(place.namespace(), protocol, &socket, holder)?;
            Some((protocol, socket, connection))
        });
        Ok(judged.collect())
    }

    fn judge(
        &self,
        namespace: Namespace,
        protocol: Protocol,
        socket: &Socket,
        holder: &Running,
    ) -> Option<ExistingConnection> {
        let caller = Caller::of(holder)?;
        let service = self.around.service(&caller);
        let Caller { process, cgroups, cgroup } = caller;
        // Whether its address was bound or followed from the route cannot be seen any more.
        let leg =
            Leg { protocol, local: None, remote: socket.remote, caller: Process { service, ..process } };
        let world = World {
            namespace,
            cgroups,
            confinement: self.around.confinement(&cgroup),
            hosts: self.around.hosts(&process, socket.remote.ip()),
            obstacle: (self.reach)(socket.remote.ip()).obstacle(protocol),
            ..World::default()
        };
        match decide_existing(self.policy, &leg, &world) {
            ExistingVerdict::Stays => None,
            ExistingVerdict::Ends(verdict) => Some(ExistingConnection {
                protocol,
                process: holder.to_string(),
                local: socket.local,
                remote: socket.remote,
                verdict,
            }),
        }
    }

    /// The cgroups in which applications make sockets.
    fn watched(&self) -> BTreeSet<u64> {
        let own: BTreeSet<u64> = self.own.all().iter().filter_map(|cgroup| cgroup.id().ok()).collect();
        let all = self.scope.all();
        all.iter().filter_map(|cgroup| cgroup.id().ok()).filter(|id| !own.contains(id)).collect()
    }
}

/// Whether connections to an address are led to the service that has this endpoint.
pub(crate) fn leads_to(endpoint: &Endpoint, protocol: Protocol, to: SocketAddr) -> bool {
    let to = SocketAddr::new(to.ip().to_canonical(), to.port());
    let at = |own: SocketAddr| own.port() == to.port() && (own.ip() == to.ip() || own.ip().is_unspecified());
    match (protocol, to) {
        (Protocol::Tcp, SocketAddr::V4(_)) => endpoint.tcp4.iter().any(|&own| at(own.into())),
        (Protocol::Tcp, SocketAddr::V6(_)) => endpoint.tcp6.iter().any(|&own| at(own.into())),
        (Protocol::Udp, SocketAddr::V4(to)) => endpoint.udp4 == Some(to.port()) && to.ip().is_loopback(),
        (Protocol::Udp, SocketAddr::V6(to)) => to.ip().is_loopback() && endpoint.udp6.contains(&to.port()),
    }
}

/// Connections of this network namespace, of sockets that were made in one of these cgroups, but for accepted ones.
fn made_by(watched: &BTreeSet<u64>) -> io::Result<Vec<(Protocol, Socket)>> {
    let mut made = Vec::new();
    let first_port = first_port();
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let listeners = sockets::listeners(protocol)?;
        let is_accepted = |socket: &Socket| {
            socket.local.port() < first_port || listeners.iter().any(|other| other.takes(socket.local))
        };
        let mut found = match protocol {
            Protocol::Tcp => sockets::connections()?,
            Protocol::Udp => sockets::associations()?,
        };
        found.retain(|socket| watched.contains(&socket.cgroup) && !is_accepted(socket));
        made.extend(found.into_iter().map(|socket| (protocol, socket)));
    }
    Ok(made)
}

/// Who has each socket: of several processes one.
fn holders(candidates: &[(Protocol, Socket)]) -> BTreeMap<u32, Running> {
    let inodes: BTreeSet<u32> = candidates.iter().map(|(_, socket)| socket.inode).collect();
    processes::holders(&inodes)
}

fn first_port() -> u16 {
    let range = fs::read_to_string(PORT_RANGE).unwrap_or_default();
    range.split_whitespace().next().and_then(|first| first.parse().ok()).unwrap_or(FIRST_PORT)
}
