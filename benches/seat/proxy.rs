//! Proxies of one thread with a fixed upstream: tokio's own copying, and waylay's relay in the same place.

use std::{net::SocketAddr, str::FromStr};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    runtime::Builder,
};

use crate::server::listen;

#[derive(Clone, Copy)]
pub(crate) enum Kind {
    Tokio,
    Waylay,
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        match word {
            "tokio" => Ok(Self::Tokio),
            "waylay" => Ok(Self::Waylay),
            _ => Err(format!("{word} is neither tokio nor waylay")),
        }
    }
}

pub(crate) fn run(kind: Kind, address: SocketAddr, upstream: SocketAddr) {
    Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        let listener = listen(address);
        if matches!(kind, Kind::Waylay) {
            // As a service does, so that its death does not look like an end.
            waylay_relay::arm(&listener).unwrap();
        }
        listener.set_nonblocking(true).unwrap();
        let listener = TcpListener::from_std(listener).unwrap();
        loop {
            let (inbound, _) = listener.accept().await.unwrap();
            tokio::spawn(forward(kind, inbound, upstream));
        }
    });
}

async fn forward(kind: Kind, mut inbound: TcpStream, upstream: SocketAddr) {
    let mut outbound = TcpStream::connect(upstream).await.unwrap();
    for stream in [&inbound, &outbound] {
        stream.set_nodelay(true).unwrap();
    }
    // An error is one that the client or the server has had as well.
    match kind {
        Kind::Tokio => drop(copy_bidirectional(&mut inbound, &mut outbound).await),
        Kind::Waylay => {
            waylay_relay::arm(&outbound).unwrap();
            drop(waylay_relay::relay(inbound, outbound).await);
        }
    }
}
