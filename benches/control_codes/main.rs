//! A query through the library for C, against the getsockopt(2) that it makes.
//!
//! `cargo bench -p waylay-benches --bench control_codes`, as root: the socket is one that the kernel has
//! redirected to a service.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a bench: a failed step must show")]

mod sys;

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::fd::{AsFd, AsRawFd},
    path::Path,
    process::Command,
};

use waylay_abi as abi;
use waylay_benches::{Column, Contest, Rival, get_option, policy_for, rounds, timed};
use waylay_engine_ebpf::Limits;
use waylay_netlab::Lab;
use waylay_ws2::abi::{SIO_QUERY_WFP_CONNECTION_REDIRECT_CONTEXT, SIO_QUERY_WFP_CONNECTION_REDIRECT_RECORDS};

const TIMES: u32 = 20_000;

fn main() {
    let mut lab = Lab::new("bench", Limits::default());
    let listener = lab.as_service(1, || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
    let nowhere = SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), 80));
    lab.install(&policy_for(nowhere, 1), vec![lab.endpoint(1, [&listener])]);
    let _client = lab.as_application(|| TcpStream::connect(nowhere).unwrap());
    let (accepted, _) = listener.accept().unwrap();
    let own = std::env::current_exe().unwrap();
    let library = own.with_file_name("libwaylay_ws2.so");
    let winsock = sys::Winsock::load(&library);
    let socket = accepted.as_raw_fd();

    let records = SIO_QUERY_WFP_CONNECTION_REDIRECT_RECORDS;
    let context = SIO_QUERY_WFP_CONNECTION_REDIRECT_CONTEXT;
    for (title, option, code, size) in [
        ("WSAIoctl, QUERY_RECORDS", abi::QUERY_RECORDS, records, size_of::<abi::Handle>()),
        ("WSAIoctl, QUERY_CONTEXT", abi::QUERY_CONTEXT, context, size_of::<abi::Context>()),
    ] {
        let [mut one, mut other, mut third] = [(); 3].map(|()| vec![0; size]);
        let mut on_the_heap = Box::new(0);
        let option = || {
            get_option(accepted.as_fd(), abi::SOL_WAYLAY, option, &mut one).unwrap();
        };
        let on_the_stack = || {
            let mut on_the_stack = 0;
            winsock.query(socket, code, &mut other, &mut on_the_stack);
        };
        let on_the_heap = || winsock.query(socket, code, &mut third, &mut on_the_heap);
        let rivals = vec![
            Rival::single("getsockopt(2)", timed(TIMES, option)),
            Rival::single("WSAIoctl", timed(TIMES, on_the_stack)).goal(1.3),
            Rival::single("WSAIoctl, lpcbBytesReturned on the heap", timed(TIMES, on_the_heap)).goal(1.3),
        ];
        let columns = vec![Column { unit: "a call, ns", digits: 0 }];
        Contest { title, columns, rivals }.run("control_codes", rounds(41));
    }
    println!("libwaylay_ws2.so, stripped: {} KiB", stripped_size(&library) / 1024);
}

fn stripped_size(library: &Path) -> u64 {
    let stripped = library.with_extension("so.stripped");
    assert!(Command::new("strip").arg("-o").arg(&stripped).arg(library).status().unwrap().success());
    fs::metadata(stripped).unwrap().len()
}
