//! What a filter asks of a leg: a conjunction of optional conditions, each a list of values or the exclusion of one.

use crate::address::{Family, PortRange, Prefix};
use crate::host::HostPattern;
use crate::leg::{Facts, Flags, ProcessFacts, Protocol};
use crate::process::{CommandName, FileId};
use crate::world::Namespace;

/// What must hold for a filter to match. An absent condition always holds, but for that on network namespaces.
///
/// Those about the `application` follow the chain through the services: they are asked of the *original application*, whoever
/// dials. Those about `via` are asked of the process that dials this very leg.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conditions {
    /// The transport protocol.
    pub protocol: Option<OneOf<Protocol>>,
    /// The family of the original destination's address; IPv4-mapped addresses are IPv4.
    pub family: Option<OneOf<Family>>,
    /// Prefixes the original destination lies in.
    pub remote: Option<OneOf<Prefix>>,
    /// Ranges the original destination's port lies in.
    pub remote_ports: Option<OneOf<PortRange>>,
    /// Prefixes the source lies in that the caller has bound. Where it bound none, this one does not hold, and excluding any does.
    pub local: Option<OneOf<Prefix>>,
    /// A name of the destination by which the original application has asked for it. Where it has not asked for any of these, this one
    /// does not hold, and excluding them does.
    pub host: Option<OneOf<HostPattern>>,
    /// The network namespace that the leg is in. Where nothing is said, the own one: legs of others are judged by filters that ask for
    /// them, and by nothing else.
    pub namespace: Option<OneOf<Namespace>>,
    /// The original application.
    pub application: ProcessConditions,
    /// The process that dials this leg.
    pub via: ProcessConditions,
}

// There are 100,000 of them, three times: as they are declared, in the policy, and in its tables.
const _: () = assert!(size_of::<Conditions>() <= 17 * size_of::<usize>());

impl Conditions {
    /// Whether anything must hold of the application or of the process that dials.
    pub(crate) fn ask_of_processes(&self) -> bool {
        [&self.application, &self.via].into_iter().any(|process| *process != ProcessConditions::default())
    }
}

/// What must hold of a process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessConditions {
    /// Its executable.
    pub exe: Option<OneOf<FileId>>,
    /// Its user, the real one.
    pub uid: Option<OneOf<u32>>,
    /// Its group, the real one; supplementary groups are not asked.
    pub gid: Option<OneOf<u32>>,
    /// Its command name, which it can change at will: for order, not for security.
    pub command: Option<OneOf<CommandName>>,
    /// A cgroup that it is in, itself or below it.
    pub cgroup: Option<OneOf<u64>>,
}

/// Values of which a fact has to be one, or has to be none.
///
/// A list without values never holds, and its exclusion always does: that is what a name comes to which nobody bears.
///
/// ```
/// use waylay_core::OneOf;
///
/// let admins = OneOf::these([0, 1000]);
/// assert!(admins.holds(|uid| *uid == 1000));
/// assert!(!OneOf::none_of([0, 1000]).holds(|uid| *uid == 1000));
/// assert!(!OneOf::<u32>::these([]).holds(|uid| *uid == 1000));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OneOf<T>(Box<List<T>>);

/// Not in its place: a filter asks for few of the things that it could ask for, and there are many filters.
#[derive(Clone, Debug, PartialEq, Eq)]
struct List<T> {
    values: Box<[T]>,
    negated: bool,
}

impl<T> OneOf<T> {
    /// The fact has to be one of these.
    pub fn these(values: impl IntoIterator<Item = T>) -> Self {
        Self::new(values, false)
    }

    /// The fact has to be this.
    pub fn only(value: T) -> Self {
        Self::these([value])
    }

    /// The fact must be none of these.
    pub fn none_of(values: impl IntoIterator<Item = T>) -> Self {
        Self::new(values, true)
    }

    /// The values.
    #[must_use]
    pub fn values(&self) -> &[T] {
        &self.0.values
    }

    /// Whether the fact must be none of them.
    #[must_use]
    pub const fn is_negated(&self) -> bool {
        self.0.negated
    }

