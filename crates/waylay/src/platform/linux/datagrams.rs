//! Datagrams: which flow one belongs to, and many of them by one system call.
//!
//! The kernel remembers for each thread which flow it has been asked to look at. So a selection and the questions
//! about it are never apart by an await.

mod header;
mod readiness;
mod sys;

use std::{
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    ops::Range,
    os::fd::{AsFd, BorrowedFd},
    slice,
};

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use waylay_abi as abi;
use zerocopy::IntoBytes;

use super::{options::read_sockaddr, sys as options};
use crate::{
    datagrams::{FlowPath, Header, Outgoing, Unreachable},
    error::QueryError,
};

pub(crate) use header::{loopback_hop_limit, traffic_class};
pub(crate) use readiness::Readiness;
pub(crate) use sys::{Arrived, MOST_IN_A_BATCH};

/// Datagrams that are sent as one message to be cut up (`UDP_SEGMENT`, udp(7)); the kernel allows 64.
const MOST_SEGMENTS: usize = 64;
/// Bytes of such a message: one datagram's most.
const MOST_BYTES: usize = 65_507;
/// Longer ones may not fit into a packet, and only what does can be cut out of a message.
const LONGEST_SEGMENT: usize = 1_400;

impl From<FlowPath> for abi::DatagramPath {
    fn from(path: FlowPath) -> Self {
        Self { local: path.local().into(), peer: path.peer().into() }
    }
}

/// Lets the socket say where datagrams were going, and never wait.
pub(crate) fn prepare_inbound(socket: &UdpSocket) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    let on = 1i32.to_ne_bytes();
    let (level, name) = match socket.local_addr()? {
        SocketAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_PKTINFO),
        SocketAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO),
    };
    options::set_option(socket.as_fd(), level, name, &on)?;
    header::take(socket.as_fd(), level == libc::IPPROTO_IP);
    take_segments(socket.as_fd());
    Ok(())
}

/// A socket for what goes on, which never waits, and is told what became of datagrams.
pub(crate) fn datagram_socket(domain: Domain) -> io::Result<Socket> {
    let socket = Socket::new(domain, Type::DGRAM.nonblocking(), Some(Protocol::UDP))?;
    report_errors(socket.as_fd(), domain == Domain::IPV4)?;
    Ok(socket)
}

/// What [`datagram_socket`] does to any other socket.
pub(crate) fn prepare_outbound(socket: &UdpSocket) -> io::Result<()> {
    let is_ipv4 = socket.local_addr()?.is_ipv4();
    report_errors(socket.as_fd(), is_ipv4)
}

fn report_errors(socket: BorrowedFd<'_>, is_ipv4: bool) -> io::Result<()> {
    let (level, name) = match is_ipv4 {
        true => (libc::IPPROTO_IP, libc::IP_RECVERR),
        false => (libc::IPPROTO_IPV6, libc::IPV6_RECVERR),
    };
    options::set_option(socket, level, name, &1i32.to_ne_bytes())?;
    header::take(socket, is_ipv4);
    take_segments(socket);
    Ok(())
}

/// Takes what was sent in one message in one piece (`UDP_GRO`, udp(7)). Without it more calls are needed.
fn take_segments(socket: BorrowedFd<'_>) {
    let _slower = options::set_option(socket, libc::SOL_UDP, libc::UDP_GRO, &1i32.to_ne_bytes());
}

/// Names the flow for this thread's next questions.
pub(crate) fn select_flow(socket: &impl AsFd, path: FlowPath) -> Result<(), QueryError> {
    set(socket, abi::SELECT_FLOW, abi::DatagramPath::from(path).as_bytes())
}

/// Where the selected flow is going.
pub(crate) fn selected_destination(socket: &impl AsFd) -> Result<SocketAddr, QueryError> {
    let mut answer = [0; 28];
    let len = options::get_option(socket.as_fd(), abi::SOL_WAYLAY, abi::QUERY_ORIGINAL_DST, &mut answer)?;
    read_sockaddr(&answer[..len]).ok_or(QueryError::OtherVersion { expected: answer.len(), got: len })
}

/// The ends of the selected flow, and whether the application's socket is connected.
pub(crate) fn selected_path(socket: &impl AsFd) -> Result<(FlowPath, bool), QueryError> {
    let mut ends = abi::Datagram::default();
    let (expected, name) = (size_of_val(&ends), abi::QUERY_DATAGRAM);
    let got = options::get_option(socket.as_fd(), abi::SOL_WAYLAY, name, ends.as_mut_bytes())?;
    if got != expected {
        return Err(QueryError::OtherVersion { expected, got });
    }
    let path = FlowPath::new(ends.local.into(), ends.peer.into());
    Ok((path, ends.has(abi::DatagramFlag::Connected)))
}

