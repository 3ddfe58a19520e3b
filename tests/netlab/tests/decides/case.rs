//! What is tried: policies that replace each other, and legs under them. Addresses, programs and cgroups are
//! told by what they are for, so that a case means the same in every run.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use proptest::{collection::vec, option, prelude::*, sample::select};
use waylay_core::{
    Action, AuthRule, CommandName, Conditions, Errno, FailurePolicy, Family as IpFamily, FileId, Filter,
    FilterId, FlagConditions, ForeignNamespace, HostPattern, Layer, Namespace, OneOf, Policy, PortRange,
    Prefix, ProcessConditions, Protocol, Reach as Way, Right, Sandboxes, Service, ServiceId, Sublayer,
    SublayerId, Unredirectable,
};

use crate::hearsay::RESOLVER;

/// Services 1 to this one have a cgroup and a program.
pub(crate) const SERVICES: u32 = 4;
const SUBLAYERS: u32 = 3;
/// At all but the last there is a server.
pub(crate) const PORTS: [u16; 4] = [8001, 8002, 8003, 8004];

#[derive(Clone, Debug)]
pub(crate) struct Case {
    /// The slots of services 1 to 4.
    pub(crate) slots: [u8; 4],
    pub(crate) steps: Vec<Step>,
}

#[derive(Clone, Debug)]
pub(crate) enum Step {
    Install(Declared),
    /// Some filters of those installed go, by their place among them, and others come.
    Amend {
        going: Vec<usize>,
        coming: Vec<DeclaredFilter>,
        /// The whole is compiled anew behind it.
        renew: bool,
    },
    Mark {
        service: u32,
        alive: bool,
    },
    Routes(Vec<(Net, Way)>),
    /// A resolver is asked for a name.
    Ask {
        by: Party,
        host: Host,
    },
    Dial {
        by: Party,
        from: Source,
        to: To,
    },
    CarryOn(CarryOn),
}

/// A service that has received a connection dials.
#[derive(Clone, Debug)]
pub(crate) struct CarryOn {
    /// One of the connections there are, counted round.
    pub(crate) flow: usize,
    pub(crate) with_records: bool,
    /// Another destination than it was asked for.
    pub(crate) elsewhere: Option<To>,
}

/// Who dials.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Party {
    Application(u32),
    Service(u32),
}

/// Who the parties are made of: two programs and two users, in every combination among the services.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    First,
    Second,
}

impl Program {
    /// What its file is called, and so its command.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Second => "second",
        }
    }
}

impl Party {
    /// In a cgroup with a program of somebody else's.
    pub(crate) const SANDBOXED: Self = Self::Application(3);

    /// In another network namespace.
    pub(crate) const VISITOR: Self = Self::Application(4);

    pub(crate) const ALL: [Self; 8] = [
        Self::Application(1),
        Self::Application(2),
        Self::SANDBOXED,
        Self::VISITOR,
        Self::Service(1),
        Self::Service(2),
        Self::Service(3),
        Self::Service(4),
    ];

    pub(crate) fn cgroup(self) -> String {
        match self {
            Self::Application(1) => "app".into(),
            Self::Application(number) => format!("app-{number}"),
            Self::Service(number) => format!("svc-{number}"),
        }
    }

    pub(crate) const fn program(self) -> Program {
        match self {
            Self::Application(1) | Self::Service(1 | 3) => Program::First,
            Self::Application(_) | Self::Service(_) => Program::Second,
        }
    }

    pub(crate) const fn uid(self) -> u32 {
        match self {
            Self::Application(1) | Self::Service(1 | 2) => 0,
            Self::Application(_) | Self::Service(_) => 1000,
        }
    }

    pub(crate) const fn gid(self) -> u32 {
        match self {
            Self::Application(2) | Self::Service(1 | 4) => 0,
            Self::Application(_) | Self::Service(_) => 1001,
        }
    }
}

/// A destination.
#[derive(Clone, Copy, Debug)]
pub(crate) enum To {
    Address(IpAddr, u16),
    /// A service's own listener.
    Listener {
        service: u32,
        family: Family,
    },
}

