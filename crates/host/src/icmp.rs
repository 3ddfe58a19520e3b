//! Errors of destinations, brought to the applications that sent there.
//!
//! A service hears that a destination refuses its datagrams; the application, whose socket is connected to the
//! address that stands for that destination, would wait for ever. Nothing but an ICMP message puts an error on
//! another's socket, so one is sent, over the loopback, as the destination would have.

use std::{
    io,
    net::{SocketAddr, SocketAddrV4, SocketAddrV6},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use rustix::io::Errno;
use socket2::{Domain, Protocol, SockAddr, SockFilter, Socket, Type};
use waylay_engine_ebpf::{Unreachable, UnreachableSource};

/// How long what was said may be under way when a run ends.
const PATIENCE: Duration = Duration::from_millis(50);
/// Of a UDP header; what follows it no kernel looks at.
const UDP_HEADER: usize = 8;
/// The most that a packet over the loopback ever has, jumbograms aside.
const LOOPBACK_MTU: u32 = 65_575;
/// Number of the IP protocol.
const UDP: u8 = 17;

/// Type and code of an ICMP message (linux/icmp.h, linux/icmpv6.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Kind {
    kind: u8,
    code: u8,
}

/// Sends the messages, on a thread of its own.
pub(crate) struct Messenger {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Messenger {
    pub(crate) fn start(mut source: UnreachableSource) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let sockets = Sockets::new();
        let thread = thread::spawn(move || {
            // A buffer that cannot be read loses errors; the applications time out.
            while let Ok(said) = source.poll(PATIENCE) {
                for unreachable in &said {
                    // What cannot be sent is as if it had been lost on the way.
                    let _sent = sockets.send(unreachable);
                }
                if said.is_empty() && stopped.load(Ordering::Acquire) {
                    break;
                }
            }
        });
        Self { stop, thread }
    }

    pub(crate) fn stop(self) {
        self.stop.store(true, Ordering::Release);
        // One that panicked has ended too.
        let _ended = self.thread.join();
    }
}

/// Made before the programs are attached: this process may be in their scope, where raw sockets may be refused.
struct Sockets {
    v4: io::Result<Socket>,
    v6: io::Result<Socket>,
}

impl Sockets {
    fn new() -> Self {
        Self { v4: deaf(Domain::IPV4, Protocol::ICMPV4), v6: deaf(Domain::IPV6, Protocol::ICMPV6) }
    }

    fn send(&self, unreachable: &Unreachable) -> io::Result<()> {
        let Some((message, to)) = message(unreachable) else { return Ok(()) };
        let socket = if to.is_ipv4() { &self.v4 } else { &self.v6 };
        match socket {
            Ok(socket) => socket.send_to(&message, &SockAddr::from(to)).map(|_sent| ()),
            Err(error) => Err(error.kind().into()),
        }
    }
}

/// One that receives nothing of what it would be shown.
fn deaf(domain: Domain, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(domain, Type::RAW, Some(protocol))?;
    let nothing = SockFilter::new((libc::BPF_RET | libc::BPF_K) as u16, 0, 0, 0);
    socket.attach_filter(&[nothing])?;
    Ok(socket)
}

/// And to whom it goes.
fn message(unreachable: &Unreachable) -> Option<(Vec<u8>, SocketAddr)> {
    let (message, to) = match (unreachable.token, unreachable.application) {
        (SocketAddr::V4(token), SocketAddr::V4(application)) => {
            (message_v4(token, application, unreachable)?, SocketAddr::from((*application.ip(), 0)))
        }
        (SocketAddr::V6(token), SocketAddr::V6(application)) => {
            (message_v6(token, application, unreachable)?, SocketAddr::from((*application.ip(), 0)))
        }
        (SocketAddr::V4(_), SocketAddr::V6(_)) | (SocketAddr::V6(_), SocketAddr::V4(_)) => return None,
    };
    Some((message, to))
}

/// What a destination sends (RFC 792), with the beginning of the datagram in question.
fn message_v4(token: SocketAddrV4, application: SocketAddrV4, of: &Unreachable) -> Option<Vec<u8>> {
    let Kind { kind, code } = kind_v4(of.errno)?;
    let mtu = u16::try_from(of.info).unwrap_or(u16::MAX).to_be_bytes();
    let mut message = vec![kind, code, 0, 0, 0, 0, mtu[0], mtu[1]];
    let mut header = [0; 20];
    (header[0], header[3], header[8], header[9]) = (0x45, (20 + UDP_HEADER) as u8, 64, UDP);
    header[12..16].copy_from_slice(&application.ip().octets());
    header[16..20].copy_from_slice(&token.ip().octets());
    let sum = checksum(&header);
    header[10..12].copy_from_slice(&sum);
    message.extend(header);
    message.extend(udp_header(application.port(), token.port()));
    let sum = checksum(&message);
    message[2..4].copy_from_slice(&sum);
    Some(message)
}

