//! A program that dials when it is told to, from whichever cgroup it is in:
//! `dial ADDRESS RECORDS SOURCE` (records in hexadecimal; or `-`) on standard input is answered
//! with `connected PEER`, `errno NUMBER` or `unset REASON`; `ask RESOLVER NAME`
//! with `answered` or `errno NUMBER`; `close` closes all that it has opened. With the argument `command` or `service` it has itself supervised as
//! such, and says first by which descriptor.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test program: a failed step must show")]

use std::{
    io::{self, BufRead, Read, Write},
    net::SocketAddr,
    os::fd::AsRawFd,
    time::Duration,
};

use socket2::{Domain, Socket, Type};
use waylay::{RedirectRecords, set_redirect_records};
use waylay_netlab::submit;

fn main() {
    // It stays open: with it goes the supervisor's.
    let calls = match std::env::args().nth(1).as_deref() {
        Some("command") => Some(submit(false)),
        Some("service") => Some(submit(true)),
        _ => None,
    };
    if let Some(calls) = &calls {
        println!("{}", calls.as_raw_fd());
        io::stdout().flush().unwrap();
    }
    let mut open = Vec::new();
    for line in io::stdin().lock().lines() {
        let line = line.unwrap();
        let answer = match line.split(' ').collect::<Vec<_>>()[..] {
            ["dial", address, records, source] => {
                dial(address.parse().unwrap(), records, source.parse().ok(), &mut open)
            }
            ["ask", resolver, name] => ask(resolver.parse().unwrap(), name),
            ["close"] => {
                open.clear();
                "closed".to_owned()
            }
            _ => panic!("{line}"),
        };
        println!("{answer}");
        io::stdout().flush().unwrap();
    }
}

fn dial(to: SocketAddr, records: &str, from: Option<SocketAddr>, open: &mut Vec<Socket>) -> String {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).unwrap();
    // Thousands of connections leave no port behind.
    socket.set_linger(Some(Duration::ZERO)).unwrap();
    if let Some(bytes) = bytes(records)
        && let Err(error) = set_redirect_records(&socket, &RedirectRecords::from_bytes(&bytes))
    {
        return format!("unset {error:?}");
    }
    if let Some(from) = from {
        socket.bind(&from.into()).unwrap();
    }
    match socket.connect(&to.into()) {
        Ok(()) => {
            let peer = socket.peer_addr().unwrap().as_socket().unwrap();
            open.push(socket);
            format!("connected {peer}")
        }
        Err(error) => format!("errno {}", error.raw_os_error().unwrap()),
    }
}

/// For its addresses, as stub resolvers do.
fn ask(resolver: SocketAddr, name: &str) -> String {
    let mut question = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        question.push(u8::try_from(label.len()).unwrap());
        question.extend(label.as_bytes());
    }
    question.extend([0, 0, 1, 0, 1]);
    let socket = Socket::new(Domain::for_address(resolver), Type::DGRAM, None).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    if let Err(error) = socket.connect(&resolver.into()) {
        return format!("errno {}", error.raw_os_error().unwrap());
    }
    socket.send(&question).unwrap();
    let answered = (&socket).read(&mut [0; 512]);
    answered.map_or_else(|error| format!("unanswered {error}"), |_| "answered".to_owned())
}

fn bytes(hexadecimal: &str) -> Option<Vec<u8>> {
    let digit = |at: usize| u8::from_str_radix(&hexadecimal[at..at + 2], 16).unwrap();
    (hexadecimal != "-").then(|| (0..hexadecimal.len()).step_by(2).map(digit).collect())
}
