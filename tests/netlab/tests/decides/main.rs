//! The kernel decides as `decide` does: random policies that replace each other, and real connects under them.
//!
//! `PROPTEST_CASES=20000` tries more. What has failed once is in `regressions.txt`, and is tried first.
#![expect(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod arena;
mod callers;
mod case;
mod doors;
mod hearsay;

use std::cell::RefCell;

use proptest::test_runner::{Config, FileFailurePersistence, TestRunner};

use arena::{Arena, KINDS};

/// Of some sixty steps each.
const QUICK: u32 = 100;
/// In milliseconds: as small as a case gets by then it is shown.
const SHRINK: u32 = 120_000;

#[test]
fn every_connect_comes_to_what_decide_says() {
    let arena = RefCell::new(Arena::new());
    let asked = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
    let config = Config {
        cases: asked.unwrap_or(QUICK),
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct("tests/decides/regressions.txt"))),
        max_shrink_time: SHRINK,
        ..Config::default()
    };
    let outcome = TestRunner::new(config).run(&case::cases(), |case| arena.borrow_mut().try_case(&case));
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
    let tally = &arena.borrow().tally;
    eprintln!("{tally:?}");
    assert!(tally.direct > 100 && tally.redirected > 100, "{tally:?}");
    assert!(tally.carried > 100 && tally.forgotten > 100 && tally.sandboxed > 50, "{tally:?}");
    assert!(tally.amended > 100, "{tally:?}");
    assert!(tally.answered > 100 && tally.named > 8 && tally.bound > 4 && tally.visited > 100, "{tally:?}");
    for kind in KINDS {
        assert!(tally.refused.get(kind) > Some(&10), "{kind} hardly occurs: {tally:?}");
    }
}
