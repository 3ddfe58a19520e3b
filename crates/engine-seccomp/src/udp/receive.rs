//! recvfrom(2), recvmsg(2) and recvmmsg(2): what comes from a token is shown as coming from whom it stands for.

use std::{
    io,
    net::SocketAddr,
    os::fd::AsFd,
    time::{Duration, Instant},
};

use rustix::fs::OFlags;
use socket2::SockRef;

use super::{
    MOST_BYTES, Party,
    message::{MOST_PIECES, Message, in_turn, tell_length},
    sys::{self, Received},
    wait::{Wait, Woken},
};
use crate::{
    call::{Call, Named, errno, parse_address, write_address},
    pool::Turn,
    shared::Shared,
    supervisor::{Answer, Dialler},
};

/// What a call that receives is answered with.
pub(crate) fn receive(shared: &Shared, dialler: Dialler, call: &Call, turn: &Turn<'_>) -> io::Result<Answer> {
    let party = match Party::of(shared, dialler, call) {
        Ok(Some(party)) => party,
        Ok(None) => return Ok(Answer::Continue),
        // Of a process that is not to be looked at, and redirects nothing.
        Err(error) if error.raw_os_error() == Some(libc::EACCES) => return Ok(Answer::Continue),
        Err(error) => return Err(error),
    };
    // What such a socket receives comes from whom it says.
    if party.is_connected() && shared.lock().datagrams.of_connected(party.cookie).is_none() {
        return Ok(Answer::Continue);
    }
    let (at, flags) = match call.number {
        libc::SYS_recvfrom | libc::SYS_recvmmsg => (call.arguments[1], call.number_at(3)),
        _ => (call.arguments[1], call.number_at(2)),
    };
    let receiver = Receiver { shared, party: &party, turn };
    match call.number {
        libc::SYS_recvfrom => receiver.bytes(at, flags),
        libc::SYS_recvmsg => receiver.one(at, flags),
        _ => receiver.many(at, flags),
    }
}

struct Receiver<'s, 'c> {
    shared: &'s Shared,
    party: &'s Party<'c>,
    turn: &'s Turn<'s>,
}

impl Receiver<'_, '_> {
    fn bytes(&self, at: u64, flags: i32) -> io::Result<Answer> {
        let call = self.party.call;
        let mut bytes =
            vec![0; usize::try_from(call.arguments[2]).map_or(MOST_BYTES, |len| len.min(MOST_BYTES))];
        let received = self.next(&mut bytes, 0, flags, &self.patience(flags)?)?;
        call.write(at, &bytes[..received.length.min(bytes.len())])?;
        call.write_cut(call.arguments[4], call.arguments[5], &received.name)?;
        Ok(Answer::Value(received.length as i64))
    }

    fn one(&self, at: u64, flags: i32) -> io::Result<Answer> {
        let message = Message::read(self.party.call, at)?;
        if message.name_at == 0 {
            return Ok(Answer::Continue);
        }
        self.message(&message, flags, &self.patience(flags)?).map(Answer::Value)
    }

    fn many(&self, at: u64, flags: i32) -> io::Result<Answer> {
        let call = self.party.call;
        let count = u64::from(call.arguments[2] as u32).min(MOST_PIECES);
        let limit = read_limit(call)?;
        let started = Instant::now();
        let mut flags = flags & !libc::MSG_WAITFORONE;
        let mut done = 0;
        while done < count {
            let place = in_turn(at, done);
            let received = Message::read(call, place).and_then(|message| {
                let patience = self.patience(flags)?;
                let length = self.message(&message, flags, &patience)?;
                tell_length(call, place, length)
            });
            match received {
                Ok(()) => done += 1,
                Err(error) if done == 0 => return Err(error),
                Err(_later) => break,
            }
            if call.number_at(3) & libc::MSG_WAITFORONE != 0 {
                flags |= libc::MSG_DONTWAIT;
            }
            if limit.is_some_and(|limit| started.elapsed() >= limit) {
                break;
            }
        }
        if let Some(limit) = limit {
            let left = limit.saturating_sub(started.elapsed());
            let seconds = (left.as_secs() as i64).to_ne_bytes();
            call.write(call.arguments[4], &[seconds, i64::from(left.subsec_nanos()).to_ne_bytes()].concat())?;
        }
        Ok(Answer::Value(done as i64))
    }

    fn message(&self, message: &Message, flags: i32, patience: &Patience) -> io::Result<i64> {
        let call = self.party.call;
        let mut bytes = vec![0; message.room()];
        let received = self.next(&mut bytes, message.control_room(), flags, patience)?;
        message.put_bytes(call, &bytes[..received.length.min(bytes.len())])?;
        message.put_rest(call, &received.name, &received.control, received.flags)?;
        Ok(received.length as i64)
    }

