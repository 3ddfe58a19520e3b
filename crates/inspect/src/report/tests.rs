use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use super::*;

fn report() -> Report {
    Report {
        time: (SystemTime::UNIX_EPOCH + Duration::from_micros(1_700_000_000_123_456)).into(),
        service: "log".into(),
        flow: 3,
        application: "/usr/bin/curl".into(),
        pid: 4711,
        original_destination: SocketAddr::from(([127, 0, 0, 1], 8080)),
        protocol: Protocol::Http,
        host: Some("example.test".into()),
        datagrams: None,
        bytes_to_destination: 78,
        bytes_to_application: 1256,
        duration_us: 3400,
        chain: vec!["log".into(), "log-2".into()],
        verdict: Outcome::Forwarded,
        pattern: None,
        direction: None,
        error: None,
    }
}

fn failed() -> Report {
    Report {
        application: "/tmp/\x1b[2Jevil\nname".into(),
        original_destination: "[::1]:80".parse().unwrap(),
        protocol: Protocol::Silent,
        host: None,
        bytes_to_destination: 0,
        bytes_to_application: 0,
        chain: Vec::new(),
        verdict: Outcome::Unreachable,
        error: Some(describe(&io::Error::from_raw_os_error(111))),
        ..report()
    }
}

fn resolved() -> Report {
    let query = |name: &str, kind: &str, rcode: Option<&str>, addresses: &[&str]| QueryReport {
        name: name.into(),
        kind: kind.into(),
        rcode: rcode.map(str::to_owned),
        answers: addresses.len() as u16,
        addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
    };
    Report {
        original_destination: SocketAddr::from(([127, 0, 0, 53], 53)),
        protocol: Protocol::Dns,
        host: None,
        datagrams: Some(DatagramReport {
            transport: Transport::Udp,
            datagrams_to_destination: 2,
            datagrams_to_application: 1,
            datagrams_dropped: 0,
            queries: vec![
                query("example.test", "A", Some("NOERROR"), &["192.0.2.1"]),
                query("\u{1b}.test", "AAAA", None, &[]),
            ],
            unlisted_queries: 0,
        }),
        ..report()
    }
}

fn stopped() -> Report {
    Report {
        service: "scan".into(),
        verdict: Outcome::Stopped,
        pattern: Some("top\u{202e} \\xff \x1bsecret".into()),
        direction: Some(Direction::ToApplication),
        ..report()
    }
}

fn line(report: &Report) -> String {
    let mut line = Vec::new();
    report.write_line(&mut line).unwrap();
    String::from_utf8(line).unwrap()
}

#[test]
fn a_line_of_json() {
    assert_eq!(
        line(&report()),
        concat!(
            r#"{"time":"2023-11-14T22:13:20.123456Z","service":"log","flow":3,"application":"/usr/bin/curl","pid":4711,"#,
            r#""original_destination":"127.0.0.1:8080","protocol":"http","host":"example.test","#,
            r#""bytes_to_destination":78,"bytes_to_application":1256,"duration_us":3400,"#,
            r#""chain":["log","log-2"],"verdict":"forwarded"}"#,
            "\n"
        )
    );
}

#[test]
fn a_line_of_json_with_an_error_and_without_a_host() {
    assert_eq!(
        line(&failed()),
        concat!(
            r#"{"time":"2023-11-14T22:13:20.123456Z","service":"log","flow":3,"application":"/tmp/\u001b[2Jevil\nname","#,
            r#""pid":4711,"original_destination":"[::1]:80","protocol":"silent","host":null,"#,
            r#""bytes_to_destination":0,"bytes_to_application":0,"duration_us":3400,"chain":[],"#,
            r#""verdict":"unreachable","error":"ECONNREFUSED: Connection refused (os error 111)"}"#,
            "\n"
        )
    );
}

#[test]
fn a_line_of_json_of_a_stopped_connection() {
    let line = line(&stopped());
    let end = r#""verdict":"stopped","pattern":"top\u202e \\xff \u001bsecret","direction":"to-application"}"#;
    assert!(line.trim_end().ends_with(end), "{line}");
    assert!(Report::from_line(&line.replace("to-application", "sideways")).is_err());
}

#[test]
fn lines_are_read_back() {
    for report in [report(), failed(), stopped(), resolved()] {
        assert_eq!(Report::from_line(&line(&report)).unwrap(), report);
    }
    for line in ["", "{}", "[]", r#"{"time":"yesterday"}"#] {
        assert!(Report::from_line(line).is_err(), "{line}");
    }
}

#[test]
fn names_agree_with_the_lines() {
    use Protocol::{Dns, Http, Quic, ServerFirst, Silent, Tls, Unknown};
    for protocol in [Http, Tls, Dns, Quic, ServerFirst, Unknown, Silent] {
        assert_eq!(serde_json::to_value(protocol).unwrap(), protocol.name());
    }
    use Outcome::{Failed, Forwarded, Reset, Stopped, Unreachable};
    for outcome in [Forwarded, Reset, Unreachable, Stopped, Failed] {
        assert_eq!(serde_json::to_value(outcome).unwrap(), outcome.name());
    }
}

#[test]
fn a_line_for_people() {
    assert_eq!(
        report().human(),
        "log  curl[4711] → 127.0.0.1:8080  http example.test  ↑ 78 B  ↓ 1.2 KiB  3.4 ms  via log › log-2"
    );
    assert_eq!(
        failed().human(),
        concat!(
            r"log  \u{1b}[2Jevil\nname[4711] → [::1]:80  silent  ↑ 0 B  ↓ 0 B  3.4 ms",
            "  unreachable: ECONNREFUSED: Connection refused (os error 111)"
        )
    );
    assert_eq!(
        stopped().human().split_once("stopped: ").unwrap().1,
        r#""top\u{202e} \xff \u{1b}secret" on its way to the application (flow 3)"#
    );
}

#[test]
fn a_line_of_json_of_datagrams() {
    let line = line(&resolved());
    let part = concat!(
        r#""protocol":"dns","host":null,"transport":"udp","datagrams_to_destination":2,"datagrams_to_application":1,"#,
        r#""queries":[{"name":"example.test","type":"A","rcode":"NOERROR","answers":1,"addresses":["192.0.2.1"]},"#,
        r#"{"name":"\u001b.test","type":"AAAA","rcode":null,"answers":0,"addresses":[]}],"bytes_to_destination":78,"#,
    );
    assert!(line.contains(part), "{line}");
}

#[test]
fn a_line_for_people_of_datagrams() {
    assert_eq!(
        resolved().human(),
        concat!(
            r"log  curl[4711] → 127.0.0.53:53  dns A example.test NOERROR, AAAA \u{1b}.test no answer",
            "  ↑ 2: 78 B  ↓ 1: 1.2 KiB  3.4 ms  via log › log-2"
        )
    );
    let mut report = resolved();
    report.protocol = Protocol::Unknown;
    let datagrams = report.datagrams.as_mut().unwrap();
    datagrams.queries.clear();
    datagrams.datagrams_dropped = 7;
    let line = report.human();
    assert!(line.contains("  udp  ↑ 2: 78 B  ") && line.ends_with("  7 lost"), "{line}");
}
