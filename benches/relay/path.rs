//! A way from a client to the server, with counters on it.

use std::{
    fs,
    net::SocketAddr,
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use tempfile::TempDir;
use waylay_benches::{Cage, Seat, cpu_of, seat_binary};
use waylay_netlab::{Instance, Namespace, Process, Waylay, patiently};

use crate::peers;

/// What is between client and server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Direct,
    Relay,
    Run,
    Haproxy,
    Nginx,
    Tokio,
}

impl Kind {
    pub(crate) const ALL: [Self; 6] =
        [Self::Direct, Self::Relay, Self::Run, Self::Haproxy, Self::Nginx, Self::Tokio];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Direct => "directly",
            Self::Relay => "waylay-relay",
            Self::Run => "waylay run --through log",
            Self::Haproxy => "HAProxy, splice forced",
            Self::Nginx => "nginx stream",
            Self::Tokio => "tokio, copy_bidirectional",
        }
    }

    fn port(self) -> u16 {
        7100 + self as u16
    }
}

/// The namespace and the server.
pub(crate) struct World {
    server: SocketAddr,
    server_cage: Cage,
    _server: Process,
    namespace: Namespace,
}

impl World {
    pub(crate) fn new() -> Self {
        let namespace = Namespace::new();
        // One that does not pace, on a device without a bottleneck; every kernel has it.
        namespace.sysctl("net/ipv4/tcp_congestion_control", "reno");
        let cage = Cage::new("server");
        let server = SocketAddr::from(([127, 0, 0, 1], 7000));
        let mut command = seat(&["server", &server.to_string()]);
        command = namespace.within(&cage.around(&command));
        let process = Process::spawn(command.stdout(Stdio::null()));
        let world = Self { server, server_cage: cage, _server: process, namespace };
        world.wait_for(server.port());
        world
    }

    fn wait_for(&self, port: u16) {
        patiently("a listener", || {
            let listening =
                self.namespace.command("ss").args(["-Hltn", &format!("sport = :{port}")]).output();
            (!listening.unwrap().stdout.is_empty()).then_some(())
        });
    }
}

fn seat(arguments: &[&str]) -> Command {
    let mut command = Command::new(seat_binary());
    command.args(arguments);
    command
}

/// A proxy with a client before it.
pub(crate) struct Path<'w> {
    kind: Kind,
    world: &'w World,
    target: SocketAddr,
    seat: Seat,
    /// The cgroups of the client and of the proxy, if there is one.
    client: PathBuf,
    proxy: Option<PathBuf>,
    _running: Option<Process>,
    _cages: Vec<Cage>,
    _files: TempDir,
}

impl<'w> Path<'w> {
    pub(crate) fn new(world: &'w World, kind: Kind) -> Self {
        match kind {
            Kind::Run => Self::through_a_run(world),
            Kind::Direct | Kind::Relay | Kind::Haproxy | Kind::Nginx | Kind::Tokio => {
                Self::through_a_proxy(world, kind)
            }
        }
    }

    fn through_a_proxy(world: &'w World, kind: Kind) -> Self {
        let files = peers::directory();
        let address = SocketAddr::from(([127, 0, 0, 1], kind.port()));
        let (listen, upstream) = (address.to_string(), world.server.to_string());
        let command = match kind {
            Kind::Direct | Kind::Run => None,
            Kind::Relay => Some(seat(&["proxy", "waylay", &listen, &upstream])),
            Kind::Tokio => Some(seat(&["proxy", "tokio", &listen, &upstream])),
            Kind::Haproxy => Some(peers::haproxy(files.path(), &listen, &upstream)),
            Kind::Nginx => Some(peers::nginx(files.path(), &listen, &upstream)),
        };
        let cages: Vec<Cage> = ["client", "proxy"].map(|part| Cage::new(&format!("{part}-{kind:?}"))).into();
        let running = command.map(|command| {
            let process = Process::spawn(&mut world.namespace.within(&cages[1].around(&command)));
            world.wait_for(kind.port());
            process
        });
        let seat = Seat::start(&mut world.namespace.within(&cages[0].around(&seat(&["client"]))));
        Self {
            kind,
            world,
            target: if running.is_some() { address } else { world.server },
            seat,
            client: cages[0].path().to_owned(),
            proxy: running.is_some().then(|| cages[1].path().to_owned()),
            _running: running,
            _cages: cages,
            _files: files,
        }
    }

