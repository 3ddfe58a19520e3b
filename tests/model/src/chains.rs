//! The states a connection goes through, and what services and the host may do in each.

use stateright::{Model, Property};
use waylay_core::{
    Chain, FilterId, Hop, MAX_HOPS, Policy, Records, Refusal, ServiceId, ServiceSet, Verdict, decide,
};

use crate::account::{Account, Step};
use crate::declaration::{Declaration, Set, contains, leg_from, members, only, world_of};

/// What a service does with the records of its inbound leg.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Habit {
    /// It sets them on the socket it dials with.
    Carries,
    /// It dials without.
    Forgets,
}

/// What kind of service one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// It carries its records on.
    Cooperating,
    /// It knows nothing of records.
    Adopted,
    /// It carries them on or forgets them, as it likes on each visit.
    Forgetful,
}

impl Kind {
    const fn habits(self) -> &'static [Habit] {
        match self {
            Self::Cooperating => &[Habit::Carries],
            Self::Adopted => &[Habit::Forgets],
            Self::Forgetful => &[Habit::Carries, Habit::Forgets],
        }
    }
}

/// Every way of n services to be of some kind.
#[must_use]
pub fn all_mixes(n: u32) -> Vec<Vec<Kind>> {
    (0..n).fold(vec![Vec::new()], |mixes, _| {
        let kinds = [Kind::Cooperating, Kind::Adopted, Kind::Forgetful];
        let extended = |mix: Vec<Kind>| kinds.map(|kind| [mix.clone(), vec![kind]].concat());
        mixes.into_iter().flat_map(extended).collect()
    })
}

/// Where a connection begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// With an application.
    Application,
    /// With a service, of no policy any more, that has received a chain of so many hops and carries it on.
    InTheMiddle {
        /// The service.
        holder: u32,
        /// The hops, each of another service that is gone.
        hops: usize,
    },
}

/// Something wrong with an engine, to see that the promises can be broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Defect {
    /// Records are lost, and with them who the caller is.
    LosesRecords,
    /// A full chain goes to its destination, past closed services.
    PassesAtTheLimit,
}

/// A connection with everything that may happen to it.
#[derive(Clone, Debug)]
pub struct Chains {
    /// What may be declared; connections begin under each.
    pub declarations: Vec<Declaration>,
    /// The same as policies.
    pub policies: Vec<Policy>,
    /// Where connections may go.
    pub destinations: Vec<Set>,
    /// How often the policy may be replaced by another of the declarations.
    pub reloads: usize,
    /// Whether services may dial another destination than they were asked for.
    pub elsewhere: bool,
    /// Services that may be gone at one dial and back at the next.
    pub come_and_go: Set,
    /// What kinds the services are of; each mix is tried.
    pub mixes: Vec<Vec<Kind>>,
    /// Where the connection begins.
    pub begin: Begin,
    /// What is wrong with the engine.
    pub defect: Option<Defect>,
    /// How many hops fewer are claimed than are promised.
    pub stricter_by: u16,
    /// Whether more is claimed than is promised: [`BOLD_ONE_DESTINATION`] and [`BOLD_RELOAD`].
    pub bold: bool,
}

/// Where a connection stands.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// The service that has it; none while it is the application's.
    pub holder: Option<u32>,
    /// The chain of the flow that the holder received.
    pub chain: Chain,
    /// The destination it was asked for.
    pub destination: Set,
    /// Which of the declarations is in force.
    pub policy: usize,
    /// How often that may change.
    pub reloads: usize,
    /// Which of the mixes the services are.
    pub mix: usize,
    /// Set once it is over.
    pub end: Option<End>,
    /// What has happened.
    pub account: Account,
}

impl State {
    /// One that stands for all that differ in the order of hops and in their filters, of which nobody asks a chain: the tests of
    /// every path see to that.
    ///
    /// # Panics
    /// Never: the chain has as many hops as before.
    #[must_use]
    pub fn representative(&self) -> Self {
        let hop = |hop: &Hop| Hop { filter: FilterId(0), ..*hop };
        let mut hops: Vec<Hop> = self.chain.hops().iter().map(hop).collect();
        hops.sort();
        let (excluded, origin) = (self.chain.excluded().clone(), self.chain.origin().copied());
        let chain = Chain::new(hops, excluded, origin).expect("as many hops as before");
        Self { chain, ..self.clone() }
    }
}

/// How a chain ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum End {
    /// At the destination.
    Direct,
    /// With a refusal.
    Refused,
    /// With a refusal, because the chain was full.
    RefusedAtTheLimit,
}

