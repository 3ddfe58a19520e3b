//! What becomes of a socket that a process makes: some can be redirected, some reach nothing outside of this host, and the rest
//! would be a way around every service.
//!
//! A socket has no destination yet, and may never have one that a program is asked about. So it is judged by what it is and by
//! who makes it: an application counts as covered if a redirect filter's conditions about the *application* hold (executable,
//! user, cgroup, the program that calls), whatever the filter asks of destinations. In a sandbox that stays nothing is redirected, and so
//! there is nothing to get around.

use std::fmt;

use crate::address::normal_form;
use crate::decide::{answer_foreign, stays_in_sandbox};
use crate::leg::{Leg, ProcessFacts, Protocol};
use crate::model::{Filter, Layer};
use crate::policy::Policy;
use crate::process::{Cgroups, Process};
use crate::tables::Tables;
use crate::verdict::{Refusal, Verdict};
use crate::world::{Confinement, ForeignNamespace, Namespace, Sandboxes, SocketOwner, Unredirectable};

/// The arguments of socket(2), the default protocol resolved; the numbers are Linux's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SocketKind {
    /// `AF_INET` and the like.
    pub family: u16,
    /// `SOCK_STREAM` and the like, without flags.
    pub socket_type: u16,
    /// Number of the protocol, which only the IP families share: 0 elsewhere.
    pub protocol: u16,
}

/// How far a socket of a kind reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SocketReach {
    /// To the network, by legs that an engine is asked about: TCP, MPTCP and UDP.
    Redirectable,
    /// To this host only.
    Local,
    /// To the network or to another machine, and no engine is asked.
    Unredirectable,
}

/// A socket that is about to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewSocket {
    /// What it is to be.
    pub kind: SocketKind,
    /// Who makes it.
    pub maker: Process,
    /// Whether that is a process at all.
    pub owner: SocketOwner,
    /// Whose network namespace it is made in.
    pub namespace: Namespace,
    /// Whether somebody's sandbox is around it.
    pub confinement: Confinement,
}

/// What becomes of a socket that is about to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SocketVerdict {
    /// It is made; its legs, if an engine is asked about them, are judged one by one.
    Permit,
    /// socket(2) fails.
    Refuse(Refusal),
}

const AF_UNSPEC: u16 = 0;
const AF_UNIX: u16 = 1;
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
const AF_KEY: u16 = 15;
const AF_NETLINK: u16 = 16;
const AF_PACKET: u16 = 17;
const AF_ALG: u16 = 38;
const AF_XDP: u16 = 44;
const SOCK_STREAM: u16 = 1;
const SOCK_DGRAM: u16 = 2;
const IPPROTO_TCP: u16 = 6;
const IPPROTO_UDP: u16 = 17;
const IPPROTO_MPTCP: u16 = 262;

impl SocketKind {
    /// Families that reach no further than this host. The kernel has none called `AF_UNSPEC`, and says so itself.
    pub const LOCAL_FAMILIES: [u16; 5] = [AF_UNSPEC, AF_UNIX, AF_KEY, AF_NETLINK, AF_ALG];

    /// The families of IP, of which engines are asked about legs.
    pub const IP_FAMILIES: [u16; 2] = [AF_INET, AF_INET6];

    /// How far it reaches. What is not known to stay on this host does not.
    #[must_use]
    pub fn reach(self) -> SocketReach {
        if Self::IP_FAMILIES.contains(&self.family) {
            return match (self.socket_type, self.protocol) {
                (SOCK_STREAM, IPPROTO_TCP | IPPROTO_MPTCP) | (SOCK_DGRAM, IPPROTO_UDP) => {
                    SocketReach::Redirectable
                }
                // Also the raw sockets of these protocols.
                _ => SocketReach::Unredirectable,
            };
        }
        if Self::LOCAL_FAMILIES.contains(&self.family) {
            SocketReach::Local
        } else {
            SocketReach::Unredirectable
        }
    }

    /// Whether such a socket is of the network namespace it is made in; others reach the same machines from everywhere.
    #[must_use]
    pub fn is_of_a_namespace(self) -> bool {
        [AF_INET, AF_INET6, AF_PACKET, AF_XDP].contains(&self.family)
    }
}

