//! What services make of the many ways in which programs use their connections.

#![expect(clippy::unwrap_used, reason = "a failed set-up is a failed test")]

use std::{
    fs,
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
    process::Command,
    sync::{Arc, Mutex},
};

use tempfile::TempDir;
use waylay_netlab::{
    Certificate, Family, Ground, Place, Report, TcpServer, Waylay, WebServer, dialler_of, python,
};

const MIB: u64 = 1 << 20;
const FILE_SIZE: u64 = 3 * MIB;

fn bytes_to_application(reports: &[Report]) -> u64 {
    reports.iter().map(|report| report.bytes_to_application).sum()
}

const PEER: &str = "\
import socket, sys
family = socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET
stream = socket.socket(family)
stream.connect((sys.argv[1], int(sys.argv[2])))
print(stream.getpeername()[:2], stream.getsockname()[0], stream.recv(5, socket.MSG_WAITALL))
";

/// What a program learns of the addresses of its connection, two services away.
fn names_of(asked: &str, server: IpAddr, own: &str) {
    let server = TcpServer::start(server, |mut stream| stream.write_all(b"hello"));
    let port = server.address().port();
    let finished = Ground::loopback()
        .waylay()
        .through_logs(2)
        .reporting()
        .watch([python(), "-c", PEER, asked, &port.to_string()])
        .well();
    assert_eq!(finished.stdout.trim(), format!("('{asked}', {port}) {own} b'hello'"));
    for name in ["log", "log-2"] {
        assert_eq!(finished.report_of(name).original_destination, server.address());
    }
}

#[test]
fn a_program_sees_the_ipv4_address_it_asked_for() {
    names_of("127.0.0.1", Ipv4Addr::LOCALHOST.into(), "127.0.0.1");
}

#[test]
fn a_program_sees_the_ipv6_address_it_asked_for() {
    names_of("::1", Ipv6Addr::LOCALHOST.into(), "::1");
}

#[test]
fn a_program_sees_the_v4_mapped_address_it_asked_for() {
    names_of("::ffff:127.0.0.1", Ipv4Addr::LOCALHOST.into(), "::ffff:127.0.0.1");
}

const ON_A_LINK: &str = "
import socket, sys
s = socket.socket(socket.AF_INET6)
s.connect(('fe80::77:2', int(sys.argv[1]), 0, socket.if_nametoindex('wire')))
s.sendall(b'GET /file HTTP/1.0\\r\\n\\r\\n')
sys.stdout.write(s.makefile('rb').read().split(b'\\r\\n\\r\\n')[1].decode())
";

/// Such an address is nothing without the link it is on.
#[test]
fn a_link_local_address_is_reached_on_its_link() {
    let ground = Ground::new(Family::V6, Place::Veth);
    let (client, server) = (ground.client_namespace().unwrap(), ground.server_namespace().unwrap());
    for (namespace, address) in [(client, "fe80::77:1/64"), (server, "fe80::77:2/64")] {
        namespace.ip(&["addr", "add", address, "dev", "wire", "nodad"]);
    }
    let directory = TempDir::new().unwrap();
    fs::write(directory.path().join("file"), "on the link\n").unwrap();
    let web = WebServer::start_on(&ground, Ipv6Addr::UNSPECIFIED.into(), directory.path());
    let port = web.address().port().to_string();
    let command = [python(), "-c", ON_A_LINK, &port];
    let finished = ground.waylay().through_logs(2).reporting().watch(command);
    if !doctor_says_links_are_shown() {
        println!("this kernel does not show programs the link; such a connection has to fail");
        assert_ne!(finished.code(), 0, "{finished:?}");
        assert_eq!(finished.stdout, "");
        return;
    }
    let finished = finished.well();
    assert_eq!(finished.stdout, "on the link\n");
    for name in ["log", "log-2"] {
        let SocketAddr::V6(destination) = finished.report_of(name).original_destination else {
            panic!("{name}")
        };
        assert_eq!(destination.ip().to_string(), "fe80::77:2");
        assert!(destination.scope_id() > 0, "{destination}");
    }
}

fn doctor_says_links_are_shown() -> bool {
    let output = Command::new(Waylay::binary()).args(["doctor", "-o", "json"]).output().unwrap();
    let diagnosis: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    diagnosis["facts"]["link_local"].as_bool().unwrap()
}

const WAYS_TO_CONNECT: &str = include_str!("../scripts/ways_to_connect.py");

/// However a program connects, both services see it, and nobody but them dials the server.
fn connect_by(way: &str) {
    const ROOT: u32 = 0;
    let users = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&users);
    let server = TcpServer::start(Ipv4Addr::LOCALHOST.into(), move |mut stream| {
        noted.lock().unwrap().extend(dialler_of(&stream));
        stream.write_all(b"hello")?;
        io::copy(&mut stream, &mut io::sink())?;
        Ok(())
    });
    let port = server.address().port().to_string();
    let command = [python(), "-c", WAYS_TO_CONNECT, way, &port];
    let finished = Ground::loopback().waylay().through_logs(2).reporting().watch(command).well();
    assert_eq!(finished.stdout, "hello\n");
    assert!(!users.lock().unwrap().contains(&ROOT), "{way}: the program itself has reached the server");
    for name in ["log", "log-2"] {
        assert_eq!(finished.report_of(name).original_destination, server.address());
    }
}

