//! Servers that end with the test.

use std::{
    fs,
    io::{self, Read},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use rustix::process::{Resource, getrlimit, setrlimit};
use socket2::{Domain, Socket, Type};
use tempfile::TempDir;

use crate::{
    ground::Ground,
    process::{Lines, Process, python},
};

const WEB_SERVER: &str = include_str!("../scripts/web_server.py");

/// A file that no compression makes smaller.
pub fn random_file(path: &Path, size: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    fs::File::open("/dev/urandom").unwrap().take(size).read_to_end(&mut bytes).unwrap();
    fs::write(path, &bytes).unwrap();
    bytes
}

/// A directory by HTTP/1.1.
#[derive(Debug)]
pub struct WebServer {
    address: SocketAddr,
    directory: PathBuf,
    log: Lines,
    _process: Process,
}

/// A certificate of its own making, with its key.
#[derive(Debug)]
pub struct Certificate {
    directory: TempDir,
}

impl WebServer {
    /// Serves `directory` on `ground`.
    pub fn start(ground: &Ground, directory: &Path) -> Self {
        Self::start_on(ground, ground.server(), directory)
    }

    /// Serves `directory` on an address of the server's host.
    pub fn start_on(ground: &Ground, address: IpAddr, directory: &Path) -> Self {
        Self::with(ground, address, directory, &[])
    }

    /// Serves `directory` with TLS.
    pub fn start_tls(ground: &Ground, directory: &Path, certificate: &Certificate) -> Self {
        let path = certificate.path();
        Self::with(ground, ground.server(), directory, &[path.to_str().unwrap()])
    }

    fn with(ground: &Ground, ip: IpAddr, directory: &Path, rest: &[&str]) -> Self {
        let mut command = match ground.server_namespace() {
            Some(namespace) => namespace.command(python()),
            None => Command::new(python()),
        };
        command.args(["-u", "-c", WEB_SERVER, &ip.to_string()]).arg(directory).args(rest);
        let (process, log) = Process::spawn_read(&mut command);
        let port = log.wait_for_line(0).parse().unwrap();
        let address = SocketAddr::new(ip, port);
        Self { address, directory: directory.into(), log, _process: process }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL of a file.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.address)
    }

    /// The requests so far, one a line: `PEER METHOD PATH VERSION`.
    pub fn requests(&self) -> Vec<String> {
        self.log.text().lines().skip(1).map(str::to_owned).collect()
    }

    /// Puts a random file where it is served.
    pub fn add_file(&self, name: &str, size: u64) -> Vec<u8> {
        random_file(&self.directory.join(name), size)
    }
}

impl Certificate {
    /// For one host.
    pub fn new(host: &str) -> Self {
        let directory = TempDir::new().unwrap();
        let status = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-batch", "-subj"])
            .arg(format!("/CN={host}"))
            .args(["-keyout", "key.pem", "-out", "certificate.pem"])
            .current_dir(&directory)
            .output()
            .unwrap();
        assert!(status.status.success(), "{status:?}");
        let certificate = Self { directory };
        let read = |name| fs::read_to_string(certificate.directory.path().join(name)).unwrap();
        fs::write(certificate.path(), read("key.pem") + &read("certificate.pem")).unwrap();
        certificate
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("both.pem")
    }
}

/// A bare repository by "dumb" HTTP: its files, over several connections.
#[derive(Debug)]
pub struct GitServer {
    web: WebServer,
    directory: TempDir,
}

impl GitServer {
    /// Makes a repository with a few commits of `size` random bytes each.
    pub fn start(ground: &Ground, size: u64) -> Self {
        let directory = TempDir::new().unwrap();
        let work = directory.path().join("work");
        fs::create_dir(&work).unwrap();
        Self::git(&work, &["init", "--quiet"]);
        for name in ["first", "second", "third"] {
            random_file(&work.join(name), size);
            Self::git(&work, &["add", "."]);
            Self::git(&work, &["commit", "--quiet", "--message", name]);
        }
        Self::git(directory.path(), &["clone", "--quiet", "--bare", "work", "repo.git"]);
        Self::git(&directory.path().join("repo.git"), &["update-server-info"]);
        let web = WebServer::start(ground, directory.path());
        Self { web, directory }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.web.address()
    }

    /// What to clone.
    pub fn url(&self) -> String {
        self.web.url("repo.git")
    }