    fn through_a_run(world: &'w World) -> Self {
        let files = peers::directory();
        let mut command = world.namespace.command(Waylay::binary().to_str().unwrap());
        command.args(["run", "-o", "json", "--log"]).arg(files.path().join("reports"));
        let seat = Seat::start(command.args(["--through", "log", "--"]).arg(seat_binary()).arg("client"));
        let cgroup = Instance::of_waylay(seat.id()).expect("a run").cgroup().to_owned();
        Self {
            kind: Kind::Run,
            world,
            target: world.server,
            seat,
            client: cgroup.join("app"),
            proxy: Some(cgroup.join("svc-log")),
            _running: None,
            _cages: Vec::new(),
            _files: files,
        }
    }

    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// Does something: what it returned, and the processor time of the proxy and of all three meanwhile.
    fn measured<T>(
        &mut self,
        act: impl FnOnce(&mut Seat, SocketAddr) -> T,
    ) -> (T, Option<Duration>, Duration) {
        let before = self.cpu();
        let done = act(&mut self.seat, self.target);
        let after = self.cpu();
        let [client, proxy, server] = [0, 1, 2].map(|part| after[part] - before[part]);
        (done, self.proxy.is_some().then_some(proxy), client + proxy + server)
    }

    fn cpu(&self) -> [Duration; 3] {
        let proxy = self.proxy.as_deref().map_or(Duration::ZERO, cpu_of);
        [cpu_of(&self.client), proxy, self.world.server_cage.cpu()]
    }

    pub(crate) fn bulk(&mut self, way: &str, bytes: u64, streams: u64) -> Vec<Option<f64>> {
        let (took, proxy, all) = self.measured(|seat, target| seat.bulk(way, target, bytes, streams as u32));
        let gigabytes = (bytes * streams) as f64 / 1e9;
        let rate = gigabytes * 8.0 / took.as_secs_f64();
        let each = |time: Duration| time.as_secs_f64() / gigabytes;
        vec![Some(rate), proxy.map(each), Some(each(all))]
    }

    pub(crate) fn ping(&mut self, count: u32) -> Vec<Option<f64>> {
        let (median, proxy, _) = self.measured(|seat, target| seat.ping(target, count));
        vec![Some(median), proxy.map(|time| micros_each(time, count))]
    }

    pub(crate) fn greet(&mut self, count: u32, clients: u32) -> Vec<Option<f64>> {
        let ((_, rate), proxy, _) = self.measured(|seat, target| seat.greet(target, count, clients));
        vec![Some(rate), proxy.map(|time| micros_each(time, count))]
    }

    /// KiB that the proxy's processes grow by for each connection that is open and idle.
    pub(crate) fn idle(&mut self, count: u32) -> f64 {
        self.seat.idle(self.target, 1);
        let before = self.resident();
        self.seat.idle(self.target, count);
        let grown = self.resident() - before;
        self.seat.hang_up();
        grown / f64::from(count)
    }

    fn resident(&self) -> f64 {
        let proxy = self.proxy.as_ref().expect("a proxy");
        let pids = fs::read_to_string(proxy.join("cgroup.procs")).unwrap();
        pids.lines().map(|pid| resident(&format!("/proc/{pid}/status"))).sum()
    }
}

fn micros_each(time: Duration, count: u32) -> f64 {
    time.as_secs_f64() * 1e6 / f64::from(count)
}

fn resident(status: &str) -> f64 {
    let status = fs::read_to_string(status).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
