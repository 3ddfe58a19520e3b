//! From the prefixes of the routing tables to how far the host gets towards
//! each.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use waylay_core::{Errno, Prefix, Reach, Routes};

/// A route of one of the kernel's tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TableRoute {
    pub(super) prefix: Prefix,
    pub(super) table: u32,
    pub(super) kind: Kind,
}

/// What a route does with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// It leads somewhere.
    Leading,
    /// It says that nothing leads there.
    Refusing,
    /// It leads to many, to whom nobody connects.
    Group,
}

const EVERYWHERE: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
/// Addresses to which nobody connects, whatever the tables say.
const GROUPS: [(IpAddr, u8); 3] = [
    (IpAddr::V4(Ipv4Addr::new(224, 0, 0, 0)), 4),
    (IpAddr::V4(Ipv4Addr::BROADCAST), 32),
    (IpAddr::V6(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0)), 8),
];
/// Candidates for an address that no longer prefix covers.
const CANDIDATES: u64 = 64;

/// How far the host gets, by prefix. `ask` is the kernel's answer for a plain
/// connection: the address it starts from, or an error.
pub(super) fn survey(tables: &[TableRoute], ask: impl Fn(IpAddr) -> io::Result<IpAddr>) -> Routes {
    let mut routes = Routes::default();
    let tables = Tables::new(tables);
    for &prefix in &tables.prefixes {
        // Where longer prefixes cover all of it, nobody will ask.
        if let Some(address) = tables.representative(prefix) {
            routes.set(prefix, tables.reach(prefix, address, &ask));
        }
    }
    routes
}

struct Tables {
    prefixes: BTreeSet<Prefix>,
    by_table: BTreeMap<u32, BTreeMap<Prefix, Kind>>,
}

impl Tables {
    fn new(routes: &[TableRoute]) -> Self {
        let mut by_table: BTreeMap<u32, BTreeMap<Prefix, Kind>> = BTreeMap::new();
        for route in routes {
            let known = by_table.entry(route.table).or_default().entry(route.prefix).or_insert(route.kind);
            // Of several with different metrics one that leads is enough.
            if route.kind == Kind::Leading {
                *known = Kind::Leading;
            }
        }
        let defaults = EVERYWHERE.map(|any| Prefix::new(any, 0));
        let groups = GROUPS.map(|(address, length)| Prefix::new(address, length));
        let mut prefixes: BTreeSet<Prefix> = routes.iter().map(|route| route.prefix).collect();
        prefixes.extend(defaults.into_iter().chain(groups).flatten());
        Self { prefixes, by_table }
    }

    fn reach(&self, prefix: Prefix, address: IpAddr, ask: &impl Fn(IpAddr) -> io::Result<IpAddr>) -> Reach {
        if self.is_group(prefix, address) {
            return Reach::Group;
        }
        if is_link_local(address) {
            // Which link is meant is not part of the address.
            return Reach::From(None);
        }
        match ask(address) {
            Ok(source) if address.is_loopback() || source == address => Reach::Here(source),
            Ok(source) => Reach::From(Some(source)),
            // Some socket has a mark, say, that leads it to another table.
            Err(_) if self.leads_somewhere(address) => Reach::From(None),
            Err(error) => no_route(&error).map_or(Reach::From(None), Reach::Never),
        }
    }

    fn is_group(&self, prefix: Prefix, address: IpAddr) -> bool {
        address.is_multicast()
            || address == IpAddr::V4(Ipv4Addr::BROADCAST)
            || self.by_table.values().any(|table| table.get(&prefix) == Some(&Kind::Group))
    }

    fn leads_somewhere(&self, address: IpAddr) -> bool {
        let leads = |table: &BTreeMap<Prefix, Kind>| longest(table, address) == Some(Kind::Leading);
        self.by_table.values().any(leads)
    }

    /// An address that no longer prefix covers.
    fn representative(&self, prefix: Prefix) -> Option<IpAddr> {
        let network = prefix.network().to_bits();
        let hosts = u128::MAX.checked_shr(u32::from(prefix.length())).unwrap_or(0);
        let scattered = (1..CANDIDATES).map(|n| u128::from(n.wrapping_mul(0x9e37_79b9_7f4a_7c15)).pow(2));
        let candidates = [1, hosts.wrapping_sub(1), hosts / 2, 0].into_iter().chain(scattered);
        candidates
            .map(|host| Ipv6Addr::from_bits(network | host & hosts))
            .find(|&address| self.longest_prefix(address) == Some(prefix))
            .map(|address| address.to_canonical())
    }

    fn longest_prefix(&self, address: Ipv6Addr) -> Option<Prefix> {
        (0..=128).rev().map(|length| Prefix::covering(address, length)).find(|it| self.prefixes.contains(it))
    }
}

