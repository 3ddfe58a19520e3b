//! Each proxy alone, every ordered pair, and both among services of waylay's own.

use waylay_netlab::{Family, Place, Proxy};

use super::{Stage, dials_for_itself, log, seen};

/// The proxy, between two services that report.
fn among_logs(proxy: Proxy, family: Family, place: Place) {
    let stage = Stage::new(family, place);
    let finished = stage.fetch(&[log(), stage.proxies.spec(proxy), log()]);
    let web = stage.web.address();
    assert_eq!(seen(&finished, "log"), ("curl".to_owned(), web.ip(), web.port()));
    assert_eq!(finished.report_of("log").chain, ["log"]);
    dials_for_itself(&[proxy], &finished, "log-2", &stage);
    assert_eq!(finished.report_of("log-2").chain, ["log-2"]);
    assert_eq!(finished.reports().len(), 2, "{finished:?}");
}

macro_rules! proxies {
    ($($module:ident: $proxy:expr, [$($name:ident: $family:ident $place:ident),*];)*) => { $(
        mod $module {
            use super::*;

            #[test]
            fn needs_no_other_service() {
                let stage = Stage::new(Family::V4, Place::Veth);
                assert_eq!(stage.fetch(&[stage.proxies.spec($proxy)]).reports(), []);
            }

            $(#[test]
            fn $name() {
                among_logs($proxy, Family::$family, Place::$place);
            })*
        }
    )* };
}

proxies! {
    haproxy: Proxy::Haproxy, [
        takes_its_place_over_ipv4: V4 Veth,
        takes_its_place_over_ipv6: V6 Veth,
        takes_its_place_on_the_loopback: V4 Loopback,
        takes_its_place_on_the_loopback_over_ipv6: V6 Loopback
    ];
    nginx: Proxy::Nginx, [
        takes_its_place_over_ipv4: V4 Veth,
        takes_its_place_over_ipv6: V6 Veth,
        takes_its_place_on_the_loopback: V4 Loopback,
        takes_its_place_on_the_loopback_over_ipv6: V6 Loopback
    ];
    redsocks: Proxy::Redsocks, [
        takes_its_place_over_ipv4: V4 Veth,
        takes_its_place_on_the_loopback: V4 Loopback
    ];
}

/// Each with each other, services of our own around and between.
fn pairs(family: Family, place: Place) {
    let stage = Stage::new(family, place);
    let able = || Proxy::ALL.into_iter().filter(|proxy| family == Family::V4 || proxy.knows_ipv6());
    for first in able() {
        for second in able().filter(|second| *second != first) {
            let named = |name: &str, spec: String| format!("{name}={}", spec.split_once('=').unwrap().1);
            let (one, other) =
                (named("one", stage.proxies.spec(first)), named("other", stage.proxies.spec(second)));
            let finished = stage.fetch(&[log(), one, log(), other, log()]);
            dials_for_itself(&[first], &finished, "log-2", &stage);
            dials_for_itself(&[first, second], &finished, "log-3", &stage);
            assert_eq!(finished.reports().len(), 3, "{first:?} and {second:?}: {finished:?}");
        }
    }
}

#[test]
fn every_ordered_pair_works_over_ipv4() {
    pairs(Family::V4, Place::Veth);
}

#[test]
fn every_ordered_pair_works_over_ipv6() {
    pairs(Family::V6, Place::Veth);
}

#[test]
fn every_ordered_pair_works_on_the_loopback() {
    pairs(Family::V4, Place::Loopback);
}

/// None loops, and none gets what is another's.
#[test]
fn many_connections_at_once_pass_three_proxies() {
    let stage = Stage::new(Family::V4, Place::Veth);
    let names: Vec<String> = (0..20).map(|number| format!("file-{number}")).collect();
    let files: Vec<Vec<u8>> = names.iter().map(|name| stage.web.add_file(name, 10_000)).collect();
    let chain = Proxy::ALL.map(|proxy| stage.proxies.spec(proxy));
    let urls: Vec<String> = names.iter().map(|name| stage.web.url(name)).collect();
    let fetch =
        ["curl", "-sS", "--no-progress-meter", "--parallel", "--parallel-immediate", "--parallel-max", "20"];
    let outputs = names.iter().flat_map(|name| ["-o".to_owned(), name.clone()]);
    let command = fetch.map(str::to_owned).into_iter().chain(outputs).chain(urls);
    let finished = stage
        .ground
        .waylay()
        .args(chain.iter().flat_map(|spec| ["--through", spec]))
        .args(["--through", "log"])
        .reporting()
        .watch(command)
        .well();
    for (name, file) in names.iter().zip(&files) {
        assert!(finished.file(name) == *file, "{name}: {finished:?}");
    }
    assert_eq!(stage.web.requests().len(), names.len());
}