/// What a socket is bound to, of the addresses of its destination's family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Nothing,
    Loopback,
    Other,
}

impl Source {
    pub(crate) fn towards(self, to: SocketAddr) -> Option<SocketAddr> {
        let (v4, v6) = match self {
            Self::Nothing => return None,
            Self::Loopback => (Ipv4Addr::LOCALHOST, Ipv6Addr::LOCALHOST),
            Self::Other => (Ipv4Addr::new(127, 1, 2, 3), Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 1)),
        };
        Some(match to.ip() {
            IpAddr::V4(_) => (v4, 0).into(),
            // Of IPv6 to connect(), but not to bind().
            IpAddr::V6(Ipv6Addr::UNSPECIFIED) if self == Self::Other => (v4.to_ipv6_mapped(), 0).into(),
            IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some() => (v4.to_ipv6_mapped(), 0).into(),
            IpAddr::V6(_) => (v6, 0).into(),
        })
    }
}

/// How an address is written.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Family {
    V4,
    Mapped,
    V6,
}

/// What is installed at once.
#[derive(Clone, Debug)]
pub(crate) struct Declared {
    /// In their order.
    pub(crate) services: Vec<DeclaredService>,
    pub(crate) filters: Vec<DeclaredFilter>,
    pub(crate) sublayers: [u16; 3],
    pub(crate) overrides_sandboxes: bool,
    pub(crate) foreign: ForeignNamespace,
    pub(crate) unredirectable: Unredirectable,
}

#[derive(Clone, Debug)]
pub(crate) struct DeclaredService {
    pub(crate) id: u32,
    pub(crate) open: bool,
    pub(crate) listens4: bool,
    pub(crate) listens6: bool,
    /// Said to be alive once it is installed; else that is as it was.
    pub(crate) alive: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct DeclaredFilter {
    pub(crate) weight: u64,
    pub(crate) protocol: Listed<Protocol>,
    pub(crate) family: Listed<IpFamily>,
    pub(crate) remote: Listed<Net>,
    /// The first and the last, by their place among the ports.
    pub(crate) ports: Listed<(usize, usize)>,
    pub(crate) local: Listed<Net>,
    /// Whether they are excluded follows from the layer.
    pub(crate) hosts: Option<Vec<(Host, Reach)>>,
    pub(crate) namespace: Listed<Realm>,
    pub(crate) application: DeclaredProcess,
    pub(crate) via: DeclaredProcess,
    pub(crate) layer: Layer,
}

/// What is asked of a process.
#[derive(Clone, Debug)]
pub(crate) struct DeclaredProcess {
    pub(crate) exe: Listed<Program>,
    pub(crate) uid: Listed<u32>,
    pub(crate) gid: Listed<u32>,
    pub(crate) command: Listed<Program>,
    pub(crate) cgroup: Listed<Place>,
}

/// A name of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Host {
    Top,
    Middle,
    Deep,
}

impl Host {
    pub(crate) const ALL: [Self; 3] = [Self::Top, Self::Middle, Self::Deep];
}

/// What a pattern covers.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Reach {
    Itself,
    Below,
}

/// A network namespace.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Realm {
    Own,
    OfTheVisitor,
    OfNobody,
}

/// Some values, or the exclusion of them; or nothing is asked.
pub(crate) type Listed<T> = Option<(Vec<T>, bool)>;

/// A cgroup: a party's own, or the one that all of them are in.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place {
    Of(Party),
    Scope,
}

fn one_of<T, V>(listed: &Listed<T>, value: impl Fn(&T) -> V) -> Option<OneOf<V>> {
    let (values, negated) = listed.as_ref()?;
    let values = values.iter().map(value);
    Some(if *negated { OneOf::none_of(values) } else { OneOf::these(values) })
}

/// A prefix.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Net(pub(crate) IpAddr, pub(crate) u8);

impl Net {
    pub(crate) fn prefix(self) -> Prefix {
        Prefix::new(self.0, self.1).unwrap()
    }
}

