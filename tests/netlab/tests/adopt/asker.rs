//! What a program is told of the connections it accepts, by each way of asking that transparent proxies have.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener},
    sync::LazyLock,
};

use serde_json::Value;
use waylay_netlab::{Ground, WorldReadable, free_port, python, system_python, world_readable_file};

const ASKER: &str = include_str!("../../scripts/asker.py");
/// Prints what each of these addresses answers.
const READ: &str = "
import socket, sys
for word in sys.argv[1:]:
    host, port = word.split(',')
    s = socket.socket(socket.AF_INET6 if ':' in host else socket.AF_INET)
    s.connect((host, int(port)))
    print(s.makefile().readline().strip())
";

/// Where somebody listens at every address: elsewhere on the loopback a connection would be refused before any service
/// is asked. The asker answers by itself, and nobody gets here.
static DESTINATION: LazyLock<TcpListener> =
    LazyLock::new(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).unwrap());

fn port_there() -> u16 {
    DESTINATION.local_addr().unwrap().port()
}

fn asker() -> WorldReadable {
    world_readable_file("asker.py", ASKER)
}

/// What it is told of connections to these destinations, one after the other.
fn told(place: &str, host: &str, destinations: &[&str]) -> Vec<Value> {
    let (program, port) = (asker(), free_port());
    let command = format!("{} {} {host} {port}", system_python(), program.path().display());
    let spec = format!("asker={}={command}", place.replace("PORT", &port.to_string()));
    let destinations = destinations.iter().map(|host| format!("{host},{}", port_there()));
    let watched = [python().to_owned(), "-c".into(), READ.into()].into_iter().chain(destinations);
    let finished = Ground::loopback().waylay().args(["--through", &spec]).watch(watched).well();
    finished.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Where it was going, as `getsockname` of the asker shows addresses.
fn is(value: &Value, host: &str) -> bool {
    let text = value.as_str().unwrap();
    let Some((ip, port)) = text.split_once(' ') else { return false };
    let shown = SocketAddr::new(ip.parse::<IpAddr>().unwrap(), port.parse().unwrap());
    shown == SocketAddr::new(host.parse().unwrap(), port_there())
}

#[test]
fn so_original_dst_says_where_an_ipv4_connection_was_going() {
    let asked = ["127.0.0.1", "127.7.7.7", "::ffff:127.0.0.3"];
    let wanted = ["127.0.0.1", "127.7.7.7", "127.0.0.3"];
    for (told, wanted) in told("adopt:127.0.0.1:PORT", "127.0.0.1", &asked).iter().zip(wanted) {
        assert!(is(&told["so_original_dst"], wanted), "{told}");
        assert!(!is(&told["getsockname"], wanted), "{told}");
    }
}

#[test]
fn each_family_has_its_option_on_a_listener_of_both() {
    let told = told("adopt:[::]:PORT", "::", &["127.7.7.7", "::1"]);
    assert!(is(&told[0]["so_original_dst"], "127.7.7.7"), "{told:?}");
    assert!(is(&told[0]["ip6t_so_original_dst"], "::ffff:127.7.7.7"), "{told:?}");
    assert!(is(&told[1]["ip6t_so_original_dst"], "::1"), "{told:?}");
    assert_eq!(told[1]["so_original_dst"], "ENOENT");
    for told in &told {
        assert!(!is(&told["getsockname"], "::1") && !is(&told["getsockname"], "::ffff:127.7.7.7"), "{told}");
    }
}

#[test]
fn a_buffer_that_is_too_short_is_refused_as_by_linux() {
    let told = told("adopt:127.0.0.1:PORT", "127.0.0.1", &["127.7.7.7"]);
    assert_eq!(told[0]["short"], "EINVAL");
}

#[test]
fn getsockname_says_so_to_those_that_go_by_it() {
    let four = told("adopt/tproxy:127.0.0.1:PORT", "127.0.0.1", &["127.7.7.7"]);
    assert!(is(&four[0]["getsockname"], "127.7.7.7"), "{four:?}");
    let both = told("adopt/tproxy:[::]:PORT", "::", &["127.7.7.7", "::1"]);
    assert!(is(&both[0]["getsockname"], "::ffff:127.7.7.7"), "{both:?}");
    assert!(is(&both[1]["getsockname"], "::1"), "{both:?}");
}

#[test]
fn transparency_is_granted_to_those_that_go_by_getsockname_and_to_nobody_else() {
    assert_eq!(told("adopt/tproxy:127.0.0.1:PORT", "127.0.0.1", &["127.7.7.7"])[0]["transparent"], "ok");
    assert_eq!(told("adopt/tproxy:[::1]:PORT", "::1", &["::1"])[0]["transparent"], "ok");
    assert_eq!(told("adopt:127.0.0.1:PORT", "127.0.0.1", &["127.7.7.7"])[0]["transparent"], "EPERM");
    let ask = "import socket; socket.socket().setsockopt(0, 19, 1)";
    let (program, port) = (asker(), free_port());
    let command = format!("{} {} 127.0.0.1 {port}", system_python(), program.path().display());
    let spec = format!("asker=adopt/tproxy:127.0.0.1:{port}={command}");
    let unprivileged =
        ["setpriv", "--reuid", "65534", "--clear-groups", "--bounding-set", "-all", "--inh-caps", "-all"];
    let watched = unprivileged.into_iter().chain([system_python(), "-c", ask]);
    let finished = Ground::loopback().waylay().args(["--through", &spec]).watch(watched);
    assert!(finished.stderr.contains("PermissionError"), "{finished:?}");
}
