//! TCP in every shape that a program can give it: whichever way it connects, every service sees the connection once, and
//! the program sees what it would see without them. To servers on the loopback and in another network namespace, over
//! IPv4 and IPv6.

use std::{fs, net::SocketAddr, os::unix::fs::PermissionsExt, path::Path, process::Command};

use tempfile::TempDir;
use waylay_netlab::{Corners, Finished, Greeter, Programs, Waylay, one_after_another, system_python};

const SHAPES: &str = include_str!("../scripts/shapes.py");
const SERVICES: [&str; 3] = ["log", "log-2", "log-3"];

/// To every corner in one run: so many connections, each through every service once, and each told the truth.
fn everywhere(connections: usize, command: impl Fn(&Greeter) -> Vec<String>) {
    let corners = Corners::new();
    through(&corners, corners.waylay().through_logs(3), connections, command);
}

fn through(corners: &Corners, waylay: Waylay, connections: usize, command: impl Fn(&Greeter) -> Vec<String>) {
    let servers = corners.greeters();
    let commands: Vec<_> = servers.iter().map(command).collect();
    let finished = waylay.reporting().watch(one_after_another(&commands)).well();
    let told: String = servers.iter().map(|server| told(server).repeat(connections)).collect();
    assert_eq!(finished.stdout, told, "{finished:?}");
    for server in &servers {
        is_seen_by_every_service(&finished, server.address, connections);
        assert_eq!(server.greeted(), connections, "{server:?}");
    }
}

/// What is true of a connection to a server.
fn told(server: &Greeter) -> String {
    format!("hello {} {} {}\n", server.address.ip(), server.address.port(), server.corner.own())
}

fn is_seen_by_every_service(finished: &Finished, server: SocketAddr, connections: usize) {
    for (at, name) in SERVICES.iter().enumerate() {
        let mut reports = finished.reports_of(name);
        reports.retain(|report| report.original_destination == server);
        assert_eq!(reports.len(), connections, "{name}: {finished:?}");
        for report in reports {
            assert_eq!(report.chain, SERVICES[..=at], "{name}");
        }
    }
}

/// The command line of shapes.py.
fn shape(way: &str, server: &Greeter) -> Vec<String> {
    let (host, port) = (server.address.ip().to_string(), server.address.port().to_string());
    let own = server.corner.own().to_string();
    [system_python(), "-c", SHAPES, way, &host, &port, &own, server.corner.device()]
        .map(str::to_owned)
        .to_vec()
}

fn by(way: &str, connections: usize) {
    everywhere(connections, |server| shape(way, server));
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
    everywhere(1, |server| {
        let program = ["env".to_owned(), format!("SHAPES={SHAPES}")];
        program.into_iter().chain(shape("after_an_exec", server)).collect()
    });
}

/// By the engine that needs no privilege.
mod without_root {
    use super::*;

    fn by(ways: &[(&str, usize)]) {
        let corners = Corners::new();
        for &(way, connections) in ways {
            let waylay = corners.waylay_without_root().through_logs(3);
            through(&corners, waylay, connections, |server| shape(way, server));
        }
    }

    #[test]
    fn a_connection_that_nobody_waits_for() {
        by(&[("plain", 1), ("non_blocking", 1)]);
    }

    #[test]
    fn a_connection_that_begins_with_its_first_bytes() {
        by(&[("fast_open_by_sendto", 1), ("fast_open_by_option", 1)]);
    }

    #[test]
    fn a_connection_of_multipath_tcp() {
        by(&[("multipath", 1)]);
    }

    #[test]
    fn a_connection_from_an_address_of_ones_own() {
        by(&[("from_a_bound_address", 1)]);
    }

    #[test]
    fn a_socket_that_is_disconnected_and_connected_again() {
        by(&[("disconnected_and_connected_again", 2)]);
    }

    #[test]
    fn connections_of_several_threads() {
        by(&[("in_threads", 4)]);
    }

    #[test]
    fn a_socket_that_is_passed_to_another_process() {
        by(&[("passed_to_another_process", 1), ("connected_and_passed_to_another_process", 1)]);
    }

    #[test]
    fn a_program_without_any_library() {
        let (_directory, program) = static_client();
        let corners = Corners::new();
        let waylay = corners.waylay_without_root().through_logs(3);
        through(&corners, waylay, 1, |server| dialled_by(&program, server));
    }
}

mod io_uring {
    use super::*;

    fn connects(way: &str) {
        let programs = Programs::new();
        let probe = programs.path("netlab-uring");
        let corners = Corners::new();
        // Where the kernel is not asked about every family, a filter takes io_uring away.
        let waylay = corners.waylay().args(["--unredirectable", "permit"]).through_logs(3);
        through(&corners, waylay, 1, |server| {
            [&probe, "connect", way, &server.address.to_string()].map(str::to_owned).to_vec()
        });
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
    let (_directory, program) = static_client();
    everywhere(1, |server| dialled_by(&program, server));
}

/// A client that is linked statically, and where it is.
fn static_client() -> (TempDir, String) {
    let directory = TempDir::new().expect("a directory");
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).expect("it is its owner's");
    let program = directory.path().join("static-client");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("programs/static-client.c");
    let mut compiler = Command::new("gcc");
    compiler.args(["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-static", "-o"]).arg(&program).arg(source);
    assert!(compiler.status().expect("gcc").success());
    let program = program.to_str().expect("a name in UTF-8").to_owned();
    (directory, program)
}

fn dialled_by(program: &str, server: &Greeter) -> Vec<String> {
    let (host, port) = (server.address.ip().to_string(), server.address.port().to_string());
    [program, &host, &port].map(str::to_owned).to_vec()
}

/// What a service may do to dial, and what its children may.
mod a_service {
    use super::*;

    /// Takes one connection at a time, and leads it on in the way that its argument names.
    const SERVICE: &str = include_str!("../scripts/odd_service.py");

    /// What is reported by the services before it and after it, of a connection to each corner: the chain of the last.
    fn that(dials: &str, chain: &[&str]) {
        let script = waylay_netlab::world_readable_file(
            "odd",
            &format!("#!/bin/sh\nexec {} -c '{}' {dials}\n", system_python(), SERVICE.replace('\'', "\"")),
        );
        let odd = format!("odd=exec:{}", script.path().display());
        let corners = Corners::new();
        let servers = corners.greeters();
        let commands: Vec<_> = servers.iter().map(|server| shape("plain", server)).collect();
        let waylay = corners.waylay().reporting();
        let waylay = waylay.args(["--through", "log", "--through", &odd, "--through", "log"]);
        let finished = waylay.watch(one_after_another(&commands)).well();
        assert_eq!(finished.stdout, servers.iter().map(told).collect::<String>(), "{finished:?}");
        let mut addresses = servers.each_ref().map(|server| server.address);
        addresses.sort();
        for (service, chain) in [("log", &["log"][..]), ("log-2", chain)] {
            let reports = finished.reports_of(service);
            let mut destinations: Vec<_> = reports.iter().map(|report| report.original_destination).collect();
            destinations.sort();
            assert_eq!(destinations, addresses, "{finished:?}");
            assert!(reports.iter().all(|report| report.chain == chain), "{finished:?}");
        }
        assert_eq!(servers.map(|server| server.greeted()), [1; 4]);
    }

    fn carries_the_chain_on(dials: &str) {
        that(dials, &["log", "odd", "log-2"]);
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
        that("by_a_program", &["log-2"]);
    }
}
