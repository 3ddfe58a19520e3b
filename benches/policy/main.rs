//! What very many filters cost: a connect(2) that the last of them redirects, beside nftables' rules and sets; and what it takes to
//! put them in force.
//!
//! `cargo bench -p waylay-benches --bench policy`, as root. It makes cgroups and network namespaces of its own. With `-- --only M2` it
//! measures one mix, with `-- --changes` what changes cost.
#![expect(clippy::unwrap_used, reason = "a bench: a failed step must show")]

mod changes;
#[path = "../connect/nftables.rs"]
#[expect(dead_code, reason = "the other bench redirects to HAProxy as well")]
mod nftables;

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener},
    os::unix::fs::MetadataExt,
    thread,
    time::Instant,
};

use socket2::{Domain, Socket, Type};
use waylay_benches::{Column, Contest, Mix, Rival, Seat, drain, mixed, pairs, rounds, seat_binary};
use waylay_core::{FileId, Tables};
use waylay_engine::{Engine, Installation};
use waylay_engine_ebpf::Limits;
use waylay_netlab::Lab;

use nftables::Redirecting;

const BENCH: &str = "policy";
const DIALS: u32 = 400;
/// An address for documentation: nobody is there, and nothing is sent to it.
const NOWHERE: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 80);
const NANOSECONDS: Column = Column { unit: "connect(2), ns", digits: 0 };
/// How many filters, and what a connect may cost with them: so many times what it costs with ten.
const SIZES: [(u32, f64); 4] = [(10, 1.0), (1_000, 1.05), (10_000, 1.10), (100_000, 1.15)];

fn main() {
    if std::env::args().any(|argument| argument == "--changes") {
        return changes();
    }
    let titles = [
        (Mix::Prefixes, "M1, prefixes: a connect that the last filter redirects", &SIZES[..]),
        (Mix::Applications, "M2, applications: a connect that the last filter redirects", &SIZES[..]),
        (Mix::Pairs, "M4, pairs: a connect that the last filter redirects", &SIZES[..]),
        (Mix::Overlapping, "M3, overlapping: a connect that the last filter redirects", &OVERLAPPING[..]),
    ];
    let only = std::env::args().skip_while(|argument| argument != "--only").nth(1);
    let asked_for = |title: &str| only.as_deref().is_none_or(|mix| title.starts_with(mix));
    for (mix, title, sizes) in titles.into_iter().filter(|(_, title, _)| asked_for(title)) {
        compare(mix, title, sizes, rounds(21));
    }
    if asked_for(BESIDE_NFTABLES) {
        beside_nftables(rounds(21));
    }
    if only.is_some() {
        return;
    }
    put_in_force(rounds(5));
    changes();
}

const BESIDE_NFTABLES: &str = "M4, pairs: beside nftables REDIRECT";

/// These alone with `--changes` on the command line.
fn changes() {
    changes::put_one_in_force(rounds(21));
    changes::connect_with_amendments(rounds(21));
}

/// Beyond a thousand there is no goal but that it ends.
const OVERLAPPING: [(u32, f64); 4] = [(10, 1.0), (1_000, 1.15), (10_000, f64::NAN), (100_000, f64::NAN)];

fn compare(mix: Mix, title: &'static str, sizes: &[(u32, f64)], rounds: usize) {
    let labs: Vec<Lab> = sizes.iter().map(|(filters, _)| lab(mix, *filters)).collect();
    let mut seats: Vec<Seat> = labs.iter().map(|lab| Seat::inside(&lab.procs("app"))).collect();
    let mut rivals: Vec<Rival<'_>> = seats
        .iter_mut()
        .zip(sizes)
        .map(|(seat, (filters, goal))| {
            let rival = Rival::single(format!("{filters} filters"), || seat.dial(NOWHERE.into(), DIALS));
            if goal.is_nan() { rival } else { rival.goal(*goal) }
        })
        .collect();
    rivals[0].goal = None;
    Contest { title, columns: vec![NANOSECONDS], rivals }.run(BENCH, rounds);
}

fn beside_nftables(rounds: usize) {
    const COUNT: usize = 10_000;
    let labs = [lab(Mix::Pairs, 10), lab(Mix::Pairs, COUNT as u32)];
    let own = accept_all(listener());
    let mut seats = [Seat::here(), Seat::inside(&labs[0].procs("app")), Seat::inside(&labs[1].procs("app"))];
    let [plain, few, many] = &mut seats;
    let mut nothing = Redirecting::nothing("sink");
    let mut one = Redirecting::by_rules("sink", NOWHERE.into(), |port| linear(1, port));
    let mut set = Redirecting::by_rules("sink", NOWHERE.into(), |port| set_of(COUNT, port));
    let mut rules = Redirecting::by_rules("sink", NOWHERE.into(), |port| linear(COUNT, port));
    let rivals = vec![
        Rival::single("to a listener, without waylay", || plain.dial(own, DIALS)),
        Rival::single("waylay, 10 filters", || few.dial(NOWHERE.into(), DIALS)),
        Rival::single("waylay, 10,000 filters", || many.dial(NOWHERE.into(), DIALS)),
        Rival::single("to a listener in a network namespace", || nothing.dial(DIALS)),
        Rival::single("nftables there, 1 rule", || one.dial(DIALS)).against(3),
        Rival::single("nftables there, a set of 10,000", || set.dial(DIALS)).against(3),
        Rival::single("nftables there, 10,000 rules", || rules.dial(40)).against(3),
    ];
    Contest { title: BESIDE_NFTABLES, columns: vec![NANOSECONDS], rivals }.run(BENCH, rounds);
}

