//! The two interfaces for Linux as subjects, on the real kernel.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod c_abi;
mod lab;
mod rust_api;
mod sys;

use std::collections::BTreeMap;

use c_abi::CAbi;
use lab::{Calls, LabSubject};
use rust_api::RustApi;
use waylay_conformance::{Need, Subject, run_all, vectors};

fn conforms_but_for(calls: impl Calls, expected: &[(&str, Need)]) {
    let mut subject = LabSubject::new(calls);
    let not_applicable = run_all(&vectors().unwrap(), &mut subject);
    let expected: BTreeMap<String, &str> =
        expected.iter().map(|&(id, need)| (id.to_owned(), subject.lacks(need).unwrap())).collect();
    assert_eq!(not_applicable, expected);
}

#[test]
fn the_rust_api_conforms() {
    conforms_but_for(
        RustApi,
        &[
            ("T7", Need::Buffers),
            ("T10", Need::RedirectsWithoutContext),
            ("T11", Need::Datagrams),
            ("T14", Need::Overlapped),
            ("T15", Need::RightsAtTheRedirectLayer),
            ("T17", Need::Vetoes),
        ],
    );
}

#[test]
fn the_c_abi_conforms() {
    conforms_but_for(
        CAbi::new(),
        &[
            ("T2, states", Need::States),
            ("T3, states", Need::States),
            ("T4, states", Need::States),
            ("T6, states", Need::States),
            ("T10", Need::RedirectsWithoutContext),
            ("T15", Need::RightsAtTheRedirectLayer),
            ("T17", Need::Vetoes),
        ],
    );
}