/// What the ground knows and a case does not.
pub(crate) trait Names {
    fn file(&self, program: Program) -> FileId;
    fn cgroup_id(&self, place: Place) -> u64;
    /// Whether the engine knows of names at all.
    fn are_there_hosts(&self) -> bool;
    fn pattern(&self, host: Host, reach: Reach) -> HostPattern;
    fn namespace(&self, realm: Realm) -> Namespace;
}

impl Declared {
    pub(crate) fn policy(&self, names: &impl Names) -> Policy {
        let services = self.services.iter().map(DeclaredService::service).collect();
        let sublayer = |(id, weight)| Sublayer { id: SublayerId(id), name: format!("l{id}"), weight };
        let sublayers = (1..=SUBLAYERS).zip(self.sublayers).map(sublayer).collect();
        let is_known = |id: ServiceId| self.services.iter().any(|known| known.id == id.0);
        let filters = (1..).zip(self.filters.iter().filter(|filter| filter.stands(is_known)));
        let filters = filters.map(|(id, filter)| filter.filter(id, names)).collect();
        let sandboxes = if self.overrides_sandboxes { Sandboxes::Overridden } else { Sandboxes::Stay };
        let policy = Policy::new(services, sublayers, filters).unwrap();
        let policy = policy.with_sandboxes(sandboxes).with_foreign_namespace(self.foreign);
        policy.with_unredirectable(self.unredirectable).with_resolvers([RESOLVER])
    }
}

impl DeclaredService {
    fn service(&self) -> Service {
        Service {
            id: ServiceId(self.id),
            name: format!("s{}", self.id),
            before: Vec::new(),
            after: Vec::new(),
            on_failure: if self.open { FailurePolicy::Open } else { FailurePolicy::Closed },
        }
    }
}

impl DeclaredFilter {
    /// Whether it can be installed, given which services are.
    pub(crate) fn stands(&self, is_known: impl Fn(ServiceId) -> bool) -> bool {
        match self.layer {
            Layer::Redirect { service } => is_known(service),
            Layer::Auth(_) => true,
        }
    }

    pub(crate) fn filter(&self, id: u32, names: &impl Names) -> Filter {
        let range = |&(a, b): &(usize, usize)| PortRange::new(PORTS[a.min(b)], PORTS[a.max(b)]).unwrap();
        let conditions = Conditions {
            protocol: one_of(&self.protocol, |protocol| *protocol),
            family: one_of(&self.family, |family| *family),
            remote: one_of(&self.remote, |net| net.prefix()),
            remote_ports: one_of(&self.ports, range),
            local: one_of(&self.local, |net| net.prefix()),
            host: self.hosts(names),
            namespace: one_of(&self.namespace, |realm| names.namespace(*realm)),
            application: self.application.conditions(names),
            via: self.via.conditions(names),
        };
        Filter { id: FilterId(id), weight: self.weight, conditions, layer: self.layer }
    }

    /// Nothing may pass by a name.
    fn hosts(&self, names: &impl Names) -> Option<OneOf<HostPattern>> {
        let hosts = self.hosts.as_ref().filter(|_| names.are_there_hosts())?;
        let patterns = hosts.iter().map(|&(host, reach)| names.pattern(host, reach));
        let permits = matches!(self.layer, Layer::Auth(AuthRule { action: Action::Permit(_), .. }));
        Some(if permits { OneOf::none_of(patterns) } else { OneOf::these(patterns) })
    }
}

impl DeclaredProcess {
    fn conditions(&self, names: &impl Names) -> ProcessConditions {
        ProcessConditions {
            exe: one_of(&self.exe, |program| names.file(*program)),
            uid: one_of(&self.uid, |uid| *uid),
            gid: one_of(&self.gid, |gid| *gid),
            command: one_of(&self.command, |program| CommandName::new(program.name())),
            cgroup: one_of(&self.cgroup, |place| names.cgroup_id(*place)),
        }
    }
}

