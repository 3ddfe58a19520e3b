//! What is redirected at this moment, beside what the engine in memory knows of it: addresses, sockets, and what services ask about.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use waylay_abi as abi;
use waylay_core::{FilterId, ServiceId};

use crate::program::ExePath;

/// A redirected leg.
#[derive(Clone, Debug)]
pub(crate) struct Flow {
    pub(crate) number: u64,
    pub(crate) service: ServiceId,
    pub(crate) filter: FilterId,
    /// Where the leg was going.
    pub(crate) destination: SocketAddr,
    /// The application at the head of the chain.
    pub(crate) application: abi::Process,
    pub(crate) exe_path: ExePath,
    pub(crate) wishes: abi::SocketWishes,
    /// The source and the listener that it is led from and to; the source has no port before there is one.
    pub(crate) path: Path,
    /// The socket that was connected, by its cookie.
    pub(crate) socket: u64,
}

/// A connection's addresses in normal form: who connects, and to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Path {
    /// The address it comes from.
    pub from: SocketAddr,
    /// The address it goes to.
    pub to: SocketAddr,
}

impl Path {
    /// To a listener, from a port that connect(2) is to choose.
    pub(crate) fn from_anywhere(to: SocketAddr) -> Self {
        Self::new(SocketAddr::new(unspecified(to.ip()), 0), to)
    }

    fn is_settled(&self) -> bool {
        self.from.port() != 0
    }

    /// IPv4 in its own form, whatever the sockets are of.
    #[must_use]
    pub fn new(from: SocketAddr, to: SocketAddr) -> Self {
        let canonical = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
        Self { from: canonical(from), to: canonical(to) }
    }
}

