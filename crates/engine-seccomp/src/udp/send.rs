//! sendto(2), sendmsg(2) and sendmmsg(2).

use std::{io, os::fd::AsFd};

use super::{
    MOST_BYTES, Party,
    message::{MOST_PIECES, Message, in_turn, tell_length, without_source},
    sys,
};
use crate::{
    call::{Call, errno, write_address},
    pool::Turn,
    shared::Shared,
    supervisor::{Answer, Dialler},
};

/// How a datagram goes.
enum Way {
    /// As its sender says.
    Own,
    /// To a token.
    Led(Vec<u8>),
}

/// What a call that sends is answered with.
pub(crate) fn send(shared: &Shared, dialler: Dialler, call: &Call, turn: &Turn<'_>) -> io::Result<Answer> {
    let party = match Party::of(shared, dialler, call) {
        Ok(Some(party)) => party,
        Ok(None) => return Ok(Answer::Continue),
        // Of a process that is not to be looked at: what is sent so may well be meant for another of the same host.
        Err(error)
            if error.raw_os_error() == Some(libc::EACCES) && is_for_the_kernel(shared, dialler, call)? =>
        {
            return Ok(Answer::Continue);
        }
        Err(error) => return Err(error),
    };
    let sender = Sender { shared, party: &party };
    let check = || if turn.is_waited_for() { Ok(()) } else { Err(errno(libc::EINTR)) };
    match call.number {
        libc::SYS_sendto => sender.one_with_a_name(check),
        libc::SYS_sendmsg => sender.one(check),
        _ => sender.many(check),
    }
}

/// Of a service that cannot be copied it is one that datagrams are led to it by, where sockets are given.
fn is_for_the_kernel(shared: &Shared, dialler: Dialler, call: &Call) -> io::Result<bool> {
    if call.number != libc::SYS_sendto {
        return Ok(true);
    }
    if shared.threads.given().is_none() {
        return Ok(false);
    }
    let len = usize::try_from(call.number_at(5)).map_or(0, |len| len.min(super::LONGEST_NAME));
    let name = call.read(call.arguments[4], len)?;
    let is_ip = matches!(crate::call::parse_address(&name), crate::call::Named::Ip(_));
    Ok(!is_ip || dialler.service().is_some())
}

struct Sender<'s, 'c> {
    shared: &'s Shared,
    party: &'s Party<'c>,
}

impl Sender<'_, '_> {
    fn way(&self, name: &[u8]) -> io::Result<Way> {
        let Some(destination) = self.party.named(name) else { return Ok(Way::Own) };
        let token = self.party.lead(self.shared, destination, false)?;
        Ok(token.map_or(Way::Own, |token| Way::Led(write_address(token, self.party.v6).to_vec())))
    }

    /// The same of a message with all that goes beside it. One of a socket that is connected to a token is not to start from where that is not reached.
    fn way_of(&self, message: &Message, name: &[u8]) -> io::Result<Way> {
        if !name.is_empty() || !message.has_control() {
            return self.way(name);
        }
        let is_led = self.shared.lock().datagrams.of_connected(self.party.cookie).is_some();
        let says_where = |control: &[u8]| without_source(control).len() < control.len();
        let is_to_be_changed = is_led && says_where(&message.control(self.party.call)?);
        Ok(if is_to_be_changed { Way::Led(Vec::new()) } else { Way::Own })
    }

    fn one_with_a_name(&self, check: impl Fn() -> io::Result<()>) -> io::Result<Answer> {
        let call = self.party.call;
        let len = usize::try_from(call.number_at(5)).map_err(|_negative| errno(libc::EINVAL))?;
        if len > super::LONGEST_NAME {
            return Err(errno(libc::EINVAL));
        }
        let name = call.read(call.arguments[4], len)?;
        check()?;
        let Way::Led(token) = self.way(&name)? else { return Ok(Answer::Continue) };
        let len = usize::try_from(call.arguments[2]).ok().filter(|len| *len <= MOST_BYTES);
        let bytes = call.read(call.arguments[1], len.ok_or_else(|| errno(libc::EMSGSIZE))?)?;
        let sent = sys::send(self.party.socket.as_fd(), &token, &bytes, &[], call.number_at(3))?;
        Ok(Answer::Value(sent))
    }

    fn one(&self, check: impl Fn() -> io::Result<()>) -> io::Result<Answer> {
        let call = self.party.call;
        let message = Message::read(call, call.arguments[1])?;
        let name = message.name(call)?;
        check()?;
        match self.way_of(&message, &name)? {
            Way::Own => Ok(Answer::Continue),
            Way::Led(token) => self.send(&message, &token, call.number_at(2)).map(Answer::Value),
        }
    }

    fn many(&self, check: impl Fn() -> io::Result<()>) -> io::Result<Answer> {
        let call = self.party.call;
        let count = u64::from(call.arguments[2] as u32).min(MOST_PIECES);
        let mut ways = Vec::new();
        for number in 0..count {
            let read = Message::read(call, in_turn(call.arguments[1], number));
            let named = read.and_then(|message| message.name(call).map(|name| (message, name)));
            let way = match named {
                Ok((message, name)) => {
                    check()?;
                    self.way_of(&message, &name).map(|way| (message, name, way))
                }
                Err(error) => Err(error),
            };
            let is_last = way.is_err();
            ways.push(way);
            if is_last {
                break;
            }
        }
        if ways.iter().all(|way| matches!(way, Ok((_, _, Way::Own)))) {
            return Ok(Answer::Continue);
        }
        let mut done = 0;
        for (number, way) in (0..).zip(ways) {
            let sent = way.and_then(|(message, name, way)| {
                let to = if let Way::Led(token) = way { token } else { name };
                let length = self.send(&message, &to, call.number_at(3))?;
                tell_length(call, in_turn(call.arguments[1], number), length)
            });
            match sent {
                Ok(()) => done += 1,
                Err(error) if done == 0 => return Err(error),
                Err(_later) => break,
            }
        }
        Ok(Answer::Value(done))
    }

    fn send(&self, message: &Message, to: &[u8], flags: i32) -> io::Result<i64> {
        let call = self.party.call;
        let control = without_source(&message.control(call)?);
        let bytes = message.bytes(call)?;
        sys::send(self.party.socket.as_fd(), to, &bytes, &control, flags)
    }
}
