//! A resolver, and what applications know from it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    thread,
};

use waylay_core::{HostName, HostPattern, Policy};

use crate::case::{Host, Party, Reach};

/// In both network namespaces an address like any other.
pub(crate) const RESOLVER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 1, 2, 53)), 53);
/// The least time for which a name is kept, in seconds; of each case a second more than of the one before, so that its names do not
/// have to go for older ones.
const LEAST: u32 = 300;

/// What is known, and which names the case has: those of the cases before are other ones.
pub(crate) struct Hearsay {
    case: u32,
    /// The patterns of the filters that have been compiled as a whole: of them is kept what covers a name, until the whole is
    /// compiled anew.
    compiled: BTreeSet<HostPattern>,
    known: BTreeMap<(Party, IpAddr), BTreeSet<HostPattern>>,
}

impl Hearsay {
    /// Starts the resolver in the calling thread's network namespace.
    pub(crate) fn start() -> Self {
        let socket = UdpSocket::bind(RESOLVER).unwrap();
        thread::spawn(move || {
            let mut question = [0; 512];
            loop {
                let (length, asker) = socket.recv_from(&mut question).unwrap();
                // Who has gone meanwhile needs none.
                let _unheard = socket.send_to(&answer(&question[..length]), asker);
            }
        });
        Self { case: 0, compiled: BTreeSet::new(), known: BTreeMap::new() }
    }

    pub(crate) fn begin(&mut self) {
        self.case += 1;
        self.known.clear();
    }

    pub(crate) fn compiled(&mut self, policy: &Policy) {
        self.compiled = patterns(policy).collect();
    }

    pub(crate) fn name(&self, host: Host) -> HostName {
        let prefix = match host {
            Host::Top => "",
            Host::Middle => "a.",
            Host::Deep => "c.a.",
        };
        HostName::new(&format!("{prefix}b{}", self.case)).unwrap()
    }

    pub(crate) fn pattern(&self, host: Host, reach: Reach) -> HostPattern {
        match reach {
            Reach::Itself => HostPattern::Name(self.name(host)),
            Reach::Below => HostPattern::Below(self.name(host)),
        }
    }

    /// Somebody has been answered, under a policy.
    pub(crate) fn learn(&mut self, by: Party, host: Host, policy: &Policy) {
        let name = self.name(host);
        let asked = self.compiled.iter().cloned().chain(patterns(policy));
        let covering: BTreeSet<HostPattern> = asked.filter(|pattern| pattern.covers(&name)).collect();
        for address in addresses(host) {
            self.known.entry((by, address)).or_default().extend(covering.iter().cloned());
        }
    }

    pub(crate) fn of(&self, party: Party, address: IpAddr) -> Vec<HostPattern> {
        self.known.get(&(party, address)).into_iter().flatten().cloned().collect()
    }
}

fn patterns(policy: &Policy) -> impl Iterator<Item = HostPattern> {
    policy.host_patterns().into_values().cloned()
}

/// Some have several, of both families, and some are several names'.
fn addresses(host: Host) -> Vec<IpAddr> {
    let first = Ipv4Addr::new(127, 1, 2, 3).into();
    match host {
        Host::Top => vec![Ipv4Addr::LOCALHOST.into(), first],
        Host::Middle => vec![first, Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 1).into()],
        Host::Deep => vec![Ipv4Addr::new(127, 1, 2, 200).into(), Ipv6Addr::LOCALHOST.into(), first],
    }
}

/// The number of the case follows from the name.
fn answer(question: &[u8]) -> Vec<u8> {
    let name = &question[12..question.len() - 5];
    let host = match &name[..2] {
        b"\x01c" => Host::Deep,
        b"\x01a" => Host::Middle,
        _ => Host::Top,
    };
    let digits = name.iter().filter(|byte| byte.is_ascii_digit());
    let case = digits.fold(0, |case, digit| case * 10 + u32::from(digit - b'0'));
    let records = addresses(host);
    let header = [0x8180, 1, records.len() as u16, 0, 0].map(u16::to_be_bytes).concat();
    let mut answer = [&question[..2], &header, &question[12..]].concat();
    for address in records {
        let (kind, bytes) = match address {
            IpAddr::V4(address) => (1, address.octets().to_vec()),
            IpAddr::V6(address) => (28, address.octets().to_vec()),
        };
        answer.extend([0xc0, 12, 0, kind, 0, 1]);
        answer.extend((LEAST + case).to_be_bytes());
        answer.extend([0, bytes.len() as u8]);
        answer.extend(bytes);
    }
    answer
}
