//! Pure parts, by name.

use std::{hint::black_box, net::SocketAddr};

use waylay_benches::policy_for;
use waylay_core::{
    Facts, FileId, Leg, Process, ProcessFacts, Protocol, Records, Tables, World, decide, normal_form,
};
use waylay_differential as kernel;
use waylay_inspect::{
    scan::{Matcher, Patterns},
    sniff::Sniffer,
};
use waylay_relay::Direction;

const HEAD: &[u8] =
    b"GET /index.html HTTP/1.1\r\nHost: www.example.test\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n";
const KIBIBYTE: usize = 1024;

const DECIDE: &str = "decide, 64 filters of which none matches";
const TABLES: &str = "the tables' classification of the same";
const KERNEL: &str = "the programs' classification of the same, compiled for user space";
const HANDLE: &str = "the tag of a handle";
const SNIFF: &str = "finding the host in a request of 84 bytes";
const SCAN: &str = "scanning a KiB for two patterns";

pub(crate) const NAMES: [&str; 6] = [DECIDE, TABLES, KERNEL, HANDLE, SNIFF, SCAN];

pub(crate) fn run(name: &str, times: u32) {
    let mut act = case(name);
    for _ in 0..times {
        act();
    }
}

fn case(name: &str) -> Box<dyn FnMut()> {
    let policy = policy_for(([192, 0, 2, 1], 80).into(), 64);
    let remote: SocketAddr = ([198, 51, 100, 1], 443).into();
    let file = FileId { device: 1, inode: 1 };
    match name {
        DECIDE => {
            let caller =
                Process { pid: 1, start_time_ns: 0, uid: 0, exe: file, cgroup: 1, ..Process::default() };
            let leg = Leg { protocol: Protocol::Tcp, local: None, remote, caller };
            let world = World::default();
            Box::new(move || {
                black_box(decide(black_box(&policy), &leg, &Records::None, &world));
            })
        }
        TABLES => {
            let tables = Tables::compile(&policy).unwrap();
            let process = ProcessFacts { exe: file, cgroups: vec![1], ..ProcessFacts::default() };
            let facts = Facts {
                protocol: Protocol::Tcp,
                remote: normal_form(remote.ip()),
                remote_port: remote.port(),
                local: None,
                hosts: vec![],
                namespace: waylay_core::Namespace::Own,
                application: process.clone(),
                via: process,
            };
            Box::new(move || {
                black_box(black_box(&tables).classify_redirect(&facts, 0));
            })
        }
        KERNEL => {
            let tables = Tables::compile(&policy).unwrap();
            let leg = kernel::Leg { remote: remote.into(), protocol: 6, ..kernel::Leg::default() };
            let people = kernel::People::default();
            Box::new(move || {
                let words = kernel::Words::new(black_box(tables.index().words()), &[]);
                black_box(kernel::classify_redirect(&words, &leg, &people, 0));
            })
        }
        HANDLE => Box::new(|| {
            black_box(kernel::siphash128(black_box(1), 2, &[3, 4, 5, 6]));
        }),
        SNIFF => Box::new(|| {
            let mut sniffer = Sniffer::new();
            sniffer.observe(Direction::ToDestination, black_box(HEAD));
            assert_eq!(sniffer.host(), Some("www.example.test"));
        }),
        SCAN => {
            let patterns = Patterns::new([b"a certain secret".to_vec(), b"another one".to_vec()]).unwrap();
            let matcher = Matcher::new(&patterns).unwrap();
            let text: Vec<u8> = (0..KIBIBYTE).map(|n| b'a' + (n % 23) as u8).collect();
            let mut position = matcher.start();
            Box::new(move || assert_eq!(matcher.feed(&mut position, black_box(&text)), None))
        }
        _ => panic!("{name:?} is no case"),
    }
}
