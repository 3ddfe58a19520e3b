//! What datagrams cost through `waylay run --through log`, beside nginx `stream` with one thread and a fixed upstream.
//!
//! `cargo bench -p waylay-benches --bench udp`, as root. All of it is on the loopback of a network namespace of its own.
#![expect(clippy::unwrap_used, reason = "a bench: a failed step must show")]

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::{Command, Stdio},
};

use tempfile::TempDir;
use waylay_benches::{Cage, Column, Contest, Rival, Seat, peer, peer_file, rounds, seat_binary};
use waylay_netlab::{Instance, Namespace, Process, Waylay, patiently};

const BENCH: &str = "udp";
const ECHOES: u32 = 200_000;
/// Datagrams on their way at a time.
const WINDOWS: [(&str, u32); 2] =
    [("64 bytes there and back, 64 on their way", 64), ("64 bytes there and back, 1 on its way", 1)];
/// Flows are of so many sockets, each with so many destinations: more sockets have no ports on one address.
const SOCKETS: u32 = 10_000;
const PORTS: u16 = 10;

const SERVER: u16 = 7000;
const PROXY: u16 = 7100;

fn main() {
    waylay_benches::raise_descriptor_limit();
    let world = World::new();
    for (title, window) in WINDOWS {
        let count = if window == 1 { ECHOES / 20 } else { ECHOES };
        let mut paths: Vec<Path> = Kind::ALL.map(|kind| Path::new(&world, kind)).into();
        let rivals = paths.iter_mut().map(|path| {
            let (name, goal) = (path.kind.name(), path.kind.goal());
            let rival = Rival::new(name, move || path.volley(count, window));
            if window > 1
                && let Some(goal) = goal
            {
                rival.goal(goal)
            } else {
                rival
            }
        });
        let columns = vec![Column { unit: "echoes a second", digits: 0 }, Column { unit: "lost", digits: 0 }];
        Contest { title, columns, rivals: rivals.collect() }.run(BENCH, rounds(11));
    }
    let rival = Rival::new(Kind::Run.name(), || Path::new(&world, Kind::Run).memory());
    let columns = vec![
        Column { unit: "MiB of all processes", digits: 1 },
        Column { unit: "MiB of the service", digits: 1 },
        Column { unit: "bytes of the service a flow", digits: 0 },
    ];
    let title = "Memory with 100,000 flows, of 10,000 sockets with 10 destinations each";
    Contest { title, columns, rivals: vec![rival] }.run(BENCH, rounds(3));
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Direct,
    Run,
    Nginx,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Direct, Self::Run, Self::Nginx];

    fn name(self) -> &'static str {
        match self {
            Self::Direct => "directly",
            Self::Run => "waylay run --through log",
            Self::Nginx => "nginx stream",
        }
    }

    fn goal(self) -> Option<f64> {
        match self {
            Self::Run => Some(0.45),
            Self::Direct | Self::Nginx => None,
        }
    }
}

struct World {
    namespace: Namespace,
    _server: Process,
    _cage: Cage,
}

impl World {
    fn new() -> Self {
        let (namespace, cage) = (Namespace::new(), Cage::new("echo"));
        let address = SocketAddr::from(([127, 0, 0, 1], SERVER)).to_string();
        let mut command = Command::new(seat_binary());
        command.args(["echo", &address, &PORTS.to_string()]);
        let mut command = namespace.within(&cage.around(&command));
        let server = Process::spawn(command.stdout(Stdio::null()));
        let world = Self { namespace, _server: server, _cage: cage };
        world.wait_for(SERVER + PORTS - 1);
        world
    }

    fn wait_for(&self, port: u16) {
        patiently("a socket", || {
            let bound = self.namespace.command("ss").args(["-Hlun", &format!("sport = :{port}")]).output();
            (!bound.unwrap().stdout.is_empty()).then_some(())
        });
    }
}

/// A client, and what is between it and the server.
struct Path {
    kind: Kind,
    seat: Seat,
    cgroup: Option<PathBuf>,
    target: SocketAddr,
    _proxy: Option<Process>,
    _cage: Option<Cage>,
    _files: TempDir,
}

impl Path {
    fn new(world: &World, kind: Kind) -> Self {
        let files = TempDir::new().unwrap();
        // Unprivileged users look into it.
        fs::set_permissions(files.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let mut seat = world.namespace.command(seat_binary().to_str().unwrap());
        let (mut proxy, mut cage, mut cgroup) = (None, None, None);
        match kind {
            Kind::Direct => {}
            Kind::Run => {
                seat = world.namespace.command(Waylay::binary().to_str().unwrap());
                seat.args(["run", "-o", "json", "--log"]).arg(files.path().join("reports"));
                seat.args(["--through", "log", "--"]).arg(seat_binary());
            }
            Kind::Nginx => {
                let around = Cage::new("nginx");
                let command = nginx(&files, PROXY, SERVER);
                proxy = Some(Process::spawn(&mut world.namespace.within(&around.around(&command))));
                cage = Some(around);
                world.wait_for(PROXY);
            }
        }
        let seat = Seat::start(seat.arg("client"));
        if kind == Kind::Run {
            cgroup = Some(Instance::of_waylay(seat.id()).expect("a run").cgroup().to_owned());
        }
        let port = if kind == Kind::Nginx { PROXY } else { SERVER };
        let target = SocketAddr::from(([127, 0, 0, 1], port));
        Self { kind, seat, cgroup, target, _proxy: proxy, _cage: cage, _files: files }
    }

    fn volley(&mut self, count: u32, window: u32) -> Vec<Option<f64>> {
        let (took, lost) = self.seat.volley(self.target, count, window);
        vec![Some(f64::from(count) / took.as_secs_f64()), Some(lost)]
    }

    /// That of the service and of what supervises it, while all flows are open.
    fn memory(&mut self) -> Vec<Option<f64>> {
        let cgroup = self.cgroup.clone().expect("a run");
        let service = || -> f64 {
            let pids = fs::read_to_string(cgroup.join("svc-log/cgroup.procs")).unwrap();
            pids.lines().map(resident).sum()
        };
        self.seat.open(self.target, 50, 1);
        let before = service();
        self.seat.open(self.target, SOCKETS, PORTS);
        let (after, supervisor) = (service(), resident(&self.seat.id().to_string()));
        self.seat.hang_up();
        let flows = f64::from(SOCKETS) * f64::from(PORTS);
        let mebibytes = |bytes: f64| bytes / f64::from(1 << 20);
        vec![Some(mebibytes(after + supervisor)), Some(mebibytes(after)), Some((after - before) / flows)]
    }
}

/// In bytes.
fn resident(pid: &str) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() * 1024.0
}

fn nginx(directory: &TempDir, listen: u16, upstream: u16) -> Command {
    let module = peer_file(std::path::Path::new("usr/lib/nginx/modules/ngx_stream_module.so"));
    let configuration = directory.path().join("nginx.conf");
    let text = format!(
        "daemon off;\nworker_processes 1;\nuser nobody nogroup;\npid nginx.pid;\nerror_log stderr crit;\n\
         load_module {};\nevents {{ worker_connections 10000; }}\n\
         stream {{ server {{ listen 127.0.0.1:{listen} udp; proxy_pass 127.0.0.1:{upstream}; }} }}\n",
        module.display()
    );
    fs::write(&configuration, text).unwrap();
    let mut command = peer("nginx");
    command.arg("-e").arg("stderr").arg("-p").arg(directory.path()).arg("-c").arg(configuration);
    command
}
