//! The redirection of others: nftables' REDIRECT, in network namespaces of its own.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    process::Stdio,
};

use tempfile::TempDir;
use waylay_benches::{Seat, peer, seat_binary};
use waylay_netlab::{Namespace, Process};

/// HAProxy's own connections are known by it.
const HAPROXY_USER: &str = "nobody";

/// A client and a server in a network namespace, with or without a redirection between them.
pub(crate) struct Redirecting {
    client: Seat,
    target: SocketAddr,
    _server: Process,
    _proxy: Option<(Process, TempDir)>,
    /// Dropped last: what is inside keeps it in use.
    _namespace: Namespace,
}

impl Redirecting {
    /// The client dials the server: a `server` or a `sink`.
    pub(crate) fn nothing(server: &str) -> Self {
        Self::new(server, |_, server| (server, None))
    }

    /// The client dials `target` and is redirected to the server.
    pub(crate) fn by_nftables(server: &str, target: SocketAddr) -> Self {
        let which = format!("ip daddr {} tcp dport {}", target.ip(), target.port());
        Self::by_rules(server, target, |port| redirection(&which, port))
    }

    /// The same by rules that are made for the server's port.
    pub(crate) fn by_rules(server: &str, target: SocketAddr, rules: impl FnOnce(u16) -> String) -> Self {
        Self::new(server, |namespace, server| {
            load(namespace, &rules(server.port()));
            (target, None)
        })
    }

    /// The client dials the server and is redirected to HAProxy, which asks the kernel where it wanted to go.
    pub(crate) fn to_haproxy(server: &str) -> Self {
        const PORT: u16 = 7001;
        Self::new(server, |namespace, server| {
            let others = format!("meta skuid != {HAPROXY_USER} tcp dport {}", server.port());
            load(namespace, &redirection(&others, PORT));
            (server, Some(haproxy(namespace, PORT)))
        })
    }

    fn new(
        server: &str,
        arrange: impl FnOnce(&Namespace, SocketAddr) -> (SocketAddr, Option<(Process, TempDir)>),
    ) -> Self {
        let namespace = Namespace::new();
        // Addresses that nobody has need a route before they are redirected.
        namespace.ip(&["route", "add", "default", "dev", "lo"]);
        let seat = seat_binary();
        let mut command = namespace.command(seat.to_str().unwrap());
        command.args([server, "127.0.0.1:0"]);
        let mut server = Process::spawn(command.stdout(Stdio::piped()));
        let mut line = String::new();
        BufReader::new(server.child().stdout.take().unwrap()).read_line(&mut line).unwrap();
        let (target, proxy) = arrange(&namespace, line.trim().parse().unwrap());
        let client = Seat::start(namespace.command(seat.to_str().unwrap()).arg("client"));
        Self { client, target, _server: server, _proxy: proxy, _namespace: namespace }
    }

    pub(crate) fn dial(&mut self, count: u32) -> f64 {
        self.client.dial(self.target, count)
    }

    pub(crate) fn greet(&mut self, count: u32) -> f64 {
        self.client.greet(self.target, count, 1).0
    }
}

fn redirection(which: &str, port: u16) -> String {
    format!(
        "table ip waylay_bench {{\n  chain output {{\n    type nat hook output priority -100;\n    \
         {which} redirect to :{port}\n  }}\n}}\n"
    )
}

fn load(namespace: &Namespace, rules: &str) {
    let mut nft = namespace.within(&peer("nft"));
    let mut nft = Process::spawn(nft.args(["-f", "-"]).stdin(Stdio::piped()));
    nft.child().stdin.take().unwrap().write_all(rules.as_bytes()).unwrap();
    assert!(nft.child().wait().unwrap().success(), "{}", rules.get(..2000).unwrap_or(rules));
}

/// HAProxy with one thread, listening once this returns.
fn haproxy(namespace: &Namespace, port: u16) -> (Process, TempDir) {
    let directory = TempDir::new().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let configuration = directory.path().join("haproxy.cfg");
    let text = format!(
        "global\n  nbthread 1\n  maxconn 5000\n  user {HAPROXY_USER}\n  group nogroup\n\
         defaults\n  mode tcp\n  timeout connect 10s\n  timeout client 60s\n  timeout server 60s\n\
         listen all\n  bind 127.0.0.1:{port} transparent\n  server original 0.0.0.0:0\n"
    );
    fs::write(&configuration, text).unwrap();
    let mut command = namespace.within(&peer("haproxy"));
    let process = Process::spawn(command.args(["-q", "-db"]).arg("-f").arg(configuration));
    waylay_netlab::patiently("HAProxy", || {
        let listening = namespace.command("ss").args(["-Hltn", &format!("sport = :{port}")]).output();
        (!listening.unwrap().stdout.is_empty()).then_some(())
    });
    (process, directory)
}
