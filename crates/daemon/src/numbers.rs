//! Ids that mean the same thing for as long as anybody may use them.
//!
//! Chains and events name services and filters by id, and outlive the policy that they come from. So a service keeps its id as
//! long as it is had in the same way, and an id that was one service's is never another's. A filter keeps its id as long as its
//! text stays as it is and where it is among the others, which is what makes small changes small for an engine.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    sync::Arc,
};

use waylay_core::{FilterId, Policy, PolicyError, ServiceId};
use waylay_host::{Assignment, ServiceSpec};

use crate::ledger::{Ledger, Piece};

/// Who has which number.
#[derive(Clone, Debug)]
pub struct Numbers {
    services: BTreeMap<String, (ServiceId, ServiceSpec)>,
    next_service: u32,
    pieces: BTreeMap<u64, Range<u32>>,
    next_filter: u32,
}

/// The filters of a text.
#[derive(Clone, Debug)]
pub struct Numbered {
    /// The text.
    pub piece: Arc<Piece>,
    /// The ids of its filters, in the order in which they come in it.
    pub filters: Range<u32>,
}

impl Default for Numbers {
    fn default() -> Self {
        Self { services: BTreeMap::new(), next_service: 1, pieces: BTreeMap::new(), next_filter: 1 }
    }
}

impl Numbers {
    /// Gives every service and filter of a policy its number. `specs` has the services by name; `filters` says how many each piece
    /// of the ledger has, which are numbered from 1 on through all pieces in the policy.
    ///
    /// # Errors
    /// None that follows from what is declared.
    pub fn assign(
        &mut self,
        policy: Policy,
        specs: BTreeMap<String, ServiceSpec>,
        ledger: &Ledger,
        filters: &[u32],
    ) -> Result<(Assignment, Vec<Numbered>), PolicyError> {
        let numbered = self.number_filters(ledger, filters);
        let ids: Vec<u32> = numbered.iter().flat_map(|numbered| numbered.filters.clone()).collect();
        let filter = |id: FilterId| FilterId(ids.get(id.0 as usize - 1).copied().unwrap_or(0));
        let mut had = BTreeMap::new();
        for (name, spec) in specs {
            let id = self.number_service(&name, &spec);
            had.insert(name, (id, spec));
        }
        let names: BTreeMap<ServiceId, ServiceId> = policy
            .services()
            .iter()
            .filter_map(|service| Some((service.id, had.get(&service.name)?.0)))
            .collect();
        let service = |id: ServiceId| names.get(&id).copied().unwrap_or(id);
        let policy = policy.renumbered(service, filter)?;
        let services = had.values().cloned().collect();
        self.services = had;
        Ok((Assignment { policy, services }, numbered))
    }

    /// Numbers the filters of the ledger's pieces from one on, of which `filters` says how many each has; nothing if those before
    /// it would get other numbers than they have.
    pub(crate) fn number_others(
        &mut self,
        ledger: &Ledger,
        first: usize,
        filters: &[u32],
    ) -> Option<Vec<Numbered>> {
        let before = ledger.pieces().get(..first)?;
        let stay: Vec<Range<u32>> = before.iter().map(|piece| self.of(piece)).collect();
        let mut counts = filters.to_vec();
        for (count, ids) in counts.iter_mut().zip(&stay) {
            *count = ids.len() as u32;
        }
        let numbered = self.number_filters(ledger, &counts);
        let is_kept = numbered.iter().zip(&stay).all(|(numbered, ids)| numbered.filters == *ids);
        is_kept.then_some(numbered)
    }

    /// The numbers of a piece's filters.
    pub(crate) fn of(&self, piece: &Piece) -> Range<u32> {
        self.pieces.get(&piece.id).cloned().unwrap_or_default()
    }

    /// Goes on after all numbers that another one has given, in force or not.
    pub fn skip_those_of(&mut self, other: &Self) {
        self.next_service = self.next_service.max(other.next_service);
        self.next_filter = self.next_filter.max(other.next_filter);
    }

    /// Has services no longer in the way in which they were had.
    pub fn forget_services(&mut self, forgotten: &BTreeSet<ServiceId>) {
        self.services.retain(|_, (id, _)| !forgotten.contains(id));
    }

    /// The name of a service.
    #[must_use]
    pub fn service(&self, name: &str) -> Option<ServiceId> {
        self.services.get(name).map(|(id, _)| *id)
    }

    fn number_service(&mut self, name: &str, spec: &ServiceSpec) -> ServiceId {
        let same = self.services.get(name).filter(|(_, former)| former == spec);
        same.map_or_else(
            || {
                let id = ServiceId(self.next_service);
                self.next_service += 1;
                id
            },
            |(id, _)| *id,
        )
    }

    /// Each piece's are larger than those of the pieces before it, so that filters of one weight are asked in that order.
    fn number_filters(&mut self, ledger: &Ledger, filters: &[u32]) -> Vec<Numbered> {
        let needed: u64 = filters.iter().map(|count| u64::from(*count)).sum();
        if u64::from(self.next_filter) + needed > u64::from(u32::MAX) {
            // Of the last four thousand million nobody remembers the first.
            (self.pieces, self.next_filter) = (BTreeMap::new(), 1);
        }
        let mut last = 0;
        let mut numbered = Vec::new();
        for (piece, count) in ledger.pieces().iter().zip(filters) {
            let kept = self.pieces.get(&piece.id).filter(|ids| ids.start > last);
            let ids = kept.cloned().unwrap_or(self.next_filter..self.next_filter + count);
            self.next_filter = self.next_filter.max(ids.end);
            last = ids.clone().last().unwrap_or(last);
            numbered.push(Numbered { piece: Arc::clone(piece), filters: ids });
        }
        self.pieces = numbered.iter().map(|numbered| (numbered.piece.id, numbered.filters.clone())).collect();
        numbered
    }
}

