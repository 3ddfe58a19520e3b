//! From destinations to applications: answers, and what the network reports.

use std::{io, mem, net::SocketAddr, time::Instant};

use waylay::datagrams::{self, Datagram, DatagramBatch, Outgoing, Unreachable};

use super::{DatagramObserver, EndCause, Relay, inbound::is_of_the_network};
use crate::{Direction, Verdict};

/// Batches of a socket after which the others have their turn.
const BATCHES_IN_A_ROW: u32 = 4;

impl<O: DatagramObserver> Relay<O> {
    pub(super) fn take_answers(
        &mut self,
        client: u32,
        has_error: bool,
        batch: &mut DatagramBatch,
        now: Instant,
    ) {
        if has_error {
            self.take_errors(client);
        }
        for _ in 0..BATCHES_IN_A_ROW {
            let Some(from) = self.clients.get(client) else { return };
            let more = match datagrams::receive(&from.socket, batch) {
                Ok(more) => more,
                Err(error) if is_of_the_network(&error) => {
                    self.take_errors(client);
                    continue;
                }
                // WouldBlock; and nothing else is to be expected of a socket that is open.
                Err(_) => return,
            };
            self.answer(client, batch, now);
            if !more {
                return;
            }
        }
    }

    fn answer(&mut self, client: u32, batch: &DatagramBatch, now: Instant) {
        let mut run = Run::default();
        for datagram in batch.iter() {
            let from = datagram.path.peer();
            let place = self.place_of_answer(client, from).or_else(|| {
                // Places of flows that end may be given to others: nothing may wait for them.
                self.send_back(&mem::take(&mut run));
                self.open_reply(client, from, now)
            });
            let answer = place.and_then(|place| self.admit_answer(place, &datagram, now));
            let (Some(place), Some((socket, outgoing))) = (place, answer) else { continue };
            if run.socket != socket {
                self.send_back(&mem::take(&mut run));
                run.socket = socket;
            }
            run.datagrams.push(outgoing);
            run.places.push(place);
        }
        self.send_back(&run);
    }

    /// The place of the flow that an answer belongs to, if something was sent there.
    fn place_of_answer(&self, number: u32, from: SocketAddr) -> Option<u32> {
        let client = self.clients.get(number)?;
        // The system has seen to it that what comes to a connected socket is from there.
        let from = if client.connected { client.last } else { from };
        self.clients.flow(number, from)
    }

    /// Begins a flow with somebody that nothing was sent to.
    fn open_reply(&mut self, number: u32, from: SocketAddr, now: Instant) -> Option<u32> {
        let client = self.clients.get(number).filter(|client| !client.connected)?;
        let last = self.clients.flow(number, client.last)?;
        let (path, flow) = self.flows.at(last)?;
        let (path, socket) = (*path, usize::from(flow.socket));
        if !self.clients.allows_reply(number) {
            flow.transfer.dropped += 1;
            return None;
        }
        let facts = self.sockets[socket].open_reply(path, from).ok()?;
        let local = facts.path().local();
        let socket = if local.is_ipv4() { socket as u16 } else { *self.ports.get(&local.port())? };
        // A path of IPv6 may have been another flow's.
        if let Some(place) = self.flows.find(&facts.path()) {
            self.remove(place, EndCause::Ended);
        }
        Some(self.open(&facts, socket, true, now))
    }

    fn admit_answer<'a>(
        &mut self,
        place: u32,
        datagram: &Datagram<'a>,
        now: Instant,
    ) -> Option<(u16, Outgoing<'a>)> {
        self.flows.touch(place, now);
        let (path, flow) = self.flows.at(place)?;
        flow.last = now;
        flow.error = None;
        if flow.stopped || datagram.truncated {
            flow.transfer.dropped += 1;
            return None;
        }
        match self.observer.datagram(&mut flow.observed, Direction::ToApplication, datagram.bytes) {
            Verdict::Forward => {
                let answer = Outgoing::answer(*path, datagram.bytes).with_header(datagram.header);
                Some((flow.socket, answer))
            }
            Verdict::Stop => {
                flow.stopped = true;
                flow.transfer.dropped += 1;
                None
            }
        }
    }

    fn send_back(&mut self, run: &Run<'_>) {
        let mut ended = Vec::new();
        let (flows, socket) = (&mut self.flows, &self.sockets[usize::from(run.socket)]);
        socket.send(&run.datagrams, |index, sent| {
            let Some((_, flow)) = flows.at(run.places[index]) else { return };
            match sent {
                Ok(()) => {
                    flow.transfer.datagrams_to_application += 1;
                    flow.transfer.bytes_to_application += run.datagrams[index].bytes.len() as u64;
                }
                Err(error) => {
                    flow.transfer.dropped += 1;
                    if has_ended(&error) {
                        ended.push(run.places[index]);
                    }
                }
            }
        });
        for place in ended {
            self.remove(place, EndCause::Ended);
        }
    }

    /// Passes on what the network has reported to a client's socket.
    pub(super) fn take_errors(&mut self, number: u32) {
        while let Some(client) = self.clients.get(number)
            && let Some(Unreachable { destination, error, info }) = Unreachable::take(&client.socket)
        {
            let destination = destination.filter(|_| !client.connected).unwrap_or(client.last);
            let Some(place) = self.clients.flow(number, destination) else { continue };
            let Some((path, flow)) = self.flows.at(place) else { continue };
            // It may have ended meanwhile.
            let _told = self.sockets[usize::from(flow.socket)].report_error(*path, &error, info);
            flow.error = Some(error);
        }
    }
}

/// Answers in a row that go back by the same socket.
#[derive(Default)]
struct Run<'a> {
    socket: u16,
    datagrams: Vec<Outgoing<'a>>,
    places: Vec<u32>,
}

/// Whether the kernel side knows no such flow (any more).
fn has_ended(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::StaleNetworkFileHandle
}