/// The holder dials, in the world as it is by then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dial {
    /// With records or without.
    pub habit: Habit,
    /// Where to.
    pub destination: Set,
    /// The declaration that is in force by then.
    pub policy: usize,
    /// The services that are there by then.
    pub present: Set,
}

impl Chains {
    /// A connection towards any of these destinations, under any of these declarations, through cooperating services.
    #[must_use]
    pub fn new(declarations: Vec<Declaration>, destinations: Vec<Set>) -> Self {
        let policies = declarations.iter().map(|declaration| declaration.policy(&destinations)).collect();
        let most = declarations.iter().flat_map(|declaration| &declaration.order).max().copied();
        Self {
            mixes: vec![vec![Kind::Cooperating; most.unwrap_or(0) as usize]],
            declarations,
            policies,
            destinations,
            reloads: 0,
            elsewhere: false,
            come_and_go: 0,
            begin: Begin::Application,
            defect: None,
            stricter_by: 0,
            bold: false,
        }
    }

    fn habits_of(&self, state: &State) -> &'static [Habit] {
        let kind = state.holder.and_then(|service| self.mixes[state.mix].get(service as usize - 1));
        kind.map_or(&[Habit::Carries], |kind| kind.habits())
    }

    /// What becomes of a dial.
    #[must_use]
    pub fn judge(&self, state: &State, dial: &Dial) -> Verdict {
        let leg = leg_from(state.holder, dial.destination);
        let records = match (state.holder, dial.habit) {
            (None, _) | (Some(_), Habit::Forgets) => Records::None,
            (Some(_), Habit::Carries) => Records::Carried(state.chain.clone()),
        };
        let (policy, world) = (&self.policies[dial.policy], world_of(dial.present));
        match self.defect {
            None => decide(policy, &leg, &records, &world).verdict,
            Some(Defect::LosesRecords) => {
                let leg = leg_from(None, dial.destination);
                decide(policy, &leg, &Records::None, &world).verdict
            }
            Some(Defect::PassesAtTheLimit) => match decide(policy, &leg, &records, &world).verdict {
                Verdict::Refuse(Refusal::HopLimit { .. }) => Verdict::Direct,
                verdict @ (Verdict::Direct | Verdict::Redirect { .. } | Verdict::Refuse(_)) => verdict,
            },
        }
    }

    /// What the leg's chain excludes, by the rules as they are told: what was met, or the services up to the one that forgot.
    fn excluded(&self, state: &State, dial: &Dial) -> Set {
        let order = &self.declarations[dial.policy].order;
        let position = |service| order.iter().position(|&id| id == service);
        match (state.holder, dial.habit) {
            (None, _) => 0,
            (Some(_), Habit::Carries) => state.chain.excluded().iter().fold(0, |set, id| set | bit(id)),
            (Some(service), Habit::Forgets) => position(service)
                .map_or(0, |last| order[..=last].iter().fold(0, |set, &service| set | only(service))),
        }
    }

    fn begin_with(&self, policy: usize, destination: Set, mix: usize) -> State {
        let (holder, chain) = match self.begin {
            Begin::Application => (None, Chain::default()),
            Begin::InTheMiddle { holder, hops } => (Some(holder), chain_of(hops)),
        };
        let account = Account::default().under(&self.declarations[policy]);
        State { holder, chain, destination, policy, reloads: self.reloads, mix, end: None, account }
    }
}

/// A set of the model has no room for the services that are gone; nobody asks for those.
fn bit(service: ServiceId) -> Set {
    if service.0 <= Set::BITS { only(service.0) } else { 0 }
}

fn chain_of(hops: usize) -> Chain {
    let hop = |number| Hop { service: ServiceId(1000 + number), filter: FilterId(number) };
    let hops = (0..).map(hop).take(hops).collect();
    Chain::new(hops, ServiceSet::default(), None).expect("few hops")
}

/// If every service carries its records on, none sees a connection twice.
pub const TWICE: &str = "no service sees a connection twice with records";
/// As long as everybody carries records on, there are no more hops than services.
pub const ALL_CARRY: &str = "with records there are at most n hops";
/// Every chain ends: each step is a hop or the end, and this bounds the hops. Each reload begins anew.
pub const BOUND: &str = "a chain has ended after n(n+1)/2 hops";
/// Towards one destination, while services neither come nor go. Each reload begins anew.
pub const ONE_DESTINATION: &str = "towards one destination a chain has ended after n hops";
/// Whatever is absent, full or forgotten.
pub const CLOSED: &str = "no closed service that looks at a destination is skipped";
/// A chain never outgrows its record.
pub const FULL: &str = "no chain has more hops than a chain holds";
/// Does not hold: an open service that comes back is visited late.
pub const BOLD_ONE_DESTINATION: &str = "towards one destination n hops, even if services come and go";
/// Does not hold: a reload begins anew.
pub const BOLD_RELOAD: &str = "n(n+1)/2 hops, even if the policy is reloaded";

