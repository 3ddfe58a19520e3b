//! TCP in every shape that a program can give it: whichever way it connects, every service sees the connection once, and
//! the program sees what it would see without them. To a server on the loopback, and to one in another network namespace.

#![expect(clippy::unwrap_used, reason = "a failed set-up is a failed test")]

use std::{net::SocketAddr, path::Path, process::Command};

use tempfile::TempDir;
use waylay_netlab::{
    Family, Finished, Ground, Lines, Place, Process, Programs, Waylay, python, system_python,
};

const SHAPES: &str = include_str!("../scripts/shapes.py");
const GREETER: &str = include_str!("../scripts/greeter.py");
const SERVICES: [&str; 3] = ["log", "log-2", "log-3"];

/// A server that greets.
struct Greeter {
    address: SocketAddr,
    lines: Lines,
    _process: Process,
}

impl Greeter {
    fn start(ground: &Ground) -> Self {
        let host = ground.server().to_string();
        let mut command = match ground.server_namespace() {
            Some(namespace) => namespace.command(python()),
            None => Command::new(python()),
        };
        let (process, lines) = Process::spawn_read(command.args(["-u", "-c", GREETER, &host]));
        let port = lines.wait_for_line(0).parse().unwrap();
        Self { address: SocketAddr::new(ground.server(), port), lines, _process: process }
    }

    /// How many have connected.
    fn greeted(&self) -> usize {
        self.lines.text().lines().count() - 1
    }
}

/// The address and the device from which the client's host reaches the server.
fn own(family: Family, place: Place) -> (&'static str, &'static str) {
    match (family, place) {
        (Family::V4, Place::Loopback) => ("127.0.0.1", "lo"),
        (Family::V6, Place::Loopback) => ("::1", "lo"),
        (Family::V4, Place::Veth) => ("10.77.0.1", "wire"),
        (Family::V6, Place::Veth) => ("fd00:77::1", "wire"),
    }
}

const PLACES: [(Family, Place); 2] = [(Family::V4, Place::Loopback), (Family::V6, Place::Veth)];

/// Near and far, in one family each: so many connections, each through every service once, and each told the truth.
fn everywhere(connections: usize, command: impl Fn(SocketAddr, &str, &str) -> Vec<String>) {
    for (family, place) in PLACES {
        let ground = Ground::new(family, place);
        let server = Greeter::start(&ground);
        let (source, device) = own(family, place);
        let watched =
            ground.waylay().through_logs(3).reporting().watch(command(server.address, source, device));
        let finished = watched.well();
        let line = format!("hello {} {} {source}\n", server.address.ip(), server.address.port());
        assert_eq!(finished.stdout, line.repeat(connections), "{finished:?}");
        is_seen_by_every_service(&finished, server.address, connections);
        assert_eq!(server.greeted(), connections);
    }
}

fn is_seen_by_every_service(finished: &Finished, server: SocketAddr, connections: usize) {
    for (at, name) in SERVICES.iter().enumerate() {
        let reports = finished.reports_of(name);
        assert_eq!(reports.len(), connections, "{name}: {finished:?}");
        for report in reports {
            assert_eq!(report.original_destination, server, "{name}");
            assert_eq!(report.chain, SERVICES[..=at], "{name}");
        }
    }
}

fn by(way: &'static str, connections: usize) {
    everywhere(connections, |server, source, device| {
        let (host, port) = (server.ip().to_string(), server.port().to_string());
        [system_python(), "-c", SHAPES, way, &host, &port, source, device].map(str::to_owned).to_vec()
    });
}

#[test]
fn a_connection_that_nobody_waits_for() {
    by("non_blocking", 1);
}

#[test]
fn a_connection_that_begins_with_its_first_bytes() {
    by("fast_open_by_sendto", 1);
    by("fast_open_by_option", 1);
}

#[test]
fn a_connection_of_multipath_tcp() {
    by("multipath", 1);
}

#[test]
fn a_connection_from_an_address_of_ones_own() {
    by("from_a_bound_address", 1);
}

#[test]
fn a_connection_over_a_device_of_ones_own() {
    by("on_a_bound_device", 1);
}

#[test]
fn a_socket_that_is_disconnected_and_connected_again() {
    by("disconnected_and_connected_again", 2);
}

#[test]
fn connections_of_several_threads() {
    by("in_threads", 4);
}

