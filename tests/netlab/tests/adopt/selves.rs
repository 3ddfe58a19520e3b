//! Proxies that dial themselves, which is how transparent proxies loop, and whoever dials one past the engine.

use std::{
    io::Read,
    net::{Ipv4Addr, TcpStream},
};

use waylay_netlab::{Family, Finished, Ground, Place, Proxies, Proxy, TcpServer, free_port, patiently};

/// HAProxy with a fixed server.
fn to(bind: &str, server: &str) -> String {
    format!(
        "defaults\n  mode tcp\n  timeout connect 10s\n  timeout client 1m\n  timeout server 1m\n  retries 0\n\
         listen all\n  bind {bind}\n  server fixed {server}\n"
    )
}

const READ: &str = "
import socket, sys
s = socket.create_connection((sys.argv[1], int(sys.argv[2])))
try:
    print(len(s.recv(100)))
except ConnectionError:
    print(0)
";

/// Connects to `host`, reads, and says how much came.
fn read(ground: &Ground, spec: &str, host: &str, port: u16) -> Finished {
    let args = ["--through", spec, "--through", "log"];
    ground
        .waylay()
        .args(args)
        .reporting()
        .watch(["/usr/bin/python3", "-c", READ, host, &port.to_string()])
        .well()
}

/// A proxy that listens on `bind` and dials `server`, each `PORT` being its own; it is refused once and nobody after it
/// sees a connection.
fn is_refused(ground: &Ground, listens: &str, bind: &str, server: &str) {
    let (proxies, port) = (Proxies::new(ground.client_namespace()), free_port());
    let own = |text: &str| text.replace("PORT", &port.to_string());
    let command = proxies.command(Proxy::Haproxy, port, &to(&own(bind), &own(server)));
    let finished = read(ground, &format!("loop=adopt:{}={command}", own(listens)), "127.0.0.9", 9);
    assert_eq!(finished.stdout, "0\n", "{finished:?}");
    let refusals = finished.stderr.matches("was dialled past the engine (loop)").count();
    assert_eq!(refusals, 1, "{finished:?}");
    assert_eq!(finished.reports(), []);
}

#[test]
fn a_proxy_that_dials_its_own_listener_is_refused() {
    is_refused(&Ground::loopback(), "127.0.0.1:PORT", "127.0.0.1:PORT", "127.0.0.1:PORT");
}

#[test]
fn a_proxy_that_dials_itself_by_the_unspecified_address_is_refused() {
    is_refused(&Ground::loopback(), "0.0.0.0:PORT", "0.0.0.0:PORT", "127.0.0.1:PORT");
    is_refused(&Ground::loopback(), "[::]:PORT", ":::PORT v4v6", "[::ffff:127.0.0.1]:PORT");
}

#[test]
fn a_proxy_that_dials_itself_by_another_address_of_the_loopback_is_refused() {
    is_refused(&Ground::loopback(), "0.0.0.0:PORT", "0.0.0.0:PORT", "127.0.0.77:PORT");
    is_refused(&Ground::loopback(), "127.0.0.1:PORT", "0.0.0.0:PORT", "127.0.0.77:PORT");
}

#[test]
fn a_proxy_that_dials_itself_by_an_address_of_a_device_is_refused() {
    let ground = Ground::new(Family::V4, Place::Veth);
    is_refused(&ground, "0.0.0.0:PORT", "0.0.0.0:PORT", "10.77.0.1:PORT");
    is_refused(&ground, "[::]:PORT", ":::PORT v4v6", "[fd00:77::1]:PORT");
}

/// Elsewhere its port is a port like any other.
#[test]
fn the_port_of_a_proxy_that_listens_everywhere_is_reached_on_other_hosts() {
    let ground = Ground::new(Family::V4, Place::Veth);
    let (proxies, port) = (Proxies::new(ground.client_namespace()), free_port());
    let mut server = ground.server_namespace().unwrap().command("/usr/bin/python3");
    let serve = "import socket, sys
s = socket.create_server(('10.77.0.2', int(sys.argv[1])))
print('ready', flush=True)
while True: s.accept()[0].sendall(b'hello')";
    let (_server, lines) = waylay_netlab::Process::spawn_read(server.args(["-c", serve, &port.to_string()]));
    lines.wait_for_line(0);
    let configuration = proxies.documented(Proxy::Nginx).0;
    let documented = configuration.split("listen 0.0.0.0:").nth(1).unwrap().split(';').next().unwrap();
    let spec = proxies.with(Proxy::Nginx, port, &configuration.replace(documented, &port.to_string()));
    let finished = read(&ground, &spec, "10.77.0.2", port);
    assert_eq!(finished.stdout, "5\n", "{finished:?}");
}

/// Without the switch nginx is shown its own listener's address for each destination.
#[test]
fn a_proxy_that_asks_in_a_way_nobody_answers_is_refused() {
    let ground = Ground::loopback();
    let proxies = Proxies::new(None);
    let spec = proxies.spec(Proxy::Nginx).replace("adopt/tproxy:", "adopt:");
    let finished = read(&ground, &spec, "127.0.0.9", 9);
    assert_eq!(finished.stdout, "0\n", "{finished:?}");
    assert!(finished.stderr.contains("was dialled past the engine (nginx)"), "{finished:?}");
    assert_eq!(finished.reports(), []);
}

#[test]
fn a_proxy_dialled_from_outside_of_the_run_dials_nobody() {
    let ground = Ground::loopback();
    let proxies = Proxies::new(None);
    let (configuration, port) = proxies.documented(Proxy::Nginx);
    let spec = proxies.with(Proxy::Nginx, port, &configuration);
    let mut run = ground.waylay().args(["--through", &spec, "--through", "log"]).reporting().spawn_dialler();
    let server = TcpServer::start(Ipv4Addr::LOCALHOST.into(), |mut stream| {
        std::io::Write::write_all(&mut stream, b"hello")
    });
    assert_eq!(run.ask(&format!("dial 127.0.0.1 {}", server.address().port())), "ok");
    for address in ["127.0.0.1", "127.0.0.5"] {
        let mut stranger = TcpStream::connect(format!("{address}:{port}")).unwrap();
        // A reset or an orderly end.
        assert_eq!(stranger.read(&mut [0; 64]).unwrap_or(0), 0, "{address}");
    }
    assert_eq!(run.ask(&format!("dial 127.0.0.1 {port}")), "ECONNREFUSED");
    assert_eq!(run.ask(&format!("dial 127.0.0.5 {port}")), "ECONNREFUSED");
    patiently("the refusals", || {
        (run.stderr().text().matches("past the engine (nginx)").count() == 4).then_some(())
    });
    assert_eq!(run.finish().well().reports().len(), 1);
    assert_eq!(server.accepted(), 1);
}