#[test]
fn a_program_that_does_not_wait_for_the_connection_is_inspected() {
    connect_by("non_blocking");
}

#[test]
fn a_program_that_binds_its_own_address_is_inspected() {
    connect_by("from_a_bound_address");
}

#[test]
fn a_program_that_sends_with_the_first_packet_is_inspected() {
    connect_by("fast_open_by_sendto");
    connect_by("fast_open_by_option");
}

#[test]
fn a_program_that_uses_multipath_tcp_is_inspected() {
    let enabled = fs::read_to_string("/proc/sys/net/mptcp/enabled").unwrap_or_default();
    if enabled.trim() == "1" {
        connect_by("mptcp");
    }
}

#[test]
fn a_server_that_speaks_first_is_reported_as_such() {
    let server = TcpServer::start(Ipv4Addr::LOCALHOST.into(), |mut stream| {
        stream.write_all(b"220 mail.example.test\r\n")?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(())
    });
    let mut run = Ground::loopback().waylay().through_logs(2).reporting().spawn_dialler();
    assert_eq!(run.ask(&format!("dial 127.0.0.1 {}", server.address().port())), "ok");
    let finished = run.finish().well();
    for name in ["log", "log-2"] {
        let report = finished.report_of(name);
        assert_eq!((report.protocol.as_str(), report.host), ("server-first", None));
    }
}

#[test]
fn tls_is_reported_with_the_name_asked_for() {
    let directory = TempDir::new().unwrap();
    let ground = Ground::loopback();
    let web = WebServer::start_tls(&ground, directory.path(), &Certificate::new("secret.example.test"));
    let content = web.add_file("file", MIB);
    let port = web.address().port();
    let (url, resolve) =
        (format!("https://secret.example.test:{port}/file"), format!("secret.example.test:{port}:127.0.0.1"));
    let finished = ground
        .waylay()
        .through_logs(2)
        .reporting()
        .watch(["curl", "-sS", "--insecure", "--http1.1", "--resolve", &resolve, "-o", "got", &url])
        .well();
    assert!(finished.file("got") == content, "the file differs");
    for name in ["log", "log-2"] {
        let report = finished.report_of(name);
        assert_eq!((report.protocol.as_str(), report.host.as_deref()), ("tls", Some("secret.example.test")));
        assert_eq!((report.original_destination, report.verdict.as_str()), (web.address(), "forwarded"));
    }
}

#[test]
fn a_refused_destination_is_a_failure_for_the_program_too() {
    let free = SocketAddr::from(([127, 0, 0, 2], 9));
    let url = format!("http://{free}/");
    let finished = Ground::loopback().waylay().reporting().watch(["curl", "-sS", &url]);
    assert!([7, 56].contains(&finished.code()), "refused or reset: {finished:?}");
    let report = finished.report_of("log");
    assert_eq!((report.verdict.as_str(), report.original_destination), ("unreachable", free));
    assert!(report.error.as_ref().is_some_and(|error| error.contains("ECONNREFUSED")), "{report:?}");
}

/// However many services forget their records, each sees each connection once.
fn forgetful(forget: &[&str], chain_of_the_second: &[&str]) {
    let directory = TempDir::new().unwrap();
    let ground = Ground::loopback();
    let web = WebServer::start(&ground, directory.path());
    let content = web.add_file("file", MIB);
    let forget = forget.iter().flat_map(|name| ["--forget", name]);
    let finished = ground
        .waylay()
        .through_logs(2)
        .args(forget)
        .reporting()
        .watch(["curl", "-sS", "-o", "got", &web.url("file"), "-o", "got-2", &web.url("file")])
        .well();
    assert!(finished.file("got") == content && finished.file("got-2") == content, "a file differs");
    assert_eq!(finished.reports().len(), 2, "{:#?}", finished.reports());
    for (name, chain) in [("log", &["log"][..]), ("log-2", chain_of_the_second)] {
        let report = finished.report_of(name);
        assert_eq!(
            (report.original_destination, report.chain),
            (web.address(), chain.iter().map(|&name| name.into()).collect())
        );
    }
}

#[test]
fn a_first_service_that_forgets_makes_no_loop() {
    forgetful(&["log"], &["log-2"]);
}

#[test]
fn a_last_service_that_forgets_makes_no_loop() {
    forgetful(&["log-2"], &["log", "log-2"]);
}

#[test]
fn services_that_all_forget_make_no_loop() {
    forgetful(&["log", "log-2"], &["log-2"]);
}

