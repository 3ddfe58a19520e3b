use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{COMM_LEN, EXE_LEN};

/// An address and port as a socket was asked to connect to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Address {
    /// Network order, IPv4 as `::ffff:a.b.c.d`.
    pub ip: [u8; 16],
    /// Host order.
    pub port: u16,
    /// Of the socket: `AF_INET6` with a mapped address is a v4-mapped connect.
    pub family: u16,
    /// Index of the link that a link-local address is on; else 0.
    pub scope: u32,
}

const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;

impl From<SocketAddr> for Address {
    fn from(addr: SocketAddr) -> Self {
        let (ip, family) = match addr.ip() {
            IpAddr::V4(ip) => (ip.to_ipv6_mapped(), AF_INET),
            IpAddr::V6(ip) => (ip, AF_INET6),
        };
        let scope = match addr {
            SocketAddr::V4(_) => 0,
            SocketAddr::V6(addr) => addr.scope_id(),
        };
        Self { ip: ip.octets(), port: addr.port(), family, scope }
    }
}

impl From<Address> for SocketAddr {
    /// The destination in its shortest form: a mapped address as IPv4.
    fn from(addr: Address) -> Self {
        match Ipv6Addr::from(addr.ip).to_canonical() {
            IpAddr::V4(ip) => Self::new(ip.into(), addr.port),
            IpAddr::V6(ip) => SocketAddrV6::new(ip, addr.port, 0, addr.scope).into(),
        }
    }
}

/// Who called `connect`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Process {
    /// Nanoseconds since boot; with the pid it names a process for good.
    pub start_time_ns: u64,
    /// Id of its cgroup in the unified hierarchy.
    pub cgroup: u64,
    /// Device of its executable in the kernel's encoding, `major << 20 | minor`.
    pub exe_device: u64,
    /// Inode of its executable.
    pub exe_inode: u64,
    /// Process id in the initial pid namespace.
    pub pid: u32,
    /// Effective user id.
    pub uid: u32,
    /// Command name, ended by a zero.
    pub comm: [u8; COMM_LEN],
}

/// The command name as text, whatever bytes the process chose.
#[must_use]
pub fn comm_to_string(comm: &[u8; COMM_LEN]) -> String {
    until_zero(comm)
}

/// The executable's path as text; empty if the kernel could not tell it.
#[must_use]
pub fn path_to_string(path: &[u8; EXE_LEN]) -> String {
    until_zero(path)
}

pub(crate) fn until_zero(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_the_round_trip() {
        for text in ["127.0.0.1:80", "[2001:db8::1]:443", "[fe80::1%3]:80", "0.0.0.0:0"] {
            let addr: SocketAddr = text.parse().unwrap();
            assert_eq!(SocketAddr::from(Address::from(addr)), addr);
        }
    }

    #[test]
    fn a_mapped_destination_reads_as_ipv4() {
        let addr: SocketAddr = "[::ffff:192.0.2.1]:80".parse().unwrap();
        assert_eq!(Address::from(addr).family, AF_INET6);
        assert_eq!(SocketAddr::from(Address::from(addr)), "192.0.2.1:80".parse().unwrap());
    }
}
