//! What filters ask, as sets of numbers; and a leg's numbers.

use std::collections::BTreeSet;

use super::numbering::{
    Addresses, Ids, Name, Names, name_of_command, name_of_file, number_of_address, number_of_id,
    number_of_name,
};
use super::sets::{Set, families, listed, prefix};
use super::words::{Reader, Writer};
use crate::conditions::{Conditions, FlagConditions, OneOf, ProcessConditions};
use crate::host::HostPattern;
use crate::leg::{Facts, Flags, ProcessFacts, Protocol};
use crate::world::Namespace;

/// What a leg has one number of, by its index.
pub(super) mod field {
    pub(crate) const REMOTE: usize = 0;
    pub(crate) const PORT: usize = 1;
    pub(crate) const PROTOCOL: usize = 2;
    pub(crate) const FLAGS: usize = 3;
    pub(crate) const LOCAL: usize = 4;
    /// And three more: executable, user, group, command.
    pub(crate) const APPLICATION: usize = 5;
    /// The same of who dials.
    pub(crate) const VIA: usize = 9;
    pub(crate) const NAMESPACE: usize = 13;
    pub(crate) const COUNT: usize = 14;
    pub(crate) const EXE: usize = 0;
    pub(crate) const UID: usize = 1;
    pub(crate) const GID: usize = 2;
    pub(crate) const COMMAND: usize = 3;
}

/// What a leg has any number of: the cgroups of the application and of who dials, and what covers the names of its destination.
pub(super) const LINEAGES: usize = 3;

const HOSTS: usize = 2;

/// What one filter asks. All of it must hold, and none of it is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Asked {
    pub(super) fields: Vec<(usize, Set<u32>)>,
    pub(super) lineages: Vec<AskedLineage>,
}

/// That something of a lineage is among these, or that nothing is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct AskedLineage {
    pub(super) lineage: usize,
    pub(super) negated: bool,
    pub(super) numbers: Set<u32>,
}

/// A leg, in numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Numbers {
    pub(super) fields: [u32; field::COUNT],
    /// Without those that no condition names.
    pub(super) lineages: [Vec<u32>; LINEAGES],
}

/// What everything that conditions name is called.
#[derive(Clone, Debug, Default)]
pub(super) struct Numbering {
    remote: Addresses,
    local: Addresses,
    files: Names,
    commands: Names,
    cgroups: Ids,
    namespaces: Ids,
    hosts: Ids,
}

/// Words of a numbering's directory.
pub(super) const DIRECTORY: usize = 18;
/// Where in it the namespaces are.
pub(super) const AT_NAMESPACES: u64 = 14;
/// And the patterns of hosts.
pub(super) const AT_HOSTS: u64 = 16;

impl Numbering {
    pub(super) fn new(filters: &[&Conditions]) -> Self {
        let remotes: Vec<Set<u128>> = filters.iter().filter_map(|asked| remote(asked)).collect();
        let locals: Vec<Set<u128>> = filters.iter().filter_map(|asked| local(asked)).collect();
        let processes = || filters.iter().flat_map(|asked| [&asked.application, &asked.via]);
        let files = processes().filter_map(|asked| asked.exe.as_ref()).flat_map(OneOf::values);
        let commands = processes().filter_map(|asked| asked.command.as_ref()).flat_map(OneOf::values);
        let cgroups = processes().filter_map(|asked| asked.cgroup.as_ref()).flat_map(OneOf::values);
        let namespaces = filters.iter().filter_map(|asked| asked.namespace.as_ref());
        // The own one is always among them, so that it is seen that they are asked for.
        let namespaces = namespaces.flat_map(|list| list.values().iter().copied().chain([Namespace::Own]));
        let hosts = filters.iter().filter_map(|asked| asked.host.as_ref()).flat_map(OneOf::values);
        Self {
            remote: Addresses::new(&remotes),
            local: Addresses::new(&locals),
            files: Names::new(files.copied().map(name_of_file)),
            commands: Names::new(commands.copied().map(name_of_command)),
            cgroups: Ids::new(cgroups.copied()),
            namespaces: Ids::new(namespaces.map(id_of_namespace)),
            hosts: Ids::new(hosts.map(HostPattern::key)),
        }
    }