#[test]
fn several_requests_share_a_connection() {
    let directory = TempDir::new().unwrap();
    let ground = Ground::loopback();
    let web = WebServer::start(&ground, directory.path());
    let contents: Vec<_> = (0..5).map(|number| web.add_file(&number.to_string(), MIB / 4)).collect();
    let args = (0..5).flat_map(|number| ["-o".into(), format!("got-{number}"), web.url(&number.to_string())]);
    let command = ["curl".to_owned(), "-sS".to_owned()].into_iter().chain(args);
    let finished = ground.waylay().through_logs(2).reporting().watch(command).well();
    for (number, content) in contents.iter().enumerate() {
        assert!(&finished.file(&format!("got-{number}")) == content, "file {number} differs");
    }
    assert_eq!(web.requests().len(), 5);
    for name in ["log", "log-2"] {
        assert!(finished.report_of(name).bytes_to_application >= 5 * (MIB / 4));
    }
}

#[test]
fn twenty_connections_at_once() {
    let directory = TempDir::new().unwrap();
    let ground = Ground::loopback();
    let web = WebServer::start(&ground, directory.path());
    let content = web.add_file("file", MIB / 2);
    let url = web.url("file");
    let args = (0..20).flat_map(|number| ["-o".into(), format!("got-{number}"), url.clone()]);
    let command =
        ["curl", "-sS", "--parallel", "--parallel-immediate"].map(str::to_owned).into_iter().chain(args);
    let finished = ground.waylay().through_logs(2).reporting().watch(command).well();
    for number in 0..20 {
        assert!(finished.file(&format!("got-{number}")) == content, "file {number} differs");
    }
    for name in ["log", "log-2"] {
        let reports = finished.reports_of(name);
        assert!(bytes_to_application(&reports) >= 20 * (MIB / 2));
        assert!(reports.iter().all(|report| report.original_destination == web.address()), "{reports:#?}");
    }
    assert_eq!(finished.reports_of("log").len(), finished.reports_of("log-2").len());
}

#[test]
fn a_large_download_arrives_whole() {
    let directory = TempDir::new().unwrap();
    let ground = Ground::loopback();
    let web = WebServer::start(&ground, directory.path());
    let content = web.add_file("file", 64 * MIB);
    let finished = ground
        .waylay()
        .through_logs(2)
        .reporting()
        .watch(["curl", "-sS", "-o", "got", &web.url("file")])
        .well();
    assert!(finished.file("got") == content, "the file differs");
    for name in ["log", "log-2"] {
        assert!(finished.report_of(name).bytes_to_application >= 64 * MIB);
    }
}

const HALF_CLOSE: &str = "\
import socket, sys
stream = socket.create_connection(('127.0.0.1', int(sys.argv[1])))
stream.sendall(open(sys.argv[2], 'rb').read())
stream.shutdown(socket.SHUT_WR)
with open('got', 'wb') as got:
    while chunk := stream.recv(65536):
        got.write(chunk)
";

#[test]
fn a_half_closed_connection_still_brings_the_answer() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("sent");
    let content = waylay_netlab::random_file(&path, FILE_SIZE);
    // It answers only when it has seen the end.
    let server = TcpServer::start(Ipv4Addr::LOCALHOST.into(), |mut stream| {
        let mut all = Vec::new();
        stream.read_to_end(&mut all)?;
        stream.write_all(&all)
    });
    let finished =
        Ground::loopback().waylay().through_logs(2).reporting().watch(half_close(&server, &path)).well();
    assert!(finished.file("got") == content, "the answer differs");
    for name in ["log", "log-2"] {
        let report = finished.report_of(name);
        assert_eq!((report.bytes_to_destination, report.bytes_to_application), (FILE_SIZE, FILE_SIZE));
        assert_eq!(report.verdict, "forwarded");
    }
}

fn half_close(server: &TcpServer, file: &Path) -> [String; 5] {
    let port = server.address().port().to_string();
    [python().into(), "-c".into(), HALF_CLOSE.into(), port, file.to_str().unwrap().into()]
}

/// What a copy of curl below those directories is reported as.
fn reported_as(directories: &[&str]) -> (String, String) {
    let root = TempDir::new().unwrap();
    let directory = directories.iter().fold(root.path().to_owned(), |path, part| path.join(part));
    fs::create_dir_all(&directory).unwrap();
    let copy = directory.join("curl");
    fs::copy("/usr/bin/curl", &copy).unwrap();
    let server = TcpServer::start(Ipv4Addr::LOCALHOST.into(), |_| Ok(()));
    let url = format!("http://{}/", server.address());
    let run = Ground::loopback().waylay().reporting();
    let finished = run.watch([copy.to_str().unwrap(), "-s", "-m", "10", &url]);
    (finished.report_of("log").application, copy.to_str().unwrap().to_owned())
}

#[test]
fn an_executable_is_named_whole_or_not_at_all() {
    let (short, path) = reported_as(&["a", "b", "c"]);
    assert_eq!(short, path);
    let part = "x".repeat(70);
    assert_eq!(reported_as(&[part.as_str(); 5]).0, "curl", "too long");
    assert_eq!(reported_as(&["y"; 20]).0, "curl", "too deep");
    assert_eq!(reported_as(&["z".repeat(100).as_str()]).0, "curl", "a part too long");
}
