//! A program that dials when it is told to, from whichever cgroup it is in:
//! `dial ADDRESS RECORDS` (in hexadecimal, or `-`) on standard input is answered
//! with `connected PEER`, `errno NUMBER` or `unset REASON`; `close` closes all
//! that it has opened.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test program: a failed step must show")]

use std::{
    io::{self, BufRead, Write},
    net::SocketAddr,
    time::Duration,
};

use socket2::{Domain, Socket, Type};
use waylay::{RedirectRecords, set_redirect_records};

fn main() {
    let mut open = Vec::new();
    for line in io::stdin().lock().lines() {
        let line = line.unwrap();
        let answer = match line.split(' ').collect::<Vec<_>>()[..] {
            ["dial", address, records] => dial(address.parse().unwrap(), records, &mut open),
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

fn dial(to: SocketAddr, records: &str, open: &mut Vec<Socket>) -> String {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).unwrap();
    // Thousands of connections leave no port behind.
    socket.set_linger(Some(Duration::ZERO)).unwrap();
    if let Some(bytes) = bytes(records)
        && let Err(error) = set_redirect_records(&socket, &RedirectRecords::from_bytes(&bytes))
    {
        return format!("unset {error:?}");
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

fn bytes(hexadecimal: &str) -> Option<Vec<u8>> {
    let digit = |at: usize| u8::from_str_radix(&hexadecimal[at..at + 2], 16).unwrap();
    (hexadecimal != "-").then(|| (0..hexadecimal.len()).step_by(2).map(digit).collect())
}