    /// Whether it holds of a fact, given how a value is compared with it.
    pub fn holds(&self, fits: impl FnMut(&T) -> bool) -> bool {
        self.0.values.iter().any(fits) != self.0.negated
    }

    fn new(values: impl IntoIterator<Item = T>, negated: bool) -> Self {
        Self(Box::new(List { values: values.into_iter().collect(), negated }))
    }
}

impl<T> From<T> for OneOf<T> {
    fn from(value: T) -> Self {
        Self::only(value)
    }
}

impl Conditions {
    /// Whether all of them hold.
    #[must_use]
    pub fn match_facts(&self, facts: &Facts) -> bool {
        self.admit(facts.protocol)
            && holds(&self.family, |family| *family == Family::of(facts.remote))
            && holds(&self.remote, |prefix| prefix.covers(facts.remote))
            && holds(&self.remote_ports, |ports| ports.covers(facts.remote_port))
            && holds(&self.local, |prefix| facts.local.is_some_and(|local| prefix.covers(local)))
            && holds(&self.host, |pattern| facts.hosts.contains(pattern))
            && self.match_namespace(facts.namespace)
            && self.application.match_process(&facts.application)
            && self.via.match_process(&facts.via)
    }

    /// Whether legs of a protocol may match, whatever else is asked.
    pub(crate) fn admit(&self, protocol: Protocol) -> bool {
        holds(&self.protocol, |asked| *asked == protocol)
    }

    fn match_namespace(&self, namespace: Namespace) -> bool {
        match &self.namespace {
            Some(list) => list.holds(|asked| *asked == namespace),
            None => namespace == Namespace::Own,
        }
    }

    /// Whether those about the application hold of a process that acts for itself, whatever the others ask.
    #[must_use]
    pub fn match_application(&self, process: &ProcessFacts) -> bool {
        self.application.match_process(process) && self.via.match_process(process)
    }
}

impl ProcessConditions {
    /// Whether all of them hold.
    #[must_use]
    pub fn match_process(&self, process: &ProcessFacts) -> bool {
        holds(&self.exe, |exe| *exe == process.exe)
            && holds(&self.uid, |uid| *uid == process.uid)
            && holds(&self.gid, |gid| *gid == process.gid)
            && holds(&self.command, |command| *command == process.command)
            && holds(&self.cgroup, |cgroup| process.cgroups.contains(cgroup))
    }
}

/// Conditions on what the redirect layer has made of a leg; only the auth layer can ask them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlagConditions {
    /// The leg will go to a service.
    pub redirected: Option<bool>,
    /// The leg comes from a service.
    pub proxied: Option<bool>,
}

impl FlagConditions {
    /// Whether both of them hold.
    #[must_use]
    pub fn match_flags(self, flags: Flags) -> bool {
        self.redirected.is_none_or(|redirected| redirected == flags.redirected)
            && self.proxied.is_none_or(|proxied| proxied == flags.proxied)
    }
}