fn longest(table: &BTreeMap<Prefix, Kind>, address: IpAddr) -> Option<Kind> {
    let address = waylay_core::normal_form(address);
    (0..=128).rev().find_map(|length| table.get(&Prefix::covering(address, length)).copied())
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(_) => false,
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

/// The error, if it is one of those by which the kernel says that there is no
/// route: none, or one that says unreachable, prohibited or blackhole.
fn no_route(error: &io::Error) -> Option<Errno> {
    const EINVAL: u16 = 22;
    let number = u16::try_from(error.raw_os_error()?).ok()?;
    let known = [Errno::ENETUNREACH, Errno::EHOSTUNREACH, Errno::EACCES];
    let errno = Errno::new(number)?;
    (known.contains(&errno) || number == EINVAL).then_some(errno)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAIN: u32 = 254;
    const OTHER: u32 = 100;

    fn route(network: &str, table: u32, kind: Kind) -> TableRoute {
        let (address, length) = network.split_once('/').unwrap();
        let prefix = Prefix::new(address.parse().unwrap(), length.parse().unwrap()).unwrap();
        TableRoute { prefix, table, kind }
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    const SOURCE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 1, 0, 9));

    /// A host that reaches 10.1.0.0/16 by a plain connection and nothing else.
    fn ask(destination: IpAddr) -> io::Result<IpAddr> {
        match destination {
            IpAddr::V4(ip) if ip.octets()[..2] == [10, 1] => Ok(SOURCE),
            IpAddr::V4(_) | IpAddr::V6(_) => Err(io::Error::from_raw_os_error(101)),
        }
    }

    const UNREACHABLE: Reach = Reach::Never(Errno::ENETUNREACH);

    #[test]
    fn what_the_kernel_reaches_has_a_source_and_what_it_does_not_its_error() {
        let routes = survey(&[route("10.1.0.0/16", MAIN, Kind::Leading)], ask);
        assert_eq!(routes.to(address("10.1.2.3")), Reach::From(Some(SOURCE)));
        assert_eq!(routes.to(address("10.2.0.1")), UNREACHABLE);
        assert_eq!(routes.to(address("2001:db8::1")), UNREACHABLE);
    }

    #[test]
    fn a_shorter_prefix_is_asked_where_no_longer_one_covers_it() {
        let tables = [
            route("10.0.0.0/8", MAIN, Kind::Refusing),
            route("10.0.0.0/9", MAIN, Kind::Leading),
            route("10.1.0.0/16", MAIN, Kind::Leading),
        ];
        let routes = survey(&tables, |destination| match destination {
            IpAddr::V4(ip) if ip.octets()[1] >= 128 => Err(io::Error::from_raw_os_error(113)),
            IpAddr::V4(_) | IpAddr::V6(_) => Ok(SOURCE),
        });
        assert_eq!(routes.to(address("10.200.0.1")), Reach::Never(Errno::EHOSTUNREACH));
        assert_eq!(routes.to(address("10.2.0.1")), Reach::From(Some(SOURCE)));
    }

    #[test]
    fn a_table_that_only_some_sockets_reach_counts_as_a_route() {
        let tables =
            [route("192.0.2.0/24", OTHER, Kind::Leading), route("192.0.2.128/25", OTHER, Kind::Refusing)];
        let routes = survey(&tables, ask);
        assert_eq!(routes.to(address("192.0.2.1")), Reach::From(None));
        assert_eq!(routes.to(address("192.0.2.200")), UNREACHABLE);
    }

    #[test]
    fn nobody_connects_to_groups() {
        let routes = survey(&[route("10.1.255.255/32", 255, Kind::Group)], |_| Ok(SOURCE));
        for group in ["10.1.255.255", "255.255.255.255", "224.0.0.251", "ff02::fb"] {
            assert_eq!(routes.to(address(group)), Reach::Group, "{group}");
        }
        assert_eq!(routes.to(address("10.1.255.254")), Reach::From(Some(SOURCE)));
    }

    #[test]
    fn a_link_local_address_is_left_to_the_kernel() {
        let routes = survey(&[route("fe80::/64", MAIN, Kind::Leading)], ask);
        assert_eq!(routes.to(address("fe80::1")), Reach::From(None));
    }

    #[test]
    fn an_error_of_another_kind_says_nothing_of_routes() {
        let routes = survey(&[], |_| Err(io::Error::from_raw_os_error(97)));
        assert_eq!(routes.to(address("2001:db8::1")), Reach::From(None));
    }

    #[test]
    fn this_hosts_loopback_is_reached_from_itself() {
        let routes = super::super::current(&super::super::asker::Asker::new()).unwrap();
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        assert_eq!(routes.to(loopback), Reach::Here(loopback));
    }

    #[test]
    fn an_address_from_which_itself_is_reached_is_this_hosts() {
        let routes = survey(
            &[route("10.1.0.0/16", MAIN, Kind::Leading), route("10.1.0.9/32", 255, Kind::Leading)],
            ask,
        );
        assert_eq!(routes.to(SOURCE), Reach::Here(SOURCE));
        assert_eq!(routes.to(address("10.1.0.8")), Reach::From(Some(SOURCE)));
    }
}
