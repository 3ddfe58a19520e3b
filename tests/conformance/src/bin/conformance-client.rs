//! The application whose connections are redirected, where it has to be another
//! process than the service: `conformance-client ADDRESS`. It says `connected` or
//! `refused`, and keeps its connection until its standard input ends.
#![expect(clippy::print_stdout, reason = "that is how it answers")]

use std::{env, io, net::TcpStream, process::ExitCode};

fn main() -> ExitCode {
    let Some(address) = env::args().nth(1) else {
        eprintln!("usage: conformance-client ADDRESS");
        return ExitCode::from(2);
    };
    let connection = TcpStream::connect(&address);
    println!("{}", if connection.is_ok() { "connected" } else { "refused" });
    let ended = io::copy(&mut io::stdin(), &mut io::sink());
    drop(connection);
    if ended.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
