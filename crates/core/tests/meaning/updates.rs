//! Whatever changes, is compiled behind it and fails, in whichever order: what is in force is the policy before a change or the one
//! after it.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use waylay_core::{
    Change, Facts, Filter, FilterId, Flags, Policy, Renewal, Renewed, Tables, UpdateError, Updates,
};

use crate::fixtures::*;
use crate::index::{asked_one_by_one, heard_one_by_one, looked_up};
use crate::mix::{change, facts, policies, wishes};

/// What an owner does.
#[derive(Clone, Debug)]
enum Step {
    Change((Vec<usize>, Vec<Filter>)),
    /// A change that cannot be: a filter goes that is not there.
    Mistake,
    /// Another policy.
    Replace(Policy),
    Begin,
    Compile,
    End,
}

/// The engine refuses.
#[derive(Debug, PartialEq, Eq)]
struct Refused;

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => wishes().prop_map(Step::Change),
        1 => Just(Step::Mistake),
        1 => policies().prop_map(Step::Replace),
        4 => Just(Step::Begin),
        4 => Just(Step::Compile),
        4 => Just(Step::End),
    ]
}

/// Every call of the engine has tables of one policy, and a refusal leaves those in force that were.
struct Owner {
    updates: Updates,
    policy: Policy,
    begun: Vec<Renewal>,
    compiled: Vec<Renewed>,
    /// What the engine has.
    installed: Tables,
    renewals: usize,
    changed_meanwhile: usize,
}

impl Owner {
    fn new(policy: Policy) -> Self {
        let tables = Tables::compile(&policy).expect("few filters");
        Self {
            updates: Updates::new(tables.clone()),
            policy,
            begun: Vec::new(),
            compiled: Vec::new(),
            installed: tables,
            renewals: 0,
            changed_meanwhile: 0,
        }
    }

    fn take(&mut self, step: Step, refuses: bool) {
        let installed = &mut self.installed;
        let install = |tables: &Tables| {
            if refuses {
                return Err(Refused);
            }
            *installed = tables.clone();
            Ok(())
        };
        match step {
            Step::Change(wishes) => {
                let change = change(&self.policy, wishes);
                let outcome = self.updates.change(change.clone(), install);
                assert_eq!(outcome, if refuses { Err(UpdateError::Install(Refused)) } else { Ok(()) });
                if !refuses {
                    self.policy.change(&change).expect("what goes is there");
                    self.changed_meanwhile += usize::from(!self.begun.is_empty());
                }
            }
            Step::Mistake => {
                let outcome = self.updates.change(Change::remove(FilterId(u32::MAX)), install);
                assert!(matches!(outcome, Err(UpdateError::Policy(_))));
            }
            Step::Replace(policy) => {
                let tables = Tables::compile(&policy).expect("few filters");
                let outcome = self.updates.replace(tables, install);
                assert_eq!(outcome.is_err(), refuses);
                if !refuses {
                    self.policy = policy;
                }
            }
            Step::Begin => self.begun.extend(self.updates.begin_renewal()),
            Step::Compile => self.compiled.extend(self.begun.pop().map(Renewal::compile)),
            Step::End => {
                if let Some(renewed) = self.compiled.pop() {
                    self.renewals += usize::from(self.updates.end_renewal(renewed, install).is_ok());
                }
            }
        }
    }

    fn compiled_at_once(&self) -> Tables {
        Tables::compile(&self.policy).expect("few filters")
    }

    fn check(&self, legs: &[(Facts, u64, Flags)]) -> Result<(), TestCaseError> {
        let fresh = self.compiled_at_once();
        for (facts, skip, flags) in legs {
            let expected = (asked_one_by_one(&fresh, facts, *skip), heard_one_by_one(&fresh, facts, *flags));
            for tables in [self.updates.in_force(), &self.installed] {
                let answer = (looked_up(tables, facts, *skip), tables.classify_auth(facts, *flags));
                prop_assert_eq!(&answer, &expected, "{:?}", facts);
            }
        }
        Ok(())
    }
}

#[test]
fn what_is_in_force_is_the_old_policy_or_the_new_one() {
    let config = ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() };
    let flags =
        (any::<bool>(), any::<bool>()).prop_map(|(redirected, proxied)| Flags { redirected, proxied });
    let leg = (facts(), 0..4_u64, flags);
    let cases = (policies(), vec((steps(), prop::bool::weighted(0.15), vec(leg, 4)), 0..24));
    let count = std::cell::Cell::new((0, 0));
    let outcome = TestRunner::new(config).run(&cases, |(policy, steps)| {
        let mut owner = Owner::new(policy);
        for (step, refuses, legs) in steps {
            owner.take(step, refuses);
            owner.check(&legs)?;
        }
        let (renewals, changed) = count.get();
        count.set((renewals + owner.renewals, changed + owner.changed_meanwhile));
        Ok(())
    });
    outcome.unwrap();
    let (renewals, changed) = count.get();
    assert!(renewals > 5 && changed > 10, "{renewals} renewals, {changed} changes meanwhile");
}

#[test]
fn a_renewal_ends_with_tables_that_nothing_amends() {
    let policy = services_for_all(&[OPEN, OPEN]);
    let mut updates = Updates::new(Tables::compile(&policy).unwrap());
    assert!(updates.begin_renewal().is_none(), "there is nothing to be compiled in");
    let filter = Filter { id: FilterId(9999), ..redirect(1, 1) };
    updates.change(Change::add(filter), |_| Ok::<_, Refused>(())).unwrap();
    assert!(updates.in_force().is_amended());
    let renewal = updates.begin_renewal().unwrap();
    assert!(updates.begin_renewal().is_none(), "one is under way");
    let refused = updates.end_renewal(renewal.clone().compile(), |_| Err(Refused));
    assert_eq!(refused, Err(UpdateError::Install(Refused)));
    assert!(updates.in_force().is_amended());
    let again = updates.begin_renewal().unwrap();
    // The former has come too late.
    updates
        .end_renewal(renewal.compile(), |_| -> Result<(), Refused> { panic!("nothing is installed") })
        .unwrap();
    updates.end_renewal(again.compile(), |_| Ok::<_, Refused>(())).unwrap();
    assert!(!updates.in_force().is_amended());
}
