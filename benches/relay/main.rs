//! What moving the bytes costs: waylay's relay beside HAProxy, nginx and tokio's own copying, each with one
//! thread and a fixed upstream; and a whole `waylay run --through log`, which also inspects and reports.
//!
//! `cargo bench -p waylay-benches --bench relay`, as root. All of it is on the loopback of a network namespace of its own.
#![expect(clippy::unwrap_used, reason = "a bench: a failed step must show")]

mod path;
mod peers;

use waylay_benches::{Column, Contest, Rival, rounds};

use path::{Kind, Path, World};

const BENCH: &str = "relay";
const BULK: u64 = 512 << 20;
const EXCHANGES: u32 = 2000;
const IDLE: u32 = 2000;

fn main() {
    waylay_benches::raise_descriptor_limit();
    let world = World::new();
    let mut paths: Vec<Path<'_>> = Kind::ALL.map(|kind| Path::new(&world, kind)).into();
    let bulk = [("A download", "down", 1), ("An upload", "up", 1), ("8 downloads at once", "down", 8)];
    for (title, way, streams) in bulk {
        contest(title, bulk_columns(), rounds(11), &mut paths, |path| {
            path.bulk(way, BULK / streams, streams)
        });
    }
    let columns = vec![nanoseconds("there and back, ns"), micros("CPU of the proxy, us")];
    contest("64 bytes there and back", columns, rounds(21), &mut paths, |path| path.ping(EXCHANGES));
    for (title, count, clients) in [("Connections, 1 client", 400, 1), ("Connections, 16 clients", 1600, 16)]
    {
        let columns = vec![nanoseconds("connections a second"), micros("CPU of the proxy, us")];
        contest(title, columns, rounds(21), &mut paths, |path| path.greet(count, clients));
    }
    drop(paths);
    idle(&world, rounds(3));
}

fn bulk_columns() -> Vec<Column> {
    vec![
        Column { unit: "Gbit/s", digits: 1 },
        Column { unit: "CPU of the proxy, s/GB", digits: 2 },
        Column { unit: "CPU of all, s/GB", digits: 2 },
    ]
}

fn nanoseconds(unit: &'static str) -> Column {
    Column { unit, digits: 0 }
}

fn micros(unit: &'static str) -> Column {
    Column { unit, digits: 1 }
}

fn contest(
    title: &'static str,
    columns: Vec<Column>,
    rounds: usize,
    paths: &mut [Path<'_>],
    act: impl Fn(&mut Path<'_>) -> Vec<Option<f64>>,
) {
    let act = &act;
    let rivals = paths.iter_mut().map(|path| Rival::new(path.kind().name(), move || act(path))).collect();
    Contest { title, columns, rivals }.run(BENCH, rounds);
}

/// Each turn with a proxy that has just been started: what was used once is not given back.
fn idle(world: &World, rounds: usize) {
    let kinds = Kind::ALL.into_iter().filter(|&kind| kind != Kind::Direct);
    let rival = |kind: Kind| Rival::single(kind.name(), move || Path::new(world, kind).idle(IDLE));
    let columns = vec![Column { unit: "KiB a connection", digits: 2 }];
    let title = "Memory of the proxy for 2,000 idle connections";
    Contest { title, columns, rivals: kinds.map(rival).collect() }.run(BENCH, rounds);
}
