//! The sockets that datagrams go out by: one for each socket of an application, with those of its flows.

use std::{
    collections::HashMap,
    io,
    net::{SocketAddr, UdpSocket},
};

use waylay::{
    ConnectError,
    datagrams::{FlowFacts, Header, Readiness},
};

use super::FIRST_CLIENT;

/// Flows with somebody who answers without having been asked, at one time, of one socket of an application.
const MOST_REPLIES: u32 = 64;

#[derive(Default)]
pub(super) struct Clients {
    all: Vec<Option<Client>>,
    free: Vec<u32>,
    /// Those that are not connected.
    by_peer: HashMap<SocketAddr, u32>,
    /// Where the flow of a client with a destination is.
    flows: HashMap<(u32, SocketAddr), u32>,
}

pub(super) struct Client {
    pub(super) socket: UdpSocket,
    pub(super) connected: bool,
    /// Of what goes out by the socket.
    pub(super) usual: Header,
    flows: u32,
    /// The destination last sent to.
    pub(super) last: SocketAddr,
    replies: u32,
}

impl Clients {
    /// The client of a flow, dialled if there is none yet.
    pub(super) fn of(
        &mut self,
        facts: &FlowFacts,
        readiness: &Readiness,
        dial: impl FnOnce() -> Result<UdpSocket, ConnectError>,
    ) -> Result<u32, ConnectError> {
        let (peer, connected) = (facts.path().peer(), facts.is_connected());
        if let Some(client) = self.by_peer.get(&peer).filter(|_| !connected) {
            return Ok(*client);
        }
        let (socket, last) = (dial()?, facts.original_destination());
        let client = self.free.pop().unwrap_or_else(|| {
            self.all.push(None);
            (self.all.len() - 1) as u32
        });
        if let Err(source) = readiness.add(&socket, FIRST_CLIENT + u64::from(client)) {
            self.free.push(client);
            return Err(ConnectError::Socket { destination: last, source });
        }
        let usual = Header::usual(&socket);
        self.all[client as usize] = Some(Client { socket, connected, usual, flows: 0, last, replies: 0 });
        if !connected {
            self.by_peer.insert(peer, client);
        }
        Ok(client)
    }

    pub(super) fn get(&self, client: u32) -> Option<&Client> {
        self.all.get(client as usize)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, client: u32) -> Option<&mut Client> {
        self.all.get_mut(client as usize)?.as_mut()
    }

    /// Where the client's flow with that destination is.
    pub(super) fn flow(&self, client: u32, destination: SocketAddr) -> Option<u32> {
        self.flows.get(&(client, destination)).copied()
    }

    /// Whether one more may answer without having been asked.
    pub(super) fn allows_reply(&self, client: u32) -> bool {
        self.get(client).is_some_and(|client| client.replies < MOST_REPLIES)
    }

    /// Notes a flow of the client's.
    pub(super) fn note(&mut self, client: u32, destination: SocketAddr, place: u32, reply: bool) {
        self.flows.insert((client, destination), place);
        if let Some(client) = self.get_mut(client) {
            client.flows += 1;
            client.replies += u32::from(reply);
        }
    }

    /// Forgets one. With the last the client's socket is closed.
    pub(super) fn forget(&mut self, number: u32, destination: SocketAddr, peer: SocketAddr, reply: bool) {
        self.flows.remove(&(number, destination));
        let Some(client) = self.get_mut(number) else { return };
        client.flows -= 1;
        client.replies -= u32::from(reply);
        if client.flows > 0 {
            return;
        }
        if !client.connected {
            self.by_peer.remove(&peer);
        }
        self.all[number as usize] = None;
        self.free.push(number);
    }
}

/// Why there is no socket, as the system put it.
pub(super) fn reason(error: ConnectError) -> io::Error {
    match error {
        ConnectError::Socket { source, .. }
        | ConnectError::Wishes(source)
        | ConnectError::Connect { source, .. } => source,
        ConnectError::Records(error) => io::Error::other(error),
    }
}