pub(crate) fn cases() -> impl Strategy<Value = Case> {
    let slots = Just((0_u8..64).collect::<Vec<_>>()).prop_shuffle();
    let slots = slots.prop_map(|slots| [slots[0], slots[1], slots[2], slots[3]]);
    (slots, declared(), vec(steps(), 1..128)).prop_map(|(slots, first, mut steps)| {
        steps.insert(0, Step::Install(first));
        Case { slots, steps }
    })
}

fn steps() -> impl Strategy<Value = Step> {
    let mark =
        (1..=SERVICES, prop::bool::weighted(0.4)).prop_map(|(service, alive)| Step::Mark { service, alive });
    let missing = [Errno::ENETUNREACH, Errno::EHOSTUNREACH, Errno::EACCES].map(Way::Never);
    let ways = select([&missing[..], &[Way::Group, Way::Group, Way::From(None), Way::From(None)]].concat());
    let residents = vec![Party::Application(1), Party::Application(2), Party::SANDBOXED];
    let by = select([residents.clone(), vec![Party::SANDBOXED, Party::VISITOR]].concat());
    let ask = (select(residents), hosts()).prop_map(|(by, host)| Step::Ask { by, host });
    let carry_on = (0_usize..8, prop::bool::weighted(0.7), option::weighted(0.3, destinations()))
        .prop_map(|(flow, with_records, elsewhere)| Step::CarryOn(CarryOn { flow, with_records, elsewhere }));
    let amend = (vec(any::<usize>(), 0..3), vec(filters(), 0..3), prop::bool::weighted(0.2))
        .prop_map(|(going, coming, renew)| Step::Amend { going, coming, renew });
    prop_oneof![
        1 => declared().prop_map(Step::Install),
        3 => amend,
        2 => mark,
        1 => vec((nets(), ways), 0..3).prop_map(Step::Routes),
        6 => ask,
        14 => (by, sources(), destinations()).prop_map(|(by, from, to)| Step::Dial { by, from, to }),
        16 => carry_on,
    ]
}

fn declared() -> impl Strategy<Value = Declared> {
    let listens = || prop::bool::weighted(0.9);
    let traits = (any::<bool>(), listens(), listens(), prop::bool::weighted(0.8));
    let order = Just((1..=SERVICES).collect::<Vec<_>>()).prop_shuffle();
    let services = (order, vec(traits, 4), 0..=SERVICES as usize).prop_map(|(order, traits, count)| {
        let service =
            |(id, (open, listens4, listens6, alive))| DeclaredService { id, open, listens4, listens6, alive };
        order.into_iter().zip(traits).take(count).map(service).collect()
    });
    let foreign = select(vec![ForeignNamespace::Permit, ForeignNamespace::Block]);
    let unredirectable = select(vec![Unredirectable::Permit, Unredirectable::Block]);
    let switches = (any::<bool>(), foreign, unredirectable);
    (services, vec(filters(), 0..16), [0_u16..3, 0..3, 0..3], switches).prop_map(
        |(services, filters, sublayers, (overrides_sandboxes, foreign, unredirectable))| Declared {
            services,
            filters,
            sublayers,
            overrides_sandboxes,
            foreign,
            unredirectable,
        },
    )
}

prop_compose! {
    fn filters()(
        weight in 0_u64..3,
        protocol in listed(0.1, select(vec![Protocol::Tcp, Protocol::Tcp, Protocol::Udp])),
        family in listed(0.1, select(vec![IpFamily::Ipv4, IpFamily::Ipv6])),
        remote in listed(0.3, nets()),
        ports in listed(0.3, (0..PORTS.len(), 0..PORTS.len())),
        local in listed(0.1, nets()),
        hosts in option::weighted(0.3, vec((hosts(), select(vec![Reach::Itself, Reach::Below])), 1..3)),
        namespace in listed(0.1, select(vec![Realm::Own, Realm::OfTheVisitor, Realm::OfNobody])),
        application in processes(),
        via in processes(),
        layer in layers(),
    ) -> DeclaredFilter {
        DeclaredFilter {
            weight, protocol, family, remote, ports, local, hosts, namespace, application, via, layer,
        }
    }
}

