//! Servers near and far, in both families, as one client's host sees them: on its own loopback, and in another network
//! namespace behind a veth pair. One run can go to all of them.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    process::Command,
};

use crate::{
    ground::{CLIENT_V4, CLIENT_V6, Family, Ground, Place, SERVER_V4, SERVER_V6},
    process::{Lines, Process, python, system_python},
    run::Waylay,
};

const GREETER: &str = include_str!("../scripts/greeter.py");

/// One of the four.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Corner {
    /// Of the addresses.
    pub family: Family,
    /// Where its servers are.
    pub place: Place,
}

impl Corner {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self { family: Family::V4, place: Place::Loopback },
        Self { family: Family::V6, place: Place::Loopback },
        Self { family: Family::V4, place: Place::Veth },
        Self { family: Family::V6, place: Place::Veth },
    ];

    /// The address for servers.
    pub fn server(self) -> IpAddr {
        match (self.family, self.place) {
            (Family::V4, Place::Loopback) => Ipv4Addr::LOCALHOST.into(),
            (Family::V6, Place::Loopback) => Ipv6Addr::LOCALHOST.into(),
            (Family::V4, Place::Veth) => SERVER_V4.into(),
            (Family::V6, Place::Veth) => SERVER_V6.into(),
        }
    }

    /// The address from which the route to the servers leads.
    pub fn own(self) -> IpAddr {
        match (self.family, self.place) {
            (Family::V4, Place::Veth) => CLIENT_V4.into(),
            (Family::V6, Place::Veth) => CLIENT_V6.into(),
            (_, Place::Loopback) => self.server(),
        }
    }

    /// The device over which it leads.
    pub fn device(self) -> &'static str {
        match self.place {
            Place::Loopback => "lo",
            Place::Veth => "wire",
        }
    }
}

/// The host of the clients and that of the servers that are far.
#[derive(Debug)]
pub struct Corners {
    /// Both.
    pub ground: Ground,
}

impl Corners {
    /// Makes them.
    #[expect(clippy::new_without_default, reason = "it changes the host, so it is asked for by name")]
    pub fn new() -> Self {
        Self { ground: Ground::new(Family::V4, Place::Veth) }
    }

    /// `waylay run` where the clients are.
    pub fn waylay(&self) -> Waylay {
        self.ground.waylay()
    }

    /// The same as a user who has no privilege.
    pub fn waylay_without_root(&self) -> Waylay {
        Waylay::run_without_root(self.ground.client_namespace())
    }

    /// A command on the clients' host.
    pub fn client(&self, program: &str) -> Command {
        self.ground.client_namespace().unwrap().command(program)
    }

    /// A command on the host of a corner's servers.
    pub fn server(&self, corner: Corner, program: &str) -> Command {
        match corner.place {
            Place::Loopback => self.client(program),
            Place::Veth => self.ground.server_namespace().unwrap().command(program),
        }
    }

    /// A server in each corner.
    pub fn greeters(&self) -> [Greeter; 4] {
        Corner::ALL.map(|corner| Greeter::start(self, corner))
    }
}

/// A server that greets: `hello`.
#[derive(Debug)]
pub struct Greeter {
    /// Where it is.
    pub corner: Corner,
    /// Where it listens.
    pub address: SocketAddr,
    lines: Lines,
    _process: Process,
}

impl Greeter {
    fn start(corners: &Corners, corner: Corner) -> Self {
        let mut command = corners.server(corner, python());
        let host = corner.server();
        let (process, lines) = Process::spawn_read(command.args(["-u", "-c", GREETER, &host.to_string()]));
        let port = lines.wait_for_line(0).parse().unwrap();
        Self { corner, address: SocketAddr::new(host, port), lines, _process: process }
    }

    /// How many have connected.
    pub fn greeted(&self) -> usize {
        self.lines.text().lines().count() - 1
    }
}

/// A command that runs others, one after the other, as long as they end well.
pub fn one_after_another(commands: &[Vec<String>]) -> Vec<String> {
    const EACH: &str = "
import json, subprocess, sys
for command in json.loads(sys.argv[1]):
    subprocess.run(command, check=True)
";
    let commands = serde_json::to_string(commands).unwrap();
    [system_python(), "-c", EACH, &commands].map(str::to_owned).to_vec()
}
