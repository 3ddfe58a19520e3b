//! From applications to destinations.

use std::{io, mem, time::Instant};

use waylay::datagrams::{self, Datagram, DatagramBatch, Outgoing};

use super::{DatagramObserver, EndCause, Relay};
use crate::{Direction, Verdict};

/// Batches of a socket after which the others have their turn.
const BATCHES_IN_A_ROW: u32 = 4;

impl<O: DatagramObserver> Relay<O> {
    pub(super) fn take_requests(
        &mut self,
        socket: usize,
        batch: &mut DatagramBatch,
        now: Instant,
    ) -> io::Result<()> {
        for _ in 0..BATCHES_IN_A_ROW {
            let more = match self.sockets[socket].receive(batch) {
                Ok(more) => more,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if is_of_the_network(&error) => continue,
                Err(error) => return Err(error),
            };
            self.forward(socket, batch, now);
            if !more {
                return Ok(());
            }
        }
        Ok(())
    }

    fn forward(&mut self, socket: usize, batch: &DatagramBatch, now: Instant) {
        let mut run = Run::default();
        let mut last = None;
        for datagram in batch.iter() {
            let place = match last {
                Some((path, place)) if path == datagram.path => Some(place),
                Some(_) | None => self.place_of(socket, &datagram),
            };
            let place = place.or_else(|| {
                // Places and clients of flows that end may be given to others: nothing may wait for them.
                self.send_on(&mem::take(&mut run));
                self.open_for(socket, &datagram, now)
            });
            last = place.map(|place| (datagram.path, place));
            let to = place.and_then(|place| self.admit(place, &datagram, now));
            let (Some(place), Some((client, outgoing))) = (place, to) else { continue };
            if run.client != client {
                self.send_on(&mem::take(&mut run));
                run.client = client;
            }
            run.add(outgoing, place);
        }
        self.send_on(&run);
    }

    /// The place of the datagram's flow, if it is known.
    fn place_of(&mut self, socket: usize, datagram: &Datagram<'_>) -> Option<u32> {
        let place = self.flows.find(&datagram.path)?;
        let inbound = &self.sockets[socket];
        if !inbound.reuses_paths() {
            return Some(place);
        }
        let destination = inbound.destination(datagram.path).ok()?;
        let (_, flow) = self.flows.at(place)?;
        (flow.destination == destination).then_some(place)
    }

    /// Begins a flow with its first datagram, in the place of another that had its path.
    fn open_for(&mut self, socket: usize, datagram: &Datagram<'_>, now: Instant) -> Option<u32> {
        if let Some(place) = self.flows.find(&datagram.path) {
            self.remove(place, EndCause::Ended);
        }
        // Of no flow: somebody has sent to the socket directly.
        let facts = self.sockets[socket].identify(datagram.path).ok()?;
        // It may have begun from another of its sender's addresses (`IP_PKTINFO`).
        let begun = self.flows.find(&facts.path());
        Some(begun.unwrap_or_else(|| self.open(&facts, socket as u16, false, now)))
    }

    /// What is to be sent on, and by which client.
    fn admit<'a>(
        &mut self,
        place: u32,
        datagram: &Datagram<'a>,
        now: Instant,
    ) -> Option<(u32, Outgoing<'a>)> {
        self.flows.touch(place, now);
        let (_, flow) = self.flows.at(place)?;
        flow.last = now;
        let client = flow.client.filter(|_| !flow.stopped && !datagram.truncated);
        let Some((number, client)) = client.and_then(|number| Some((number, self.clients.get_mut(number)?)))
        else {
            flow.transfer.dropped += 1;
            return None;
        };
        match self.observer.datagram(&mut flow.observed, Direction::ToDestination, datagram.bytes) {
            Verdict::Forward => {}
            Verdict::Stop => {
                flow.stopped = true;
                flow.transfer.dropped += 1;
                return None;
            }
        }
        client.last = flow.destination;
        let to = (!client.connected).then_some(flow.destination);
        let header = datagram.header.besides(client.usual);
        Some((number, Outgoing { bytes: datagram.bytes, to, from: None, header }))
    }

    fn send_on(&mut self, run: &Run<'_>) {
        let mut again = Vec::new();
        let Some(client) = self.clients.get(run.client).filter(|_| !run.datagrams.is_empty()) else { return };
        let flows = &mut self.flows;
        datagrams::send(&client.socket, &run.datagrams, |index, sent| match sent {
            // It is about another, which was sent before; this one was not looked at.
            Err(error) if is_of_the_network(&error) => again.push(index),
            outcome => note(flows, run, index, outcome.is_ok()),
        });
        if again.is_empty() {
            return;
        }
        self.take_errors(run.client);
        let Some(client) = self.clients.get(run.client) else { return };
        let flows = &mut self.flows;
        for index in again {
            datagrams::send(&client.socket, &run.datagrams[index..=index], |_, sent| {
                note(flows, run, index, sent.is_ok());
            });
        }
        self.take_errors(run.client);
    }
}

fn note<T>(flows: &mut datagrams::FlowTable<super::Flow<T>>, run: &Run<'_>, index: usize, sent: bool) {
    let Some((_, flow)) = flows.at(run.places[index]) else { return };
    if sent {
        flow.transfer.datagrams_to_destination += 1;
        flow.transfer.bytes_to_destination += run.datagrams[index].bytes.len() as u64;
    } else {
        flow.transfer.dropped += 1;
    }
}

/// Datagrams in a row that go out by the same socket.
#[derive(Default)]
struct Run<'a> {
    client: u32,
    datagrams: Vec<Outgoing<'a>>,
    places: Vec<u32>,
}

impl<'a> Run<'a> {
    fn add(&mut self, datagram: Outgoing<'a>, place: u32) {
        self.datagrams.push(datagram);
        self.places.push(place);
    }
}

/// Whether an error is what the network has reported of an earlier datagram (udp(7), ip(7)), or of the path.
pub(super) fn is_of_the_network(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, HostUnreachable, NetworkUnreachable};
    // EPROTO, ENOPROTOOPT and EMSGSIZE have no kind of their own.
    const OTHERS: [i32; 3] = [71, 92, 90];
    matches!(error.kind(), ConnectionRefused | HostUnreachable | NetworkUnreachable)
        || error.raw_os_error().is_some_and(|errno| OTHERS.contains(&errno))
}
