//! Policies of very many filters, of which the last matches what is dialled.

use std::net::{Ipv4Addr, SocketAddrV4};

use waylay_core::{
    Conditions, FailurePolicy, FileId, Filter, FilterId, Layer, OneOf, Policy, PortRange, Prefix,
    ProcessConditions, Protocol, Service, ServiceId, normal_form,
};

/// What filters ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mix {
    /// Prefixes of 16 to 32 bits, mostly 24: a blocklist (M1).
    Prefixes,
    /// Executables with prefixes, port ranges, protocols and users; a tenth of the filters are for every program (M2).
    Applications,
    /// Wide prefixes and wide port ranges that overlap in every way (M3).
    Overlapping,
    /// An address and a port (M4).
    Pairs,
}

impl Mix {
    /// As tables name it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Prefixes => "M1 prefixes",
            Self::Applications => "M2 applications",
            Self::Overlapping => "M3 overlapping",
            Self::Pairs => "M4 pairs",
        }
    }
}

/// So many filters for one service, of id 1. The last asks for this destination and executable; none before it matches them.
#[must_use]
pub fn mixed(mix: Mix, filters: u32, target: SocketAddrV4, exe: FileId) -> Policy {
    let mut chance = Chance(0x9e37_79b9_7f4a_7c15 ^ u64::from(filters));
    let mut conditions: Vec<Conditions> = Vec::new();
    let target_ip = normal_form((*target.ip()).into());
    while conditions.len() + 1 < filters as usize {
        let next = one(mix, &mut chance, filters, exe);
        let covers = |prefixes: &OneOf<Prefix>| prefixes.holds(|prefix| prefix.covers(target_ip));
        let ports = |ranges: &OneOf<PortRange>| ranges.holds(|range| range.covers(target.port()));
        if !next.remote.as_ref().is_none_or(covers) || !next.remote_ports.as_ref().is_none_or(ports) {
            conditions.push(next);
        }
    }
    conditions.push(Conditions {
        remote: Some(Prefix::host((*target.ip()).into()).into()),
        remote_ports: Some(PortRange::single(target.port()).into()),
        application: ProcessConditions {
            exe: (mix == Mix::Applications).then(|| exe.into()),
            ..ProcessConditions::default()
        },
        ..Conditions::default()
    });
    let layer = Layer::Redirect { service: ServiceId(1) };
    let filter = |(id, conditions)| Filter { id: FilterId(id), weight: 0, conditions, layer };
    let service = Service {
        id: ServiceId(1),
        name: "s1".into(),
        before: Vec::new(),
        after: Vec::new(),
        on_failure: FailurePolicy::Closed,
    };
    Policy::new(vec![service], Vec::new(), (1..).zip(conditions).map(filter).collect()).expect("a policy")
}

/// As many pairs, the last of them this one.
#[must_use]
pub fn pairs(count: usize, target: SocketAddrV4) -> Vec<SocketAddrV4> {
    let mut chance = Chance(7);
    let mut pairs: Vec<SocketAddrV4> = (1..count)
        .map(|_| SocketAddrV4::new(Ipv4Addr::from_bits(0x0a00_0000 | chance.below(1 << 24)), chance.port()))
        .collect();
    pairs.push(target);
    pairs
}

fn one(mix: Mix, chance: &mut Chance, filters: u32, exe: FileId) -> Conditions {
    match mix {
        Mix::Prefixes => {
            let length = match chance.below(10) {
                0 => 16 + chance.below(8),
                1..=7 => 24,
                _ => 25 + chance.below(8),
            };
            Conditions { remote: Some(chance.prefix(length).into()), ..Conditions::default() }
        }
        Mix::Pairs => Conditions {
            remote: Some(chance.prefix(32).into()),
            remote_ports: Some(PortRange::single(chance.port()).into()),
            ..Conditions::default()
        },
        Mix::Overlapping => {
            let length = 1 + chance.below(9);
            Conditions {
                remote: Some(chance.prefix(length).into()),
                remote_ports: Some(chance.range(30_000).into()),
                application: ProcessConditions {
                    uid: (chance.below(2) == 0).then(|| OneOf::none_of([1 + chance.below(50)])),
                    ..ProcessConditions::default()
                },
                ..Conditions::default()
            }
        }
        Mix::Applications => application(chance, filters, exe),
    }
}

fn application(chance: &mut Chance, filters: u32, exe: FileId) -> Conditions {
    let programs = (filters / 40).clamp(1, 4000);
    let exe = match chance.below(10) {
        0 => None,
        _ => match chance.below(programs) {
            0 => Some(exe),
            program => Some(FileId { device: 1, inode: program.into() }),
        },
    };
    let length = [8, 12, 16, 20, 24, 24, 28, 32][chance.below(8) as usize];
    Conditions {
        protocol: (chance.below(2) == 0).then(|| Protocol::Tcp.into()),
        remote: (chance.below(10) < 7).then(|| chance.prefix(length).into()),
        remote_ports: (chance.below(10) < 7).then(|| match chance.below(3) {
            0 => chance.range(2_000).into(),
            _ => PortRange::single(chance.port()).into(),
        }),
        application: ProcessConditions {
            exe: exe.map(Into::into),
            uid: (chance.below(5) == 0).then(|| chance.below(1000).into()),
            ..ProcessConditions::default()
        },
        ..Conditions::default()
    }
}

/// Numbers that are the same each time: an xorshift generator.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (((self.0 >> 32) * u64::from(limit)) >> 32) as u32
    }

    fn port(&mut self) -> u16 {
        1 + self.below(65_535) as u16
    }

    fn range(&mut self, width: u32) -> PortRange {
        let first = self.port();
        let last = u32::from(first) + self.below(width);
        PortRange::new(first, last.min(65_535) as u16).expect("it does not end before it begins")
    }

    fn prefix(&mut self, length: u32) -> Prefix {
        let address = Ipv4Addr::from_bits(self.below(u32::MAX));
        Prefix::covering(normal_form(address.into()), 96 + length as u8)
    }
}

#[cfg(test)]
mod tests {
    use waylay_core::{Facts, ProcessFacts, Tables};

    use super::*;

    #[test]
    fn only_the_last_filter_matches_what_is_dialled() {
        let target = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 80);
        let exe = FileId { device: 9, inode: 9 };
        for mix in [Mix::Prefixes, Mix::Applications, Mix::Overlapping, Mix::Pairs] {
            let tables = Tables::compile(&mixed(mix, 500, target, exe)).unwrap();
            let process = ProcessFacts { exe, ..ProcessFacts::default() };
            let facts = Facts {
                protocol: Protocol::Tcp,
                remote: normal_form((*target.ip()).into()),
                remote_port: target.port(),
                local: None,
                hosts: vec![],
                namespace: waylay_core::Namespace::Own,
                application: process.clone(),
                via: process,
            };
            let filters = tables.redirect_filters();
            assert_eq!(filters.iter().position(|filter| filter.conditions.match_facts(&facts)), Some(499));
            let found = tables.classify_redirect(&facts, 0).map(|filter| filter.id);
            assert_eq!(found, Some(filters[499].id), "{mix:?}");
        }
    }
}
