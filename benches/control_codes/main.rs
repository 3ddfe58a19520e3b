//! A query through the library for C, against the getsockopt(2) that it makes.
//!
//! `cargo bench -p waylay-benches --bench control_codes`, as root: the socket is one that the kernel has
//! redirected to a service.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a bench: a failed step must show")]

mod sys;

use std::{
    fs,
    net::{Ipv4Addr, TcpListener, TcpStream},
    os::fd::AsRawFd,
    path::Path,
    process::Command,
};

use waylay_abi as abi;
use waylay_benches::{Rival, print_table, take_turns};
use waylay_core::{Conditions, FailurePolicy, Filter, FilterId, Layer, Policy, Service, ServiceId};
use waylay_engine_ebpf::Limits;
use waylay_netlab::Lab;
use waylay_ws2::abi::{SIO_QUERY_WFP_CONNECTION_REDIRECT_CONTEXT, SIO_QUERY_WFP_CONNECTION_REDIRECT_RECORDS};

const ROUNDS: usize = 41;
const TIMES: u32 = 20_000;

fn main() {
    let mut lab = Lab::new("bench", Limits::default());
    let listener = lab.as_service(1, || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
    lab.install(&policy(), vec![lab.endpoint(1, [&listener])]);
    let _client = lab.as_application(|| TcpStream::connect(("192.0.2.1", 80)).unwrap());
    let (accepted, _) = listener.accept().unwrap();
    let own = std::env::current_exe().unwrap();
    let library = own.with_file_name("libwaylay_ws2.so");
    let winsock = sys::Winsock::load(&library);
    let socket = accepted.as_raw_fd();

    println!("{ROUNDS} rounds of {TIMES} calls, in turns; the ratio is the median of the rounds' ratios\n");
    let records = SIO_QUERY_WFP_CONNECTION_REDIRECT_RECORDS;
    let context = SIO_QUERY_WFP_CONNECTION_REDIRECT_CONTEXT;
    for (name, option, code, size) in [
        ("WSAIoctl, QUERY_RECORDS", abi::QUERY_RECORDS, records, size_of::<abi::Handle>()),
        ("WSAIoctl, QUERY_CONTEXT", abi::QUERY_CONTEXT, context, size_of::<abi::Context>()),
    ] {
        let [mut one, mut other, mut third] = [(); 3].map(|()| vec![0; size]);
        let mut on_the_heap = Box::new(0);
        let mut rivals = [
            Rival {
                name: "getsockopt",
                act: Box::new(|| {
                    sys::get_option(socket, abi::SOL_WAYLAY, option, &mut one);
                }),
            },
            Rival {
                name,
                act: Box::new(|| {
                    let mut on_the_stack = 0;
                    winsock.query(socket, code, &mut other, &mut on_the_stack);
                }),
            },
            Rival {
                name: "the same, lpcbBytesReturned on the heap",
                act: Box::new(|| winsock.query(socket, code, &mut third, &mut on_the_heap)),
            },
        ];
        let figures = take_turns(&mut rivals, ROUNDS, TIMES);
        print_table(&rivals, &figures);
        println!();
    }
    println!("libwaylay_ws2.so, stripped: {} KiB", stripped_size(&library) / 1024);
}

fn stripped_size(library: &Path) -> u64 {
    let stripped = library.with_extension("so.stripped");
    assert!(Command::new("strip").arg("-o").arg(&stripped).arg(library).status().unwrap().success());
    fs::metadata(stripped).unwrap().len()
}

fn policy() -> Policy {
    let service = Service {
        id: ServiceId(1),
        name: "s1".into(),
        before: Vec::new(),
        after: Vec::new(),
        on_failure: FailurePolicy::Closed,
    };
    let filter = Filter {
        id: FilterId(1),
        weight: 0,
        conditions: Conditions::default(),
        layer: Layer::Redirect { service: ServiceId(1) },
    };
    Policy::new(vec![service], Vec::new(), vec![filter]).unwrap()
}