impl Model for Chains {
    type State = State;
    type Action = Dial;

    fn init_states(&self) -> Vec<State> {
        let policies = 0..self.policies.len();
        let begins = policies.flat_map(|policy| self.destinations.iter().map(move |to| (policy, *to)));
        begins
            .flat_map(|(policy, to)| (0..self.mixes.len()).map(move |mix| self.begin_with(policy, to, mix)))
            .collect()
    }

    fn actions(&self, state: &State, actions: &mut Vec<Dial>) {
        if state.end.is_some() {
            return;
        }
        let asked = [state.destination];
        let free = self.elsewhere && state.holder.is_some();
        let destinations: &[Set] = if free { &self.destinations } else { &asked };
        let reload = state.reloads > 0 && state.holder.is_some();
        let policies = if reload { 0..self.policies.len() } else { state.policy..state.policy + 1 };
        for policy in policies {
            let all = self.declarations[policy].all();
            for gone in parts_of(all & self.come_and_go) {
                for &destination in destinations {
                    let dial = |&habit| Dial { habit, destination, policy, present: all & !gone };
                    actions.extend(self.habits_of(state).iter().map(dial));
                }
            }
        }
    }

    fn next_state(&self, state: &State, dial: Dial) -> Option<State> {
        let declaration = &self.declarations[dial.policy];
        let mut next = state.clone();
        if dial.policy != state.policy {
            next.policy = dial.policy;
            next.reloads -= 1;
            next.account = next.account.under(declaration);
        }
        let excluded = self.excluded(state, &dial);
        let outcome = match self.judge(state, &dial) {
            Verdict::Redirect { service, chain, .. } => {
                next.chain = chain;
                Ok(service.0)
            }
            Verdict::Direct => Err(End::Direct),
            Verdict::Refuse(Refusal::HopLimit { .. }) => Err(End::RefusedAtTheLimit),
            Verdict::Refuse(_) => Err(End::Refused),
        };
        let step = Step { declaration, dialled_by: state.holder, dial: &dial, excluded, outcome };
        next.account = next.account.after(&step, state.destination, self.come_and_go);
        next.destination = dial.destination;
        next.end = outcome.err();
        next.holder = outcome.ok().or(state.holder);
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = promises();
        if self.bold {
            properties.extend(bold_claims());
        }
        properties
    }
}

fn promises() -> Vec<Property<Chains>> {
    vec![
        Property::always(TWICE, |_, state: &State| !state.account.met_twice),
        Property::always(ALL_CARRY, |model: &Chains, state: &State| {
            let (account, known) = (&state.account, state.account.known.count_ones());
            account.forgotten || u32::from(account.hops + model.stricter_by) <= known
        }),
        Property::always(BOUND, |model: &Chains, state: &State| {
            state.account.hops + model.stricter_by <= state.account.bound
        }),
        Property::always(ONE_DESTINATION, |model: &Chains, state: &State| {
            let account = &state.account;
            account.went_elsewhere || account.wavered || account.hops + model.stricter_by <= account.lengths
        }),
        Property::always(CLOSED, |_, state: &State| !state.account.skipped_closed),
        Property::always(FULL, |_, state: &State| state.chain.hops().len() <= MAX_HOPS),
    ]
}

fn bold_claims() -> [Property<Chains>; 2] {
    [
        Property::always(BOLD_ONE_DESTINATION, |_, state: &State| {
            state.account.went_elsewhere || state.account.hops <= state.account.lengths
        }),
        Property::always(BOLD_RELOAD, |_, state: &State| state.account.hops <= state.account.first_bound),
    ]
}

/// Every part of a set.
fn parts_of(set: Set) -> impl Iterator<Item = Set> {
    let bits: Vec<u32> = members(set).collect();
    (0..1_u32 << bits.len()).map(move |choice| {
        let chosen = bits.iter().enumerate().filter(|(at, _)| contains(choice, *at as u32 + 1));
        chosen.fold(0, |part, (_, &service)| part | only(service))
    })
}