    /// The files under version control.
    pub fn work_tree(&self) -> PathBuf {
        self.directory.path().join("work")
    }

    /// Runs git, without anybody's configuration, and returns what it prints.
    pub fn git(directory: &Path, args: &[&str]) -> String {
        let output = Command::new("git")
            .current_dir(directory)
            .args(["-c", "user.name=netlab", "-c", "user.email=netlab@example.test"])
            .args(args)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_SYSTEM", "/dev/null")
            .output()
            .unwrap();
        assert!(output.status.success(), "git {args:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }
}

/// The user whose process dialled an IPv4 connection of this host, as long as
/// the process has it.
pub fn dialler_of(accepted: &TcpStream) -> Option<u32> {
    let (own, peer) = (accepted.local_addr().ok()?, accepted.peer_addr().ok()?);
    let found = sockets()
        .into_iter()
        .find(|fields| (port(&fields[1]), port(&fields[2])) == (peer.port(), own.port()));
    found?[7].parse().ok()
}

/// How many connections wait for an IPv4 listener of this host to accept them.
pub fn waiting_for(listener: SocketAddr) -> u32 {
    const LISTEN: &str = "0A";
    let found =
        sockets().into_iter().find(|fields| fields[3] == LISTEN && port(&fields[1]) == listener.port());
    found.map_or(0, |fields| u32::from_str_radix(fields[4].split_once(':').unwrap().1, 16).unwrap())
}

/// Where a service listens for IPv4, by what it was told.
pub fn listeners_of(pid: u32) -> Vec<SocketAddr> {
    let environment = fs::read_to_string(format!("/proc/{pid}/environ")).unwrap();
    let value =
        |name: &str| environment.split('\0').find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    let (names, addresses) = (value("LISTEN_FDNAMES="), value("WAYLAY_LISTEN="));
    let sockets = names.split(':').zip(addresses.split(','));
    sockets.filter(|(name, _)| *name == "tcp4").map(|(_, address)| address.parse().unwrap()).collect()
}

/// A file that every user may read, with its directory.
pub fn world_readable_file(name: &str, text: &str) -> WorldReadable {
    let readable = |mode| PermissionsExt::from_mode(mode);
    let directory = tempfile::Builder::new().permissions(readable(0o755)).tempdir().unwrap();
    let path = directory.path().join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, readable(0o755)).unwrap();
    WorldReadable { path, _directory: directory }
}

/// A file that is removed with its owner.
#[derive(Debug)]
pub struct WorldReadable {
    path: PathBuf,
    _directory: TempDir,
}

impl WorldReadable {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// The lines of `/proc/net/tcp`: number, local and remote address, state,
/// queues, two timers, user, ...
fn sockets() -> Vec<Vec<String>> {
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    table.lines().skip(1).map(|line| line.split_whitespace().map(str::to_owned).collect()).collect()
}

fn port(address: &str) -> u16 {
    u16::from_str_radix(address.split_once(':').unwrap().1, 16).unwrap()
}

/// A server of a few lines, in a thread of the test.
#[derive(Debug)]
pub struct TcpServer {
    address: SocketAddr,
    accepted: Arc<AtomicUsize>,
}

impl TcpServer {
    /// Serves each connection in a thread of its own. A client that goes away
    /// ends `serve` with an error, which is no failure.
    pub fn start(
        address: IpAddr,
        serve: impl Fn(TcpStream) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        Self::on(TcpListener::bind((address, 0)).unwrap(), serve)
    }

    /// On the IPv4 loopback, with room for many that have not been accepted, and
    /// with as many descriptors as the test's process may have.
    pub fn with_backlog(
        backlog: i32,
        serve: impl Fn(TcpStream) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let mut limit = getrlimit(Resource::Nofile);
        limit.current = limit.maximum;
        setrlimit(Resource::Nofile, limit).unwrap();
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
        socket.listen(backlog).unwrap();
        Self::on(socket.into(), serve)
    }

    fn on(
        listener: TcpListener,
        serve: impl Fn(TcpStream) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let address = listener.local_addr().unwrap();
        let accepted = Arc::new(AtomicUsize::new(0));
        let (count, serve) = (Arc::clone(&accepted), Arc::new(serve));
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                count.fetch_add(1, Ordering::SeqCst);
                let serve = Arc::clone(&serve);
                thread::spawn(move || serve(stream));
            }
        });
        Self { address, accepted }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections have arrived.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }
}
