//! A system call that waits for an answer: who made it, and with which arguments.

use std::{
    fs, io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6},
    ops::Deref,
    os::fd::{BorrowedFd, OwnedFd},
};

use crate::{birthmark::Birthmark, shared::Shared, sight::Sight, supervisor::Dialler, sys, threads::Threads};

/// Bytes of the longest socket address (`struct sockaddr_storage`).
pub(crate) const LONGEST_ADDRESS: usize = 128;

/// The bytes of a socket address, whatever they say.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RawAddress {
    bytes: [u8; LONGEST_ADDRESS],
    len: usize,
}

impl RawAddress {
    fn of<const N: usize>(parts: [&[u8]; N]) -> Self {
        let mut address = Self { bytes: [0; LONGEST_ADDRESS], len: 0 };
        for part in parts {
            address.bytes[address.len..][..part.len()].copy_from_slice(part);
            address.len += part.len();
        }
        address
    }
}

impl Deref for RawAddress {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// A call that waits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    pub(crate) id: u64,
    /// The thread that made it.
    pub(crate) tid: u32,
    pub(crate) number: i64,
    pub(crate) arguments: [u64; 6],
}

impl Call {
    pub(crate) fn receive(listener: BorrowedFd<'_>) -> io::Result<Self> {
        let notice = sys::receive(listener)?;
        Ok(Self {
            id: notice.id,
            tid: notice.pid,
            number: notice.data.nr.into(),
            arguments: notice.data.args,
        })
    }

    /// A number among the arguments, of which the kernel takes 32 bits.
    pub(crate) fn number_at(&self, index: usize) -> i32 {
        self.arguments[index] as i32
    }

    /// A copy of the descriptor in its first argument.
    pub(crate) fn descriptor(&self, threads: &Threads) -> io::Result<OwnedFd> {
        threads.copy_descriptor(self.tid, self.number_at(0))
    }

    /// The socket of that descriptor. EACCES of what nothing is to be known of.
    pub(crate) fn sight(&self, shared: &Shared, dialler: Dialler) -> io::Result<Sight> {
        let threads = &shared.threads;
        let Some(given) = threads.given() else { return self.descriptor(threads).map(Sight::Copy) };
        let inode = threads.inode(self.tid, self.number_at(0))?;
        if let Ok(socket) = given.copy(inode) {
            return Ok(Sight::Copy(socket));
        }
        let identity = given.identity(inode);
        let likely = match (identity, dialler.service()) {
            (Some(identity), service) => {
                let path = shared.lock().flows.of_outgoing(identity.cookie).map(|flow| flow.path);
                // Of a command no other than those that are redirected is of interest.
                if path.is_none() && service.is_none() {
                    return Err(errno(libc::EACCES));
                }
                Vec::from_iter(path)
            }
            (None, Some(service)) => shared.lock_once_all_settled(service).flows.awaited_by(service),
            (None, None) => return Err(errno(libc::EACCES)),
        };
        let mut told = given.hearsay.of(inode, || likely)?.ok_or_else(|| errno(libc::EACCES))?;
        // What was found of multipath TCP may be one of the connections below it.
        told.cookie = identity.map_or(told.cookie, |identity| identity.cookie);
        Ok(Sight::Told(told))
    }

    pub(crate) fn read(&self, address: u64, len: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        if len > 0 {
            sys::read_memory(self.tid, address, &mut bytes).map_err(not_to_be_looked_at)?;
        }
        Ok(bytes)
    }

    /// A socket address, and how long it is: two of the arguments, by their indices. EINVAL of one that no socket could have. And whether the caller has
    /// this mark.
    pub(crate) fn read_address(
        &self,
        (address, len): (usize, usize),
        mark: Option<Birthmark>,
    ) -> io::Result<(RawAddress, bool)> {
        let len = usize::try_from(self.number_at(len)).map_err(|_negative| errno(libc::EINVAL))?;
        let mut read = RawAddress { bytes: [0; LONGEST_ADDRESS], len };
        let bytes = read.bytes.get_mut(..len).ok_or_else(|| errno(libc::EINVAL))?;
        let at = self.arguments[address];
        let is_the_same = match mark {
            _ if len == 0 => Ok(false),
            Some(mark) => mark.read_beside(self.tid, at, bytes),
            None => sys::read_memory(self.tid, at, bytes).map(|()| false),
        };
        Ok((read, is_the_same.map_err(not_to_be_looked_at)?))
    }

    pub(crate) fn write(&self, address: u64, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        sys::write_memory(self.tid, address, bytes).map_err(not_to_be_looked_at)
    }

    /// A length that is read and written, as of getsockname(2).
    pub(crate) fn read_length(&self, address: u64) -> io::Result<i32> {
        let bytes = self.read(address, size_of::<i32>())?;
        bytes.try_into().map(i32::from_ne_bytes).map_err(|_len| io::ErrorKind::InvalidData.into())
    }

