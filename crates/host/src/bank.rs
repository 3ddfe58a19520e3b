//! Ports of `::1` that stand for destinations of datagrams, for services that have one port there themselves and are told the
//! destination in packets.
//!
//! The engine hands what arrives at them to the service. Sockets are bound there so that nobody else's are; if the engine's program is
//! gone, what arrives is lost there and reaches nobody.

use std::{io, net::UdpSocket};

use crate::launch::bank_sockets;

/// The sockets that hold the ports.
#[derive(Debug)]
pub(crate) struct Bank(Vec<UdpSocket>);

impl Bank {
    /// As many as the engine takes, or as there are.
    pub(crate) fn open() -> Self {
        Self(bank_sockets())
    }

    pub(crate) fn ports(&self) -> io::Result<Vec<u16>> {
        self.0.iter().map(|socket| Ok(socket.local_addr()?.port())).collect()
    }
}
