//! Programs that know nothing of waylay as services of it: HAProxy, nginx and redsocks as Debian ships them, configured
//! as `docs/adopt` says. No firewall rule, no patch, no privilege.

#![expect(clippy::unwrap_used, reason = "a failed set-up is a failed test")]

mod asker;
mod chains;
mod datagrams;
mod edges;
mod inside;
mod life;
mod others;
mod packets;
mod residents;
mod rootless;
mod selves;
mod starts;
mod tproxy;

use std::net::IpAddr;

use tempfile::TempDir;
use waylay_netlab::{Family, Finished, Ground, Place, Proxies, Proxy, Waylay, WebServer};

/// Clients, a server with a file, and the proxies beside the clients.
struct Stage {
    ground: Ground,
    proxies: Proxies,
    web: WebServer,
    file: Vec<u8>,
    _directory: TempDir,
}

/// More than a proxy's buffers.
const FILE_BYTES: u64 = 1 << 20;

impl Stage {
    fn new(family: Family, place: Place) -> Self {
        let ground = Ground::new(family, place);
        let directory = TempDir::new().unwrap();
        let web = WebServer::start(&ground, directory.path());
        let proxies = Proxies::new(ground.client_namespace());
        let file = web.add_file("file", FILE_BYTES);
        Self { ground, proxies, web, file, _directory: directory }
    }

    /// Gets the file through these services. It arrives, and the server has been asked for it once.
    fn fetch(&self, through: &[String]) -> Finished {
        self.fetch_by(self.ground.waylay(), through)
    }

    fn fetch_by(&self, waylay: Waylay, through: &[String]) -> Finished {
        let requests = self.web.requests().len();
        let finished = waylay
            .args(through.iter().flat_map(|spec| ["--through", spec]))
            .reporting()
            .watch(["curl", "-sS", "-o", "got", &self.web.url("file")])
            .well();
        assert!(finished.file("got") == self.file, "another file: {finished:?}");
        assert_eq!(self.web.requests().len(), requests + 1, "{finished:?}");
        finished
    }
}

fn log() -> String {
    "log".to_owned()
}

/// What a report says of who dialled and where to.
fn seen(finished: &Finished, service: &str) -> (String, IpAddr, u16) {
    let report = finished.report_of(service);
    assert_eq!(report.verdict, "forwarded", "{report:?}");
    let program = report.application.rsplit('/').next().unwrap().to_owned();
    (program, report.original_destination.ip(), report.original_destination.port())
}

/// What a service says that comes after these proxies: the last of them is the application, and from redsocks on the
/// destination is the SOCKS server.
fn dials_for_itself(after: &[Proxy], finished: &Finished, service: &str, stage: &Stage) {
    let (program, ip, port) = seen(finished, service);
    assert_eq!(Some(program.as_str()), after.last().map(|proxy| proxy.name()));
    if after.contains(&Proxy::Redsocks) {
        assert!(ip.is_loopback() && port == stage.proxies.socks_port(), "{ip}, {port}");
    } else {
        assert_eq!((ip, port), (stage.web.address().ip(), stage.web.address().port()));
    }
}