fn unspecified(like: IpAddr) -> IpAddr {
    match like.to_canonical() {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// The connections of a network namespace, in every state but TIME_WAIT.
#[derive(Debug, Default)]
pub struct Open {
    /// By their addresses.
    pub paths: BTreeSet<Path>,
    /// By what `SO_COOKIE` says of their sockets.
    pub sockets: BTreeSet<u64>,
}

/// Looks after which a socket is gone: that was open once, and that has never been, as it may have yet to be dialled with.
const LOOKS_FOR_ONE_SEEN: u32 = 2;
pub(crate) const LOOKS_FOR_ONE_UNSEEN: u32 = 150;

/// Connections among which one is looked for that a service has accepted: they are accepted in their order, but for those of several threads.
const MOST_LIKELY: usize = 64;

/// Records on a socket.
#[derive(Debug)]
struct Carried {
    /// The flow that they are of.
    flow: u64,
    is_seen: bool,
    /// Looks in a row that have found neither the flow nor the socket.
    misses: u32,
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Flows {
    by_number: HashMap<u64, Flow>,
    by_path: HashMap<Path, u64>,
    by_outgoing: HashMap<u64, u64>,
    by_inbound: HashMap<u64, u64>,
    /// Those that their services have not asked about.
    awaited: BTreeSet<(ServiceId, u64)>,
    /// Records on the sockets that services dial with.
    carried: HashMap<u64, Carried>,
    /// Connections that services have asked about, by their listeners.
    taken: BTreeMap<SocketAddr, u64>,
    /// Those that are being dialled and whose source is not known yet, by the listeners that they go to.
    unsettled: BTreeSet<(SocketAddr, u64)>,
    /// Those of which the last look has found neither end.
    missed: BTreeSet<u64>,
}

impl Flows {
    /// Gives the socket of one that had the same addresses before, and is over.
    pub(crate) fn begin(&mut self, flow: Flow) -> Option<u64> {
        let Flow { number, path, service, socket, .. } = flow;
        let replaced = match path.is_settled() {
            true => self.know(number, path),
            false => {
                self.unsettled.insert((path.to, number));
                None
            }
        };
        self.by_outgoing.insert(socket, number);
        self.awaited.insert((service, number));
        self.by_number.insert(number, flow);
        replaced
    }

    /// Where one comes from that has a port by now, if it was not known; the rest as of [`begin`](Self::begin).
    pub(crate) fn settle(&mut self, number: u64, from: SocketAddr) -> Option<u64> {
        let flow = self.by_number.get_mut(&number).filter(|flow| !flow.path.is_settled())?;
        flow.path = Path::new(from, flow.path.to);
        let path = flow.path;
        self.unsettled.remove(&(path.to, number));
        self.know(number, path)
    }

    fn know(&mut self, number: u64, path: Path) -> Option<u64> {
        let replaced = self.by_path.get(&path).copied().and_then(|number| self.end(number));
        self.by_path.insert(path, number);
        replaced
    }

    /// Those of which one may be what has come by a listener, as none of them has its addresses yet. Whoever has the same addresses
    /// meanwhile may be over.
    pub(crate) fn dialled_to(&self, listener: SocketAddr) -> Option<Dialled> {
        let (_, last) = self.unsettled.range((listener, 0)..=(listener, u64::MAX)).next_back()?;
        Some(Dialled { listener, last: *last })
    }

    /// Whether all of them have their addresses, or are over. What is dialled later is none of them.
    pub(crate) fn are_settled(&self, Dialled { listener, last }: Dialled) -> bool {
        self.unsettled.range((listener, 0)..=(listener, last)).next().is_none()
    }

    /// Whether an accepted socket has been asked about before.
    pub(crate) fn knows(&self, inbound: u64) -> bool {
        self.by_inbound.contains_key(&inbound)
    }

    pub(crate) fn get(&self, number: u64) -> Option<&Flow> {
        self.by_number.get(&number)
    }

    /// The flow that began on a socket.
    pub(crate) fn of_outgoing(&self, socket: u64) -> Option<&Flow> {
        self.get(*self.by_outgoing.get(&socket)?)
    }

    /// The flow that an accepted socket carries: known by its addresses once, and by its cookie from then on.
    pub(crate) fn of_inbound(&mut self, socket: u64, path: Option<Path>) -> Inbound<'_> {
        let number = match (self.by_inbound.get(&socket), path) {
            (Some(&number), _) => number,
            (None, Some(path)) => match self.by_path.get(&path) {
                Some(&number) => number,
                None => return Inbound::NotRedirected,
            },
            (None, None) => return Inbound::NotRedirected,
        };
        if self.by_inbound.insert(socket, number).is_none()
            && let Some(flow) = self.by_number.get(&number)
        {
            self.awaited.remove(&(flow.service, number));
            *self.taken.entry(flow.path.to).or_default() += 1;
        }
        self.by_number.get(&number).map_or(Inbound::Ended, Inbound::Of)
    }

    /// The first connections that a service has not asked about, as its sockets have them.
    pub(crate) fn awaited_by(&self, service: ServiceId) -> Vec<Path> {
        let of_service = self.awaited.range((service, 0)..).take_while(|(of, _)| *of == service);
        let flows = of_service.filter_map(|(_, number)| self.get(*number));
        let flows = flows.filter(|flow| flow.path.is_settled());
        flows.map(|flow| Path { from: flow.path.to, to: flow.path.from }).take(MOST_LIKELY).collect()
    }

    pub(crate) fn carry(&mut self, socket: u64, flow: u64) {
        self.carried.insert(socket, Carried { flow, is_seen: false, misses: 0 });
    }

    /// What has been dialled with a socket is open until it is over: most of what services dial is over before anybody looks.
    pub(crate) fn note_dialled(&mut self, socket: u64) {
        if let Some(carried) = self.carried.get_mut(&socket) {
            carried.is_seen = true;
        }
    }

    /// How many connections a service has asked about that have come by a listener.
    pub(crate) fn taken_by(&self, listener: SocketAddr) -> u64 {
        self.taken.get(&listener).copied().unwrap_or(0)
    }

    /// The flow whose records are on a socket.
    pub(crate) fn carried_by(&self, socket: u64) -> Option<&Flow> {
        self.get(self.carried.get(&socket)?.flow)
    }

    /// Ends it; gives the socket that it began on.
    pub(crate) fn end(&mut self, number: u64) -> Option<u64> {
        let flow = self.by_number.remove(&number)?;
        match flow.path.is_settled() {
            true => drop(self.by_path.remove(&flow.path)),
            false => drop(self.unsettled.remove(&(flow.path.to, number))),
        }
        self.by_outgoing.remove(&flow.socket);
        self.awaited.remove(&(flow.service, number));
        Some(flow.socket)
    }

    /// Ends those of which no end is among what is open, twice in a row: one may be about to be connected. Gives the sockets that
    /// they began on, and those that had records and are gone.
    pub(crate) fn sweep(&mut self, open: &Open) -> Vec<u64> {
        let is_open = |path: Path| {
            !path.is_settled()
                || open.paths.contains(&path)
                || open.paths.contains(&Path { from: path.to, to: path.from })
        };
        let missed = self.by_number.values().filter(|flow| !is_open(flow.path)).map(|flow| flow.number);
        let before = std::mem::replace(&mut self.missed, missed.collect());
        let over: Vec<u64> = before.intersection(&self.missed).copied().collect();
        let mut ended: Vec<u64> = over.into_iter().filter_map(|number| self.end(number)).collect();
        let alive = &self.by_number;
        self.by_inbound.retain(|_, number| alive.contains_key(number));
        self.carried.retain(|socket, carried| {
            let is_open = open.sockets.contains(socket);
            carried.is_seen |= is_open;
            carried.misses =
                if is_open || alive.contains_key(&carried.flow) { 0 } else { carried.misses + 1 };
            let most = if carried.is_seen { LOOKS_FOR_ONE_SEEN } else { LOOKS_FOR_ONE_UNSEEN };
            let is_gone = carried.misses >= most;
            if is_gone {
                ended.push(*socket);
            }
            !is_gone
        });
        ended
    }
}

/// What was being dialled to a listener at some moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dialled {
    listener: SocketAddr,
    last: u64,
}

/// Of what an accepted socket is the end.
pub(crate) enum Inbound<'f> {
    /// Of no redirected leg.
    NotRedirected,
    /// Of a flow that has ended.
    Ended,
    /// Of this one.
    Of(&'f Flow),
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use waylay_abi::EXE_LEN;

    use super::*;

    const SOCKET: u64 = 7;
    const ACCEPTED: u64 = 8;

    fn path() -> Path {
        Path::new("127.0.0.1:40000".parse().unwrap(), "127.0.0.1:5000".parse().unwrap())
    }

    fn with_one() -> Flows {
        let mut flows = Flows::default();
        assert_eq!(begin(&mut flows, 1, SOCKET), None);
        flows
    }

    fn begin(flows: &mut Flows, number: u64, socket: u64) -> Option<u64> {
        begin_by(flows, number, socket, path())
    }

    fn begin_by(flows: &mut Flows, number: u64, socket: u64, path: Path) -> Option<u64> {
        flows.begin(Flow {
            number,
            service: ServiceId(1),
            filter: FilterId(1),
            destination: "192.0.2.1:80".parse().unwrap(),
            application: abi::Process::default(),
            exe_path: Arc::new([0; EXE_LEN]),
            wishes: abi::SocketWishes::default(),
            path,
            socket,
        })
    }

    #[test]
    fn what_has_come_by_a_listener_may_be_any_flow_that_is_dialled_to_it_until_its_port_is_known() {
        let (mut flows, path) = (with_one(), path());
        assert!(flows.dialled_to(path.to).is_none());
        for number in [2, 3] {
            assert_eq!(begin_by(&mut flows, number, 10 + number, Path::from_anywhere(path.to)), None);
        }
        let dialled = flows.dialled_to(path.to).unwrap();
        // What is dialled later is not waited for.
        begin_by(&mut flows, 4, 14, Path::from_anywhere(path.to));
        let other = Path { from: "127.0.0.1:40001".parse().unwrap(), ..path };
        assert_eq!((flows.settle(2, other.from), flows.are_settled(dialled)), (None, false));
        assert!(matches!(flows.of_inbound(ACCEPTED, Some(other)), Inbound::Of(flow) if flow.number == 2));
        // It has the port of one that is over, and is known by it from now on.
        assert_eq!((flows.settle(3, path.from), flows.are_settled(dialled)), (Some(SOCKET), true));
        assert!(matches!(flows.of_inbound(ACCEPTED + 1, Some(path)), Inbound::Of(flow) if flow.number == 3));
        assert!(flows.knows(ACCEPTED + 1) && !flows.knows(ACCEPTED + 2));
        let later = flows.dialled_to(path.to).unwrap();
        assert_eq!((flows.end(4), flows.are_settled(later)), (Some(14), true));
        assert!(flows.unsettled.is_empty());
    }

    #[test]
    fn what_is_being_dialled_is_neither_over_nor_asked_about() {
        let mut flows = with_one();
        begin_by(&mut flows, 2, 12, Path::from_anywhere(path().to));
        assert_eq!(flows.awaited_by(ServiceId(1)), [Path { from: path().to, to: path().from }]);
        let none = Open::default();
        assert_eq!([(); 3].map(|()| flows.sweep(&none)), [vec![], vec![SOCKET], vec![]]);
    }

    #[test]
    fn a_port_that_is_used_again_ends_what_was_there() {
        let mut flows = with_one();
        assert_eq!(begin(&mut flows, 2, SOCKET + 10), Some(SOCKET));
        assert!(flows.get(1).is_none() && flows.of_outgoing(SOCKET).is_none());
        assert!(matches!(flows.of_inbound(ACCEPTED, Some(path())), Inbound::Of(flow) if flow.number == 2));
    }

    #[test]
    fn a_flow_is_known_by_its_addresses_once_and_then_by_its_socket() {
        let mut flows = with_one();
        assert!(matches!(flows.of_inbound(ACCEPTED, None), Inbound::NotRedirected));
        let back = Path { from: path().to, to: path().from };
        assert_eq!(
            [0, 1, 2].map(|service| flows.awaited_by(ServiceId(service))),
            [vec![], vec![back], vec![]]
        );
        assert!(matches!(flows.of_inbound(ACCEPTED, Some(path())), Inbound::Of(flow) if flow.number == 1));
        assert!(matches!(flows.of_inbound(ACCEPTED, None), Inbound::Of(_)));
        assert_eq!(flows.awaited_by(ServiceId(1)), []);
        assert_eq!(flows.taken_by(path().to), 1);
        assert_eq!(flows.end(1), Some(SOCKET));
        assert!(matches!(flows.of_inbound(ACCEPTED, Some(path())), Inbound::Ended));
    }

    #[test]
    fn what_is_open_at_neither_end_twice_is_over_and_nothing_of_it_stays() {
        let mut flows = with_one();
        flows.of_inbound(ACCEPTED, Some(path()));
        flows.carry(9, 1);
        let back = Path { from: path().to, to: path().from };
        let back = Open { paths: BTreeSet::from([back]), sockets: BTreeSet::from([9]) };
        let none = Open::default();
        assert_eq!([flows.sweep(&none), flows.sweep(&back), flows.sweep(&none)], [[0; 0]; 3]);
        // The socket that had its records has been seen, and is gone as well.
        assert_eq!([flows.sweep(&none), flows.sweep(&none)], [vec![SOCKET], vec![9]]);
        flows.sweep(&none);
        let Flows {
            by_number,
            by_path,
            by_outgoing,
            by_inbound,
            awaited,
            carried,
            unsettled,
            missed,
            taken: _,
        } = flows;
        assert!(by_number.is_empty() && by_path.is_empty() && unsettled.is_empty() && missed.is_empty());
        assert!(by_outgoing.is_empty() && by_inbound.is_empty() && awaited.is_empty() && carried.is_empty());
    }

    #[test]
    fn records_outlive_their_flow_on_a_socket_that_may_still_be_dialled_with() {
        let mut flows = with_one();
        flows.carry(9, 1);
        assert_eq!(flows.end(1), Some(SOCKET));
        let none = Open::default();
        let looks: Vec<Vec<u64>> = (0..LOOKS_FOR_ONE_UNSEEN).map(|_| flows.sweep(&none)).collect();
        let (last, before) = looks.split_last().unwrap();
        assert_eq!((before.concat(), last), (vec![], &vec![9]));
        let mut flows = with_one();
        flows.carry(9, 1);
        flows.note_dialled(9);
        flows.end(1);
        assert_eq!([flows.sweep(&none), flows.sweep(&none)], [vec![], vec![9]]);
    }
}