    /// What a filter asks; `None` if it can never hold.
    pub(super) fn ask(&self, conditions: &Conditions, flags: FlagConditions) -> Option<Asked> {
        let mut asked = Asked::default();
        if let Some(set) = remote(conditions) {
            asked.add(field::REMOTE, self.remote.numbers(&set))?;
        }
        if let Some(list) = &conditions.remote_ports {
            asked.add(field::PORT, listed(list, |ports| (ports.first().into(), ports.last().into())))?;
        }
        if let Some(list) = &conditions.protocol {
            asked.add(field::PROTOCOL, listed(list, |protocol| single(number_of_protocol(*protocol))))?;
        }
        asked.add(field::FLAGS, flags_asked(flags))?;
        if let Some(set) = local(conditions) {
            asked.add(field::LOCAL, self.local.numbers(&set))?;
        }
        if let Some(list) = &conditions.host {
            asked.add_lineage(HOSTS, list, |pattern| self.hosts.number(pattern.key()))?;
        }
        self.ask_namespace(conditions, &mut asked)?;
        self.ask_process(&conditions.application, field::APPLICATION, 0, &mut asked)?;
        self.ask_process(&conditions.via, field::VIA, 1, &mut asked)?;
        Some(asked)
    }

    /// Where nobody asks for namespaces, legs of others find nothing anyway.
    fn ask_namespace(&self, conditions: &Conditions, asked: &mut Asked) -> Option<()> {
        let number = |namespace: Namespace| single(self.namespaces.number(id_of_namespace(namespace)));
        let own = || Set::of([number(Namespace::Own)]);
        match &conditions.namespace {
            Some(list) => asked.add(field::NAMESPACE, listed(list, |namespace| number(*namespace))),
            None if self.namespaces.len() > 0 => asked.add(field::NAMESPACE, own()),
            None => Some(()),
        }
    }

    /// How many a lineage has numbers of.
    pub(super) fn most_of_lineage(&self, lineage: usize) -> usize {
        if lineage == HOSTS { self.hosts.len() } else { self.cgroups.len() }
    }

    /// What a filter asks of processes; `None` if that can never hold.
    pub(super) fn ask_processes(&self, conditions: &Conditions) -> Option<Asked> {
        let mut asked = Asked::default();
        self.ask_process(&conditions.application, field::APPLICATION, 0, &mut asked)?;
        self.ask_process(&conditions.via, field::VIA, 1, &mut asked)?;
        Some(asked)
    }

    fn ask_process(
        &self,
        conditions: &ProcessConditions,
        base: usize,
        lineage: usize,
        asked: &mut Asked,
    ) -> Option<()> {
        let ProcessConditions { exe, uid, gid, command, cgroup } = conditions;
        if let Some(list) = exe {
            let numbers = listed(list, |exe| single(self.files.number(name_of_file(*exe))));
            asked.add(base + field::EXE, numbers)?;
        }
        if let Some(list) = uid {
            asked.add(base + field::UID, listed(list, |uid| single(*uid)))?;
        }
        if let Some(list) = gid {
            asked.add(base + field::GID, listed(list, |gid| single(*gid)))?;
        }
        if let Some(list) = command {
            let numbers = listed(list, |command| single(self.commands.number(name_of_command(*command))));
            asked.add(base + field::COMMAND, numbers)?;
        }
        match cgroup {
            Some(list) => asked.add_lineage(lineage, list, |id| self.cgroups.number(*id)),
            None => Some(()),
        }
    }

    pub(super) fn write(&self, writer: &mut Writer) -> [u64; DIRECTORY] {
        let [r0, r1, r2] = self.remote.write(writer);
        let [l0, l1, l2] = self.local.write(writer);
        let [f0, f1, f2] = self.files.write(writer);
        let [c0, c1, c2] = self.commands.write(writer);
        let [g0, g1] = self.cgroups.write(writer);
        let [n0, n1] = self.namespaces.write(writer);
        let [h0, h1] = self.hosts.write(writer);
        [r0, r1, r2, l0, l1, l2, f0, f1, f2, c0, c1, c2, g0, g1, n0, n1, h0, h1]
    }
}

impl Asked {
    fn add(&mut self, field: usize, numbers: Set<u32>) -> Option<()> {
        if numbers.intervals().is_empty() {
            return None;
        }
        if !numbers.is_all() {
            self.fields.push((field, numbers));
        }
        Some(())
    }

    fn add_lineage<T>(&mut self, lineage: usize, list: &OneOf<T>, number: impl Fn(&T) -> u32) -> Option<()> {
        let numbers = Set::of(list.values().iter().map(|value| single(number(value))));
        match (numbers.intervals().is_empty(), list.is_negated()) {
            (true, true) => Some(()),
            (true, false) => None,
            (false, negated) => {
                self.lineages.push(AskedLineage { lineage, negated, numbers });
                Some(())
            }
        }
    }
}

impl Numbers {
    /// The same of a leg of which the redirect layer has made this.
    pub(super) fn set_flags(&mut self, flags: Flags) {
        self.fields[field::FLAGS] = number_of_flags(flags);
    }
}