#[cfg(test)]
mod tests {
    use waylay_config::{lower, names::Nobody, read};
    use waylay_host::Transports;

    use super::*;
    use crate::ledger::{Lifetime, ROOT};

    fn spec(name: &str, command: &str) -> ServiceSpec {
        ServiceSpec {
            name: name.to_owned(),
            transports: Transports::Tcp,
            builtin: false,
            command: vec![command.into()],
            input: Vec::new(),
            identity: None,
            leave_within: None,
            adoption: None,
        }
    }

    fn filters(service: &str, count: usize) -> String {
        format!("[[filter]]\naction = \"redirect\"\nservice = \"{service}\"\n").repeat(count)
    }

    /// Whoever the command of the service is.
    fn assign(numbers: &mut Numbers, ledger: &Ledger, command: &str) -> (Assignment, Vec<Range<u32>>) {
        let (declarations, mut diagnostics) = read(&ledger.sources());
        let lowered = lower(&declarations, &Nobody, &mut diagnostics).unwrap();
        let mut counts = vec![0; ledger.pieces().len()];
        declarations.filters.iter().for_each(|filter| counts[filter.span.source()] += 1);
        let specs = [("log".to_owned(), spec("log", command))].into();
        let (assignment, numbered) = numbers.assign(lowered.policy, specs, ledger, &counts).unwrap();
        (assignment, numbered.into_iter().map(|numbered| numbered.filters).collect())
    }

    fn ledger(text: &str) -> Ledger {
        let mut ledger = Ledger::default();
        ledger.set_files(vec![("policy.toml".into(), format!("[service.log]\nrun = \"log\"\n{text}"))]);
        ledger
    }

    #[test]
    fn what_stays_keeps_its_numbers_and_what_is_new_gets_new_ones() {
        let mut numbers = Numbers::default();
        let mut ledger = ledger(&filters("log", 2));
        let add = |ledger: &mut Ledger| ledger.add(ROOT, "root", Lifetime::Daemon, filters("log", 1));
        let first = add(&mut ledger);
        let (before, ids) = assign(&mut numbers, &ledger, "log");
        assert_eq!(ids, [1..3, 3..4]);
        ledger.remove(first);
        add(&mut ledger);
        let (after, ids) = assign(&mut numbers, &ledger, "log");
        assert_eq!(ids, [1..3, 4..5]);
        assert_eq!(before.services.keys().collect::<Vec<_>>(), after.services.keys().collect::<Vec<_>>());
        let asked: Vec<u32> = after.policy.filters().iter().map(|filter| filter.id.0).collect();
        assert_eq!(asked, [1, 2, 4]);
    }

    #[test]
    fn what_comes_after_a_text_without_filters_keeps_its_numbers() {
        let mut numbers = Numbers::default();
        let mut ledger = ledger(&filters("log", 1));
        ledger.add(ROOT, "root", Lifetime::Daemon, "[sublayer.own]\n".into());
        ledger.add(ROOT, "root", Lifetime::Daemon, filters("log", 2));
        let (_, before) = assign(&mut numbers, &ledger, "log");
        let (_, after) = assign(&mut numbers, &ledger, "log");
        assert_eq!((&after, &after[2]), (&before, &(2..4)));
    }

    #[test]
    fn filters_are_asked_in_the_order_of_their_texts_whichever_changes() {
        let mut numbers = Numbers::default();
        let mut ledger = ledger(&filters("log", 1));
        ledger.add(ROOT, "root", Lifetime::Daemon, filters("log", 2));
        assign(&mut numbers, &ledger, "log");
        ledger.set_files(vec![(
            "policy.toml".into(),
            format!("[service.log]\nrun = \"log\"\n{}", filters("log", 3)),
        )]);
        let (_, ids) = assign(&mut numbers, &ledger, "log");
        assert_eq!(ids, [4..7, 7..9]);
    }

    #[test]
    fn a_service_that_is_had_in_another_way_is_another_one() {
        let mut numbers = Numbers::default();
        let ledger = ledger("");
        let ids = |assignment: Assignment| assignment.services.into_keys().collect::<Vec<_>>();
        assert_eq!(ids(assign(&mut numbers, &ledger, "one").0), [ServiceId(1)]);
        let mut failed = numbers.clone();
        assert_eq!(ids(assign(&mut failed, &ledger, "other").0), [ServiceId(2)]);
        numbers.skip_those_of(&failed);
        assert_eq!(ids(assign(&mut numbers, &ledger, "one").0), [ServiceId(1)]);
        assert_eq!(ids(assign(&mut numbers, &ledger, "third").0), [ServiceId(3)]);
    }

    #[test]
    fn numbers_begin_anew_before_they_run_out() {
        let mut numbers = Numbers { next_filter: u32::MAX - 1, ..Numbers::default() };
        let (_, ids) = assign(&mut numbers, &ledger(&filters("log", 3)), "log");
        assert_eq!(ids.first(), Some(&(1..4)));
    }
}
