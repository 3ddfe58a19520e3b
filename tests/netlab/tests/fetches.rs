//! Real programs through one, two and three services: they get what the server
//! has, and every service reports whom they talk to. `docs/tried.md` lists them.

#![expect(clippy::unwrap_used, reason = "a failed set-up is a failed test")]

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    process::Command,
};

use tempfile::TempDir;
use waylay_netlab::{Family, Finished, GitServer, Ground, Place, Report, WebServer, python};

const MIB: u64 = 1 << 20;
const FILE_SIZE: u64 = 3 * MIB;

/// The programs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum App {
    Curl,
    Wget,
    Python,
    Node,
    Java,
    /// Linked statically: nothing of the C library's can be replaced.
    Busybox,
    Git,
    Chromium,
}

macro_rules! fetches {
    ($($app:ident $module:ident),+ $(,)?) => {
        $(mod $module {
            use super::*;

            fetches!(@ $app:
                one_v4_loopback(1, V4, Loopback), one_v6_loopback(1, V6, Loopback),
                one_v4_network(1, V4, Veth), one_v6_network(1, V6, Veth),
                two_v4_loopback(2, V4, Loopback), two_v6_loopback(2, V6, Loopback),
                two_v4_network(2, V4, Veth), two_v6_network(2, V6, Veth),
                three_v4_loopback(3, V4, Loopback), three_v6_loopback(3, V6, Loopback),
                three_v4_network(3, V4, Veth), three_v6_network(3, V6, Veth),
            );
        })+
    };
    (@ $app:ident: $($name:ident($services:expr, $family:ident, $place:ident)),+ $(,)?) => {
        $(
            #[test]
            fn $name() {
                fetch(App::$app, $services, Family::$family, Place::$place);
            }
        )+
    };
}

fetches! {
    Curl curl_through,
    Wget wget_through,
    Python python_through,
    Node node_through,
    Java java_through,
    Busybox busybox_through,
    Git git_through,
    Chromium chromium_through,
}

fn fetch(app: App, services: usize, family: Family, place: Place) {
    let ground = Ground::new(family, place);
    match app {
        App::Git => clone_repository(services, &ground),
        App::Chromium => browse(services, &ground),
        App::Curl | App::Wget | App::Python | App::Node | App::Java | App::Busybox => {
            fetch_file(app, services, &ground)
        }
    }
}

fn fetch_file(app: App, services: usize, ground: &Ground) {
    let directory = TempDir::new().unwrap();
    let web = WebServer::start(ground, directory.path());
    let content = web.add_file("file", FILE_SIZE);
    let finished =
        ground.waylay().through_logs(services).reporting().watch(app.fetch(&web.url("file"))).well();
    assert!(finished.file("got") == content, "the file differs");
    check_reports(&finished, app, services, web.address());
    assert_eq!(finished.reports().len(), services, "{:#?}", finished.reports());
}

fn clone_repository(services: usize, ground: &Ground) {
    let server = GitServer::start(ground, MIB);
    let clone = ["git", "clone", "--quiet", &server.url(), "got"];
    let finished = ground.waylay().through_logs(services).reporting().watch(clone).well();
    let (theirs, ours) = (server.work_tree(), finished.directory().join("got"));
    let ask = |question: &[&str]| (GitServer::git(&theirs, question), GitServer::git(&ours, question));
    for question in [&["rev-parse", "HEAD"][..], &["ls-tree", "-r", "HEAD"]] {
        let (theirs, ours) = ask(question);
        assert_eq!(ours, theirs);
    }
    for name in ["first", "second", "third"] {
        assert!(fs::read(theirs.join(name)).unwrap() == fs::read(ours.join(name)).unwrap(), "{name} differs");
    }
    check_reports(&finished, App::Git, services, server.address());
}

/// Loads the file within a page and shows a checksum of it; the page is printed when it is complete.
const PAGE: &str = "\
<body><script>
const request = new XMLHttpRequest();
request.open('GET', 'file', false);
request.overrideMimeType('text/plain; charset=x-user-defined');
request.send();
let [a, b] = [1, 0];
for (const c of request.responseText) {
    a = (a + (c.charCodeAt(0) & 255)) % 65521;
    b = (b + a) % 65521;
}
document.body.textContent = `adler ${request.responseText.length} ${a} ${b}`;
</script></body>
";