/// Makes, and selects, a flow of the same application with another who answers.
pub(crate) fn open_reply(socket: &impl AsFd, path: FlowPath, from: SocketAddr) -> Result<(), QueryError> {
    set(socket, abi::OPEN_REPLY, abi::Reply { path: path.into(), from: from.into() }.as_bytes())
}

/// Lets the application see what became of its datagram.
pub(crate) fn report_error(
    socket: &impl AsFd,
    path: FlowPath,
    error: &io::Error,
    info: u32,
) -> Result<(), QueryError> {
    let error = error.raw_os_error().unwrap_or(libc::EHOSTUNREACH).cast_unsigned();
    let report = abi::UnreachableReport { path: path.into(), error, info };
    set(socket, abi::REPORT_ERROR, report.as_bytes())
}

fn set(socket: &impl AsFd, name: i32, value: &[u8]) -> Result<(), QueryError> {
    options::set_option(socket.as_fd(), abi::SOL_WAYLAY, name, value)?;
    Ok(())
}

/// Receives what has arrived.
pub(crate) fn receive(
    socket: &impl AsFd,
    buffer: &mut [u8],
    slot: usize,
    arrived: impl FnMut(Arrived),
) -> io::Result<usize> {
    sys::receive(socket.as_fd(), buffer, slot, arrived)
}

/// The next error that the network has reported to an outbound socket.
pub(crate) fn take_unreachable(socket: &impl AsFd) -> Option<Unreachable> {
    sys::take_error(socket.as_fd()).ok()
}

/// Sends all; says of each whether it was. Runs of datagrams of one size that go the same way are one message.
pub(crate) fn send(
    socket: &impl AsFd,
    datagrams: &[Outgoing<'_>],
    usual: Header,
    mut sent: impl FnMut(usize, io::Result<()>),
) {
    let mut next = 0;
    while next < datagrams.len() {
        let runs = plan(datagrams, next);
        let mut done = match sys::send_runs(socket.as_fd(), datagrams, &runs, usual) {
            Ok(done) => done,
            Err(error) => {
                let failed = runs[0].clone();
                if failed.len() > 1 {
                    one_by_one(socket, datagrams, failed, usual, &mut sent);
                } else {
                    sent(failed.start, Err(error));
                }
                next = runs[0].end;
                continue;
            }
        };
        done = done.min(runs.len());
        for run in &runs[..done] {
            run.clone().for_each(|index| sent(index, Ok(())));
            next = run.end;
        }
    }
}

/// For a route that cannot have messages cut up for it.
fn one_by_one(
    socket: &impl AsFd,
    datagrams: &[Outgoing<'_>],
    run: Range<usize>,
    usual: Header,
    sent: &mut impl FnMut(usize, io::Result<()>),
) {
    for index in run {
        let outcome = sys::send_runs(socket.as_fd(), datagrams, slice::from_ref(&(index..index + 1)), usual);
        sent(index, outcome.map(|_one| ()));
    }
}

/// As many runs, from `next` on, as one call takes.
fn plan(datagrams: &[Outgoing<'_>], mut next: usize) -> Vec<Range<usize>> {
    let mut runs = Vec::with_capacity(MOST_IN_A_BATCH);
    let last = datagrams.len().min(next + MOST_IN_A_BATCH);
    while next < last {
        let length = run_length(&datagrams[next..last]);
        runs.push(next..next + length);
        next += length;
    }
    runs
}

/// All of a run have the size of the first; the last may be shorter.
fn run_length(datagrams: &[Outgoing<'_>]) -> usize {
    let first = &datagrams[0];
    let size = first.bytes.len();
    if size == 0 || size > LONGEST_SEGMENT {
        return 1;
    }
    let most = MOST_SEGMENTS.min(MOST_BYTES / size);
    let mut length = 1;
    while let Some(next) = datagrams.get(length).filter(|_| length < most) {
        let ways = |one: &Outgoing<'_>| (one.to, one.from, one.header);
        let fits = ways(next) == ways(first) && (1..=size).contains(&next.bytes.len());
        if !fits {
            break;
        }
        length += 1;
        if next.bytes.len() < size {
            break;
        }
    }
    length
}

/// The address that a datagram is to come from, where the socket has several.
fn source(from: Option<IpAddr>) -> Option<[u8; 4]> {
    match from? {
        IpAddr::V4(ip) => Some(ip.octets()),
        // A socket for IPv6 has one address.
        IpAddr::V6(_) => None,
    }
}

/// Bytes that wait to be sent at most; a burst of datagrams takes more than a stream.
pub(crate) fn enlarge_buffers(socket: &UdpSocket) {
    const BYTES: usize = 4 << 20;
    let socket = SockRef::from(socket);
    // The system's limits may be lower (`net.core.rmem_max`).
    let _as_far_as_allowed = (socket.set_recv_buffer_size(BYTES), socket.set_send_buffer_size(BYTES));
}

#[cfg(test)]
mod tests;