    /// The next that is for this socket. What a token has sent that stands for none of its flows is not.
    fn next(
        &self,
        bytes: &mut [u8],
        control: usize,
        flags: i32,
        patience: &Patience,
    ) -> io::Result<Received> {
        let socket = self.party.socket.as_fd();
        let until = patience.limit.map(|limit| Instant::now() + limit);
        let mut wait = None;
        loop {
            match sys::receive(socket, bytes, control, flags) {
                Ok(mut received) => {
                    if self.show_sender(&mut received, flags) {
                        return Ok(received);
                    }
                    if flags & libc::MSG_PEEK != 0 {
                        let _taken = sys::receive(socket, &mut [], 0, 0);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && !patience.is_none => {
                    if until.is_some_and(|until| Instant::now() >= until) {
                        return Err(error);
                    }
                    self.turn.give_up()?;
                    let wait = match &mut wait {
                        Some(begun) => begun,
                        none => none.insert(Wait::begin(self.shared, self.party, self.turn)?),
                    };
                    if wait.go_on(until)? == Woken::ByShutdown {
                        return Ok(Received::default());
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn patience(&self, flags: i32) -> io::Result<Patience> {
        let is_none = flags & (libc::MSG_DONTWAIT | libc::MSG_ERRQUEUE) != 0
            || rustix::fs::fcntl_getfl(&self.party.socket)?.contains(OFlags::NONBLOCK);
        let limit = if is_none { None } else { SockRef::from(&self.party.socket).read_timeout()? };
        Ok(Patience { is_none, limit })
    }

    /// Whether it is for this socket at all.
    fn show_sender(&self, received: &mut Received, flags: i32) -> bool {
        let Named::Ip(from) = parse_address(&received.name) else { return true };
        let Party { cookie, v6, .. } = *self.party;
        let mut state = self.shared.lock();
        // Of an error it is whom the datagram was for, and that may have been nobody at all.
        let connected = state.datagrams.of_connected(cookie).map(|flow| flow.flow.destination);
        if let Some(destination) = connected.filter(|_| flags & libc::MSG_ERRQUEUE != 0) {
            received.name = write_address(destination, v6).to_vec();
            return true;
        }
        if let Some(known) = state.datagrams.of_token(cookie, from) {
            known.touch();
            received.name = write_address(known.flow.destination, v6).to_vec();
            return true;
        }
        let is_error = flags & libc::MSG_ERRQUEUE != 0;
        if state.is_token(from) && !is_error {
            return false;
        }
        if self.party.dialler == Dialler::Command
            && !is_error
            && let Ok(local) = self.party.local()
        {
            state.datagrams.hear(local.port(), from);
        }
        true
    }
}

/// How long a call waits.
struct Patience {
    is_none: bool,
    limit: Option<Duration>,
}

/// `struct timespec`, the last argument of recvmmsg(2).
fn read_limit(call: &Call) -> io::Result<Option<Duration>> {
    if call.arguments[4] == 0 {
        return Ok(None);
    }
    let bytes = call.read(call.arguments[4], 16)?;
    let number = |at: usize| bytes[at..].first_chunk().map_or(-1, |number| i64::from_ne_bytes(*number));
    match (u64::try_from(number(0)), u32::try_from(number(8))) {
        (Ok(seconds), Ok(nanoseconds)) if nanoseconds < 1_000_000_000 => {
            Ok(Some(Duration::new(seconds, nanoseconds)))
        }
        (_, _) => Err(errno(libc::EINVAL)),
    }
}

impl crate::shared::State {
    /// Whether an address is one that services answer from.
    fn is_token(&self, address: SocketAddr) -> bool {
        let (ip, port) = (address.ip().to_canonical(), address.port());
        self.endpoints.iter().any(|endpoint| match ip {
            std::net::IpAddr::V4(ip) => {
                ip.is_loopback() && ip.octets()[1] >= 128 && endpoint.udp4 == Some(port)
            }
            std::net::IpAddr::V6(ip) => ip.is_loopback() && endpoint.udp6.contains(&port),
        })
    }

    /// Whether a port is one that datagrams are led to a service by.
    pub(super) fn takes_datagrams(&self, service: waylay_core::ServiceId, v6: bool, port: u16) -> bool {
        self.endpoints.iter().any(|endpoint| {
            let takes = if v6 { endpoint.udp6.contains(&port) } else { endpoint.udp4 == Some(port) };
            takes && endpoint.service == service
        })
    }
}
