//! One changed filter among very many: how long until it is in force, and what a connect costs until the whole is compiled anew.

use std::{cell::Cell, time::Instant};

use waylay_benches::{Column, Contest, Mix, Rival, Seat, mixed};
use waylay_core::{Change, Conditions, Filter, FilterId, Layer, PortRange, Prefix, ServiceId, Tables};
use waylay_engine::{Endpoint, Engine, Installation};
use waylay_netlab::Lab;

use crate::{BENCH, DIALS, NANOSECONDS, NOWHERE, client, empty_lab};

const FILTERS: u32 = 100_000;
/// Of filters that are replaced, each so far from the next.
const STRIDE: u32 = 7;
const PLACES: u32 = FILTERS / STRIDE - 1;
/// Filters of the whole that are removed, and as many that are added: what amendments are that have not been compiled in for long.
const MANY: u32 = 60;

pub(crate) fn put_one_in_force(rounds: usize) {
    let columns = vec![
        Column { unit: "computed and in force, ms", digits: 1 },
        Column { unit: "computed, ms", digits: 2 },
        Column { unit: "KiB", digits: 1 },
    ];
    let mut rivals = Vec::new();
    for mix in [Mix::Prefixes, Mix::Applications, Mix::Pairs] {
        let (mut lab, own, _service) = empty_lab(&format!("one-{mix:?}").to_lowercase());
        let endpoint = lab.endpoint(1, [&own]);
        let tables = whole(mix);
        let round = Cell::new(0);
        rivals.push(Rival::new(format!("{}, one of {FILTERS} changed", mix.name()), move || {
            let _listens = &own;
            install(&mut lab, &tables, &endpoint);
            round.set((round.get() + 1_009) % PLACES);
            let change = changes(round.get()..round.get() + 1);
            let start = Instant::now();
            let next = tables.change(&change).unwrap();
            let computed = start.elapsed();
            install(&mut lab, &next, &endpoint);
            let in_force = start.elapsed();
            assert!(next.share_whole_with(&tables), "the whole was compiled anew");
            let bytes = next.amendments().map_or(0, |index| index.report().bytes);
            let milliseconds = |time: std::time::Duration| time.as_secs_f64() * 1e3;
            [milliseconds(in_force), milliseconds(computed), bytes as f64 / 1024.0].map(Some).to_vec()
        }));
    }
    let title = "One filter of 100,000 is replaced by another (the goal is 50 ms)";
    Contest { title, columns, rivals }.run(BENCH, rounds);
}

/// Beside what it costs without.
pub(crate) fn connect_with_amendments(rounds: usize) {
    for (mix, title) in [
        (Mix::Prefixes, "M1, prefixes: a connect while the whole is compiled anew"),
        (Mix::Applications, "M2, applications: a connect while the whole is compiled anew"),
        (Mix::Pairs, "M4, pairs: a connect while the whole is compiled anew"),
    ] {
        let whole = whole(mix);
        let one = whole.change(&changes(1..2)).unwrap();
        let many = whole.change(&changes(1..1 + MANY)).unwrap();
        let cases = [("100,000 filters", whole), ("one of them changed", one), ("60 of them changed", many)];
        let labs: Vec<_> = cases.iter().map(|(name, tables)| lab_with(mix, name, tables)).collect();
        let mut seats: Vec<Seat> = labs.iter().map(|lab| Seat::inside(&lab.procs("app"))).collect();
        let rivals = seats.iter_mut().zip(&cases);
        let rivals =
            rivals.map(|(seat, (name, _))| Rival::single(*name, || seat.dial(NOWHERE.into(), DIALS)));
        Contest { title, columns: vec![NANOSECONDS], rivals: rivals.collect() }.run(BENCH, rounds);
    }
}

fn whole(mix: Mix) -> Tables {
    Tables::compile(&mixed(mix, FILTERS, NOWHERE, client())).unwrap()
}

fn lab_with(mix: Mix, name: &str, tables: &Tables) -> Lab {
    let name: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
    let (mut lab, own, _service) = empty_lab(&format!("{mix:?}-{name}").to_lowercase());
    lab.install_tables(tables.clone(), vec![lab.endpoint(1, [&own])]);
    lab
}

fn install(lab: &mut Lab, tables: &Tables, endpoint: &Endpoint) {
    let installation = Installation { tables: tables.clone(), endpoints: vec![endpoint.clone()] };
    lab.engine.install(&installation).unwrap();
}

/// Filters that are somewhere among the others become others, at the same place.
fn changes(numbers: std::ops::Range<u32>) -> Change {
    let ids: Vec<u32> = numbers.map(|number| number * STRIDE + 3).collect();
    let filter = |id: &u32| Filter {
        id: FilterId(*id),
        weight: 0,
        conditions: Conditions {
            remote: Some(Prefix::host(std::net::Ipv4Addr::from_bits(0xc633_6400 | id & 0xff).into()).into()),
            remote_ports: Some(PortRange::single(1 + (id % 60_000) as u16).into()),
            ..Conditions::default()
        },
        layer: Layer::Redirect { service: ServiceId(1) },
    };
    Change { removed: ids.iter().copied().map(FilterId).collect(), added: ids.iter().map(filter).collect() }
}
