//! The server name of a QUIC client, from its first flight (RFC 9000, 9001, 9369).
//!
//! Initial packets are protected with keys that follow from the connection id in them, so that everybody on the way
//! can read them, and nobody alter them by accident. A ClientHello takes several packets once its key shares are
//! large, and clients send its pieces in any order.

mod crypto_stream;
mod frames;
mod keys;
mod packet;

use super::{
    Finding, Protocol,
    tls::{Message, message_so_far},
};
use crypto_stream::CryptoStream;
use keys::Keys;
use packet::{Initial, Packets};

/// Datagrams after which a ClientHello that is not complete is given up: some six times what the largest takes.
const MOST_DATAGRAMS: u32 = 16;

/// Whether a datagram may begin a connection: a long header of a known version.
pub(super) fn may_begin(datagram: &[u8]) -> bool {
    Packets::of(datagram).next().is_some()
}

/// What a client's Initial packets have said so far.
#[derive(Debug, Default)]
pub(super) struct FirstFlight {
    /// Those of the connection. A client that is told to retry begins anew.
    keys: Option<Keys>,
    stream: CryptoStream,
    datagrams: u32,
}

impl FirstFlight {
    pub(super) fn read(&mut self, datagram: &[u8]) -> Finding {
        self.datagrams += 1;
        for initial in Packets::of(datagram) {
            self.take(&initial);
        }
        match message_so_far(self.stream.beginning()) {
            Message::ClientHello(host) => Finding::Final(Protocol::Quic, host),
            Message::Other | Message::TooLong => Finding::Final(self.protocol(), None),
            Message::Incomplete if self.datagrams >= MOST_DATAGRAMS => Finding::Final(self.protocol(), None),
            Message::Incomplete => Finding::Open(self.protocol()),
        }
    }

    /// QUIC from the moment in which a packet could be decrypted: its tag proves what it is.
    fn protocol(&self) -> Protocol {
        if self.keys.is_some() { Protocol::Quic } else { Protocol::Unknown }
    }

    fn take(&mut self, initial: &Initial<'_>) {
        if let Some(keys) = &self.keys
            && let Some(payload) = keys.open(initial)
        {
            frames::each_crypto(&payload, |offset, data| self.stream.insert(offset, data));
            return;
        }
        let keys = Keys::of_client(initial.version, initial.destination_id);
        if let Some(payload) = keys.open(initial) {
            self.keys = Some(keys);
            self.stream = CryptoStream::default();
            frames::each_crypto(&payload, |offset, data| self.stream.insert(offset, data));
        }
    }
}

#[cfg(any(test, fuzzing))]
pub(super) mod strange;
#[cfg(test)]
mod tests;
