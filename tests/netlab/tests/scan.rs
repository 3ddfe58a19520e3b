//! The `scan` service with real programs: what it is told to look for does
//! not arrive, in either direction, and everything else does.

#![expect(clippy::unwrap_used, reason = "a failed set-up is a failed test")]

use std::{
    fs,
    io::{Read, Write},
    net::IpAddr,
    sync::{Arc, Mutex},
};

use tempfile::TempDir;
use waylay_netlab::{Family, Finished, Ground, Place, Report, TcpServer, Waylay, WebServer, python};

const MIB: u64 = 1 << 20;
/// curl(1): failure in sending, failure in receiving.
const CURL_SEND_ERROR: i32 = 55;
const CURL_RECV_ERROR: i32 = 56;

/// In two parts, so that no scanner takes this file for infected.
fn eicar() -> Vec<u8> {
    [r"X5O!P%@AP[4\PZX54(P^)7CC)7}$EICAR", "-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"].concat().into_bytes()
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

fn scan(ground: &Ground) -> Waylay {
    ground.waylay().args(["--through", "scan"]).reporting()
}

/// curl, which saves what it gets in the file `got`.
fn curl<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
    [&["curl", "--silent", "--show-error", "--output", "got"], arguments].concat()
}

fn got(finished: &Finished) -> Vec<u8> {
    fs::read(finished.directory().join("got")).unwrap_or_default()
}

fn check_stopped(report: &Report, pattern: &str, direction: &str) {
    let wanted = ("scan", "stopped", Some(pattern), Some(direction));
    let is = (
        report.service.as_str(),
        report.verdict.as_str(),
        report.pattern.as_deref(),
        report.direction.as_deref(),
    );
    assert_eq!(is, wanted, "{report:#?}");
    assert!(report.flow > 0, "{report:#?}");
}

macro_rules! everywhere {
    ($($what:ident: $v4:ident, $v6:ident, $v4_veth:ident, $v6_veth:ident;)+) => {
        $(
            #[test]
            fn $v4() {
                $what(&Ground::new(Family::V4, Place::Loopback));
            }
            #[test]
            fn $v6() {
                $what(&Ground::new(Family::V6, Place::Loopback));
            }
            #[test]
            fn $v4_veth() {
                $what(&Ground::new(Family::V4, Place::Veth));
            }
            #[test]
            fn $v6_veth() {
                $what(&Ground::new(Family::V6, Place::Veth));
            }
        )+
    };
}

everywhere! {
    stop_a_download:
        a_download_is_stopped_over_ipv4, a_download_is_stopped_over_ipv6,
        a_download_from_elsewhere_is_stopped_over_ipv4, a_download_from_elsewhere_is_stopped_over_ipv6;
    let_a_clean_body_pass:
        a_clean_body_passes_over_ipv4, a_clean_body_passes_over_ipv6,
        a_clean_body_from_elsewhere_passes_over_ipv4, a_clean_body_from_elsewhere_passes_over_ipv6;
}

/// The string is in the middle of a body that takes many reads.
fn stop_a_download(ground: &Ground) {
    let directory = TempDir::new().unwrap();
    let web = WebServer::start(ground, directory.path());
    let body = web.add_file("clean", MIB);
    fs::write(directory.path().join("infected"), [&body, eicar().as_slice(), &body].concat()).unwrap();

    let finished = scan(ground).watch(curl(&[&web.url("infected")]));
    assert_eq!(finished.code(), CURL_RECV_ERROR, "{finished:?}");
    let got = got(&finished);
    assert!(!contains(&got, &eicar()), "the whole of it has passed");
    assert!(got.len() < body.len() + eicar().len() && body.starts_with(&got[..got.len().min(body.len())]));
    check_stopped(&finished.report_of("scan"), "EICAR test string", "to-application");
}

#[test]
fn an_upload_is_stopped_over_ipv4() {
    stop_an_upload(&Ground::new(Family::V4, Place::Loopback));
}

#[test]
fn an_upload_is_stopped_over_ipv6() {
    stop_an_upload(&Ground::new(Family::V6, Place::Loopback));
}