    /// Writes an answer as getsockname(2) does: cut to what there is room for, with its own length.
    pub(crate) fn write_cut(&self, at: u64, length_at: u64, bytes: &[u8]) -> io::Result<()> {
        let room = usize::try_from(self.read_length(length_at)?).map_err(|_negative| errno(libc::EINVAL))?;
        self.write(at, &bytes[..bytes.len().min(room)])?;
        self.write(length_at, &(bytes.len() as i32).to_ne_bytes())
    }
}

/// The process that a thread is of.
pub(crate) fn process_of(tid: u32) -> io::Result<u32> {
    let status = fs::read_to_string(format!("/proc/{tid}/status"))?;
    let number = status.lines().find_map(|line| line.strip_prefix("Tgid:")?.trim().parse().ok());
    number.ok_or_else(|| errno(libc::ESRCH))
}

/// A process may have made itself unreadable, or somebody has forbidden to look; what else fails with EPERM, a filter of the policy's say, does so for
/// its own reasons.
pub(crate) fn not_to_be_looked_at(error: io::Error) -> io::Error {
    if error.raw_os_error() == Some(libc::EPERM) { errno(libc::EACCES) } else { error }
}

pub(crate) fn errno(number: i32) -> io::Error {
    io::Error::from_raw_os_error(number)
}

/// What the bytes of an address say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Named {
    /// An address of IP; one of IPv6 mapped to IPv4 stays one of IPv6.
    Ip(SocketAddr),
    /// `AF_UNSPEC`, which undoes a connection.
    Nothing,
    /// Of another family, or none at all.
    Other,
}

pub(crate) fn parse_address(bytes: &[u8]) -> Named {
    let family = bytes.first_chunk().map(|family| i32::from(u16::from_ne_bytes(*family)));
    match family {
        Some(libc::AF_UNSPEC) => Named::Nothing,
        Some(libc::AF_INET) => parse_v4(bytes).map_or(Named::Other, Named::Ip),
        Some(libc::AF_INET6) => parse_v6(bytes).map_or(Named::Other, Named::Ip),
        Some(_) | None => Named::Other,
    }
}

fn take<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

/// `struct sockaddr_in`, of 16 bytes.
fn parse_v4(bytes: &[u8]) -> Option<SocketAddr> {
    let (port, ip, _rest) = (take(bytes, 2)?, take::<4>(bytes, 4)?, take::<8>(bytes, 8)?);
    Some(SocketAddrV4::new(Ipv4Addr::from(ip), u16::from_be_bytes(port)).into())
}

/// `struct sockaddr_in6`, of which the kernel takes 24 bytes for enough.
fn parse_v6(bytes: &[u8]) -> Option<SocketAddr> {
    let (port, ip) = (take(bytes, 2)?, take::<16>(bytes, 8)?);
    let scope = take(bytes, 24).map_or(0, u32::from_ne_bytes);
    Some(SocketAddrV6::new(Ipv6Addr::from(ip), u16::from_be_bytes(port), 0, scope).into())
}

/// The bytes of an address, as a socket of IPv6 or of IPv4 has it.
pub(crate) fn write_address(address: SocketAddr, v6: bool) -> RawAddress {
    match (address, v6) {
        (SocketAddr::V4(address), false) => {
            let family = (libc::AF_INET as u16).to_ne_bytes();
            RawAddress::of([&family, &address.port().to_be_bytes(), &address.ip().octets(), &[0; 8]])
        }
        (SocketAddr::V4(address), true) => {
            write_v6(SocketAddrV6::new(address.ip().to_ipv6_mapped(), address.port(), 0, 0))
        }
        (SocketAddr::V6(address), _) => write_v6(address),
    }
}

fn write_v6(address: SocketAddrV6) -> RawAddress {
    let family = (libc::AF_INET6 as u16).to_ne_bytes();
    let scope = address.scope_id().to_ne_bytes();
    RawAddress::of([&family, &address.port().to_be_bytes(), &[0; 4], &address.ip().octets(), &scope])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_the_round_trip() {
        for text in
            ["127.0.0.1:80", "0.0.0.0:0", "[2001:db8::1]:443", "[fe80::1%3]:80", "[::ffff:10.0.0.1]:9"]
        {
            let address: SocketAddr = text.parse().unwrap();
            assert_eq!(
                parse_address(&write_address(address, address.is_ipv6())),
                Named::Ip(address),
                "{text}"
            );
        }
    }

    #[test]
    fn a_socket_of_ipv6_has_addresses_of_ipv4_mapped() {
        let bytes = write_address("192.0.2.1:80".parse().unwrap(), true);
        assert_eq!(parse_address(&bytes), Named::Ip("[::ffff:192.0.2.1]:80".parse().unwrap()));
    }

    #[test]
    fn what_is_no_address_of_ip_is_not_taken_for_one() {
        let v4 = write_address("127.0.0.1:80".parse().unwrap(), false);
        let v6 = write_address("[::1]:80".parse().unwrap(), true);
        for short in [&v4[..15], &v6[..23], &v4[..1], &[], &[1, 0, 0]] {
            assert_eq!(parse_address(short), Named::Other, "{short:?}");
        }
        assert_eq!(parse_address(&[0, 0]), Named::Nothing);
    }
}