fn linear(count: usize, port: u16) -> String {
    let rule = |pair: &SocketAddrV4| {
        format!("    ip daddr {} tcp dport {} redirect to :{port}\n", pair.ip(), pair.port())
    };
    let rules: String = pairs(count, NOWHERE).iter().map(rule).collect();
    chain(&rules, "")
}

fn set_of(count: usize, port: u16) -> String {
    let element = |pair: &SocketAddrV4| format!("{} . {}", pair.ip(), pair.port());
    let elements: Vec<String> = pairs(count, NOWHERE).iter().map(element).collect();
    let set = format!(
        "  set targets {{\n    type ipv4_addr . inet_service\n    flags interval\n    elements = {{ {} }}\n  }}\n",
        elements.join(", ")
    );
    chain(&format!("    ip daddr . tcp dport @targets redirect to :{port}\n"), &set)
}

fn chain(rules: &str, set: &str) -> String {
    format!(
        "table ip waylay_bench {{\n{set}  chain output {{\n    type nat hook output priority -100;\n{rules}  }}\n}}\n"
    )
}

/// How long a whole policy takes to be compiled, and to be in force; and how large it is.
fn put_in_force(rounds: usize) {
    let (mut lab, own, _service) = empty_lab("load");
    let endpoint = lab.endpoint(1, [&own]);
    let columns = vec![
        Column { unit: "compiled, ms", digits: 1 },
        Column { unit: "in force, ms", digits: 1 },
        Column { unit: "MiB", digits: 2 },
        Column { unit: "steps", digits: 0 },
    ];
    let lab = std::cell::RefCell::new(&mut lab);
    let cases = [
        (Mix::Prefixes, 100_000),
        (Mix::Applications, 100_000),
        (Mix::Pairs, 100_000),
        (Mix::Overlapping, 1_000),
        (Mix::Overlapping, 10_000),
        (Mix::Overlapping, 100_000),
    ];
    let rivals = cases.map(|(mix, filters)| {
        let policy = mixed(mix, filters, NOWHERE, client());
        let (lab, endpoint) = (&lab, endpoint.clone());
        Rival::new(format!("{}, {filters} filters", mix.name()), move || {
            let start = Instant::now();
            let tables = Tables::compile_keeping(&policy, lab.borrow_mut().engine.slots().unwrap()).unwrap();
            let (compiled, report) = (start.elapsed(), *tables.index().report());
            let installation = Installation { tables, endpoints: vec![endpoint.clone()] };
            let start = Instant::now();
            lab.borrow_mut().engine.install(&installation).unwrap();
            let installed = start.elapsed();
            let bytes = report.bytes as f64 / f64::from(1 << 20);
            [compiled.as_secs_f64() * 1e3, installed.as_secs_f64() * 1e3, bytes, report.most_steps.into()]
                .map(Some)
                .to_vec()
        })
    });
    Contest { title: "Putting a policy in force", columns, rivals: rivals.into() }.run(BENCH, rounds);
}

/// An engine whose one service takes what the mix's last filter matches.
fn lab(mix: Mix, filters: u32) -> Lab {
    let (mut lab, own, _service) = empty_lab(&format!("{mix:?}-{filters}").to_lowercase());
    lab.install(&mixed(mix, filters, NOWHERE, client()), vec![lab.endpoint(1, [&own])]);
    lab
}

/// With a service that accepts for as long as the bench runs.
fn empty_lab(name: &str) -> (Lab, TcpListener, SocketAddr) {
    let lab = Lab::new(name, Limits::default());
    let own = lab.as_service(1, listener);
    let service = accept_all(own.try_clone().unwrap());
    (lab, own, service)
}

/// The program that dials, as the kernel numbers it.
fn client() -> FileId {
    let file = fs::metadata(seat_binary()).unwrap();
    let (major, minor) = (rustix::fs::major(file.dev()), rustix::fs::minor(file.dev()));
    FileId { device: u64::from(major) << 20 | u64::from(minor), inode: file.ino() }
}

/// Accepts and closes for as long as the bench runs.
fn accept_all(listener: TcpListener) -> SocketAddr {
    let address = listener.local_addr().unwrap();
    thread::spawn(move || drain(&listener));
    address
}

/// With room for a whole turn's dials.
fn listener() -> TcpListener {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
    socket.listen(4096).unwrap();
    socket.into()
}
