//! The redirect service of `forward.rs` once more, as one program for Linux and for Windows.
//!
//! tokio alone moves the bytes: `waylay-relay`, which copies less of them, is for Linux. On Windows somebody has to
//! have a callout driver redirect connections to the addresses in `WAYLAY_LISTEN`.
#![expect(clippy::print_stdout, reason = "what a service has to say goes to standard output")]

use std::{error::Error, io};

use socket2::SockRef;
use tokio::{io::copy_bidirectional, net::TcpStream, runtime::Runtime};
use waylay::{Inbound, RedirectService};

fn main() -> Result<(), Box<dyn Error>> {
    Runtime::new()?.block_on(serve())
}

async fn serve() -> Result<(), Box<dyn Error>> {
    let service = RedirectService::from_env()?;
    let shutdown = service.shutdown();
    tokio::spawn(async move {
        if told_to_end().await.is_ok() {
            shutdown.trigger();
        }
    });
    service.serve(report).await?;
    Ok(())
}

async fn report(inbound: Inbound) {
    let leg = format!("{} -> {}", inbound.context().application(), inbound.original_destination());
    match forward(inbound).await {
        Ok((up, down)) => println!("{leg}: {up} B up, {down} B down"),
        Err(error) => println!("{leg}: {}", in_full(error.as_ref())),
    }
}

async fn forward(inbound: Inbound) -> Result<(u64, u64), Box<dyn Error>> {
    let outbound = inbound.connect().await?; // Sets the redirect records, then dials.
    let (mut application, mut destination) = (TcpStream::from(inbound), TcpStream::from(outbound));
    let transfer = copy_bidirectional(&mut application, &mut destination).await?;
    // Both directions have ended in order: closing them is no reset any more.
    for stream in [&application, &destination] {
        SockRef::from(stream).set_linger(None)?;
    }
    Ok(transfer)
}

/// `waylay run` sends SIGTERM.
#[cfg(unix)]
async fn told_to_end() -> io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};

    signal(SignalKind::terminate())?.recv().await;
    Ok(())
}

#[cfg(windows)]
async fn told_to_end() -> io::Result<()> {
    tokio::signal::ctrl_c().await
}

/// An error with its reasons, down to what the system said.
fn in_full(error: &dyn Error) -> String {
    match error.source() {
        Some(reason) => format!("{error}: {}", in_full(reason)),
        None => error.to_string(),
    }
}
