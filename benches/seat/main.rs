//! The programs that a bench puts in their places: `bench-seat client`, told by lines what to do;
//! `bench-seat server ADDRESS`; `bench-seat sink ADDRESS`; `bench-seat echo ADDRESS PORTS`;
//! `bench-seat proxy tokio|waylay LISTEN UPSTREAM`.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "part of a bench: a failed step must show")]

mod client;
mod datagrams;
mod proxy;
mod server;

use std::env;

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["client"] => client::obey(),
        ["server", address] => server::serve(address.parse().unwrap()),
        ["echo", address, ports] => {
            datagrams::echo(address.parse().unwrap(), ports.parse().unwrap());
            println!("ready");
            loop {
                std::thread::park();
            }
        }
        ["sink", address] => server::sink(address.parse().unwrap()),
        ["proxy", kind, listen, upstream] => {
            proxy::run(kind.parse().unwrap(), listen.parse().unwrap(), upstream.parse().unwrap());
        }
        _ => panic!(
            "bench-seat client | server ADDRESS | sink ADDRESS | echo ADDRESS PORTS | proxy tokio|waylay LISTEN UPSTREAM"
        ),
    }
}