/// What the page shows for `content`.
fn adler(content: &[u8]) -> String {
    let sum =
        |(a, b), byte: &u8| ((a + u32::from(*byte)) % 65521, (b + (a + u32::from(*byte)) % 65521) % 65521);
    let (a, b) = content.iter().fold((1, 0), sum);
    format!("adler {} {a} {b}", content.len())
}

/// Without background traffic of the browser's own, which there is no network for.
const CHROMIUM: [&str; 11] = [
    "chromium",
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--user-data-dir=profile",
    "--dump-dom",
];

fn browse(services: usize, ground: &Ground) {
    let directory = TempDir::new().unwrap();
    let web = WebServer::start(ground, directory.path());
    let content = web.add_file("file", FILE_SIZE);
    fs::write(directory.path().join("page.html"), PAGE).unwrap();
    let url = web.url("page.html");
    let browse = CHROMIUM.into_iter().chain([url.as_str()]);
    let finished = ground.waylay().through_logs(services).reporting().watch(browse).well();
    assert!(finished.stdout.contains(&adler(&content)), "the file differs: {finished:?}");
    check_reports(&finished, App::Chromium, services, web.address());
}

impl App {
    /// Its command line to save `url` in the file `got`.
    fn fetch(self, url: &str) -> Vec<&str> {
        const PYTHON: &str = "import sys, urllib.request; urllib.request.urlretrieve(sys.argv[1], 'got')";
        const NODE: &str = "
            const { createWriteStream } = require('fs');
            const agent = new (require('http').Agent)();
            require('http').get(process.argv[1], { agent }, answer => answer.pipe(createWriteStream('got')));";
        match self {
            Self::Curl => vec!["curl", "--silent", "--show-error", "--output", "got", url],
            Self::Wget => vec!["wget", "--quiet", "--output-document", "got", url],
            Self::Python => vec![python(), "-c", PYTHON, url],
            Self::Node => vec!["node", "-e", NODE, url],
            Self::Java => {
                vec!["java", concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/Fetch.java"), url, "got"]
            }
            Self::Busybox => vec!["/bin/busybox", "wget", "-q", "-O", "got", url],
            Self::Git | Self::Chromium => unreachable!("they fetch more than a file"),
        }
    }

    /// A browser opens connections which it may never need, and at its end leaves
    /// those it has without a word.
    fn ends_as(self, verdict: &str) -> bool {
        verdict == "forwarded" || (self == Self::Chromium && verdict == "reset")
    }

    fn is(self, path: &str) -> bool {
        match self {
            Self::Curl => path.ends_with("/curl"),
            Self::Wget => path.ends_with("/wget"),
            Self::Python => path == python(),
            Self::Node => path.ends_with("/node"),
            Self::Java => path.ends_with("/java"),
            Self::Busybox => path.ends_with("/busybox"),
            Self::Git => path.ends_with("/git-remote-http"),
            Self::Chromium => path.contains("chromium"),
        }
    }
}

/// Each service saw each connection, on its way to the server, at its place of the chain.
fn check_reports(finished: &Finished, app: App, services: usize, server: SocketAddr) {
    let chain = &["log", "log-2", "log-3"][..services];
    let mut connections = finished.reports_of("log").len();
    for (place, name) in chain.iter().enumerate() {
        let reports = finished.reports_of(name);
        let before = std::mem::replace(&mut connections, reports.len());
        assert!(reports.len() == before || app == App::Chromium, "{before} before, then {reports:#?}");
        let aside = |report: &Report| ["silent", "dns"].contains(&report.protocol.as_str());
        for report in reports.iter().filter(|report| app != App::Chromium || !aside(report)) {
            assert_eq!(report.original_destination, server, "{report:?}");
            assert_eq!(report.chain, chain[..=place], "{report:?}");
            assert!(app.is(&report.application), "{report:?}");
            assert_eq!(report.protocol, "http", "{report:?}");
            assert!(app.ends_as(&report.verdict), "{report:?}");
            assert_eq!(report.host.as_deref(), Some(host(server.ip()).as_str()), "{report:?}");
            assert!(report.bytes_to_destination > 0, "{report:?}");
        }
        assert!(bytes_to_application(&reports) >= FILE_SIZE, "{reports:#?}");
    }
}

fn host(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    }
}

fn bytes_to_application(reports: &[Report]) -> u64 {
    reports.iter().map(|report| report.bytes_to_application).sum()
}

#[test]
fn the_static_program_is_static() {
    let output = Command::new("ldd").arg("/bin/busybox").output().unwrap();
    assert!(!output.status.success(), "{output:?}");
}