fn stop_an_upload(ground: &Ground) {
    let received = Arc::new(Mutex::new(Vec::new()));
    let server = receiver(ground, &received);
    let url = format!("http://{}/upload", server.address());
    let directory = TempDir::new().unwrap();
    let body = directory.path().join("body");
    fs::write(&body, [vec![b'.'; 300_000], eicar(), vec![b'.'; 300_000]].concat()).unwrap();

    let finished = scan(ground).watch(curl(&["--data-binary", &format!("@{}", body.display()), &url]));
    assert!([CURL_SEND_ERROR, CURL_RECV_ERROR].contains(&finished.code()), "{finished:?}");
    check_stopped(&finished.report_of("scan"), "EICAR test string", "to-destination");
    assert!(!contains(&received.lock().unwrap(), &eicar()), "the whole of it has passed");
}

/// Keeps what it gets and never answers.
fn receiver(ground: &Ground, received: &Arc<Mutex<Vec<u8>>>) -> TcpServer {
    let received = Arc::clone(received);
    TcpServer::start(ground.server(), move |mut stream| {
        let mut chunk = [0; 4096];
        loop {
            match stream.read(&mut chunk)? {
                0 => return Ok(()),
                count => received.lock().unwrap().extend_from_slice(&chunk[..count]),
            }
        }
    })
}

fn let_a_clean_body_pass(ground: &Ground) {
    let directory = TempDir::new().unwrap();
    let web = WebServer::start(ground, directory.path());
    let body = web.add_file("clean", 3 * MIB);
    let finished = scan(ground).watch(curl(&[&web.url("clean")])).well();
    assert!(got(&finished) == body, "the file differs");
    let report = finished.report_of("scan");
    assert_eq!((report.verdict.as_str(), report.pattern, report.direction), ("forwarded", None, None));
    assert_eq!(report.protocol, "http");
}

/// Reads `before` bytes, acknowledges them, and says how many more came and how it ended.
const READER: &str = "\
import socket, sys
host, port, before = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
stream = socket.create_connection((host, port))
count = 0
while count < before:
    count += len(stream.recv(before - count))
stream.sendall(b'!')
more = b''
try:
    while chunk := stream.recv(4096):
        more += chunk
    print(f'{len(more)} more, then the end')
except OSError as error:
    print(f'{len(more)} more, then {error.strerror}')
";

/// Writes the parts, each when the one before has been acknowledged.
fn in_parts(address: IpAddr, parts: [Vec<u8>; 2]) -> TcpServer {
    TcpServer::start(address, move |mut stream| {
        stream.write_all(&parts[0])?;
        stream.read_exact(&mut [0])?;
        stream.write_all(&parts[1])?;
        // Until the client or the service has had enough.
        stream.read_to_end(&mut Vec::new())?;
        Ok(())
    })
}

fn read_in_parts(waylay: Waylay, parts: [Vec<u8>; 2]) -> Finished {
    let (before, server) = (parts[0].len(), in_parts(Ground::loopback().server(), parts));
    let [host, port] = [server.address().ip().to_string(), server.address().port().to_string()];
    waylay.watch([python(), "-c", READER, &host, &port, &before.to_string()])
}

#[test]
fn a_pattern_whose_parts_come_one_after_the_other_is_found_when_it_is_complete() {
    for cut in [1, 33, 67] {
        let parts = [eicar()[..cut].to_vec(), eicar()[cut..].to_vec()];
        let finished = read_in_parts(scan(&Ground::loopback()), parts).well();
        assert_eq!(finished.stdout, "0 more, then Connection reset by peer\n", "cut after {cut}");
        check_stopped(&finished.report_of("scan"), "EICAR test string", "to-application");
        assert_eq!(finished.report_of("scan").bytes_to_application, cut as u64);
    }
}

#[test]
fn what_comes_before_the_last_bytes_of_a_pattern_has_passed() {
    let finished = read_in_parts(scan(&Ground::loopback()), [b"before".to_vec(), eicar()]).well();
    assert_eq!(finished.stdout, "0 more, then Connection reset by peer\n");
    assert_eq!(finished.report_of("scan").bytes_to_application, 6);
}

#[test]
fn the_services_around_it_see_a_reset() {
    let waylay =
        Ground::loopback().waylay().args(["--through", "log", "--through", "scan", "--through", "log"]);
    let finished = read_in_parts(waylay.reporting(), [b"before".to_vec(), eicar()]).well();
    check_stopped(&finished.report_of("scan"), "EICAR test string", "to-application");
    for (service, chain) in
        [("log", &["log"][..]), ("scan", &["log", "scan"]), ("log-2", &["log", "scan", "log-2"])]
    {
        let report = finished.report_of(service);
        assert_eq!(report.chain, chain);
        assert_eq!(report.verdict, if service == "scan" { "stopped" } else { "reset" });
    }
    let mut flows: Vec<u64> = finished.reports().iter().map(|report| report.flow).collect();
    flows.sort_unstable();
    flows.dedup();
    assert_eq!(flows.len(), 3, "each leg has a number of its own");
}

