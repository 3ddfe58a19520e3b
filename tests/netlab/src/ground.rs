//! Where the tests' connections go: the loopback, or a network of their own.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::AsFd,
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::run::Waylay;

/// The Internet protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// Where the servers are, as the clients see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// On the same host, on its loopback device.
    Loopback,
    /// In another network namespace, behind a veth pair.
    Veth,
}

/// A place for clients and servers.
#[derive(Debug)]
pub struct Ground {
    server: IpAddr,
    network: Option<Network>,
}

impl Ground {
    /// Makes it.
    pub fn new(family: Family, place: Place) -> Self {
        let network = (place == Place::Veth).then(Network::new);
        let server = match (place, family) {
            (Place::Loopback, Family::V4) => Ipv4Addr::LOCALHOST.into(),
            (Place::Loopback, Family::V6) => Ipv6Addr::LOCALHOST.into(),
            (Place::Veth, Family::V4) => SERVER_V4.into(),
            (Place::Veth, Family::V6) => SERVER_V6.into(),
        };
        Self { server, network }
    }

    /// The loopback of the host.
    pub fn loopback() -> Self {
        Self::new(Family::V4, Place::Loopback)
    }

    /// The address for servers.
    pub fn server(&self) -> IpAddr {
        self.server
    }

    /// The namespace for servers, unless it is the host's.
    pub fn server_namespace(&self) -> Option<&Namespace> {
        self.network.as_ref().map(|network| &network.server)
    }

    /// The namespace for clients, unless it is the host's.
    pub fn client_namespace(&self) -> Option<&Namespace> {
        self.network.as_ref().map(|network| &network.client)
    }

    /// `waylay run` where the clients are.
    pub fn waylay(&self) -> Waylay {
        Waylay::run(self.network.as_ref().map(|network| &network.client))
    }
}

pub(crate) const CLIENT_V4: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
pub(crate) const SERVER_V4: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
pub(crate) const CLIENT_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x77, 0, 0, 0, 0, 0, 1);
pub(crate) const SERVER_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x77, 0, 0, 0, 0, 0, 2);

/// Two namespaces with a cable between them, which no other has.
#[derive(Debug)]
struct Network {
    client: Namespace,
    server: Namespace,
}

impl Network {
    fn new() -> Self {
        let (client, server) = (Namespace::new(), Namespace::new());
        client.ip(&["link", "add", "wire", "type", "veth", "peer", "name", "wire", "netns", &server.name]);
        client.address(CLIENT_V4, CLIENT_V6);
        server.address(SERVER_V4, SERVER_V6);
        Self { client, server }
    }
}

/// A network namespace that goes with its owner.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// One with nothing in it but a loopback device.
    #[expect(clippy::new_without_default, reason = "it changes the host, so it is asked for by name")]
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let namespace = Self { name: format!("netlab-{}-{count}", std::process::id()) };
        // Left by a test that was killed, whose process had this number.
        if namespace.path().exists() {
            ip(&["netns", "del", &namespace.name]);
        }
        ip(&["netns", "add", &namespace.name]);
        namespace.ip(&["link", "set", "lo", "up"]);
        namespace
    }

    /// What stands for it.
    pub fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.name)
    }

    /// A command that will run inside. `ip netns exec` would mount `/sys`
    /// anew, without the cgroups.
    pub fn command(&self, program: &str) -> Command {
        let path = self.path();
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", path.display())).arg(program);
        command
    }

    /// The same command, inside.
    pub fn within(&self, command: &Command) -> Command {
        let mut inside = self.command(command.get_program().to_str().unwrap());
        inside
            .args(command.get_args())
            .envs(command.get_envs().filter_map(|(key, value)| Some((key, value?))));
        inside
    }

    /// From here on the calling thread, and what it starts, is inside.
    pub fn enter(&self) {
        let file = std::fs::File::open(self.path()).unwrap();
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
    }

    /// Sets one of its parameters below `/proc/sys`.
    pub fn sysctl(&self, name: &str, value: &str) {
        let set = format!("echo {value} > /proc/sys/{name}");
        let status = self.command("sh").args(["-c", &set]).status().unwrap();
        assert!(status.success(), "{set}: {status}");
    }

    fn address(&self, v4: Ipv4Addr, v6: Ipv6Addr) {
        self.ip(&["addr", "add", &format!("{v4}/24"), "dev", "wire"]);
        self.ip(&["addr", "add", &format!("{v6}/64"), "dev", "wire", "nodad"]);
        self.ip(&["link", "set", "wire", "up"]);
    }

    /// Runs ip(8) on its network.
    pub fn ip(&self, args: &[&str]) {
        ip(&[&["-n", &self.name], args].concat());
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // A failure to remove it must not hide that of the test.
        let _stays = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

fn ip(args: &[&str]) {
    let status = Command::new("ip").args(args).status().unwrap();
    assert!(status.success(), "ip {}: {status}", args.join(" "));
}
