//! Engines decide as `decide` does: random policies that replace each other, and real connects under them.
//!
//! `PROPTEST_CASES=20000` tries more. What has failed once is in `regressions.txt`, and is tried first.
#![expect(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod arena;
mod callers;
mod case;
mod doors;
mod ground;
mod hearsay;

use std::{cell::RefCell, thread};

use proptest::test_runner::{Config, FileFailurePersistence, TestRunner};

use arena::{Arena, KINDS, Tally};
use ground::Subject;

/// Of some sixty steps each.
const QUICK: u32 = 100;
/// In milliseconds: as small as a case gets by then it is shown.
const SHRINK: u32 = 120_000;

/// What every engine has come to.
fn compare(subject: Subject) -> Tally {
    let mut arena = Arena::new(subject);
    // By a thread that may have fewer privileges than it takes to clear up.
    thread::scope(|scope| scope.spawn(|| try_cases(&mut arena)).join()).unwrap();
    let tally = std::mem::take(&mut arena.tally);
    eprintln!("{tally:?}");
    assert!(tally.direct > 100 && tally.redirected > 100, "{tally:?}");
    assert!(tally.carried > 100 && tally.forgotten > 100, "{tally:?}");
    assert!(tally.amended > 100 && tally.bound > 4 && tally.visited > 100, "{tally:?}");
    for kind in KINDS {
        assert!(tally.refused.get(kind) > Some(&10), "{kind} hardly occurs: {tally:?}");
    }
    tally
}

fn try_cases(arena: &mut Arena) {
    arena.begin();
    let asked = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
    let config = Config {
        cases: asked.unwrap_or(QUICK),
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct("tests/decides/regressions.txt"))),
        max_shrink_time: SHRINK,
        ..Config::default()
    };
    let arena = RefCell::new(arena);
    let outcome = TestRunner::new(config).run(&case::cases(), |case| arena.borrow_mut().try_case(&case));
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
}

#[test]
fn every_connect_comes_to_what_decide_says() {
    let tally = compare(Subject::Ebpf);
    assert!(tally.sandboxed > 50, "{tally:?}");
    assert!(tally.answered > 100 && tally.named > 8 && tally.broadcast > 4, "{tally:?}");
}

#[test]
fn every_connect_comes_to_what_decide_says_by_a_supervisor() {
    compare(Subject::Seccomp);
}

#[test]
fn every_connect_comes_to_what_decide_says_by_a_supervisor_without_privileges() {
    compare(Subject::SeccompOfAUser);
}