#[test]
fn a_scan_that_forgets_its_records_finds_patterns_all_the_same() {
    let waylay = scan(&Ground::loopback()).args(["--through", "log", "--forget", "scan"]);
    let finished = read_in_parts(waylay, [b"before".to_vec(), eicar()]).well();
    check_stopped(&finished.report_of("scan"), "EICAR test string", "to-application");
    assert_eq!(finished.report_of("log").chain, ["log"], "as if its service had dialled by itself");
}

#[test]
fn a_line_for_people_says_who_stopped_what_and_where() {
    let waylay = Ground::loopback().waylay().args(["--through", "scan"]);
    let finished = read_in_parts(waylay, [b"before".to_vec(), eicar()]).well();
    let line = finished.stderr.trim();
    let wanted = "via scan  stopped: \"EICAR test string\" on its way to the application (flow ";
    assert!(line.starts_with("scan  ") && line.contains(wanted), "{line}");
}

mod own_patterns {
    use super::*;

    fn stopped_for(arguments: &[&str], body: &[u8], pattern: &str) {
        let waylay = scan(&Ground::loopback()).args(arguments);
        let finished = read_in_parts(waylay, [b"before".to_vec(), body.to_vec()]).well();
        assert_eq!(finished.stdout, "0 more, then Connection reset by peer\n");
        check_stopped(&finished.report_of("scan"), pattern, "to-application");
    }

    fn passes(arguments: &[&str], body: &[u8]) {
        let waylay = scan(&Ground::loopback()).args(arguments);
        let directory = TempDir::new().unwrap();
        let web = WebServer::start(&Ground::loopback(), directory.path());
        fs::write(directory.path().join("body"), body).unwrap();
        let finished = waylay.watch(curl(&[&web.url("body")])).well();
        assert!(got(&finished) == body);
    }

    #[test]
    fn as_text() {
        let arguments = ["--pattern", "tulip", "--pattern", "crème brûlée"];
        stopped_for(&arguments, b"a tulip!", "tulip");
        stopped_for(&arguments, "une crème brûlée".as_bytes(), "crème brûlée");
    }

    #[test]
    fn that_begin_like_an_option() {
        let begin = "-----BEGIN PRIVATE KEY-----";
        stopped_for(&["--pattern", begin], format!("key: {begin}").as_bytes(), begin);
    }

    #[test]
    fn take_the_place_of_the_test_string() {
        passes(&["--pattern", "tulip"], &eicar());
    }

    #[test]
    fn in_a_file() {
        let directory = TempDir::new().unwrap();
        let file = directory.path().join("patterns");
        fs::write(&file, b"tulip\n\n\xff\xfe\x00bin\\\n").unwrap();
        let argument = format!("@{}", file.display());
        stopped_for(&["--pattern", &argument], b"a tulip!", "tulip");
        stopped_for(&["--pattern", &argument], b"\xff\xff\xfe\x00bin\\", "\\xff\\xfe\0bin\\");
    }

    /// Far more than fits into a pipe or an argument.
    #[test]
    fn as_many_as_are_allowed() {
        let directory = TempDir::new().unwrap();
        let file = directory.path().join("patterns");
        let lines: Vec<String> = (0..16_000).map(|number| format!("{number:->64}")).collect();
        fs::write(&file, lines.join("\n")).unwrap();
        let last = lines.last().unwrap();
        stopped_for(&["--pattern", &format!("@{}", file.display())], last.as_bytes(), last);
    }

    #[test]
    fn do_not_show_in_the_process_list() {
        let mut run = scan(&Ground::loopback()).args(["--pattern", "tulip"]).spawn_dialler();
        let service = run.service("scan");
        for file in ["cmdline", "environ"] {
            let text = fs::read(format!("/proc/{service}/{file}")).unwrap();
            assert!(!contains(&text, b"tulip"), "{file} of the service");
        }
        run.finish().well();
    }
}

/// Scanners would take the command itself away.
#[test]
fn the_test_string_is_not_in_the_binary() {
    assert!(!contains(&fs::read(Waylay::binary()).unwrap(), &eicar()));
}