fn holds<T>(condition: &Option<OneOf<T>>, fits: impl FnMut(&T) -> bool) -> bool {
    condition.as_ref().is_none_or(|condition| condition.holds(fits))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::normal_form;
    use crate::host::HostName;

    fn prefix(address: &str, length: u8) -> Prefix {
        Prefix::new(address.parse().unwrap(), length).unwrap()
    }

    fn facts() -> Facts {
        Facts {
            protocol: Protocol::Tcp,
            remote: normal_form("192.0.2.1".parse().unwrap()),
            remote_port: 443,
            local: Some(normal_form("10.0.0.7".parse().unwrap())),
            hosts: HostName::new("www.example.com").unwrap().patterns().collect(),
            namespace: Namespace::Own,
            application: process(2, 1000),
            via: process(3, 2000),
        }
    }

    fn process(inode: u64, uid: u32) -> ProcessFacts {
        ProcessFacts {
            exe: FileId { device: 1, inode },
            uid,
            gid: uid + 1,
            command: CommandName::new("curl"),
            cgroups: vec![7, 5, 1],
        }
    }

    fn of_process(process: &ProcessFacts) -> Vec<ProcessConditions> {
        let none = ProcessConditions::default;
        vec![
            ProcessConditions { exe: Some(process.exe.into()), ..none() },
            ProcessConditions { uid: Some(process.uid.into()), ..none() },
            ProcessConditions { gid: Some(process.gid.into()), ..none() },
            ProcessConditions { command: Some(process.command.into()), ..none() },
            ProcessConditions { cgroup: Some(5.into()), ..none() },
        ]
    }

    /// Each condition alone, as it holds of the facts.
    fn each() -> Vec<Conditions> {
        let none = Conditions::default;
        let mut each = vec![
            Conditions { protocol: Some(Protocol::Tcp.into()), ..none() },
            Conditions { family: Some(Family::Ipv4.into()), ..none() },
            Conditions { remote: Some(prefix("192.0.2.0", 24).into()), ..none() },
            Conditions { remote_ports: Some(PortRange::single(443).into()), ..none() },
            Conditions { local: Some(prefix("10.0.0.0", 8).into()), ..none() },
            Conditions {
                host: Some(HostPattern::Below(HostName::new("example.com").unwrap()).into()),
                ..none()
            },
        ];
        let application = of_process(&facts().application).into_iter();
        each.extend(application.map(|application| Conditions { application, ..none() }));
        let via = of_process(&facts().via).into_iter();
        each.extend(via.map(|via| Conditions { via, ..none() }));
        each
    }

    fn other() -> Facts {
        Facts {
            protocol: Protocol::Udp,
            remote: "2001:db8::1".parse().unwrap(),
            remote_port: 80,
            local: None,
            hosts: HostName::new("example.com").unwrap().patterns().collect(),
            namespace: Namespace::Own,
            application: ProcessFacts::default(),
            via: ProcessFacts::default(),
        }
    }

    #[test]
    fn every_condition_can_fail_alone() {
        for conditions in each() {
            assert!(conditions.match_facts(&facts()), "{conditions:?}");
            assert!(!conditions.match_facts(&other()), "{conditions:?}");
        }
        assert!(Conditions::default().match_facts(&other()));
    }

    #[test]
    fn an_exclusion_holds_where_its_list_does_not() {
        let ports = OneOf::none_of([PortRange::single(80), PortRange::single(443)]);
        let conditions = Conditions { remote_ports: Some(ports), ..Conditions::default() };
        assert!(!conditions.match_facts(&facts()));
        assert!(!conditions.match_facts(&other()));
        assert!(conditions.match_facts(&Facts { remote_port: 25, ..facts() }));
        let local = OneOf::none_of([prefix("10.0.0.0", 8)]);
        let conditions = Conditions { local: Some(local), ..Conditions::default() };
        assert!(!conditions.match_facts(&facts()));
        assert!(conditions.match_facts(&other()), "a source nobody bound is none of these");
    }

    #[test]
    fn legs_of_other_namespaces_are_matched_by_who_asks_for_them() {
        let at = |namespace| Facts { namespace, ..facts() };
        let [own, seven, eight] = [Namespace::Own, Namespace::Foreign(7), Namespace::Foreign(8)].map(at);
        let asks = |list| Conditions { namespace: Some(list), ..Conditions::default() };
        let matched =
            |conditions: &Conditions| [&own, &seven, &eight].map(|facts| conditions.match_facts(facts));
        assert_eq!(matched(&Conditions::default()), [true, false, false]);
        assert_eq!(matched(&asks(OneOf::only(Namespace::Foreign(7)))), [false, true, false]);
        assert_eq!(matched(&asks(OneOf::none_of([Namespace::Foreign(7)]))), [true, false, true]);
        assert_eq!(matched(&asks(OneOf::none_of([Namespace::Own]))), [false, true, true]);
        assert_eq!(matched(&asks(OneOf::none_of([]))), [true, true, true]);
    }

    #[test]
    fn a_name_that_nobody_bears_covers_nobody() {
        let nobody = ProcessConditions { cgroup: Some(OneOf::these([])), ..ProcessConditions::default() };
        assert!(!nobody.match_process(&facts().application));
        let everybody =
            ProcessConditions { cgroup: Some(OneOf::none_of([])), ..ProcessConditions::default() };
        assert!(everybody.match_process(&facts().application));
    }
}