/// RFC 4443. The kernel adds the checksum.
///
/// With the path's MTU in it a message would hold for the whole way to ::1, and for everybody on this host. So it says
/// that of the loopback, which changes nothing, and its receiver is told of the error alone.
fn message_v6(token: SocketAddrV6, application: SocketAddrV6, of: &Unreachable) -> Option<Vec<u8>> {
    let Kind { kind, code } = kind_v6(of.errno)?;
    let mut message = vec![kind, code, 0, 0];
    let mtu = if errno_of(of.errno) == Some(Errno::MSGSIZE) { LOOPBACK_MTU } else { 0 };
    message.extend(mtu.to_be_bytes());
    let mut header = [0; 40];
    (header[0], header[5], header[6], header[7]) = (0x60, UDP_HEADER as u8, UDP, 64);
    header[8..24].copy_from_slice(&application.ip().octets());
    header[24..40].copy_from_slice(&token.ip().octets());
    message.extend(header);
    message.extend(udp_header(application.port(), token.port()));
    Some(message)
}

fn udp_header(from: u16, to: u16) -> [u8; UDP_HEADER] {
    let ([a, b], [c, d]) = (from.to_be_bytes(), to.to_be_bytes());
    [a, b, c, d, 0, UDP_HEADER as u8, 0, 0]
}

/// Which message leads to this error at a socket (`icmp_err_convert`, net/ipv4/icmp.c); `None` if none does.
fn kind_v4(errno: u32) -> Option<Kind> {
    let code = match errno_of(errno)? {
        Errno::NETUNREACH => 0,
        Errno::HOSTUNREACH => 1,
        Errno::CONNREFUSED => 3,
        Errno::MSGSIZE => 4,
        // The kernel has no code that is "not permitted"; this is what firewalls send.
        Errno::ACCESS | Errno::PERM => 13,
        _ => return None,
    };
    Some(Kind { kind: 3, code })
}

/// As [`kind_v4`] (`tab_unreach`, net/ipv6/icmp.c).
fn kind_v6(errno: u32) -> Option<Kind> {
    match errno_of(errno)? {
        Errno::NETUNREACH => Some(Kind { kind: 1, code: 0 }),
        Errno::ACCESS | Errno::PERM => Some(Kind { kind: 1, code: 1 }),
        Errno::HOSTUNREACH => Some(Kind { kind: 1, code: 3 }),
        Errno::CONNREFUSED => Some(Kind { kind: 1, code: 4 }),
        Errno::MSGSIZE => Some(Kind { kind: 2, code: 0 }),
        _ => None,
    }
}

fn errno_of(errno: u32) -> Option<Errno> {
    // Errno takes no other numbers, and a service may say any.
    let errno = i32::try_from(errno).ok().filter(|errno| (1..4096).contains(errno))?;
    Some(Errno::from_raw_os_error(errno))
}

/// RFC 1071.
fn checksum(bytes: &[u8]) -> [u8; 2] {
    let words =
        bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | pair.get(1).copied().map_or(0, u32::from));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(token: &str, application: &str) -> Unreachable {
        let (token, application) = (token.parse().unwrap(), application.parse().unwrap());
        Unreachable { token, application, errno: Errno::CONNREFUSED.raw_os_error() as u32, info: 0 }
    }

    #[test]
    fn a_message_names_the_datagram_and_its_sums_are_right() {
        let of = refused("127.128.0.1:5353", "127.0.0.1:40000");
        let (SocketAddr::V4(token), SocketAddr::V4(application)) = (of.token, of.application) else {
            unreachable!()
        };
        let message = message_v4(token, application, &of).unwrap();
        assert_eq!(message[..2], [3, 3]);
        assert_eq!(checksum(&message), [0, 0]);
        assert_eq!(checksum(&message[8..28]), [0, 0]);
        assert_eq!(message[20..28], [127, 0, 0, 1, 127, 128, 0, 1]);
        assert_eq!(message[28..32], [0x9c, 0x40, 0x14, 0xe9]);
    }

    #[test]
    fn an_error_that_no_message_leads_to_is_not_sent() {
        for errno in [0, 2, 110, u32::MAX] {
            assert_eq!((kind_v4(errno), kind_v6(errno)), (None, None), "{errno}");
        }
    }
}
