//! Windows with somebody's driver. How to run it is in README.md.
#![cfg(windows)]

use std::collections::BTreeMap;

use waylay_conformance::{
    Need, Subject, run_all, vectors,
    windows::{Setup, WindowsSubject},
};

#[test]
#[ignore = "it takes a driver that redirects, and an elevated administrator: see README.md"]
fn windows_conforms() {
    let setup = Setup::from_env(env!("CARGO_BIN_EXE_conformance-client").into()).unwrap();
    let mut subject = WindowsSubject::new(setup);
    let not_applicable = run_all(&vectors().unwrap(), &mut subject);
    let expected: BTreeMap<String, &str> = [
        ("T2, states", Need::States),
        ("T3, states", Need::States),
        ("T4", Need::TwoRedirectors),
        ("T5", Need::TwoRedirectors),
        ("T6, states", Need::States),
        ("T7", Need::Buffers),
        ("T8", Need::OthersWhoSet),
        ("T10", Need::RedirectsWithoutContext),
        ("T11", Need::Datagrams),
        ("T13", Need::Removal),
        ("T14", Need::Overlapped),
        ("T15", Need::RightsAtTheRedirectLayer),
        ("T16", Need::TwoRedirectors),
        ("T17", Need::Vetoes),
    ]
    .map(|(id, need)| (id.to_owned(), subject.lacks(need).unwrap()))
    .into();
    assert_eq!(not_applicable, expected);
}
