//! The two interfaces for Linux as subjects, on the real kernel.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod c_abi;
mod lab;
mod place;
mod rust_api;
mod sys;

use std::{collections::BTreeMap, thread};

use c_abi::CAbi;
use lab::{Calls, LabSubject};
use place::Kind;
use rust_api::RustApi;
use waylay_conformance::{Need, Subject, run_all, vectors};
use waylay_netlab::become_user;

fn conforms_but_for(engine: Kind, calls: impl Calls, expected: &[(&str, Need)]) {
    let mut subject = LabSubject::new(calls, engine);
    let not_applicable = run_all(&vectors().unwrap(), &mut subject);
    let expected: BTreeMap<String, &str> =
        expected.iter().map(|&(id, need)| (id.to_owned(), subject.lacks(need).unwrap())).collect();
    assert_eq!(not_applicable, expected);
}

const OF_THE_RUST_API: [(&str, Need); 6] = [
    ("T7", Need::Buffers),
    ("T10", Need::RedirectsWithoutContext),
    ("T11", Need::Datagrams),
    ("T14", Need::Overlapped),
    ("T15", Need::RightsAtTheRedirectLayer),
    ("T17", Need::Vetoes),
];
const OF_THE_C_ABI: [(&str, Need); 7] = [
    ("T2, states", Need::States),
    ("T3, states", Need::States),
    ("T4, states", Need::States),
    ("T6, states", Need::States),
    ("T10", Need::RedirectsWithoutContext),
    ("T15", Need::RightsAtTheRedirectLayer),
    ("T17", Need::Vetoes),
];

#[test]
fn the_rust_api_conforms() {
    conforms_but_for(Kind::Ebpf, RustApi, &OF_THE_RUST_API);
}

#[test]
fn the_c_abi_conforms() {
    conforms_but_for(Kind::Ebpf, CAbi::new(), &OF_THE_C_ABI);
}

#[test]
fn the_rust_api_conforms_by_a_supervisor() {
    conforms_but_for(Kind::Seccomp, RustApi, &OF_THE_RUST_API);
}

#[test]
fn the_c_abi_conforms_by_a_supervisor() {
    conforms_but_for(Kind::Seccomp, CAbi::new(), &OF_THE_C_ABI);
}

/// Everybody is a user then, the supervisor too.
fn without_privileges(test: impl FnOnce() + Send) {
    thread::scope(|scope| {
        let user = scope.spawn(|| {
            become_user(1000, 1001);
            test();
        });
        user.join().unwrap();
    });
}

#[test]
fn the_rust_api_conforms_by_a_supervisor_without_privileges() {
    without_privileges(the_rust_api_conforms_by_a_supervisor);
}

#[test]
fn the_c_abi_conforms_by_a_supervisor_without_privileges() {
    without_privileges(the_c_abi_conforms_by_a_supervisor);
}