#[test]
fn a_socket_that_is_passed_to_another_process() {
    by("passed_to_another_process", 1);
    by("connected_and_passed_to_another_process", 1);
}

#[test]
fn a_socket_that_outlives_its_program() {
    everywhere(1, |server, source, device| {
        let (host, port) = (server.ip().to_string(), server.port().to_string());
        let program = format!("SHAPES={SHAPES}");
        ["env", &program, system_python(), "-c", SHAPES, "after_an_exec", &host, &port, source, device]
            .map(str::to_owned)
            .to_vec()
    });
}

mod io_uring {
    use super::*;

    fn connects(way: &'static str) {
        let programs = Programs::new();
        let probe = programs.path("netlab-uring");
        // Where the kernel is not asked about every family, a filter takes io_uring away.
        for (family, place) in PLACES {
            let ground = Ground::new(family, place);
            let server = Greeter::start(&ground);
            let address = server.address.to_string();
            let waylay = ground.waylay().args(["--unredirectable", "permit"]).through_logs(3).reporting();
            let finished = waylay.watch([&probe, "connect", way, &address]).well();
            let (source, _) = own(family, place);
            assert_eq!(finished.stdout, format!("hello {address} {source}\n"), "{finished:?}");
            is_seen_by_every_service(&finished, server.address, 1);
        }
    }

    #[test]
    fn connects_at_once() {
        connects("plain");
    }

    #[test]
    fn connects_by_a_worker() {
        connects("async");
    }

    #[test]
    fn connects_by_the_kernels_own_thread() {
        connects("sqpoll");
    }
}

#[test]
fn a_program_without_any_library() {
    let directory = TempDir::new().unwrap();
    let program = directory.path().join("static-client");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("programs/static-client.c");
    let mut compiler = Command::new("gcc");
    compiler.args(["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-static", "-o"]).arg(&program).arg(source);
    assert!(compiler.status().unwrap().success());
    let program = program.to_str().unwrap();
    everywhere(1, |server, _, _| {
        [program, &server.ip().to_string(), &server.port().to_string()].map(str::to_owned).to_vec()
    });
}

/// What a service may do to dial, and what its children may.
mod a_service {
    use super::*;

    /// Takes one connection at a time, and leads it on in the way that its argument names.
    const SERVICE: &str = include_str!("../scripts/odd_service.py");

    /// Its report and that of the one after it.
    fn that(dials: &str) -> (Finished, SocketAddr) {
        let script = waylay_netlab::world_readable_file(
            "odd",
            &format!("#!/bin/sh\nexec {} -c '{}' {dials}\n", system_python(), SERVICE.replace('\'', "\"")),
        );
        let ground = Ground::new(Family::V4, Place::Veth);
        let server = Greeter::start(&ground);
        let odd = format!("odd=exec:{}", script.path().display());
        let waylay: Waylay = ground.waylay().reporting();
        let (host, port) = (server.address.ip().to_string(), server.address.port().to_string());
        let command = [system_python(), "-c", SHAPES, "plain", &host, &port, "10.77.0.1", "wire"];
        let finished =
            waylay.args(["--through", "log", "--through", &odd, "--through", "log"]).watch(command).well();
        assert_eq!(finished.stdout, format!("hello {host} {port} 10.77.0.1\n"), "{finished:?}");
        assert_eq!(finished.report_of("log").chain, ["log"]);
        assert_eq!(server.greeted(), 1);
        (finished, server.address)
    }

    fn carries_the_chain_on(dials: &str) {
        let (finished, server) = that(dials);
        let last = finished.report_of("log-2");
        assert_eq!(last.original_destination, server);
        assert_eq!(last.chain, ["log", "odd", "log-2"], "{finished:?}");
    }

    #[test]
    fn whose_child_dials_with_its_records_carries_the_chain_on() {
        carries_the_chain_on("by_a_child");
    }

    #[test]
    fn that_dials_by_multipath_tcp_carries_the_chain_on() {
        carries_the_chain_on("by_multipath");
    }

    #[test]
    fn that_dials_from_the_applications_address_carries_the_chain_on() {
        carries_the_chain_on("from_the_source");
    }

    /// It is past the services up to its own, and not past those after it.
    #[test]
    fn whose_child_dials_without_records_is_met_by_those_after_it() {
        let (finished, server) = that("by_a_program");
        let last = finished.report_of("log-2");
        assert_eq!(last.original_destination, server);
        assert_eq!(last.chain, ["log-2"], "{finished:?}");
    }
}