/// The numbers of a leg, from a numbering's directory.
pub(super) fn numbers_of(words: Reader<'_>, at: u64, facts: &Facts, flags: Flags) -> Numbers {
    let triple = |first: u64| [0, 1, 2].map(|word| words.word(at + first + word));
    let mut numbers = Numbers::default();
    let fields = &mut numbers.fields;
    fields[field::REMOTE] = number_of_address(words, triple(0), facts.remote.to_bits());
    fields[field::PORT] = facts.remote_port.into();
    fields[field::PROTOCOL] = number_of_protocol(facts.protocol);
    fields[field::FLAGS] = number_of_flags(flags);
    let local = facts.local.map_or(0, |address| address.to_bits());
    fields[field::LOCAL] = number_of_address(words, triple(3), local);
    let ids = |first: u64| [words.word(at + first), words.word(at + first + 1)];
    fields[field::NAMESPACE] = number_of_id(words, ids(AT_NAMESPACES), id_of_namespace(facts.namespace));
    let covering: BTreeSet<u64> = facts.hosts.iter().map(HostPattern::key).collect();
    let named = covering.into_iter().map(|key| number_of_id(words, ids(AT_HOSTS), key));
    numbers.lineages[HOSTS] = named.filter(|number| *number != 0).collect();
    let processes = [(&facts.application, field::APPLICATION), (&facts.via, field::VIA)];
    for (lineage, (process, base)) in processes.into_iter().enumerate() {
        add_process(words, at, process, base, lineage, &mut numbers);
    }
    numbers
}

/// The numbers of somebody who makes a socket, for himself.
pub(super) fn numbers_of_process(words: Reader<'_>, at: u64, process: &ProcessFacts) -> Numbers {
    let mut numbers = Numbers::default();
    add_process(words, at, process, field::APPLICATION, 0, &mut numbers);
    add_process(words, at, process, field::VIA, 1, &mut numbers);
    numbers
}

fn add_process(
    words: Reader<'_>,
    at: u64,
    process: &ProcessFacts,
    base: usize,
    lineage: usize,
    numbers: &mut Numbers,
) {
    let triple = |first: u64| [0, 1, 2].map(|word| words.word(at + first + word));
    let name = |first: u64, name: Name| number_of_name(words, triple(first), name);
    numbers.fields[base + field::EXE] = name(6, name_of_file(process.exe));
    numbers.fields[base + field::UID] = process.uid;
    numbers.fields[base + field::GID] = process.gid;
    numbers.fields[base + field::COMMAND] = name(9, name_of_command(process.command));
    let cgroups = [words.word(at + 12), words.word(at + 13)];
    let named = process.cgroups.iter().map(|id| number_of_id(words, cgroups, *id));
    numbers.lineages[lineage] = named.filter(|number| *number != 0).collect();
}

/// No namespace has the cookie 0.
const fn id_of_namespace(namespace: Namespace) -> u64 {
    match namespace {
        Namespace::Own => 0,
        Namespace::Foreign(cookie) => cookie,
    }
}

const fn single(number: u32) -> (u32, u32) {
    (number, number)
}

const fn number_of_protocol(protocol: Protocol) -> u32 {
    match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
    }
}

fn number_of_flags(flags: Flags) -> u32 {
    u32::from(flags.redirected) | u32::from(flags.proxied) << 1
}

fn flags_asked(asked: FlagConditions) -> Set<u32> {
    if asked == FlagConditions::default() {
        return Set::all();
    }
    let each = [(false, false), (true, false), (false, true), (true, true)];
    let each = each.map(|(redirected, proxied)| Flags { redirected, proxied });
    Set::of(
        each.into_iter()
            .filter(|flags| asked.match_flags(*flags))
            .map(|flags| single(number_of_flags(flags))),
    )
}

fn remote(conditions: &Conditions) -> Option<Set<u128>> {
    let prefixes = conditions.remote.as_ref().map(|list| listed(list, prefix));
    match (prefixes, conditions.family.as_ref().map(families)) {
        (Some(prefixes), Some(families)) => Some(prefixes.intersection(&families)),
        (prefixes, families) => prefixes.or(families),
    }
}

/// A source that nobody has bound counts as the unspecified address, which lies in no prefix here.
fn local(conditions: &Conditions) -> Option<Set<u128>> {
    let list = conditions.local.as_ref()?;
    let bound = Set::of([(1, u128::MAX)]);
    let inside = Set::of(list.values().iter().map(prefix)).intersection(&bound);
    Some(if list.is_negated() { inside.complement() } else { inside })
}