prop_compose! {
    fn processes()(
        exe in listed(0.1, programs()),
        uid in listed(0.1, select(vec![0, 1000])),
        gid in listed(0.1, select(vec![0, 1001])),
        command in listed(0.1, programs()),
        cgroup in listed(0.1, places()),
    ) -> DeclaredProcess {
        DeclaredProcess { exe, uid, gid, command, cgroup }
    }
}

fn listed<T: std::fmt::Debug>(
    often: f64,
    values: impl Strategy<Value = T>,
) -> impl Strategy<Value = Listed<T>> {
    option::weighted(often, (vec(values, 1..3), prop::bool::weighted(0.3)))
}

fn places() -> impl Strategy<Value = Place> {
    prop_oneof![4 => select(Party::ALL.to_vec()).prop_map(Place::Of), 1 => Just(Place::Scope)]
}

fn hosts() -> impl Strategy<Value = Host> {
    select(Host::ALL.to_vec())
}

fn layers() -> impl Strategy<Value = Layer> {
    let redirect = (1..=SERVICES).prop_map(|service| Layer::Redirect { service: ServiceId(service) });
    let flag = || option::weighted(0.3, any::<bool>());
    let flags = (flag(), flag()).prop_map(|(redirected, proxied)| FlagConditions { redirected, proxied });
    let auth = (1..=SUBLAYERS, flags, actions())
        .prop_map(|(id, flags, action)| Layer::Auth(AuthRule { sublayer: SublayerId(id), flags, action }));
    prop_oneof![3 => redirect, 1 => auth]
}

fn actions() -> impl Strategy<Value = Action> {
    let right = || select(vec![Right::Soft, Right::Hard]);
    let errno = select(vec![1_u16, 13, 22, 101, 110, 111, 113, 4095]);
    prop_oneof![
        right().prop_map(Action::Permit),
        (right(), errno)
            .prop_map(|(right, errno)| Action::Block { right, errno: Errno::new(errno).unwrap() }),
        Just(Action::Continue),
    ]
}

fn programs() -> impl Strategy<Value = Program> {
    select(vec![Program::First, Program::Second])
}

fn nets() -> impl Strategy<Value = Net> {
    let v4 = |a, b, c, d, length| Net(Ipv4Addr::new(a, b, c, d).into(), length);
    let v6 = |text: &str, length| Net(text.parse().unwrap(), length);
    select(vec![
        v4(0, 0, 0, 0, 0),
        v4(127, 0, 0, 0, 8),
        v4(127, 1, 2, 0, 25),
        v4(127, 1, 2, 3, 32),
        v6("::", 0),
        v6("::ffff:0:0", 96),
        v6("::1", 128),
        v6("fd00:1::", 33),
        v6("fd00:1::", 126),
    ])
}

/// All of them are on the loopback of the ground's namespace.
fn addresses() -> impl Strategy<Value = IpAddr> {
    let mapped = |ip: Ipv4Addr| IpAddr::from(ip.to_ipv6_mapped());
    select(vec![
        Ipv4Addr::LOCALHOST.into(),
        Ipv4Addr::new(127, 1, 2, 3).into(),
        Ipv4Addr::new(127, 1, 2, 200).into(),
        Ipv4Addr::UNSPECIFIED.into(),
        mapped(Ipv4Addr::new(127, 1, 2, 3)),
        mapped(Ipv4Addr::UNSPECIFIED),
        Ipv6Addr::LOCALHOST.into(),
        Ipv6Addr::UNSPECIFIED.into(),
        Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 1).into(),
        Ipv6Addr::new(0xfd00, 1, 0x8000, 0, 0, 0, 0, 5).into(),
    ])
}

fn sources() -> impl Strategy<Value = Source> {
    select(vec![Source::Nothing, Source::Nothing, Source::Loopback, Source::Other])
}

fn destinations() -> impl Strategy<Value = To> {
    let family = select(vec![Family::V4, Family::Mapped, Family::V6]);
    prop_oneof![
        20 => (addresses(), select(PORTS.to_vec())).prop_map(|(ip, port)| To::Address(ip, port)),
        1 => (1..=SERVICES, family).prop_map(|(service, family)| To::Listener { service, family }),
    ]
}
