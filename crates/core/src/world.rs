//! The world as it stands when a leg is dialled: what a policy cannot know and an engine must find out.

use std::collections::BTreeMap;
use std::fmt;

use crate::host::HostPattern;
use crate::ids::ServiceId;
use crate::model::Errno;
use crate::process::Cgroups;

/// Everything outside policy, leg and chain that a decision depends on.
///
/// The default is a quiet host: an ordinary socket of our own namespace, a destination with a route, room for flows, no service available.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct World {
    /// Who opened the socket.
    pub socket_owner: SocketOwner,
    /// Whether the leg is any concern of the policy's.
    pub sphere: Sphere,
    /// Whose network namespace the socket is in.
    pub namespace: Namespace,
    /// Whose listener the destination is, if it is a registered one.
    pub listener: Option<ListenerOwner>,
    /// Whether somebody's sandbox is around the socket, and not around the service that is wanted.
    pub confinement: Confinement,
    /// Why no service can have the leg, if that is so.
    pub obstacle: Option<Obstacle>,
    /// Whether the destination has a route.
    pub route: Route,
    /// The services; one that is missing here is absent.
    pub availability: BTreeMap<ServiceId, Availability>,
    /// Whether another flow can be taken on.
    pub room: Room,
    /// Which cgroup is below which.
    pub cgroups: Cgroups,
    /// What covers the names by which the original application has asked for the destination: of each name all
    /// [patterns](crate::HostName::patterns), or those that somebody asked for when it was learned.
    pub hosts: Vec<HostPattern>,
}

impl World {
    /// How the service stands.
    #[must_use]
    pub fn availability_of(&self, service: ServiceId) -> Availability {
        self.availability.get(&service).copied().unwrap_or(Availability::Absent)
    }
}

/// Whether a service can take a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Availability {
    /// Its process lives, its listener listens and has room.
    Available,
    /// Its process is gone or does not listen.
    Absent,
    /// It listens, but its backlog is full.
    BacklogFull,
}

/// Who opened the socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SocketOwner {
    /// A process.
    #[default]
    Process,
    /// The kernel itself (NFS, SMB); never touched.
    Kernel,
}

/// Whether a leg is any concern of the policy's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Sphere {
    /// It is dialled in the scope, or by a [resident](crate::resident) for a flow that it was sent.
    #[default]
    Inside,
    /// It is dialled outside of the scope, where an engine is asked for a resident's sake only, by a bystander or on the resident's own account.
    Outside,
}

/// Whose network namespace the leg is in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Namespace {
    /// The one the services listen in.
    #[default]
    Own,
    /// Another one, by its cookie (`SO_NETNS_COOKIE`, socket(7)): the services cannot be reached from it.
    Foreign(u64),
}

/// What a policy does with legs of another network namespace of which no filter says anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ForeignNamespace {
    /// They pass untouched.
    #[default]
    Permit,
    /// They are refused.
    Block,
}

/// What a policy does with what cannot be redirected, where an application is covered by a redirect filter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Unredirectable {
    /// It passes uninspected.
    Permit,
    /// It is refused.
    #[default]
    Block,
}

/// Whether a socket is in somebody's sandbox: a cgroup, its own or one above, with programs that let its packets pass or not, as systemd's
/// `IPAddressDeny=` makes them. What holds for the service as well is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Confinement {
    /// It is in none.
    #[default]
    Free,
    /// It is in one. A service would dial out of it for the application.
    Sandboxed,
}

/// Why a leg cannot be redirected, whoever wants it. That it goes to a [group](crate::Leg::is_to_a_group) needs no looking at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Obstacle {
    /// Its socket is bound to a device (`SO_BINDTODEVICE`, socket(7)) that leads to no service, and the engine may not take it off.
    Device,
    /// It goes to all hosts of a network, by that network's own address for them.
    Broadcast,
}

/// What a policy does with legs from sandboxes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Sandboxes {
    /// They are not redirected, so that the sandbox sees where they go.
    #[default]
    Stay,
    /// They are redirected as others are.
    Overridden,
}

/// What a policy does with connections that are older than it, and that it would have redirected or refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Existing {
    /// They go on uninspected until they end.
    #[default]
    Leave,
    /// They are reset.
    Reset,
}

/// Whose registered listener a destination is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ListenerOwner {
    /// One of this instance's services: it is reached through the engine only.
    OwnInstance(ServiceId),
    /// Another instance's, and the leg is within its scope, so that it is that instance which has led it there or refuses
    /// it: we step aside. Out of that scope such a listener is a destination like any other, which is no owner at all here.
    OtherInstance,
}

/// Whether the destination has a route.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Route {
    /// It has.
    #[default]
    Exists,
    /// It has not, or it is on this host and nobody listens there: the application must see the error its connect() would have given, which is this.
    Missing(Errno),
}

/// Whether another flow can be taken on. It is reserved before any address is rewritten.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Room {
    /// Storage and entries are reserved.
    #[default]
    Granted,
    /// Something is used up.
    Exhausted(Resource),
}

/// What can be used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Resource {
    /// Flow entries of the engine.
    Flows,
    /// Flow entries that one cgroup may occupy.
    FlowsOfCgroup,
    /// Storage attached to the caller's socket.
    SocketStorage,
    /// Local ports towards the service's listeners.
    Ports,
    /// Any other memory of the engine.
    Memory,
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Flows => "flow entries",
            Self::FlowsOfCgroup => "flow entries of the cgroup",
            Self::SocketStorage => "socket storage",
            Self::Ports => "local ports towards the service",
            Self::Memory => "memory",
        })
    }
}
