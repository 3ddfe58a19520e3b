//! Arbitration in the auth layer, as a table: what sublayers say from high to low, and what comes of it.

use waylay_core::{
    Action, AuthOutcome, Chain, Errno, Facts, Flags, Records, Refusal, Right, Tables, TraceStep, Verdict,
    World, decide,
};

use crate::fixtures::*;

const SOFT_PERMIT: Action = Action::PERMIT;
const HARD_PERMIT: Action = Action::Permit(Right::Hard);
const SOFT_BLOCK: Action = Action::Block { right: Right::Soft, errno: Errno::EPERM };
const HARD_BLOCK: Action = Action::BLOCK;
const CONTINUE: Action = Action::Continue;

/// What each sublayer says, from the heaviest on, and which filter blocks. Filters are numbered from 0 across the row.
type Row = (&'static [&'static [Action]], Option<u32>);

const TABLE: &[Row] = &[
    // Nobody decides.
    (&[], None),
    (&[&[CONTINUE], &[CONTINUE, CONTINUE]], None),
    // One sublayer.
    (&[&[SOFT_PERMIT]], None),
    (&[&[SOFT_BLOCK]], Some(0)),
    (&[&[HARD_BLOCK]], Some(0)),
    // Within a sublayer the first that decides is heard, whatever its right; continue goes on.
    (&[&[SOFT_PERMIT, HARD_BLOCK]], None),
    (&[&[SOFT_BLOCK, HARD_PERMIT]], Some(0)),
    (&[&[CONTINUE, SOFT_BLOCK, SOFT_PERMIT]], Some(1)),
    // A soft decision is overridden by a lower sublayer.
    (&[&[SOFT_PERMIT], &[SOFT_BLOCK]], Some(1)),
    (&[&[SOFT_PERMIT], &[HARD_BLOCK]], Some(1)),
    (&[&[SOFT_BLOCK], &[SOFT_PERMIT]], None),
    (&[&[SOFT_BLOCK], &[HARD_PERMIT]], None),
    (&[&[SOFT_BLOCK], &[HARD_BLOCK]], Some(1)),
    // A hard decision is not.
    (&[&[HARD_PERMIT], &[SOFT_BLOCK]], None),
    (&[&[HARD_PERMIT], &[HARD_BLOCK]], None),
    (&[&[HARD_BLOCK], &[SOFT_PERMIT]], Some(0)),
    (&[&[HARD_BLOCK], &[HARD_PERMIT]], Some(0)),
    // A sublayer that only continues overrides nothing.
    (&[&[SOFT_BLOCK], &[CONTINUE]], Some(0)),
    (&[&[SOFT_PERMIT], &[CONTINUE]], None),
    // All sublayers are heard.
    (&[&[SOFT_PERMIT], &[SOFT_BLOCK], &[SOFT_PERMIT]], None),
    (&[&[SOFT_BLOCK], &[SOFT_PERMIT], &[SOFT_BLOCK]], Some(2)),
    (&[&[SOFT_BLOCK], &[HARD_PERMIT], &[HARD_BLOCK]], None),
    (&[&[SOFT_PERMIT], &[HARD_BLOCK], &[HARD_PERMIT]], Some(1)),
];

fn policy_of(sublayers: &[&[Action]]) -> waylay_core::Policy {
    let mut filters = Vec::new();
    for (number, actions) in (0u32..).zip(sublayers) {
        for (place, &action) in (0u64..).zip(*actions) {
            let id = u32::try_from(filters.len()).expect("few filters");
            filters.push(auth(id, number, 100 - place, action));
        }
    }
    // Declared upside down, so that only the weights can bring them into order.
    filters.reverse();
    let mut declared: Vec<_> =
        (0u16..).zip(sublayers).map(|(number, _)| sublayer(number.into(), 100 - number)).collect();
    declared.reverse();
    policy(vec![], declared, filters)
}

#[test]
fn the_table_holds_for_decide() {
    for (sublayers, blocks) in TABLE {
        let policy = policy_of(sublayers);
        let decision = decide(&policy, &leg(app()), &Records::None, &World::default());
        let blocked = match decision.verdict {
            Verdict::Refuse(Refusal::Blocked { filter, .. }) => Some(filter.0),
            Verdict::Direct | Verdict::Redirect { .. } | Verdict::Refuse(_) => None,
        };
        assert_eq!(blocked, *blocks, "{sublayers:?}\n{}", decision.trace);
    }
}

#[test]
fn the_table_holds_for_compiled_tables() {
    for (sublayers, blocks) in TABLE {
        let tables = Tables::compile(&policy_of(sublayers)).unwrap();
        let facts = Facts::new(&leg(app()), &Chain::default(), &World::default());
        let blocked = match tables.classify_auth(&facts, Flags::default()) {
            AuthOutcome::Block { filter, .. } => Some(filter.0),
            AuthOutcome::Permit(_) => None,
        };
        assert_eq!(blocked, *blocks, "{sublayers:?}");
    }
}

#[test]
fn a_hard_block_ends_the_evaluation_and_a_hard_permit_overrules() {
    let steps = |sublayers| {
        let decision = decide(&policy_of(sublayers), &leg(app()), &Records::None, &World::default());
        decision.trace.steps().iter().map(TraceStep::to_string).collect::<Vec<_>>()
    };
    assert_eq!(steps(&[&[HARD_BLOCK], &[SOFT_PERMIT]]), ["sublayer 0, filter 0: block (hard, EACCES)"]);
    assert_eq!(
        steps(&[&[HARD_PERMIT], &[SOFT_BLOCK]]),
        [
            "sublayer 0, filter 0: permit (hard)",
            "sublayer 1, filter 1: block (soft, EPERM), overruled by a harder decision above"
        ]
    );
}

#[test]
fn equal_weights_are_heard_by_id() {
    let of = |first, second| {
        let filters = vec![auth(8, 1, 3, first), auth(7, 1, 3, second)];
        let policy = policy(vec![], vec![sublayer(1, 0)], filters);
        decide(&policy, &leg(app()), &Records::None, &World::default()).verdict
    };
    assert_eq!(of(HARD_BLOCK, SOFT_PERMIT), Verdict::Direct);
    let sublayers = vec![sublayer(6, 5), sublayer(5, 5)];
    let filters = vec![auth(1, 6, 0, HARD_BLOCK), auth(2, 5, 0, HARD_PERMIT)];
    let policy = policy(vec![], sublayers, filters);
    assert_eq!(decide(&policy, &leg(app()), &Records::None, &World::default()).verdict, Verdict::Direct);
}