/// What becomes of a socket under a policy, given which cgroup is below which.
///
/// Services may make what they like: they are not applications, and what a service passes on by other means is its own affair.
///
/// ```
/// use waylay_core::*;
///
/// let log = Service { id: ServiceId(1), name: "log".into(), before: vec![], after: vec![], on_failure: FailurePolicy::Closed };
/// let web = Filter {
///     id: FilterId(7),
///     weight: 0,
///     conditions: Conditions {
///         remote_ports: Some(PortRange::single(443).into()),
///         application: ProcessConditions { uid: Some(1000.into()), ..ProcessConditions::default() },
///         ..Conditions::default()
///     },
///     layer: Layer::Redirect { service: log.id },
/// };
/// let policy = Policy::new(vec![log], vec![], vec![web])?;
///
/// let ping = Process { pid: 42, uid: 1000, cgroup: 1, ..Process::default() };
/// let icmp = SocketKind { family: 2, socket_type: 2, protocol: 1 };
/// let mut socket = NewSocket { kind: icmp, maker: ping, owner: SocketOwner::Process, namespace: Namespace::Own, confinement: Confinement::Free };
/// assert_eq!(decide_socket(&policy, &socket, &Cgroups::default()), SocketVerdict::Refuse(Refusal::Unredirectable));
///
/// // Of another user nothing is redirected.
/// socket.maker.uid = 1001;
/// assert_eq!(decide_socket(&policy, &socket, &Cgroups::default()), SocketVerdict::Permit);
///
/// // Nor out of a sandbox.
/// socket.maker.uid = 1000;
/// socket.confinement = Confinement::Sandboxed;
/// assert_eq!(decide_socket(&policy, &socket, &Cgroups::default()), SocketVerdict::Permit);
///
/// // And a policy can permit it.
/// socket.confinement = Confinement::Free;
/// let policy = policy.with_unredirectable(Unredirectable::Permit);
/// assert_eq!(decide_socket(&policy, &socket, &Cgroups::default()), SocketVerdict::Permit);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use]
pub fn decide_socket(policy: &Policy, socket: &NewSocket, cgroups: &Cgroups) -> SocketVerdict {
    judge(socket, policy.foreign_namespace(), policy.sandboxes(), || {
        policy.refuses_unredirectable(&socket.maker, cgroups)
    })
}

fn judge(
    socket: &NewSocket,
    foreign: ForeignNamespace,
    sandboxes: Sandboxes,
    is_refused: impl FnOnce() -> bool,
) -> SocketVerdict {
    match (socket.kind.reach(), socket.owner) {
        (SocketReach::Redirectable | SocketReach::Local, _)
        | (SocketReach::Unredirectable, SocketOwner::Kernel) => {
            return SocketVerdict::Permit;
        }
        (SocketReach::Unredirectable, SocketOwner::Process) => {}
    }
    if matches!(socket.namespace, Namespace::Foreign(_)) && socket.kind.is_of_a_namespace() {
        return match answer_foreign(foreign) {
            Verdict::Refuse(refusal) => SocketVerdict::Refuse(refusal),
            Verdict::Direct | Verdict::Redirect { .. } => SocketVerdict::Permit,
        };
    }
    if stays_in_sandbox(socket.confinement, sandboxes) {
        return SocketVerdict::Permit;
    }
    if is_refused() { SocketVerdict::Refuse(Refusal::Unredirectable) } else { SocketVerdict::Permit }
}

impl Policy {
    /// Whether sockets that cannot be redirected are refused to a process.
    fn refuses_unredirectable(&self, maker: &Process, cgroups: &Cgroups) -> bool {
        let facts = ProcessFacts::new(maker, cgroups);
        let is_service = maker.service.is_some_and(|service| self.service(service).is_some());
        let redirects = |filter: &&Filter| matches!(filter.layer, Layer::Redirect { .. });
        let mut filters = self.filters().iter().filter(redirects);
        self.unredirectable() == Unredirectable::Block
            && !is_service
            && filters.any(|filter| filter.conditions.match_application(&facts))
    }
}

impl Tables {
    /// The verdict of [`decide_socket`], from tables alone.
    #[must_use]
    pub fn decide_socket(&self, socket: &NewSocket, cgroups: &Cgroups) -> SocketVerdict {
        judge(socket, self.foreign_namespace(), self.sandboxes(), || {
            self.refuses_unredirectable(&socket.maker, cgroups)
        })
    }

    fn refuses_unredirectable(&self, maker: &Process, cgroups: &Cgroups) -> bool {
        let facts = ProcessFacts::new(maker, cgroups);
        let is_service = maker.service.is_some_and(|service| self.service(service).is_some());
        self.unredirectable() == Unredirectable::Block && !is_service && self.cover(&facts)
    }
}

impl Leg {
    /// Whether it goes to several hosts at once (a multicast address or the limited broadcast one): no service can stand in
    /// for those.
    #[must_use]
    pub fn is_to_a_group(&self) -> bool {
        let ip = normal_form(self.remote.ip());
        let is_group = match ip.to_ipv4_mapped() {
            Some(ip) => ip.is_multicast() || ip.is_broadcast(),
            None => ip.is_multicast(),
        };
        self.protocol == Protocol::Udp && is_group
    }
}

impl fmt::Display for SocketKind {
    /// As socket(2) calls it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = match self.family {
            AF_INET => "AF_INET",
            AF_INET6 => "AF_INET6",
            AF_PACKET => "AF_PACKET",
            21 => "AF_RDS",
            29 => "AF_CAN",
            30 => "AF_TIPC",
            31 => "AF_BLUETOOTH",
            40 => "AF_VSOCK",
            41 => "AF_KCM",
            43 => "AF_SMC",
            AF_XDP => "AF_XDP",
            other => return write!(f, "a socket of address family {other}"),
        };
        write!(f, "an {family} socket")?;
        if !Self::IP_FAMILIES.contains(&self.family) {
            return Ok(());
        }
        let protocol = match self.protocol {
            1 | 58 => "ICMP",
            33 => "DCCP",
            132 => "SCTP",
            136 => "UDP-Lite",
            256 => "SMC",
            other => return write!(f, " of type {} and protocol {other}", self.socket_type),
        };
        let raw = if self.socket_type == 3 { "raw " } else { "" };
        write!(f, " ({raw}{protocol})")
    }
}
